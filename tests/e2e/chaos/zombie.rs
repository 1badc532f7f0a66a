//! A process that is stopped (SIGSTOP) in the middle of a write, for longer than its lease lasts.

use std::collections::BTreeMap;
use std::time::Duration;

use tidelog_domain::Partition;
use tidelog_test_support::{Engine, Signal, TcpProxy, shared};

use super::kit::{Ground, Load, SUBSCRIPTIONS, Watcher, Writers, on_each_bus, within};

/// The name of a field that is written: of a document, and of a state record.
const HELD: [&str; 2] = ["applied", "checkpoint"];

/// In each round one of its writes is held on its way, and reaches MongoDB when another process has long taken over, before it goes
/// on itself.
async fn a_process_that_slept_past_its_lease_changes_nothing(bus: Engine) {
    let ground = Ground::fresh(bus).await;
    let proxy = TcpProxy::start(shared::mongodb().await.port()).await;
    let through = proxy.url(&ground.backends.mongodb_url);
    let commands = ground.launch("command");
    let client = commands.ready().await;
    let sleeper = ground.launch_with("eventbus", &[("MONGODB_URL", &through)]);
    sleeper.ready().await;
    let watcher = Watcher::start(&ground).await;
    ground.owned("it to have all partitions", |_| true).await;
    let name = ground.states("sheet").await[0].2.owner.clone();
    let load = Load {
        streams: 64,
        pause: Duration::from_millis(30),
        seed: 0,
    };
    let mut writers = Writers::start(&client, load);
    for held in HELD {
        ground
            .owned("it to have all again", |own| own.owner == name)
            .await;
        writers.write(100).await;
        proxy.stall_at(held.as_bytes()).await;
        sleeper.signal(Signal::Stop);
        let before = epochs(&ground).await;
        let heir = ground.launch("eventbus");
        heir.ready().await;
        ground
            .owned("the heir to have all", |own| own.owner != name)
            .await;
        let after = epochs(&ground).await;
        assert!(before.iter().all(|(place, epoch)| after[place] > *epoch));
        writers.write(200).await;
        proxy.pass();
        writers.write(100).await;
        // Nothing of it is the sleeper's: its write came to nothing.
        assert_eq!(epochs(&ground).await, after);
        sleeper.signal(Signal::Cont);
        for subscription in SUBSCRIPTIONS {
            within("it to take part again", async || {
                let states = ground.states(subscription).await;
                let some = states.iter().any(|(.., own)| own.owner == name);
                some.then_some(())
                    .ok_or(format!("{subscription}: {states:?}"))
            })
            .await;
        }
        writers.write(100).await;
        heir.kill();
    }
    writers.finish().await;
    ground.comes_to_the_fold().await;
    watcher.finish().await;
}

/// The epochs of all partitions.
async fn epochs(ground: &Ground) -> BTreeMap<(&'static str, Partition), u64> {
    let mut epochs = BTreeMap::new();
    for subscription in SUBSCRIPTIONS {
        let states = ground.states(subscription).await;
        epochs.extend(
            states
                .iter()
                .map(|(partition, _, own)| ((subscription, *partition), own.epoch)),
        );
    }
    epochs
}

on_each_bus!(a_process_that_slept_past_its_lease_changes_nothing,);
