//! Consumers that die, that stand still, and that leave.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{
    LONG, MessageBusFactory, SHORT, again, bodies, body, channel, close, done, join, nothing,
    publish, settle, take, tend,
};
use crate::messaging::bus::Settlement;

/// The bound passes without life, and another has it: the try counts.
pub async fn what_a_dead_consumer_held_goes_to_another_as_its_next_try(
    factory: &dyn MessageBusFactory,
) {
    let bus = factory.bus().await;
    let channel = channel("died");
    publish(&*bus, &channel, 0..5).await;
    let dead = join(&*bus, "g", std::slice::from_ref(&channel), SHORT).await;
    let held = take(&*dead, 5).await;
    done(&*dead, &held[..2]).await;
    drop(dead);
    let other = join(&*bus, "g", &[channel], SHORT).await;
    let taken = take(&*other, 3).await;
    assert!(taken.iter().all(|one| one.attempt == 2));
    let mut came = bodies(&taken);
    came.sort();
    assert_eq!(came, (2..5).map(body).collect::<Vec<_>>());
}

/// Who shows life keeps it, for many times the bound.
pub async fn what_a_living_consumer_holds_stays_with_it(factory: &dyn MessageBusFactory) {
    let bus = factory.bus().await;
    let channel = channel("lives");
    publish(&*bus, &channel, 0..2).await;
    let idle = Duration::from_secs(2);
    let alive = join(&*bus, "g", std::slice::from_ref(&channel), idle).await;
    let held = take(&*alive, 2).await;
    let later = again(idle * 10, true);
    settle(&*alive, &held[1], later).await;
    let other = join(&*bus, "g", &[channel], idle).await;
    let begun = Instant::now();
    while begun.elapsed() < idle * 3 {
        tend(&*alive).await;
        nothing(&*other, Duration::from_millis(100)).await;
    }
    done(&*alive, &held[..1]).await;
}

/// A message that waits for its next try is as safe as one that is handled.
pub async fn what_waits_at_a_dead_consumer_is_not_lost(factory: &dyn MessageBusFactory) {
    let bus = factory.bus().await;
    let channel = channel("waited");
    publish(&*bus, &channel, [1]).await;
    let dead = join(&*bus, "g", std::slice::from_ref(&channel), SHORT).await;
    let held = take(&*dead, 1).await;
    settle(&*dead, &held[0], again(Duration::from_secs(3_600), true)).await;
    drop(dead);
    let other = join(&*bus, "g", &[channel], SHORT).await;
    assert_eq!(take(&*other, 1).await[0].attempt, 2);
}

/// Who leaves gives back what he holds: others have it long before the bound has passed.
pub async fn what_is_held_at_the_end_goes_back_at_once_and_uncounted(
    factory: &dyn MessageBusFactory,
) {
    let bus = factory.bus().await;
    let channel = channel("left");
    publish(&*bus, &channel, 0..3).await;
    let leaves = join(&*bus, "g", std::slice::from_ref(&channel), LONG).await;
    let held = take(&*leaves, 3).await;
    done(&*leaves, &held[..1]).await;
    settle(&*leaves, &held[1], again(LONG, true)).await;
    close(&*leaves).await;
    let other = join(&*bus, "g", &[channel], LONG).await;
    let mut taken = take(&*other, 2).await;
    taken.sort_by_key(|one| one.body.to_vec());
    assert_eq!(bodies(&taken), [body(1), body(2)]);
    assert_eq!((taken[0].attempt, taken[1].attempt), (2, 1));
}

/// Who takes no more ends what it is at, and the others have the rest meanwhile.
pub async fn who_stops_keeps_what_it_is_at_and_gives_back_the_rest_at_once(
    factory: &dyn MessageBusFactory,
) {
    let bus = factory.bus().await;
    let both = [channel("stops"), channel("beside")];
    publish(&*bus, &both[0], 0..4).await;
    publish(&*bus, &both[1], 4..6).await;
    let stops = join(&*bus, "g", &both, LONG).await;
    let held = take(&*stops, 3).await;
    settle(&*stops, &held[1], again(LONG, true)).await;
    let unbegun: Vec<_> = held[2..].iter().map(|one| one.taken.clone()).collect();
    let stopped = stops.stop_taking(&unbegun).await;
    stopped.unwrap_or_else(|error| panic!("{error:?}"));
    let other = join(&*bus, "g", &both, LONG).await;
    let rest = take(&*other, 5).await;
    for one in &rest {
        let tries = if one.body == held[1].body { 2 } else { 1 };
        assert_eq!(one.attempt, tries, "{one:?}");
        assert_ne!(one.body, held[0].body);
    }
    tend(&*stops).await;
    done(&*stops, &held[..1]).await;
    done(&*other, &rest).await;
    nothing(&*other, Duration::from_millis(50)).await;
    close(&*stops).await;
    nothing(&*other, Duration::from_millis(50)).await;
}

/// Somebody who stood still, and comes back, ends nothing that another is at, and takes nothing from it.
pub async fn who_was_away_too_long_takes_nothing_back(factory: &dyn MessageBusFactory) {
    let bus = factory.bus().await;
    let channel = channel("away");
    publish(&*bus, &channel, 0..2).await;
    let away = join(&*bus, "g", std::slice::from_ref(&channel), SHORT).await;
    let held = take(&*away, 2).await;
    let other = join(&*bus, "g", std::slice::from_ref(&channel), SHORT).await;
    let taken = take(&*other, 2).await;
    tend(&*away).await;
    settle(&*away, &held[0], again(Duration::ZERO, true)).await;
    let dead = Settlement::Dead {
        error: "",
        attempts: 1,
    };
    settle(&*away, &held[1], dead).await;
    nothing(&*away, Duration::from_millis(50)).await;
    let letters = bus
        .dead_letters(&super::group("g"), &channel, None, 9)
        .await;
    assert_eq!(letters.map(|letters| letters.len()).ok(), Some(0));
    done(&*other, &taken).await;
    close(&*away).await;
    close(&*other).await;
    let last = join(&*bus, "g", &[channel], SHORT).await;
    nothing(&*last, SHORT * 2).await;
    drop(Arc::clone(&last));
}

/// What came to a consumer that stood still meanwhile is another's: it is not handed out when that one goes on.
pub async fn what_came_to_who_stood_still_is_handled_by_another_alone(
    factory: &dyn MessageBusFactory,
) {
    let bus = factory.bus().await;
    let channel = channel("still");
    let idle = Duration::from_secs(2);
    let away = join(&*bus, "g", std::slice::from_ref(&channel), idle).await;
    let waits = away.take(10, Duration::from_secs(60));
    assert!(timeout(Duration::from_millis(50), waits).await.is_err());
    // Its wait may go on without it.
    publish(&*bus, &channel, 0..3).await;
    tokio::time::sleep(idle).await;
    let other = join(&*bus, "g", &[channel], idle).await;
    let taken = take(&*other, 3).await;
    tend(&*other).await;
    nothing(&*away, Duration::from_millis(50)).await;
    tend(&*away).await;
    nothing(&*away, Duration::from_millis(50)).await;
    done(&*other, &taken).await;
}

/// A message that waits to be tried again goes to another when its consumer is away, and stays there when it is back.
pub async fn what_was_put_off_is_not_taken_from_its_new_owner(factory: &dyn MessageBusFactory) {
    let bus = factory.bus().await;
    let channel = channel("put-off");
    publish(&*bus, &channel, [1]).await;
    let idle = Duration::from_secs(2);
    let away = join(&*bus, "g", std::slice::from_ref(&channel), idle).await;
    let held = take(&*away, 1).await;
    let due = Instant::now() + idle * 2;
    settle(&*away, &held[0], again(idle * 2, true)).await;
    let other = join(&*bus, "g", &[channel], idle).await;
    let taken = take(&*other, 1).await;
    while Instant::now() < due {
        tend(&*other).await;
        tokio::time::sleep(idle / 20).await;
    }
    tend(&*other).await;
    nothing(&*away, Duration::from_millis(50)).await;
    tend(&*away).await;
    nothing(&*away, Duration::from_millis(50)).await;
    done(&*other, &taken).await;
}

/// Who has room for one message at a time has the next as soon as that is done.
pub async fn what_was_given_back_is_taken_at_once_by_who_has_little_room(
    factory: &dyn MessageBusFactory,
) {
    let bus = factory.bus().await;
    let channel = channel("trickle");
    publish(&*bus, &channel, 0..20).await;
    let leaves = join(&*bus, "g", std::slice::from_ref(&channel), LONG).await;
    take(&*leaves, 20).await;
    close(&*leaves).await;
    let other = join(&*bus, "g", &[channel], LONG).await;
    let begun = Instant::now();
    for _ in 0..20 {
        let taken = take(&*other, 1).await;
        done(&*other, &taken).await;
    }
    assert!(begun.elapsed() < LONG / 4, "{:?}", begun.elapsed());
}
