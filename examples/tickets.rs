//! Tickets for concerts: seats that are held for a while, and an event whose shape has changed.
//!
//! It shows what an aggregate knows besides its state (the time, new ids), a view with several documents an event, and an
//! upcaster.

use std::time::Duration;

use tidelog::prelude::*;

/// How long seats are held.
const HELD_FOR: Duration = Duration::from_secs(15 * 60);

/// A concert and its seats.
#[aggregate]
struct Concert {
    seats: u32,
    orders: Vec<Order>,
}

/// Seats that somebody holds, or has bought.
#[data]
struct Order {
    id: Uuid,
    seats: u32,
    customer: String,
    /// Until when they are held; `null` once they are bought.
    until: Option<DateTime<Utc>>,
}

impl Concert {
    /// The seats that are neither bought nor held at `now`.
    fn free(&self, now: DateTime<Utc>) -> u32 {
        let counts = |order: &&Order| order.until.is_none_or(|until| now < until);
        let taken = self.orders.iter().filter(counts).map(|order| order.seats);
        self.seats.saturating_sub(taken.sum())
    }
}

#[commands]
enum ConcertCommand {
    #[create]
    Announce {
        #[schemars(range(min = 1, max = 100_000))]
        seats: u32,
    },
    /// Holds seats for 15 minutes.
    Hold {
        #[schemars(range(min = 1, max = 10))]
        seats: u32,
        #[schemars(length(min = 1, max = 100))]
        customer: String,
    },
    Buy {
        order: Uuid,
    },
}

#[events("concert", upcasters = upcasters)]
enum ConcertEvent {
    Announced {
        seats: u32,
    },
    /// Version 1 had no customer.
    #[version(2)]
    Held {
        order: Uuid,
        seats: u32,
        customer: String,
        until: DateTime<Utc>,
    },
    Bought {
        order: Uuid,
        customer: String,
        seats: u32,
    },
}

/// Seats that were held before customers had names are nobody's.
fn upcasters() -> Vec<Upcaster> {
    let customer = |mut held: Value| {
        if let Some(fields) = held.as_object_mut() {
            fields.insert("customer".to_owned(), json!(""));
        }
        held
    };
    vec![Upcaster::new("concert.held", 1, customer)]
}

#[rejections]
enum ConcertRejection {
    /// There are only {free} seats left.
    SoldOut { free: u32 },
    /// The seats are not held any more: hold them again.
    NotHeld,
}

impl Aggregate for Concert {
    type Command = ConcertCommand;
    type Event = ConcertEvent;
    type Rejection = ConcertRejection;

    fn decide(&self, command: ConcertCommand, ctx: &Context) -> Decision<Self> {
        let now = ctx.now();
        Ok(vec![match command {
            ConcertCommand::Announce { seats } => ConcertEvent::Announced { seats },
            ConcertCommand::Hold { seats, customer } => match self.free(now) {
                free if free < seats => return Err(ConcertRejection::SoldOut { free }),
                _ => ConcertEvent::Held {
                    order: ctx.new_id(),
                    seats,
                    customer,
                    until: now + HELD_FOR,
                },
            },
            ConcertCommand::Buy { order } => {
                let held = |held: &&Order| held.id == order && held.until.is_some_and(|u| now < u);
                let held = self.orders.iter().find(held);
                let Order {
                    seats, customer, ..
                } = held.ok_or(ConcertRejection::NotHeld)?.clone();
                ConcertEvent::Bought {
                    order,
                    customer,
                    seats,
                }
            }
        }])
    }

    fn evolve(&mut self, event: &ConcertEvent) {
        match event {
            ConcertEvent::Announced { seats } => self.seats = *seats,
            ConcertEvent::Held {
                order,
                seats,
                customer,
                until,
            } => self.orders.push(Order {
                id: *order,
                seats: *seats,
                customer: customer.clone(),
                until: Some(*until),
            }),
            ConcertEvent::Bought { order, .. } => {
                for one in self.orders.iter_mut().filter(|one| one.id == *order) {
                    one.until = None;
                }
            }
        }
    }
}

/// What a customer has bought, for all concerts.
#[view]
struct Wallet {
    tickets: Vec<Ticket>,
}

#[data]
struct Ticket {
    concert: String,
    seats: u32,
}

impl Projection for Wallet {
    type Event = ConcertEvent;

    fn keys(e: &Recorded<ConcertEvent>) -> Keys {
        match &e.event {
            ConcertEvent::Bought { customer, .. } if !customer.is_empty() => vec![customer.clone()],
            _ => vec![],
        }
    }

    fn project(wallet: Option<Self>, _: &str, e: &Recorded<ConcertEvent>) -> Option<Self> {
        let mut wallet = wallet.unwrap_or_default();
        if let ConcertEvent::Bought { seats, .. } = e.event {
            let concert = e.stream_id.clone();
            wallet.tickets.push(Ticket { concert, seats });
            // By concert: no order is promised between the events of two.
            wallet.tickets.sort_by(|a, b| a.concert.cmp(&b.concert));
        }
        Some(wallet)
    }
}

fn tickets() -> App {
    App::new("tickets")
        .aggregate::<Concert>()
        .projection::<Wallet>()
}

fn main() -> std::process::ExitCode {
    tickets().run()
}

#[cfg(test)]
mod tests {
    use tidelog::testing::{TestApp, given_log};
    use tidelog::{Clock, InvalidAggregate, StartError, TypedDecider};

    use super::*;

    #[tokio::test]
    async fn seats_that_are_not_bought_in_time_are_free_again() -> Result<(), StartError> {
        let clock = Clock::at(DateTime::UNIX_EPOCH);
        let app = TestApp::start(tickets().with_clock(clock.clone())).await?;
        app.given("POST /concert/announce", &json!({"id": "c", "seats": 10}))
            .await;
        let hold = json!({"seats": 8, "customer": "ann"});
        let held = app.given("POST /concert/c/hold", &hold).await;
        let buy = json!({"order": held.body.pointer("/data/orders/0/id")});
        let again = app.when("POST /concert/c/hold", &hold).await;
        again.then_problem(422, "rejected");
        again.then(
            422,
            &json!({"code": "sold-out", "detail": "There are only 2 seats left."}),
        );
        clock.advance(HELD_FOR);
        app.when("POST /concert/c/buy", &buy)
            .await
            .then_problem(422, "rejected");
        let held = app.given("POST /concert/c/hold", &hold).await;
        let buy = json!({"order": held.body.pointer("/data/orders/1/id")});
        app.given("POST /concert/c/buy", &buy).await;
        let wallet = app.when_read("/wallet/ann").await;
        wallet.then(
            200,
            &json!({"data": {"tickets": [{"concert": "c", "seats": 8}]}}),
        );
        app.stop().await;
        Ok(())
    }

    #[test]
    fn a_wallet_has_tickets_for_all_concerts_in_whatever_order_they_were_bought() {
        let bought = |seats| ConcertEvent::Bought {
            order: Uuid::nil(),
            customer: "ann".to_owned(),
            seats,
        };
        let ticket = |concert: &str, seats| Ticket {
            concert: concert.to_owned(),
            seats,
        };
        let tickets = vec![ticket("a", 2), ticket("a", 1), ticket("b", 3)];
        given_events([on("a", bought(2)), on("b", bought(3)), on("a", bought(1))])
            .then_view("ann", Wallet { tickets });
    }

    #[test]
    fn what_was_held_without_a_name_can_still_be_read() -> Result<(), InvalidAggregate> {
        let log = r#"
            {"stream": "concert/c", "event_type": "concert.announced", "schema_version": 1, "payload": {"seats": 3}, "metadata": {}, "recorded_at": "2024-05-01T12:00:00Z"}
            {"stream": "concert/c", "event_type": "concert.held", "schema_version": 1, "payload": {"order": "00000000-0000-0000-0000-000000000001", "seats": 2, "until": "2024-05-01T12:15:00Z"}, "metadata": {}, "recorded_at": "2024-05-01T12:00:00Z"}
        "#;
        let concert = TypedDecider::<Concert>::new()?;
        let order = json!({"id": "00000000-0000-0000-0000-000000000001", "seats": 2, "customer": "", "until": "2024-05-01T12:15:00Z"});
        given_log(log).then_state(&concert, "c", json!({"seats": 3, "orders": [order]}));
        Ok(())
    }
}
