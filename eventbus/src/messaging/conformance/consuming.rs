//! Groups and their consumers, while all goes well, and messages that fail.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::poll_immediate;
use futures_util::stream::{FuturesOrdered, StreamExt};
use tokio::time::{Instant, timeout};

use super::{
    LONG, MessageBusFactory, again, bodies, body, channel, close, done, join, nothing, publish,
    settle, take, tend,
};
use crate::messaging::bus::Settlement;

/// A group that is new begins with the first message, and each has its exact bytes.
pub async fn what_was_published_before_the_group_comes_to_it_in_order_and_to_the_byte(
    factory: &dyn MessageBusFactory,
) {
    let bus = factory.bus().await;
    let channel = channel("before");
    publish(&*bus, &channel, 0..1_200).await;
    let consumer = join(&*bus, "g", &[channel], LONG).await;
    let mut came = Vec::new();
    while came.len() < 1_200 {
        let taken = take(&*consumer, 100).await;
        assert!(taken.iter().all(|one| one.attempt == 1 && one.tries == 1));
        came.extend(bodies(&taken));
        done(&*consumer, &taken).await;
    }
    assert_eq!(came, (0..1_200).map(body).collect::<Vec<_>>());
}

/// Who publishes more before the bus has said that it has the first has all in order, where nothing goes wrong. A channel that is not there
/// yet is no exception.
pub async fn what_is_published_before_the_last_is_there_comes_after_it(
    factory: &dyn MessageBusFactory,
) {
    let bus = factory.bus().await;
    let channel = channel("in-order");
    for from in [0, 4_000] {
        let mut publishing = FuturesOrdered::new();
        for first in (from..from + 4_000).step_by(500) {
            publishing.push_back(publish(&*bus, &channel, first..first + 500));
            let _begun = poll_immediate(publishing.next()).await;
        }
        while publishing.next().await.is_some() {}
    }
    let consumer = join(&*bus, "g", &[channel], LONG).await;
    for number in (0..8_000).step_by(500) {
        let taken = take(&*consumer, 500).await;
        let expected = (number..number + 500).map(body).collect::<Vec<_>>();
        assert!(bodies(&taken) == expected, "from {number} on");
    }
}

/// The consumers of a group share its messages out; each group has all.
pub async fn each_message_goes_to_one_consumer_of_each_group(factory: &dyn MessageBusFactory) {
    let bus = factory.bus().await;
    let channel = channel("shared");
    let one = join(&*bus, "g", std::slice::from_ref(&channel), LONG).await;
    let two = join(&*bus, "g", std::slice::from_ref(&channel), LONG).await;
    let other = join(&*bus, "h", std::slice::from_ref(&channel), LONG).await;
    publish(&*bus, &channel, 0..40).await;
    let mut came = bodies(&take(&*one, 20).await);
    came.extend(bodies(&take(&*two, 20).await));
    assert_eq!(came.iter().collect::<BTreeSet<_>>().len(), 40);
    nothing(&*one, Duration::from_millis(50)).await;
    let others = bodies(&take(&*other, 40).await);
    assert_eq!(others, (0..40).map(body).collect::<Vec<_>>());
}

/// A consumer has what is on its channels, and a shard is a channel.
pub async fn channels_are_separate(factory: &dyn MessageBusFactory) {
    let bus = factory.bus().await;
    let subject = crate::messaging::Subject::<()>::new("apart");
    let shard = subject
        .shard("eu-1")
        .unwrap_or_else(|error| panic!("{error}"));
    let (whole, shard) = (subject.channel(), shard.channel());
    let of_whole = join(&*bus, "g", std::slice::from_ref(&whole), LONG).await;
    let of_both = join(&*bus, "h", &[whole.clone(), shard.clone()], LONG).await;
    publish(&*bus, &whole, [1]).await;
    publish(&*bus, &shard, [2]).await;
    assert_eq!(bodies(&take(&*of_whole, 1).await), [body(1)]);
    nothing(&*of_whole, Duration::from_millis(50)).await;
    let both = take(&*of_both, 2).await;
    for one in &both {
        let expected = if one.taken.channel == shard { 2 } else { 1 };
        assert_eq!(one.body[..], body(expected));
    }
}

/// A consumer of one channel has no more than it asked for, and leaves the rest to the others.
pub async fn no_more_is_taken_than_was_asked_for(factory: &dyn MessageBusFactory) {
    let bus = factory.bus().await;
    let channel = channel("few");
    publish(&*bus, &channel, 0..10).await;
    let one = join(&*bus, "g", std::slice::from_ref(&channel), LONG).await;
    let two = join(&*bus, "g", &[channel], LONG).await;
    let taken = one.take(3, Duration::from_secs(5)).await;
    assert_eq!(taken.map(|taken| taken.len()).ok(), Some(3));
    assert_eq!(take(&*two, 7).await.len(), 7);
}

/// Nothing is no error.
pub async fn a_wait_for_nothing_ends_in_time(factory: &dyn MessageBusFactory) {
    let bus = factory.bus().await;
    let consumer = join(&*bus, "g", &[channel("quiet")], LONG).await;
    let begun = Instant::now();
    nothing(&*consumer, Duration::from_millis(300)).await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

/// Who waits is woken.
pub async fn a_wait_ends_when_something_comes(factory: &dyn MessageBusFactory) {
    let bus = factory.bus().await;
    let channel = channel("wakes");
    let consumer = join(&*bus, "g", std::slice::from_ref(&channel), LONG).await;
    let begun = Instant::now();
    let waiting = consumer.take(1, Duration::from_secs(60));
    let (taken, ()) = futures_util::join!(waiting, async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        publish(&*bus, &channel, [1]).await;
    });
    assert_eq!(taken.map(|taken| taken.len()).ok(), Some(1));
    assert!(begun.elapsed() < Duration::from_secs(30));
}

/// Whoever drops a call finds what it would have had in the next.
pub async fn a_call_that_is_dropped_loses_nothing(factory: &dyn MessageBusFactory) {
    let bus = factory.bus().await;
    let channel = channel("dropped");
    let consumer = join(&*bus, "g", std::slice::from_ref(&channel), LONG).await;
    let dropped = timeout(
        Duration::from_millis(50),
        consumer.take(10, Duration::from_secs(60)),
    );
    assert!(dropped.await.is_err());
    publish(&*bus, &channel, 0..5).await;
    let taken = take(&*consumer, 5).await;
    assert!(taken.iter().all(|one| one.attempt == 1));
}

/// A message that waits to be tried again does not keep others waiting.
pub async fn what_failed_is_tried_again_when_it_is_due_and_holds_nothing_up(
    factory: &dyn MessageBusFactory,
) {
    let bus = factory.bus().await;
    let channel = channel("again");
    publish(&*bus, &channel, 0..3).await;
    let consumer = join(&*bus, "g", &[channel], LONG).await;
    let taken = take(&*consumer, 3).await;
    let (begun, wait) = (Instant::now(), Duration::from_millis(500));
    settle(&*consumer, &taken[0], again(wait, true)).await;
    done(&*consumer, &taken[1..]).await;
    nothing(&*consumer, Duration::from_millis(100)).await;
    let second = take(&*consumer, 1).await;
    assert!(begun.elapsed() >= wait);
    assert_eq!((second[0].attempt, second[0].tries), (2, 2));
    assert_eq!(bodies(&second), [body(0)]);
    settle(&*consumer, &second[0], again(Duration::ZERO, true)).await;
    assert_eq!(take(&*consumer, 1).await[0].attempt, 3);
}

/// What is not the message's fault is not held against it.
pub async fn a_try_that_does_not_count_is_not_counted(factory: &dyn MessageBusFactory) {
    let bus = factory.bus().await;
    let channel = channel("uncounted");
    publish(&*bus, &channel, [1]).await;
    let consumer = join(&*bus, "g", &[channel], LONG).await;
    for tries in 1..=4 {
        let taken = take(&*consumer, 1).await;
        assert_eq!((taken[0].attempt, taken[0].tries), (1, tries));
        settle(&*consumer, &taken[0], again(Duration::ZERO, false)).await;
    }
}

/// What was settled as done is over, for who comes later too.
pub async fn what_is_done_never_comes_again(factory: &dyn MessageBusFactory) {
    let bus = factory.bus().await;
    let channel = channel("done");
    publish(&*bus, &channel, 0..20).await;
    let idle = super::SHORT;
    let one = join(&*bus, "g", std::slice::from_ref(&channel), idle).await;
    let taken = take(&*one, 20).await;
    done(&*one, &taken).await;
    // Again, as somebody does whose answer was lost.
    done(&*one, &taken).await;
    tend(&*one).await;
    let two = join(&*bus, "g", std::slice::from_ref(&channel), idle).await;
    nothing(&*two, idle * 2).await;
    publish(&*bus, &channel, [20]).await;
    assert_eq!(bodies(&take(&*two, 1).await), [body(20)]);
    close(&*two).await;
    close(&*one).await;
}

/// Dead letters: listed, and tried again by the group that they are of.
pub async fn a_dead_letter_can_be_listed_and_tried_again_by_its_group_alone(
    factory: &dyn MessageBusFactory,
) {
    let bus = factory.bus().await;
    let (channel, g) = (channel("dead"), super::group("g"));
    publish(&*bus, &channel, 0..3).await;
    let consumer = join(&*bus, "g", std::slice::from_ref(&channel), LONG).await;
    let other = join(&*bus, "h", std::slice::from_ref(&channel), LONG).await;
    done(&*other, &take(&*other, 3).await).await;
    for (n, delivery) in take(&*consumer, 3).await.iter().enumerate() {
        let error = format!("no good: {n}");
        let dead = Settlement::Dead {
            error: &error,
            attempts: 5,
        };
        settle(&*consumer, delivery, dead).await;
    }
    let listed = async |after: Option<&_>, limit| {
        let listed = bus.dead_letters(&g, &channel, after, limit).await;
        listed.unwrap_or_else(|error| panic!("{error:?}"))
    };
    let all = listed(None, 10).await;
    assert_eq!(all.len(), 3);
    assert_eq!((&*all[1].error, all[1].attempts), ("no good: 1", 5));
    assert_eq!(all[1].body[..], body(1));
    assert!(all[1].since_ms > 1_600_000_000_000);
    let page = listed(Some(&all[0].entry), 1).await;
    assert_eq!(page[0].entry, all[1].entry);
    let retried = bus.retry_dead(&g, &channel, &all[1].entry).await;
    assert!(retried.is_ok_and(|was_there| was_there));
    let retried = take(&*consumer, 1).await;
    assert_eq!((retried[0].attempt, bodies(&retried)), (1, vec![body(1)]));
    nothing(&*other, Duration::from_millis(300)).await;
    assert_eq!(listed(None, 10).await.len(), 2);
    let retried = bus.retry_dead(&g, &channel, &all[1].entry).await;
    assert!(retried.is_ok_and(|was_there| !was_there));
}

/// Dead letters: thrown away.
pub async fn a_dead_letter_can_be_discarded(factory: &dyn MessageBusFactory) {
    let bus = factory.bus().await;
    let (channel, g) = (channel("discarded"), super::group("g"));
    publish(&*bus, &channel, [1]).await;
    let consumer = join(&*bus, "g", std::slice::from_ref(&channel), LONG).await;
    let dead = Settlement::Dead {
        error: "",
        attempts: 1,
    };
    settle(&*consumer, &take(&*consumer, 1).await[0], dead).await;
    let all = bus.dead_letters(&g, &channel, None, 10).await;
    let entry = all.unwrap_or_default().remove(0).entry;
    for was_there in [true, false] {
        let discarded = bus.discard_dead(&g, &channel, &entry).await;
        assert_eq!(discarded.ok(), Some(was_there));
    }
    nothing(&*consumer, Duration::from_millis(100)).await;
}
