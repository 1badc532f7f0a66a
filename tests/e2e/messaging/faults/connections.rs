//! Connections break, or are slow: what was under way is not lost.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tidelog::messaging::{
    Consumer, Delivery, Group, Inbox, MessageBus, Messaging, NestPatterns, RedisMessageBus,
    Settlement,
};
use tidelog_test_support::{Engine, Server, TcpProxy};
use tokio::time::{Instant, sleep, timeout};

use super::super::{ECHO, NOTE, PATIENCE, ask, at, eventually};

on_each_server!(replies_that_had_come_when_the_server_went_away_are_given_out);

async fn joined(messaging: &Messaging, idle: Duration) -> Arc<dyn Consumer> {
    let (group, channels) = (Group::new("g").unwrap(), [NOTE.channel(), ECHO.channel()]);
    let joined = messaging.bus().join(&group, &channels, idle);
    joined.await.unwrap()
}

/// Takes `count` messages, whatever becomes of the connection.
async fn take(consumer: &dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    let taking = async {
        while all.len() < count {
            let taken = consumer.take(count - all.len(), Duration::from_millis(100));
            all.extend(taken.await.unwrap_or_default());
        }
    };
    timeout(PATIENCE, taking).await.unwrap();
    all
}

/// Receives `count` replies, whatever becomes of the connection.
async fn receive(inbox: &dyn Inbox, count: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let receiving = async {
        while all.len() < count {
            match inbox.next().await {
                Ok(replies) => all.extend(replies),
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let received = timeout(PATIENCE, receiving).await;
    assert!(received.is_ok(), "{} of {count} came", all.len());
    all
}

async fn replies_that_had_come_when_the_server_went_away_are_given_out(engine: Engine) {
    let mut server = Server::start(engine).await;
    let ends = at(server.url(), "app");
    let inbox = ends.one.bus().inbox().await.unwrap();
    let replies = [b"{\"n\":1}".to_vec(), b"{\"n\":2}".to_vec()];
    let answered = ends.one.bus().answer(inbox.address(), &replies).await;
    assert!(answered.unwrap());
    server.kill();
    eventually("it is noticed", async || {
        ends.one.emit(&NOTE, &1).await.is_err()
    })
    .await;
    // It cannot listen anew yet.
    let mut came = inbox.next().await.unwrap_or_default();
    server.restart().await;
    came.extend(receive(&*inbox, 2 - came.len()).await);
    assert_eq!(came, replies);
}

#[tokio::test]
async fn large_replies_in_the_form_of_nestjs_come_on_a_slow_line_too() {
    let server = Server::start(Engine::Redis).await;
    let network = TcpProxy::start(server.port()).await;
    let url = network.url(server.url());
    let bus = RedisMessageBus::for_nestjs(&url, NestPatterns::default()).unwrap();
    let inbox = bus.inbox().await.unwrap();
    let text = format!("\"{}\"", "x".repeat(1_000_000));
    for _ in 0..24 {
        let mut xadd = redis::cmd("XADD");
        xadd.arg(inbox.address()).arg("*").arg("text").arg(&text);
        xadd.arg("x-nestjs-redis-stream-header");
        xadd.arg("{\"correlationId\":\"c\"}");
        let _id: String = ask(server.url(), &xadd).await;
    }
    // All of them at once take longer than a read may.
    network.delay(Duration::from_millis(15));
    receive(&*inbox, 24).await;
}

/// The client hands to its connection some commands at a time, and those that follow when these are through: so it is tried with more and more
/// before the reply, until the reply is the last that this connection has, and what settles the message the first of the next.
#[tokio::test]
async fn a_reply_that_the_network_swallowed_is_sent_again_though_what_follows_it_arrives_on_nats() {
    let server = Server::start(Engine::Nats).await;
    let network = TcpProxy::start(server.port()).await;
    let there = at(server.url(), "app").one;
    let behind = at(&network.url(server.url()), "app").one;
    let inbox = there.bus().inbox().await.unwrap();
    let consumer = joined(&behind, Duration::from_secs(60)).await;
    for before in 8..18 {
        let requested = there.bus().request(&ECHO.channel(), b"{}").await;
        requested.unwrap();
        let taken = take(&*consumer, 1).await.remove(0).taken;
        let reply = vec![b'0' + before; 800_000];
        network.stall();
        let others = vec![reply.clone(); usize::from(before)];
        let bus = Arc::clone(behind.bus());
        let sent_before = async { bus.answer("app.replies.nobody", &others).await };
        let settled = async {
            let done = || Settlement::Done {
                reply: Some((inbox.address(), &reply)),
                remove: true,
            };
            while consumer.settle(&taken, done()).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let broken = async {
            // What it is about to send it has sent, as far as it gets.
            sleep(Duration::from_millis(200)).await;
            network.lead_to(server.port());
            sleep(Duration::from_millis(100)).await;
            network.pass();
        };
        let (_any, (), ()) = futures_util::join!(sent_before, settled, broken);
        loop {
            let came = receive(&*inbox, 1).await;
            // One may come twice: it was on its way when the connection was lost.
            let is_late = |one: &Vec<u8>| one[0] < reply[0];
            assert!(came.iter().all(|one| *one == reply || is_late(one)));
            if came.contains(&reply) {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_consumer_that_throws_much_away_on_a_slow_line_keeps_what_it_holds_on_nats() {
    let server = Server::start(Engine::Nats).await;
    let network = TcpProxy::start(server.port()).await;
    let there = at(server.url(), "app").one;
    let behind = at(&network.url(server.url()), "app").one;
    // What comes before the network is slow has to be done in it.
    let idle = Duration::from_secs(6);
    let numbers: Vec<u64> = (0..5_001).collect();
    there.emit_all(&NOTE, &numbers).await.unwrap();
    let consumer = joined(&behind, idle).await;
    let taken = take(&*consumer, numbers.len()).await;
    let done = || Settlement::Done {
        reply: None,
        remove: false,
    };
    // The last one is held, so that the others are thrown away one by one.
    for some in taken[..5_000].chunks(500) {
        let settled = some.iter().map(|one| consumer.settle(&one.taken, done()));
        for settled in join_all(settled).await {
            settled.unwrap();
        }
    }
    let other = joined(&there, idle).await;
    network.delay(Duration::from_millis(120));
    let begun = Instant::now();
    let tended = async {
        while begun.elapsed() < idle * 4 {
            consumer.tend().await.unwrap();
            sleep(idle / 8).await;
        }
    };
    let watched = async {
        while begun.elapsed() < idle * 4 {
            let taken = other.take(10, Duration::from_millis(100)).await.unwrap();
            assert!(taken.is_empty(), "it was taken from who lives: {taken:?}");
        }
    };
    futures_util::join!(tended, watched);
    consumer.settle(&taken[5_000].taken, done()).await.unwrap();
}
