//! How far a replay is, for people and for programs.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tidelog_query::store::Progress;
use tidelog_query::{ReplayProgress, ReplayReport, ReplayState};

use crate::cli::arguments::Shown;

/// What was told of a replay.
pub(super) struct Watched {
    bar: ProgressBar,
    state: &'static str,
    progress: Progress,
    waiting: Option<String>,
}

impl Watched {
    /// Nothing yet.
    pub(super) fn new(shown: Shown) -> Self {
        Self {
            bar: bar(shown),
            state: "starting",
            progress: Progress::default(),
            waiting: None,
        }
    }

    /// Takes in what was told, and shows it to who watches.
    pub(super) fn note(&mut self, told: ReplayProgress<'_>) {
        self.waiting = None;
        match told {
            ReplayProgress::Folded(progress) => {
                if self.state != "switching" {
                    self.state = "building";
                }
                self.go_on(progress, "");
            }
            ReplayProgress::Comparing(progress) => {
                self.state = "comparing";
                self.go_on(progress, "compared, ");
            }
            ReplayProgress::Waiting { reason } => {
                self.waiting = Some(reason.to_owned());
                self.bar.set_message(format!("waiting: {reason}"));
            }
            ReplayProgress::Switching => {
                self.state = "switching";
                self.bar.set_message("switching");
            }
            _ => {}
        }
    }

    /// Takes in what another process says of its replay.
    pub(super) fn take_in(&mut self, report: &ReplayReport) {
        let comparing = report.state == ReplayState::Comparing;
        let progress = Progress {
            events: report.events,
            of: report.of,
            per_second: report.per_second,
            comparing,
        };
        match report.state {
            ReplayState::Switching => self.note(ReplayProgress::Switching),
            _ if comparing => self.note(ReplayProgress::Comparing(progress)),
            _ => self.note(ReplayProgress::Folded(progress)),
        }
    }

    fn go_on(&mut self, progress: Progress, what: &str) {
        self.progress = progress;
        self.bar.set_length(progress.of);
        self.bar.set_position(progress.events);
        let rate = rate(&progress);
        self.bar.set_message(format!("{what}{rate}"));
    }

    /// It is over.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// A line for programs.
    pub(super) fn line(&self, view: &str) -> Value {
        let Progress {
            events,
            of,
            per_second,
            ..
        } = self.progress;
        let mut line = json!({
            "view": view, "state": self.state, "events": events, "of": of, "per_second": per_second,
            "eta_seconds": self.progress.eta_seconds()
        });
        if let (Some(line), Some(reason)) = (line.as_object_mut(), &self.waiting) {
            line.insert("waiting".to_owned(), json!(reason));
        }
        line
    }
}

/// How fast it is, and how long it will take.
fn rate(progress: &Progress) -> String {
    match progress.eta_seconds() {
        Some(eta) => format!("{}/s, {eta} s left", progress.per_second),
        None => String::new(),
    }
}

/// A bar for a person who watches; nothing where nobody does.
fn bar(shown: Shown) -> ProgressBar {
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} events {msg}") {
        bar.set_style(style);
    }
    if shown != Shown::Bar || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let mut watched = Watched::new(Shown::Json);
        let starting = json!({
            "view": "post", "state": "starting", "events": 0, "of": 0, "per_second": 0, "eta_seconds": null
        });
        assert_eq!(watched.line("post"), starting);
        watched.note(ReplayProgress::Folded(Progress {
            events: 5_000,
            of: 9_000,
            per_second: 2_000,
            comparing: false,
        }));
        let building = json!({
            "view": "post", "state": "building", "events": 5_000, "of": 9_000, "per_second": 2_000, "eta_seconds": 2
        });
        assert_eq!(watched.line("post"), building);
        watched.note(ReplayProgress::Waiting { reason: "why" });
        assert_eq!(watched.line("post")["waiting"], "why");
        watched.note(ReplayProgress::Switching);
        assert_eq!(watched.line("post")["state"], "switching");
    }
}
