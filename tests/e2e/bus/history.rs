//! The log went back in time, or has another history: it is noticed, and nothing goes on by mistake.

use std::sync::Arc;

use tidelog_domain::{HistoryId, Partition};
use tidelog_eventbus::{
    EventBus, InProcessEventBus, PartitionState, RedisEventBus, SubscriptionEnd,
};
use tidelog_test_support::{shared, unique_name};

use super::kit::{
    Consumer, Log, Recorder, States, begun_relay, eventually, partitions, quick, records,
    stream_in, within_patience,
};

const P0: Partition = Partition::new(0);

async fn redis() -> Arc<dyn EventBus> {
    Arc::new(RedisEventBus::new(shared::redis().await.url(), &unique_name()).unwrap())
}

#[tokio::test]
async fn a_restored_log_stops_the_subscription_until_it_has_a_new_history() {
    // Behind the subscription, level with it and beyond it.
    for rewritten in [0, 6, 20] {
        let (log, backup, states) = (Log::new(), Log::new(), States::new());
        let (bus, handler) = (redis().await, Recorder::new());
        let _relay = begun_relay(&log, &bus, true).await;
        let consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, quick());
        log.append_to(&stream_in(P0), 10).await;
        handler.has_all_of(&log).await;
        backup.append_to(&stream_in(P0), 4 + rewritten).await;
        log.restore(&backup);
        if rewritten == 6 {
            // Level to the event, between two looks: the next event tells.
            log.append_to(&stream_in(P0), 1).await;
        }
        let diverged = |state: &PartitionState| matches!(state, PartitionState::Diverged { partition, .. } if *partition == P0);
        consumer.state(P0, diverged).await;
        assert_eq!(handler.count(), 10, "nothing of the other log was handled");

        log.renew_history();
        let ended = within_patience("it ends", consumer.subscription.task).await;
        assert_eq!(ended.unwrap(), SubscriptionEnd::HistoryChanged);
    }
}

#[tokio::test]
async fn a_new_history_ends_a_running_subscription_and_one_with_a_new_state_gets_all() {
    let (log, states, bus) = (Log::new(), States::new(), redis().await);
    let (_relay, relay) = begun_relay(&log, &bus, true).await;
    let handler = Recorder::new();
    let consumer = Consumer::start("a", &log, &bus, states.clone(), &handler, quick());
    log.append(200).await;
    handler.has_all_of(&log).await;
    let old = log.history();
    let new = log.renew_history();
    let ended = within_patience("it ends", consumer.subscription.task).await;
    assert_eq!(ended.unwrap(), SubscriptionEnd::HistoryChanged);
    for (_, record) in records(&*states).await.values() {
        assert_eq!(record.checkpoint.history, old);
    }

    // The old state is refused at once; a new one begins at the start, and the relay brings it what comes.
    let again = Consumer::start("b", &log, &bus, states, &handler, quick());
    let ended = within_patience("it ends", again.subscription.task).await;
    assert_eq!(ended.unwrap(), SubscriptionEnd::HistoryChanged);
    let fresh = Recorder::new();
    let rebuilt = Consumer::start("c", &log, &bus, States::new(), &fresh, quick());
    eventually("the relay has the new history", || async {
        relay.history() == Some(new) && relay.is_well()
    })
    .await;
    log.append(200).await;
    fresh.has_all_of(&log).await;
    rebuilt.is_live(&log).await;
}

#[tokio::test]
async fn a_shorter_log_with_a_new_history_leaves_no_false_heads_behind() {
    // The process of the command service goes on: its signal has told of positions that are no more.
    let (log, backup) = (Log::new(), Log::new());
    let bus: Arc<dyn EventBus> = Arc::new(InProcessEventBus::new());
    let (_relay, relay) = begun_relay(&log, &bus, true).await;
    let handler = Recorder::new();
    let consumer = Consumer::start("a", &log, &bus, States::new(), &handler, quick());
    log.append_to(&stream_in(P0), 10).await;
    handler.has_all_of(&log).await;
    backup.append_to(&stream_in(P0), 4).await;
    log.restore(&backup);
    let new: HistoryId = log.renew_history();
    within_patience("it ends", consumer.subscription.task)
        .await
        .unwrap();

    let fresh = Recorder::new();
    let (tail, states) = (consumer.tail.clone(), States::new());
    let rebuilt = Consumer::beside(tail, "b", &log, states, &fresh, quick());
    fresh.has_all_of(&log).await;
    log.append_to(&stream_in(P0), 1).await;
    fresh.has_all_of(&log).await;
    eventually("nothing counts as missing", || async {
        relay.history() == Some(new)
            && relay.partitions().iter().all(|p| p.lag() == 0)
            && rebuilt.status.lag() == 0
    })
    .await;
    for (partition, status) in partitions().iter().zip(rebuilt.status.partitions()) {
        assert_eq!(status.head, log.heads().await[partition.index()]);
    }
    rebuilt.subscription.stop().await;
}
