//! The program of the story: the baskets of a shop, and a view of what is in them that has a bug while `BUG` is set.
//!
//! A process runs this very test binary, at the test [`the_program`], which is the whole command line of the program when the
//! environment says so: `serve` as well as `parked retry`.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;

use tidelog::App;
use tidelog::prelude::*;
use tidelog_test_support::Process;

use crate::gateway::routes::declared;

/// The arguments of the command line, one a line. Without them the test below is none.
const ARGUMENTS: &str = "SHOP_ARGUMENTS";

/// What the test framework has printed stands before this line.
const BEGINNING: &str = "---- the program ----";

/// What the program is called by.
const NAME: &str = "shop";

/// What a customer is about to buy.
#[aggregate]
struct Basket {
    cents: u64,
}

#[commands]
enum BasketCommand {
    #[create]
    Open {},
    Add {
        #[schemars(range(min = 1))]
        cents: u64,
    },
    /// Takes off what a voucher is worth.
    Redeem {
        #[schemars(range(min = 1))]
        cents: u64,
    },
}

#[events("basket")]
enum BasketEvent {
    Opened {},
    Added { cents: u64 },
    Redeemed { cents: u64 },
}

#[rejections]
enum BasketRejection {
    /// There is nothing in the basket.
    Empty,
}

impl Aggregate for Basket {
    type Command = BasketCommand;
    type Event = BasketEvent;
    type Rejection = BasketRejection;

    fn decide(&self, command: BasketCommand, _: &Context) -> Decision<Self> {
        Ok(vec![match command {
            BasketCommand::Open {} => BasketEvent::Opened {},
            BasketCommand::Add { cents } => BasketEvent::Added { cents },
            BasketCommand::Redeem { .. } if self.cents == 0 => return Err(BasketRejection::Empty),
            BasketCommand::Redeem { cents } => BasketEvent::Redeemed { cents },
        }])
    }

    fn evolve(&mut self, event: &BasketEvent) {
        self.cents = match event {
            BasketEvent::Opened {} => 0,
            BasketEvent::Added { cents } => self.cents + cents,
            BasketEvent::Redeemed { cents } => self.cents.saturating_sub(*cents),
        };
    }
}

/// What the customer is to pay.
#[view]
struct Total {
    cents: u64,
    entries: u64,
}

impl Projection for Total {
    const SINGLE_STREAM: bool = true;
    type Event = BasketEvent;

    fn keys(e: &Recorded<BasketEvent>) -> Keys {
        vec![e.stream_id.clone()]
    }

    fn project(view: Option<Self>, _: &str, e: &Recorded<BasketEvent>) -> Option<Self> {
        let Self { cents, entries } = view.unwrap_or_default();
        let cents = match e.event {
            BasketEvent::Opened {} => 0,
            BasketEvent::Added { cents: more } => cents + more,
            BasketEvent::Redeemed { cents: voucher } if std::env::var_os("BUG").is_some() => cents
                .checked_sub(voucher)
                .expect("a voucher is worth no more than what is in the basket"),
            BasketEvent::Redeemed { cents: voucher } => cents.saturating_sub(voucher),
        };
        Some(Self {
            cents,
            entries: entries + 1,
        })
    }
}

#[test]
#[ignore = "it is the program that the tests beside it run, as processes"]
fn the_program() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else {
        return;
    };
    writeln!(std::io::stdout(), "\n{BEGINNING}").unwrap();
    let arguments = [NAME].into_iter().chain(arguments.lines());
    let app = App::new(NAME).aggregate::<Basket>().projection::<Total>();
    let app = match std::env::var_os("MESSAGES") {
        Some(_) => declared(app),
        None => app,
    };
    let status = app.run_from(arguments.map(OsString::from));
    std::process::exit(status.into());
}

/// What runs it with these arguments.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let test = concat!(module_path!(), "::the_program");
    let test = test.split_once("::").unwrap().1;
    let mut command = Process::command(std::env::current_exe().unwrap());
    command.arg0(NAME).args([
        "--ignored",
        "--exact",
        test,
        "--nocapture",
        "--test-threads=1",
    ]);
    command.env(ARGUMENTS, arguments.join("\n"));
    command
}

/// What the program itself has printed.
pub(super) fn printed(stdout: &str) -> &str {
    let (_, printed) = stdout.split_once(BEGINNING).expect("the program began");
    printed.trim_matches('\n')
}
