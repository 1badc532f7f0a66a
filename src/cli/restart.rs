//! `restart`: where a reaction goes on, when only an operator can say.

use std::sync::Arc;

use tidelog_eventbus::{LogReader, Start, restart as restart_subscription};

use super::commands::{Outcome, or_embedded, say};
use super::operating::program;
use crate::App;
use crate::app::Reacting;
use crate::backends;
use crate::settings::{Role, Settings};

/// Has the reaction `name` go on at `from`.
pub(super) async fn restart(app: &App, settings: Settings, name: &str, from: &str) -> Outcome {
    app.check()?;
    let subscriptions: Vec<_> = app.reactions().iter().map(Reacting::subscription).collect();
    let found = subscriptions.iter().position(|known| known == name);
    let reacting = found
        .and_then(|at| app.reactions().get(at))
        .ok_or_else(|| {
            let is_view = app.views().iter().any(|view| view.name() == name);
            no_reaction(name, is_view, &subscriptions)
        })?;
    let start = start(from).ok_or_else(|| {
        format!("--from is {from:?}, but should be beginning, now, a time such as 2026-05-01T12:00:00Z, or a token")
    })?;
    let settings = Settings {
        role: Role::All,
        ..or_embedded(settings)
    };
    let log = backends::open_log(&settings).await?.backend;
    let read: Arc<dyn LogReader> = match &reacting.follows {
        None => log.clone(),
        #[cfg(feature = "feed-client")]
        Some(followed) => Arc::new(
            tidelog_eventbus::FeedLogReader::new(&followed.app, followed.feed.clone())
                .map_err(|error| error as Box<dyn std::error::Error>)?,
        ),
        #[cfg(not(feature = "feed-client"))]
        Some(_) => return Err("this program was built without the feature `feed-client`".into()),
    };
    restart_subscription(name, &*log, &*read, &start).await?;
    say(&format!("{name} goes on from {from}"));
    Ok(())
}

/// Says that there is no reaction `name`, and what there is.
fn no_reaction(name: &str, is_view: bool, reactions: &[String]) -> String {
    if is_view {
        return format!(
            "{name} is a view, not a reaction: `{} replay {name}` builds it anew from the whole log",
            program()
        );
    }
    match reactions {
        [] => format!("there is no reaction {name:?}: this program has none"),
        known => format!(
            "there is no reaction {name:?}; the reactions are: {}",
            known.join(", ")
        ),
    }
}

/// Reads where to begin.
fn start(text: &str) -> Option<Start> {
    match text {
        "beginning" => Some(Start::Beginning),
        "now" => Some(Start::Now),
        _ => {
            let time = text.parse().map(Start::Time);
            time.ok().or_else(|| text.parse().map(Start::After).ok())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_what_is_no_reaction_hears_what_it_is() {
        let reactions = ["mailer".to_owned(), "audit@blog".to_owned()];
        let view = no_reaction("post", true, &[]);
        assert!(view.contains("post is a view"), "{view}");
        assert!(view.contains(" replay post`"), "{view}");
        let none = no_reaction("mailer", false, &[]);
        assert_eq!(
            none,
            "there is no reaction \"mailer\": this program has none"
        );
        let other = no_reaction("mail", false, &reactions);
        assert!(
            other.ends_with("the reactions are: mailer, audit@blog"),
            "{other}"
        );
    }

    #[test]
    fn a_start_is_a_word_a_time_or_a_token() {
        assert_eq!(start("beginning"), Some(Start::Beginning));
        assert_eq!(start("now"), Some(Start::Now));
        let time = start("2026-05-01T12:00:00Z");
        assert!(matches!(time, Some(Start::Time(time)) if time.timestamp() == 1_777_636_800));
        let token = start("1.00000000000000000000000000000005.3-17");
        assert!(matches!(token, Some(Start::After(token)) if token.positions.len() == 1));
        assert_eq!(start("yesterday"), None);
    }
}
