//! A process that is killed between two writes that belong together.

use tidelog_domain::Position;
use tidelog_eventbus::{ParkedSequence, ParkedState};
use tidelog_test_support::{Engine, TcpProxy, shared};

use super::kit::{Expected, Ground, POISON, Watcher, add, begin, on_each_bus, within};
use crate::client::Client;
use crate::view::View;

/// How many events there are before.
const BEFORE: i64 = 20;

/// The bytes of a state record that has come to `position`: no document has a field of that name.
fn at(position: i64) -> Vec<u8> {
    [b"\x12position\0", position.to_le_bytes().as_slice()].concat()
}

fn groups(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Writes [`BEFORE`] events to the stream `a`, which is alone in the log, and waits until they are projected.
async fn write_some(ground: &Ground, client: &Client) {
    begin(client, "a", &groups(&["g0"])).await;
    for number in 1..BEFORE {
        add(client, "a", number.unsigned_abs(), &groups(&["g0"])).await;
    }
    ground.comes_to_the_fold().await;
}

/// How many events the documents of the two views have.
async fn applied(ground: &Ground) -> [i64; 2] {
    let view = View::on(&ground.backends).await;
    [
        view.documents("sheet").await["a"].version,
        view.documents("club").await["g0"].version,
    ]
}

async fn what_was_done_when_a_process_was_killed_before_its_checkpoint_is_not_done_again(
    bus: Engine,
) {
    let ground = Ground::fresh(bus).await;
    let proxy = TcpProxy::start(shared::mongodb().await.port()).await;
    let through = proxy.url(&ground.backends.mongodb_url);
    let commands = ground.launch("command");
    let client = commands.ready().await;
    let killed = ground.launch_with("eventbus", &[("MONGODB_URL", &through)]);
    let watcher = Watcher::start(&ground).await;
    write_some(&ground, &client).await;

    let held = proxy.stall_at(&at(BEFORE + 1));
    add(&client, "a", 7, &groups(&["g0"])).await;
    held.await;
    killed.kill();
    let done = applied(&ground).await;
    assert!(
        done.contains(&(BEFORE + 1)),
        "no document was written: {done:?}"
    );
    for view in ["sheet", "club"] {
        let states = ground.states(view).await;
        let furthest = states
            .iter()
            .map(|(.., own)| own.checkpoint.cursor.position);
        assert_eq!(furthest.max(), Some(Position::new(BEFORE.unsigned_abs())));
    }

    let heir = ground.launch("eventbus");
    ground.comes_to_the_fold().await;
    assert_eq!(applied(&ground).await, [BEFORE + 1; 2]);
    // What the dead one had on its way arrives after all.
    proxy.pass();
    add(&client, "a", 8, &groups(&["g0"])).await;
    ground.comes_to_the_fold().await;
    assert_eq!(applied(&ground).await, [BEFORE + 2; 2]);
    watcher.finish().await;
    heir.kill();
}

/// What is set aside in `club`.
async fn parked(ground: &Ground) -> Vec<ParkedSequence> {
    let states = ground.states("club").await.into_iter();
    states
        .flat_map(|(.., own)| own.parked.iter().cloned().collect::<Vec<_>>())
        .collect()
}

async fn a_sequence_is_parked_once_although_its_owner_was_killed_before_that_was_written(
    bus: Engine,
) {
    killed_while_parking(bus, true).await;
}

async fn a_sequence_is_parked_once_although_its_owner_was_killed_before_it_knew(bus: Engine) {
    killed_while_parking(bus, false).await;
}

/// Killed while the write that sets a sequence aside is on its way, or when it has arrived and the answer has not.
async fn killed_while_parking(bus: Engine, is_on_its_way: bool) {
    let ground = Ground::fresh(bus).await;
    let poisoned = ground.poisoned("club");
    let proxy = TcpProxy::start(shared::mongodb().await.port()).await;
    let through = proxy.url(&ground.backends.mongodb_url);
    let commands = ground.launch("command");
    let client = commands.ready().await;
    let killed = poisoned.launch_with("eventbus", &[("MONGODB_URL", &through)]);
    let watcher = Watcher::start(&ground).await;
    write_some(&ground, &client).await;

    let error = b"this is poison";
    let (held, lost);
    if is_on_its_way {
        held = proxy.stall_at(error);
        add(&client, "a", POISON, &groups(&["g0"])).await;
        held.await;
    } else {
        lost = proxy.lose_answer_to(error);
        add(&client, "a", POISON, &groups(&["g0"])).await;
        lost.await;
    }
    killed.kill();
    assert_eq!(parked(&ground).await.is_empty(), is_on_its_way);
    // One that has to wait behind it, with another document; and one that has not.
    add(&client, "a", 1, &groups(&["g0", "g1"])).await;
    add(&client, "a", 2, &groups(&["g2"])).await;

    let heir = poisoned.launch("eventbus");
    let set_aside = within("the sequence to be parked", async || {
        let parked = parked(&ground).await;
        let is_parked = parked
            .first()
            .is_some_and(|own| own.state == ParkedState::Parked);
        is_parked
            .then_some(parked.clone())
            .ok_or(format!("{parked:?}"))
    })
    .await;
    proxy.pass();
    let places = |parked: &[ParkedSequence]| {
        let places = parked
            .iter()
            .map(|own| (own.sequence.clone(), own.first.number()));
        places.collect::<Vec<_>>()
    };
    let poison = BEFORE.unsigned_abs() + 1;
    let expected = [("g0".to_owned(), poison), ("g1".to_owned(), poison + 1)];
    assert_eq!(places(&set_aside), expected);
    let rows = ground.rows().await;
    let held_up = |row: &crate::log::Row, key: &str| match key {
        "g0" | "g1" => row.position < BEFORE + 1,
        _ => true,
    };
    let expected_now = Expected::of(&rows, held_up);
    within("the others to go on", async || {
        expected_now.compare(&ground).await
    })
    .await;
    assert_eq!(places(&parked(&ground).await), expected);

    heir.kill();
    let mended = ground.launch("eventbus");
    let asked = ground.operations("club").await.retry_all().await.unwrap();
    assert_eq!(asked.len(), 1);
    ground.comes_to_the_fold().await;
    watcher.finish().await;
    mended.kill();
}

on_each_bus!(
    what_was_done_when_a_process_was_killed_before_its_checkpoint_is_not_done_again,
    a_sequence_is_parked_once_although_its_owner_was_killed_before_that_was_written,
    a_sequence_is_parked_once_although_its_owner_was_killed_before_it_knew,
);
