//! A stream of events for a loop of a user's own.

use futures_util::{StreamExt, stream};
use serde_json::json;
use tidelog::prelude::EntityEvent;
use tidelog::settings::Settings;
use tidelog::{CommandRequest, EventStream, Start, StreamError};
use tidelog_domain::{Partitions, StreamId};

use super::kit::{Memory, Note, at_any_port, log, notes, on_servers, write};
use crate::services::Backends;

/// The texts of the next notes.
async fn next(stream: &mut EventStream<EntityEvent<Note>>, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        let recorded = stream.next().await.unwrap().unwrap();
        texts.push(recorded.event.after().unwrap().text.clone());
    }
    texts
}

#[tokio::test]
async fn a_stream_goes_on_after_its_token_in_the_next_life() {
    let backends = Backends::fresh().await;
    let start = async || {
        let program = notes(Memory::default().reaction());
        program.start(on_servers(&backends)).await.unwrap()
    };
    let program = start().await;
    for text in ["1", "2", "3"] {
        write(&program, "a", text).await;
    }
    let mut stream = program.events(&Start::Beginning).await.unwrap();
    assert_eq!(next(&mut stream, 2).await, ["1", "2"]);
    // As a user keeps it: as a text.
    let token = stream.token().to_string();
    drop(stream);
    assert!(program.stop().await);

    let program = start().await;
    let from = Start::After(token.parse().unwrap());
    let mut stream = program.events(&from).await.unwrap();
    assert_eq!(next(&mut stream, 1).await, ["3"]);
    write(&program, "a", "4").await;
    assert_eq!(next(&mut stream, 1).await, ["4"]);
    // One that begins now does not get what was before.
    let mut now = program.events(&Start::Now).await.unwrap();
    write(&program, "a", "5").await;
    assert_eq!(next(&mut now, 1).await, ["5"]);
    assert_eq!(next(&mut stream, 1).await, ["5"]);

    log(&backends.database_url)
        .await
        .renew_history()
        .await
        .unwrap();
    let ended = stream.next().await.unwrap();
    assert!(
        matches!(ended, Err(StreamError::HistoryChanged { .. })),
        "{ended:?}"
    );
    let refused = program.events::<EntityEvent<Note>>(&from).await;
    assert!(matches!(refused.err(), Some(StreamError::Start(_))));
    assert!(program.stop().await);
}

/// How many notes the loop reads of each partition: more than a page has.
const NOTES_A_PARTITION: usize = 101;

/// The ids of as many notes of each partition.
fn ids_in_all_partitions() -> Vec<String> {
    let partitions = Partitions::DEFAULT;
    let mut left = vec![NOTES_A_PARTITION; usize::from(partitions.count())];
    let mut ids = Vec::new();
    for n in 0.. {
        let id = format!("n{n}");
        let partition = StreamId::new("note", &id).unwrap().partition(partitions);
        let left_there = &mut left[partition.index()];
        if *left_there > 0 {
            *left_there -= 1;
            ids.push(id);
        }
        if left.iter().all(|left| *left == 0) {
            break;
        }
    }
    ids
}

#[tokio::test]
async fn a_loop_over_the_events_of_a_file_may_command_at_each() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("notes.db");
    let start = async || {
        let settings = at_any_port(Settings::on_file(&file));
        let program = notes(Memory::default().reaction());
        program.start(settings).await.unwrap()
    };
    let ids = ids_in_all_partitions();
    let program = start().await;
    let writing = stream::iter(&ids).map(|id| write(&program, id, "new"));
    writing.buffer_unordered(64).collect::<()>().await;
    assert!(program.stop().await);

    // In the next life no note is known by heart: each command has to read.
    let program = start().await;
    let mut events = program
        .events::<EntityEvent<Note>>(&Start::Beginning)
        .await
        .unwrap();
    let mut seen = 0;
    while seen < ids.len() {
        let recorded = events.next().await.unwrap().unwrap();
        if recorded.event.after().unwrap().text == "new" {
            seen += 1;
            let patch = CommandRequest::new("note", "patch", json!({"text": "seen"}));
            let patch = patch.to(&recorded.stream_id);
            program.client().execute(patch).await.unwrap();
        }
    }
    assert!(program.stop().await);
}
