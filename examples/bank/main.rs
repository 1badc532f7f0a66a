//! A bank: an aggregate with business commands, a transfer between two, and a view with a running balance.

mod statement;
mod transfer;

use tidelog::prelude::*;

/// A bank account, in cents.
#[aggregate]
struct Account {
    owner: String,
    balance_cents: u64,
}

#[commands]
enum AccountCommand {
    #[create]
    Open {
        #[schemars(length(min = 1, max = 100))]
        owner: String,
    },
    Deposit {
        #[schemars(range(min = 1, max = 1_000_000_000))]
        cents: u64,
    },
    Withdraw {
        #[schemars(range(min = 1))]
        cents: u64,
    },
    Close,
}

#[events("account")]
enum AccountEvent {
    Opened {
        owner: String,
    },
    Deposited {
        cents: u64,
    },
    Withdrawn {
        cents: u64,
    },
    #[terminal]
    Closed,
}

#[rejections]
enum AccountRejection {
    /// There are only {balance_cents} cents in the account.
    InsufficientFunds { balance_cents: u64 },
    /// There is money in the account: withdraw it first.
    NotEmpty,
}

use AccountCommand::*;
use AccountEvent::*;
use AccountRejection::*;

impl Aggregate for Account {
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = AccountRejection;

    fn decide(&self, command: AccountCommand, _: &Context) -> Decision<Self> {
        let balance_cents = self.balance_cents;
        Ok(vec![match command {
            Open { owner } => Opened { owner },
            Deposit { cents } => Deposited { cents },
            Withdraw { cents } if cents > balance_cents => {
                return Err(InsufficientFunds { balance_cents });
            }
            Withdraw { cents } => Withdrawn { cents },
            Close if balance_cents > 0 => return Err(NotEmpty),
            Close => Closed,
        }])
    }

    fn evolve(&mut self, event: &AccountEvent) {
        match event {
            Opened { owner } => self.owner.clone_from(owner),
            Deposited { cents } => self.balance_cents += cents,
            Withdrawn { cents } => self.balance_cents -= cents,
            Closed => {}
        }
    }
}

fn main() -> std::process::ExitCode {
    bank().run()
}

fn bank() -> App {
    App::new("bank")
        .aggregate::<Account>()
        .multi_stream_command::<transfer::Transfer>()
        .projection::<statement::Statement>()
}

#[test]
fn an_account_cannot_be_overdrawn() {
    let opened = || Opened {
        owner: "ann".into(),
    };
    given::<Account>([opened(), Deposited { cents: 5 }])
        .when(Withdraw { cents: 5 })
        .then([Withdrawn { cents: 5 }]);
    given::<Account>([opened()])
        .when(Withdraw { cents: 1 })
        .then_rejected(InsufficientFunds { balance_cents: 0 });
}
