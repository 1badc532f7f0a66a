//! What Redis has done, though its answer did not come.

use std::time::Duration;

use tidelog::messaging::{Group, MessageBus, RedisMessageBus, Settlement};
use tidelog_test_support::{shared, unique_name};

use super::{NOTE, ask};

#[tokio::test]
async fn a_message_that_is_a_dead_letter_already_does_not_become_another() {
    let url = shared::redis().await.url();
    let bus = RedisMessageBus::new(url, &unique_name()).unwrap();
    let (group, channel) = (Group::new("g").unwrap(), NOTE.channel());
    bus.publish(&channel, &[b"{}".to_vec()]).await.unwrap();
    let idle = Duration::from_secs(60);
    let channels = std::slice::from_ref(&channel);
    let consumer = bus.join(&group, channels, idle).await.unwrap();
    let taken = consumer.take(1, idle).await.unwrap().remove(0).taken;
    // The try whose answer was lost acknowledged it.
    let mut xack = redis::cmd("XACK");
    xack.arg(bus.key(&channel)).arg("g").arg(&*taken.entry);
    assert_eq!(ask::<u32>(url, &xack).await, 1);
    let dead = Settlement::Dead {
        error: "never",
        attempts: 1,
    };
    consumer.settle(&taken, dead).await.unwrap();
    let letters = bus.dead_letters(&group, &channel, None, 9).await.unwrap();
    assert!(letters.is_empty());
}
