//! The board of a repair shop: a view that joins tickets and the orders of parts that they wait for.
//!
//! Tickets and orders are aggregates of their own, so no order is promised between them: a card must come out the same
//! whichever of them is heard of first. Each side writes a part of the card that is its own.

use std::convert::Infallible;

use tidelog::prelude::*;

/// Something to be repaired.
#[aggregate]
struct Ticket {
    title: String,
}

#[commands]
enum TicketCommand {
    #[create]
    Open {
        #[schemars(length(min = 1, max = 200))]
        title: String,
    },
    Rename {
        #[schemars(length(min = 1, max = 200))]
        title: String,
    },
    Close,
}

#[events("ticket")]
enum TicketEvent {
    Opened {
        title: String,
    },
    Renamed {
        title: String,
    },
    #[terminal]
    Closed,
}

impl Aggregate for Ticket {
    type Command = TicketCommand;
    type Event = TicketEvent;
    type Rejection = Infallible;

    fn decide(&self, command: TicketCommand, _: &Context) -> Decision<Self> {
        Ok(match command {
            TicketCommand::Open { title } => vec![TicketEvent::Opened { title }],
            TicketCommand::Rename { title } if title == self.title => vec![],
            TicketCommand::Rename { title } => vec![TicketEvent::Renamed { title }],
            TicketCommand::Close => vec![TicketEvent::Closed],
        })
    }

    fn evolve(&mut self, event: &TicketEvent) {
        match event {
            TicketEvent::Opened { title } | TicketEvent::Renamed { title } => {
                self.title.clone_from(title);
            }
            TicketEvent::Closed => {}
        }
    }
}

/// A part that was ordered for a ticket.
#[aggregate]
struct Order {
    ticket: String,
    arrived: bool,
}

#[commands]
enum OrderCommand {
    #[create]
    Place {
        #[schemars(length(min = 1, max = 128))]
        ticket: String,
        #[schemars(length(min = 1, max = 200))]
        part: String,
    },
    Receive,
    Cancel,
}

/// Each says which ticket it is for: a view finds the documents that an event touches by the event alone.
#[events("order")]
enum OrderEvent {
    Placed {
        ticket: String,
        part: String,
    },
    Arrived {
        ticket: String,
    },
    #[terminal]
    Cancelled {
        ticket: String,
    },
}

#[rejections]
enum OrderRejection {
    /// The part is here already.
    HasArrived,
}

impl Aggregate for Order {
    type Command = OrderCommand;
    type Event = OrderEvent;
    type Rejection = OrderRejection;

    fn decide(&self, command: OrderCommand, _: &Context) -> Decision<Self> {
        let ticket = self.ticket.clone();
        match command {
            OrderCommand::Place { ticket, part } => Ok(vec![OrderEvent::Placed { ticket, part }]),
            OrderCommand::Receive if self.arrived => Ok(vec![]),
            OrderCommand::Receive => Ok(vec![OrderEvent::Arrived { ticket }]),
            OrderCommand::Cancel if self.arrived => Err(OrderRejection::HasArrived),
            OrderCommand::Cancel => Ok(vec![OrderEvent::Cancelled { ticket }]),
        }
    }

    fn evolve(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed { ticket, .. } => self.ticket.clone_from(ticket),
            OrderEvent::Arrived { .. } => self.arrived = true,
            OrderEvent::Cancelled { .. } => {}
        }
    }
}

/// What the board is made of.
#[event_set]
enum ShopEvent {
    Ticket(TicketEvent),
    Order(OrderEvent),
}

/// A ticket on the board, with the parts that were ordered for it.
#[view(plural = "board")]
struct Card {
    /// What is to be repaired; `null` before the ticket is heard of, and once it is closed.
    title: Option<String>,
    /// Written by the orders alone, each its own.
    parts: Vec<Part>,
    /// How many of them have not arrived.
    missing: usize,
}

#[data]
struct Part {
    order: String,
    name: String,
    arrived: bool,
}

impl Projection for Card {
    type Event = ShopEvent;

    fn keys(e: &Recorded<ShopEvent>) -> Keys {
        let ticket = match &e.event {
            ShopEvent::Ticket(_) => &e.stream_id,
            ShopEvent::Order(
                OrderEvent::Placed { ticket, .. }
                | OrderEvent::Arrived { ticket }
                | OrderEvent::Cancelled { ticket },
            ) => ticket,
        };
        vec![ticket.clone()]
    }

    fn project(card: Option<Self>, _: &str, e: &Recorded<ShopEvent>) -> Option<Self> {
        let mut card = card.unwrap_or_default();
        match &e.event {
            ShopEvent::Ticket(TicketEvent::Opened { title } | TicketEvent::Renamed { title }) => {
                card.title = Some(title.clone());
            }
            ShopEvent::Ticket(TicketEvent::Closed) => card.title = None,
            ShopEvent::Order(event) => card.order(&e.stream_id, event),
        }
        // Only what is empty on both sides may go: what goes takes along what the other side has written.
        (card.title.is_some() || !card.parts.is_empty()).then_some(card)
    }
}

impl Card {
    fn order(&mut self, order: &str, event: &OrderEvent) {
        match event {
            OrderEvent::Placed { part, .. } => self.parts.push(Part {
                order: order.to_owned(),
                name: part.clone(),
                arrived: false,
            }),
            OrderEvent::Arrived { .. } => {
                for part in self.parts.iter_mut().filter(|part| part.order == order) {
                    part.arrived = true;
                }
            }
            OrderEvent::Cancelled { .. } => self.parts.retain(|part| part.order != order),
        }
        // By the order's id, not by who came first.
        self.parts.sort_by(|a, b| a.order.cmp(&b.order));
        self.missing = self.parts.iter().filter(|part| !part.arrived).count();
    }
}

fn board() -> App {
    App::new("board")
        .aggregate::<Ticket>()
        .aggregate::<Order>()
        .projection::<Card>()
}

fn main() -> std::process::ExitCode {
    board().run()
}

#[cfg(test)]
mod tests {
    use tidelog::StartError;
    use tidelog::testing::{PastEvent, TestApp};

    use super::*;

    fn opened(ticket: &str, title: &str) -> PastEvent {
        let title = title.to_owned();
        on(ticket, TicketEvent::Opened { title })
    }

    fn placed(order: &str, ticket: &str, part: &str) -> PastEvent {
        let (ticket, part) = (ticket.to_owned(), part.to_owned());
        on(order, OrderEvent::Placed { ticket, part })
    }

    fn arrived(order: &str, ticket: &str) -> PastEvent {
        let ticket = ticket.to_owned();
        on(order, OrderEvent::Arrived { ticket })
    }

    fn cancelled(order: &str, ticket: &str) -> PastEvent {
        let ticket = ticket.to_owned();
        on(order, OrderEvent::Cancelled { ticket })
    }

    /// Parts by order and name, and whether they have arrived.
    fn card(title: Option<&str>, parts: &[(&str, &str, bool)]) -> Card {
        let part = |&(order, name, arrived): &(&str, &str, bool)| Part {
            order: order.to_owned(),
            name: name.to_owned(),
            arrived,
        };
        Card {
            title: title.map(str::to_owned),
            parts: parts.iter().map(part).collect(),
            missing: parts.iter().filter(|(_, _, arrived)| !arrived).count(),
        }
    }

    #[test]
    fn a_card_has_the_parts_that_were_ordered_for_its_ticket() {
        let title = "Bike, squeaking".to_owned();
        given_events([
            opened("t1", "Bike"),
            opened("t2", "Lamp"),
            placed("o2", "t1", "chain"),
            placed("o1", "t1", "brake"),
            arrived("o2", "t1"),
            on("t1", TicketEvent::Renamed { title }),
        ])
        .then_view(
            "t1",
            card(
                Some("Bike, squeaking"),
                &[("o1", "brake", false), ("o2", "chain", true)],
            ),
        )
        .then_view("t2", card(Some("Lamp"), &[]));
    }

    #[test]
    fn a_part_whose_ticket_is_closed_stays_until_it_is_cancelled() {
        let closed = || on("t", TicketEvent::Closed);
        let begun = || [opened("t", "Bike"), placed("o", "t", "chain"), closed()];
        given_events(begun()).then_view("t", card(None, &[("o", "chain", false)]));
        given_events(begun().into_iter().chain([cancelled("o", "t")])).then_no_view::<Card>("t");
    }

    #[test]
    fn an_order_may_be_heard_of_before_its_ticket() {
        given_events([placed("o", "t", "chain"), opened("t", "Bike")])
            .then_view("t", card(Some("Bike"), &[("o", "chain", false)]));
    }

    #[test]
    fn what_has_arrived_is_not_cancelled() {
        let ticket = || "t".to_owned();
        let part = "chain".to_owned();
        let placed = OrderEvent::Placed {
            ticket: ticket(),
            part,
        };
        given::<Order>([placed, OrderEvent::Arrived { ticket: ticket() }])
            .when(OrderCommand::Cancel)
            .then_rejected(OrderRejection::HasArrived);
    }

    #[tokio::test]
    async fn the_board_can_be_asked_for_what_waits_for_parts() -> Result<(), StartError> {
        let app = TestApp::start(board()).await?;
        for (ticket, title) in [("t1", "Bike"), ("t2", "Lamp")] {
            let open = json!({"id": ticket, "title": title});
            app.given("POST /ticket/open", &open).await;
        }
        for (order, part) in [("o1", "chain"), ("o2", "brake")] {
            let place = json!({"id": order, "ticket": "t1", "part": part});
            app.given("POST /order/place", &place).await;
        }
        app.given("POST /order/o1/receive", &json!({})).await;
        let waiting = app
            .when_read("/board?missing[gt]=0&fields=title,missing")
            .await;
        waiting.then(200, &json!({"data": [{"title": "Bike", "missing": 1}]}));
        let all = app.when_read("/board?sort=title").await;
        all.then(
            200,
            &json!({"data": [{"title": "Bike"}, {"title": "Lamp"}]}),
        );
        app.stop().await;
        Ok(())
    }
}
