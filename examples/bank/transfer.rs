//! A transfer between two accounts: both are changed by one atomic append, or none is.

use tidelog::prelude::*;

use super::{Account, AccountCommand, AccountRejection};

/// Moves money from one account to another.
#[multi_stream_command]
pub(crate) struct Transfer {
    from: String,
    to: String,
    #[schemars(range(min = 1, max = 1_000_000_000))]
    cents: u64,
}

impl MultiStreamCommand for Transfer {
    type Aggregates = (Account, Account);
    type Rejection = AccountRejection;

    fn ids(&self) -> [String; 2] {
        [self.from.clone(), self.to.clone()]
    }

    fn decide(&self, (from, to): (&Account, &Account), ctx: &Context) -> MultiStreamDecision<Self> {
        let cents = self.cents;
        Ok((
            from.decide(AccountCommand::Withdraw { cents }, ctx)?,
            to.decide(AccountCommand::Deposit { cents }, ctx)?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use tidelog::StartError;
    use tidelog::testing::TestApp;

    use super::*;
    use crate::AccountEvent::{Deposited, Withdrawn};

    fn transfer(cents: u64) -> Transfer {
        let (from, to) = ("ann".into(), "bob".into());
        Transfer { from, to, cents }
    }

    #[test]
    fn what_one_account_loses_the_other_gets() {
        given_all::<Transfer>((vec![Deposited { cents: 9 }], vec![]))
            .when(transfer(5))
            .then((vec![Withdrawn { cents: 5 }], vec![Deposited { cents: 5 }]));
    }

    #[test]
    fn nothing_is_transferred_that_is_not_there() {
        given_all::<Transfer>((vec![Deposited { cents: 4 }], vec![]))
            .when(transfer(5))
            .then_rejected(AccountRejection::InsufficientFunds { balance_cents: 4 });
    }

    #[tokio::test]
    async fn a_transfer_happens_to_both_accounts_or_to_none() -> Result<(), StartError> {
        let bank = TestApp::start(crate::bank()).await?;
        for (id, cents) in [("ann", 9), ("bob", 1)] {
            bank.given("POST /account/open", &json!({"id": id, "owner": id}))
                .await;
            let path = format!("POST /account/{id}/deposit");
            bank.given(&path, &json!({"cents": cents})).await;
        }
        let transfer = |to: &str, cents: u64| json!({"from": "ann", "to": to, "cents": cents});
        let done = bank.when("POST /transfer", &transfer("bob", 5)).await;
        done.then(
            200,
            &json!({"data": [
                {"id": "ann", "version": 3, "balance_cents": 4},
                {"id": "bob", "version": 3, "balance_cents": 6},
            ]}),
        );
        let too_much = bank.when("POST /transfer", &transfer("bob", 5)).await;
        too_much.then_problem(422, "rejected");
        let to_nobody = bank.when("POST /transfer", &transfer("eve", 1)).await;
        to_nobody.then_problem(404, "not-found");
        let to_herself = bank.when("POST /transfer", &transfer("ann", 1)).await;
        to_herself.then_problem(422, "invalid");
        let ann = bank.when_read("/statement/ann").await;
        ann.then(200, &json!({"data": {"version": 3}}));
        bank.stop().await;
        Ok(())
    }
}
