//! The statement of an account: its movements, each with the balance after it.

use tidelog::prelude::*;

use super::AccountEvent;

/// The movements of an account, in cents.
#[view]
pub(crate) struct Statement {
    owner: String,
    balance_cents: u64,
    lines: Vec<Line>,
    closed: bool,
}

/// A movement.
#[data]
struct Line {
    at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deposited_cents: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    withdrawn_cents: Option<u64>,
    /// What was in the account after it.
    balance_cents: u64,
}

impl Projection for Statement {
    /// Each statement is made from one account, whose events come in order: so a balance may run.
    const SINGLE_STREAM: bool = true;

    type Event = AccountEvent;

    fn keys(e: &Recorded<AccountEvent>) -> Keys {
        vec![e.stream_id.clone()]
    }

    fn project(statement: Option<Self>, _: &str, e: &Recorded<AccountEvent>) -> Option<Self> {
        let mut statement = statement.unwrap_or_default();
        let (deposited_cents, withdrawn_cents) = match &e.event {
            AccountEvent::Deposited { cents } => (Some(*cents), None),
            AccountEvent::Withdrawn { cents } => (None, Some(*cents)),
            AccountEvent::Opened { owner } => {
                statement.owner.clone_from(owner);
                return Some(statement);
            }
            AccountEvent::Closed => {
                statement.closed = true;
                return Some(statement);
            }
        };
        statement.balance_cents += deposited_cents.unwrap_or_default();
        statement.balance_cents -= withdrawn_cents.unwrap_or_default();
        statement.lines.push(Line {
            at: e.recorded_at,
            deposited_cents,
            withdrawn_cents,
            balance_cents: statement.balance_cents,
        });
        Some(statement)
    }
}

#[cfg(test)]
mod tests {
    use tidelog::StartError;
    use tidelog::testing::TestApp;

    use super::AccountEvent::{Closed, Deposited, Opened, Withdrawn};
    use super::*;

    fn opened(owner: &str) -> AccountEvent {
        let owner = owner.to_owned();
        Opened { owner }
    }

    /// A line of the second in which it happened.
    fn line(second: i64, deposited: Option<u64>, withdrawn: Option<u64>, balance: u64) -> Line {
        Line {
            at: DateTime::from_timestamp(second, 0).unwrap_or_default(),
            deposited_cents: deposited,
            withdrawn_cents: withdrawn,
            balance_cents: balance,
        }
    }

    #[test]
    fn each_line_has_the_balance_after_it() {
        given_events([
            on("1", opened("ann")),
            on("2", opened("bob")),
            on("1", Deposited { cents: 9 }),
            on("2", Deposited { cents: 1 }),
            on("1", Withdrawn { cents: 4 }),
            on("1", Withdrawn { cents: 5 }),
            on("1", Closed),
        ])
        .then_view(
            "1",
            Statement {
                owner: "ann".to_owned(),
                balance_cents: 0,
                lines: vec![
                    line(3, Some(9), None, 9),
                    line(5, None, Some(4), 5),
                    line(6, None, Some(5), 0),
                ],
                closed: true,
            },
        )
        .then_view(
            "2",
            Statement {
                owner: "bob".to_owned(),
                balance_cents: 1,
                lines: vec![line(4, Some(1), None, 1)],
                closed: false,
            },
        )
        .then_no_view::<Statement>("3");
    }

    #[tokio::test]
    async fn the_version_of_a_statement_is_that_of_its_account() -> Result<(), StartError> {
        let bank = TestApp::start(crate::bank()).await?;
        let open = json!({"id": "1", "owner": "ann"});
        bank.given("POST /account/open", &open).await;
        for cents in [9, 1] {
            bank.given("POST /account/1/deposit", &json!({"cents": cents}))
                .await;
        }
        let statement = bank.when_read("/statement/1").await;
        let lines = json!([
            {"deposited_cents": 9, "balance_cents": 9},
            {"deposited_cents": 1, "balance_cents": 10},
        ]);
        statement.then(
            200,
            &json!({"data": {"version": 3, "balance_cents": 10, "lines": lines, "closed": false}}),
        );
        bank.stop().await;
        Ok(())
    }
}
