//! A stream of events for a loop of a user's own.

use futures_util::StreamExt;
use tidelog::prelude::EntityEvent;
use tidelog::{EventStream, Start, StreamError};

use super::kit::{Memory, Note, log, notes, on_servers, write};
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
