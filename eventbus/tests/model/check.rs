//! Searching a model to its end, and saying what was found.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::system::{Action, System};

/// Searches all states: every property holds in all of them, and all that is to be reached is.
pub(crate) fn holds(name: &str, system: System) {
    holds_but_for(name, system, &[]);
}

/// The same, where it is known of some properties that they do not hold.
pub(crate) fn holds_but_for(name: &str, system: System, broken: &[&str]) {
    let started = Instant::now();
    let checker = system.checker().spawn_bfs().join();
    Sum::of(&checker).say(name, started);
    judge(name, &checker, broken);
}

/// Searches many models, and says what they come to together.
pub(crate) fn all_hold(name: &str, systems: Vec<System>) {
    let started = Instant::now();
    let mut sum = Sum::default();
    for system in systems {
        let what = format!("{name}: {:?}", system.script);
        let checker = system.checker().spawn_bfs().join();
        sum.add(&checker);
        judge(&what, &checker, &[]);
    }
    sum.say(name, started);
}

/// Searches until `property` breaks, and gives the steps to there; with another one broken or none, it fails.
pub(crate) fn breaks(name: &str, system: System, property: &'static str) -> Vec<Action> {
    let started = Instant::now();
    let until = HasDiscoveries::AnyOf([property].into());
    let checker = system.checker().finish_when(until).spawn_bfs().join();
    Sum::of(&checker).say(name, started);
    let Some(path) = checker.discovery(property) else {
        panic!("{name}: in no state is it wrong that {property}");
    };
    let steps = path.into_actions();
    tell(&format!("    until not: {property}"));
    for step in &steps {
        tell(&format!("    - {step:?}"));
    }
    steps
}

/// Goes all ways through the states, and finds that none leads in a circle: whatever happens, it comes to an end, where
/// [`crate::properties::ALL_IS_DONE`] says how.
pub(crate) fn ends(system: &System) {
    let hasher = RandomState::new();
    let start = system.init_states().remove(0);
    // Whether all that comes after a state was looked at.
    let mut seen = HashMap::from([(hasher.hash_one(&start), false)]);
    let mut way = vec![(hasher.hash_one(&start), system.next_states(&start))];
    while let Some((state, nexts)) = way.last_mut() {
        let Some(next) = nexts.pop() else {
            seen.insert(*state, true);
            way.pop();
            continue;
        };
        let hash = hasher.hash_one(&next);
        match seen.insert(hash, false) {
            None => way.push((hash, system.next_states(&next))),
            Some(is_done) => {
                assert!(is_done, "it goes on for ever from {next:#?}");
                seen.insert(hash, true);
            }
        }
    }
}

/// What was searched.
#[derive(Default)]
struct Sum {
    models: usize,
    states: usize,
    steps: usize,
    depth: usize,
}

impl Sum {
    fn of(checker: &impl Checker<System>) -> Self {
        let mut sum = Self::default();
        sum.add(checker);
        sum
    }

    fn add(&mut self, checker: &impl Checker<System>) {
        self.models += 1;
        self.states += checker.unique_state_count();
        self.steps += checker.state_count();
        self.depth = self.depth.max(checker.max_depth());
    }

    fn say(&self, name: &str, started: Instant) {
        let Self {
            models,
            states,
            steps,
            depth,
        } = self;
        let seconds = started.elapsed().as_secs_f64();
        tell(&format!(
            "model: {name} ({models}): {states} states, {steps} steps, depth {depth}, {seconds:.1} s"
        ));
    }
}

/// Fails, and tells the way there, when a property does not hold or nothing shows that it might not.
fn judge(name: &str, checker: &impl Checker<System>, broken: &[&str]) {
    for property in checker.model().properties() {
        let found = checker.discovery(property.name);
        let is_wrong = match property.expectation {
            Expectation::Sometimes => found.is_none(),
            _ => found.is_some() && !broken.contains(&property.name),
        };
        let steps = found.map(|path| path.into_actions());
        assert!(!is_wrong, "{name}: \"{}\": {steps:#?}", property.name);
    }
}

/// Says it also when the test passes: the figures are what it is for.
fn tell(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("standard error is there");
}
