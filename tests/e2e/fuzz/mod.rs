//! Random bytes for everything that reads what clients send: nothing panics, nothing takes long, and what is understood and can be
//! written reads back as it was.
//!
//! A minute in all; an hour each with `TIDELOG_TEST_LONG=1` (`tests/run --long`), or as many seconds each as `TIDELOG_FUZZ_SECONDS` says. Every
//! input comes of a seed of its own. What fails is printed with it: `TIDELOG_FUZZ_SEED=<seed>` makes that input again, and no other.
//!
//! Another parser is another file here, with a [`Target`] and a test.

mod bodies;
mod headers;
mod inputs;
mod names;
mod queries;
mod requests;
mod sign_in;
mod sockets;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use inputs::Target;

/// How many tests there are here: they share a minute.
const TARGETS: u64 = 12;

/// What takes as long as that is stuck: an input has a few kilobytes, and takes far less than a millisecond of work.
const STUCK: Duration = Duration::from_secs(60);

/// For how long each target is tried.
fn lasts() -> Duration {
    let told = std::env::var("TIDELOG_FUZZ_SECONDS").ok();
    let told = told.and_then(|seconds| seconds.parse().ok());
    let seconds = told.unwrap_or_else(|| match std::env::var("TIDELOG_TEST_LONG") {
        Ok(_) => 3_600,
        Err(_) => 60 / TARGETS,
    });
    Duration::from_secs(seconds)
}

/// Gives `check` inputs of `target` until the time is over; it says whether it understood each. The first that makes it panic, or that
/// it does not come back from, is told. Some MUST be understood, and some not: else nothing was tried.
fn fuzz(target: &Target, mut check: impl FnMut(&[u8]) -> bool) {
    let told = std::env::var("TIDELOG_FUZZ_SEED").ok();
    if let Some(seed) = told.and_then(|seed| seed.parse().ok()) {
        let input = target.input(seed);
        eprintln!("{}", shown(target, seed, &input));
        check(&input);
        return;
    }
    for example in target.examples {
        assert!(check(example.as_bytes()), "not understood: {example}");
    }
    let watch = Watch::start(target);
    let (first, end) = (rand::random::<u64>(), Instant::now() + lasts());
    let (mut tried, mut understood) = (0_u64, 0_u64);
    while tried == 0 || Instant::now() < end {
        let seed = first.wrapping_add(tried);
        let input = target.input(seed);
        watch.at(seed);
        match catch_unwind(AssertUnwindSafe(|| check(&input))) {
            Ok(is_understood) => understood += u64::from(is_understood),
            Err(why) => {
                eprintln!("{}", shown(target, seed, &input));
                std::panic::resume_unwind(why);
            }
        }
        tried += 1;
    }
    eprintln!("{}: {tried} tried, {understood} understood", target.name);
    assert!(
        (1..tried).contains(&understood),
        "{}: {understood} of {tried} understood",
        target.name
    );
}

/// What there is to know of an input that failed.
fn shown(target: &Target, seed: u64, input: &[u8]) -> String {
    let text = input.escape_ascii();
    format!(
        "{}: TIDELOG_FUZZ_SEED={seed} makes this input again: b\"{text}\"",
        target.name
    )
}

/// Ends the process when an input takes too long: a loop without end can be ended in no other way.
struct Watch(Arc<AtomicU64>);

/// The seed of a watch that has nothing to watch.
const NONE: u64 = u64::MAX;

impl Watch {
    fn start(target: &Target) -> Self {
        let seed = Arc::new(AtomicU64::new(NONE));
        let (watched, target) = (Arc::downgrade(&seed), target.clone());
        std::thread::spawn(move || {
            let mut last = (NONE, Instant::now());
            while let Some(seed) = watched.upgrade().map(|own| own.load(Ordering::Relaxed)) {
                if seed != last.0 {
                    last = (seed, Instant::now());
                } else if seed != NONE && last.1.elapsed() > STUCK {
                    let input = target.input(seed);
                    // Not by a macro, whose output the test harness keeps for itself.
                    let _ = writeln!(
                        std::io::stderr(),
                        "stuck for {STUCK:?}: {}",
                        shown(&target, seed, &input)
                    );
                    std::process::abort();
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        Self(seed)
    }

    fn at(&self, seed: u64) {
        self.0.store(seed, Ordering::Relaxed);
    }
}
