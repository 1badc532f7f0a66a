//! The story by the command line.

use super::Story;
use super::program::{printed, program};
use crate::services::CommandLine;
use crate::waiting::eventually;

/// What the person on call types, how it ends, and what is seen.
type Typed = (&'static str, i32, &'static [&'static str]);

/// Before the fix is deployed.
const BROKEN: [Typed; 5] = [
    (
        "subscriptions",
        0,
        &["PARKED", "total: 1 sequence set aside"],
    ),
    (
        "parked",
        0,
        &[
            "odd",
            "a voucher is worth no more than what is in the basket",
            "shop parked show total odd",
            "shop parked retry total odd",
        ],
    ),
    (
        "parked show total odd",
        0,
        &[
            "basket.redeemed",
            "basket/odd, version 3",
            "the handler panicked",
        ],
    ),
    (
        "show basket/odd@3",
        0,
        &[
            "request a-voucher",
            "basket.redeemed",
            "payload      13 bytes",
        ],
    ),
    (
        "parked retry total odd",
        5,
        &["total odd: cannot be handled still"],
    ),
];

/// After that.
const MENDED: [Typed; 6] = [
    ("parked retry total odd", 0, &["total odd: goes on"]),
    ("parked", 0, &["nothing is set aside"]),
    (
        "replay total --compare full",
        0,
        &[
            "total is read from total_v2 now (version 2)",
            "compared with the log: all equal",
        ],
    ),
    ("views", 0, &["total_v2    total_v1"]),
    (
        "views rollback total",
        0,
        &["total is read from total_v1 again (version 1)"],
    ),
    ("views", 0, &["total_v1    total_v2"]),
];

impl Story {
    async fn type_all(&self, lines: &[Typed]) {
        for (line, status, seen) in lines {
            let (code, shown) = self.types(line).await;
            eprintln!("$ shop {line}\n{shown}\n");
            assert_eq!(code, Some(*status), "{line}: {shown}");
            for text in *seen {
                assert!(shown.contains(text), "{line}: no {text} in\n{shown}");
            }
        }
    }

    /// Runs the command line, and gives its exit status and what it printed.
    async fn types(&self, line: &str) -> (Option<i32>, String) {
        let arguments: Vec<_> = line.split(' ').collect();
        let command = CommandLine::of(program, &arguments).with(self.backends.settings());
        let ended = command.with([("TIDELOG_LOG", "error")]).run().await;
        (ended.code, printed(&ended.output).to_owned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_person_on_call_puts_it_right_by_the_command_line() {
    let mut story = Story::begin(&[]).await;
    story.breaks().await;
    eventually("the sequence to be parked", async || {
        let (_, parked) = story.types("parked --json").await;
        let is_parked = parked.contains("\"state\": \"parked\"");
        is_parked.then_some(()).ok_or(parked)
    })
    .await;
    story.type_all(&BROKEN).await;
    story.deploy_the_fix().await;
    story.type_all(&MENDED[..1]).await;
    story.is_mended().await;
    story.type_all(&MENDED[1..]).await;
    // Whoever works on the view goes over to the other one within moments.
    eventually("the doctor to find nothing", async || {
        let (code, shown) = story.types("doctor").await;
        let is_well = code == Some(0) && shown.contains("with nothing set aside");
        is_well.then_some(()).ok_or(shown)
    })
    .await;
    story.ends_well().await;
}
