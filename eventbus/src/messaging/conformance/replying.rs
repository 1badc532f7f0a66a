//! Requests and replies.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    LONG, MessageBusFactory, PATIENCE, bodies, body, channel, done, join, nothing, publish, settle,
    take,
};
use crate::messaging::bus::{Inbox, MessageBus, Settlement};
use crate::messaging::error::MessageBusError;

/// Where no group ever was, nobody will answer.
pub async fn a_request_to_nobody_is_refused_and_leaves_nothing(factory: &dyn MessageBusFactory) {
    let bus = factory.bus().await;
    let channel = channel("nobody");
    let refused = bus.request(&channel, &body(1)).await;
    assert!(
        matches!(refused, Err(MessageBusError::NoGroup)),
        "{refused:?}"
    );
    // Neither where there is a message already.
    publish(&*bus, &channel, [2]).await;
    let refused = bus.request(&channel, &body(3)).await;
    assert!(
        matches!(refused, Err(MessageBusError::NoGroup)),
        "{refused:?}"
    );
    let consumer = join(&*bus, "g", std::slice::from_ref(&channel), LONG).await;
    assert_eq!(bodies(&take(&*consumer, 1).await), [body(2)]);
    assert!(bus.request(&channel, &body(4)).await.is_ok());
    assert_eq!(bodies(&take(&*consumer, 1).await), [body(4)]);
}

/// Who waits no longer takes the request back, and no worker has it.
pub async fn a_request_that_was_taken_back_does_not_come(factory: &dyn MessageBusFactory) {
    let bus = factory.bus().await;
    let channel = channel("back");
    let consumer = join(&*bus, "g", std::slice::from_ref(&channel), LONG).await;
    let mut entries = Vec::new();
    for number in 0..3 {
        let entry = bus.request(&channel, &body(number)).await;
        entries.push(entry.unwrap_or_else(|error| panic!("{error:?}")));
    }
    entries.remove(1);
    let withdrawn = bus.withdraw(&channel, &entries).await;
    assert!(withdrawn.is_ok());
    let taken = take(&*consumer, 1).await;
    assert_eq!(bodies(&taken), [body(1)]);
    nothing(&*consumer, Duration::from_millis(50)).await;
    // One that is being handled goes on, and can be ended.
    let withdrawn = bus
        .withdraw(&channel, &[taken[0].taken.entry.clone()])
        .await;
    assert!(withdrawn.is_ok());
    done(&*consumer, &taken).await;
}

async fn receive(inbox: &dyn Inbox, count: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let receiving = async {
        while all.len() < count {
            let replies = inbox.next().await;
            all.extend(replies.unwrap_or_else(|error| panic!("{error:?}")));
        }
    };
    let received = timeout(PATIENCE, receiving).await;
    assert!(received.is_ok(), "{} of {count} came", all.len());
    all
}

async fn inbox(bus: &dyn MessageBus) -> std::sync::Arc<dyn Inbox> {
    let inbox = bus.inbox().await;
    inbox.unwrap_or_else(|error| panic!("{error:?}"))
}

/// Replies come to the inbox that they are for, both those that are sent on the way and those that end a request.
pub async fn replies_come_to_their_inbox_once_and_in_order(factory: &dyn MessageBusFactory) {
    let bus = factory.bus().await;
    let channel = channel("replies");
    let consumer = join(&*bus, "g", std::slice::from_ref(&channel), LONG).await;
    let (one, two) = (inbox(&*bus).await, inbox(&*bus).await);
    for number in 0..1_100 {
        let to = if number % 2 == 0 { &one } else { &two };
        let answered = bus.answer(to.address(), &[body(number)]).await;
        assert!(answered.is_ok_and(|is_there| is_there));
    }
    let requested = bus.request(&channel, b"{}").await;
    assert!(requested.is_ok());
    let taken = take(&*consumer, 1).await;
    let answered = Settlement::Done {
        reply: Some((one.address(), &body(1_100))),
        remove: true,
    };
    settle(&*consumer, &taken[0], answered).await;
    let even = (0..1_102).step_by(2).map(body);
    assert_eq!(receive(&*one, 551).await, even.collect::<Vec<_>>());
    let odd = (1..1_100).step_by(2).map(body);
    assert_eq!(receive(&*two, 550).await, odd.collect::<Vec<_>>());
    assert_eq!(one.next().await.ok(), Some(Vec::new()), "each once");
}

/// A caller that is gone leaves nothing behind.
pub async fn a_reply_to_an_inbox_that_is_gone_leaves_nothing(factory: &dyn MessageBusFactory) {
    let bus = factory.bus().await;
    let gone = inbox(&*bus).await;
    let address = gone.address().to_owned();
    assert!(gone.close().await.is_ok());
    let answered = bus.answer(&address, &[body(1)]).await;
    assert_eq!(answered.ok(), Some(false));
}

/// Whoever sends a request may name anything as its inbox: its worker is rid of it all the same.
pub async fn an_address_that_is_none_keeps_no_request(factory: &dyn MessageBusFactory) {
    let bus = factory.bus().await;
    let channel = channel("odd");
    let consumer = join(&*bus, "g", std::slice::from_ref(&channel), LONG).await;
    for address in ["", "nowhere", "no where", "no\r\nwhere"] {
        let requested = bus.request(&channel, &body(1)).await;
        assert!(requested.is_ok());
        let taken = take(&*consumer, 1).await;
        let answered = Settlement::Done {
            reply: Some((address, &body(2))),
            remove: true,
        };
        settle(&*consumer, &taken[0], answered).await;
    }
    assert!(bus.request(&channel, &body(3)).await.is_ok());
    assert_eq!(bodies(&take(&*consumer, 1).await), [body(3)]);
}
