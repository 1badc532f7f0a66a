//! An older copy of the data is put back under running programs: cursors and appenders notice, and nothing is done on what
//! is not there any more, until an operator gives the log a new history.

use tidelog_command::store::{AppendError, EventStore, MySqlEventStore};
use tidelog_domain::{Cursor, ExpectedVersion, RecordedEvent, StreamId};
use tidelog_eventbus::{LogError, LogReader, Retry};
use tidelog_test_support::{Engine, Server};

use crate::store::kit::{
    append_one, connect, exact, grow, ids, partition_of, stream, whole_log, write,
};

/// A server whose data went back: the stream has 2 events in the copy, and had 5.
struct Restored {
    server: Server,
    stream: StreamId,
    /// A program that wrote all five, and knows the stream's version.
    store: MySqlEventStore,
    /// A program that read all five, and has to ask for the version.
    reader: MySqlEventStore,
    /// A reader's cursor at the fifth.
    ahead: Cursor,
    /// A reader's cursor at the second.
    behind: Cursor,
}

impl Restored {
    async fn on(engine: Engine) -> Self {
        let mut server = Server::start(engine).await;
        let stream = stream("thing");
        let store = connect(server.url()).await;
        grow(&store, &stream, 2).await;
        let behind = last(&store, &stream).await.cursor();
        let snapshot = server.snapshot().await;
        grow(&store, &stream, 3).await;
        let ahead = last(&store, &stream).await.cursor();
        let reader = connect(server.url()).await;
        assert_eq!(whole_log(&reader).await.len(), 5);
        server.restore(&snapshot).await;
        Self {
            server,
            stream,
            store,
            reader,
            ahead,
            behind,
        }
    }

    /// Asserts that a reader at `cursor` is told that the log went back.
    async fn assert_diverged(&self, cursor: Cursor) {
        let partition = partition_of(&self.stream);
        match self.store.read(partition, cursor, 10).await {
            Err(LogError::Diverged {
                partition: at,
                position,
            }) => assert_eq!((at, position), (partition, cursor.position)),
            other => panic!("expected {cursor:?} to be noticed, got {other:?}"),
        }
    }
}

/// The last event of `stream`.
async fn last(store: &dyn EventStore, stream: &StreamId) -> RecordedEvent {
    let events = whole_log(store).await;
    let mut events = events.into_iter().rev();
    events.find(|event| &event.stream == stream).unwrap()
}

/// Asserts that an append is turned down because the log went back.
async fn assert_refused(store: &dyn EventStore, stream: &StreamId, expected: ExpectedVersion) {
    match append_one(store, write(stream, expected, 1)).await {
        Err(error @ AppendError::Diverged) => assert_eq!(error.retry(), Retry::Never),
        other => panic!("expected the append to be refused, got {other:?}"),
    }
}

async fn a_log_that_went_back_is_noticed(engine: Engine) {
    let restored = Restored::on(engine).await;
    let (store, stream) = (&restored.store, &restored.stream);
    // The log is shorter than what was seen.
    restored.assert_diverged(restored.ahead).await;
    for expected in [exact(5), exact(2), ExpectedVersion::Any] {
        assert_refused(store, stream, expected).await;
    }
    // Else this would be a conflict with a version that is not the stream's.
    assert_refused(&restored.reader, stream, exact(5)).await;
    // A program that knows nothing of it issues the positions again, past what was seen.
    let fresh = connect(restored.server.url()).await;
    for version in 2..9 {
        append_one(&fresh, write(stream, exact(version), 1))
            .await
            .unwrap();
    }
    assert!(last(&fresh, stream).await.position > restored.ahead.position);
    restored.assert_diverged(restored.ahead).await;
    assert_refused(store, stream, exact(9)).await;
    // A reader that was not past the copy's end goes on.
    let rest = store.read(partition_of(stream), restored.behind, 10).await;
    assert_eq!(rest.unwrap().len(), 7);
    assert_eq!(whole_log(&fresh).await.len(), 9);

    // The operator says so: a new history, in which the program may write again.
    let before = store.identity().await.unwrap().history;
    let renewed = fresh.renew_history().await.unwrap();
    assert_ne!(renewed, before);
    assert_eq!(store.identity().await.unwrap().history, renewed);
    let append = write(stream, exact(9), 1);
    append_one(store, append.clone()).await.unwrap();
    assert_eq!(last(&fresh, stream).await.id, ids(&append)[0]);
}

#[tokio::test]
async fn an_older_copy_of_the_data_is_noticed_by_cursors_and_appenders() {
    a_log_that_went_back_is_noticed(Engine::MySql).await;
}

#[tokio::test]
async fn an_older_copy_of_the_data_is_noticed_by_cursors_and_appenders_on_mariadb() {
    a_log_that_went_back_is_noticed(Engine::MariaDb).await;
}

#[tokio::test]
async fn a_program_that_was_idle_while_the_log_got_a_new_history_goes_on_in_it_on_mariadb() {
    let restored = Restored::on(Engine::MariaDb).await;
    let (store, stream) = (&restored.store, &restored.stream);
    let fresh = connect(restored.server.url()).await;
    fresh.renew_history().await.unwrap();
    // What it knew is of another history: it asks anew, and finds the version.
    match append_one(store, write(stream, exact(5), 1)).await {
        Err(AppendError::Conflict { actual, .. }) => assert_eq!(actual.number(), 2),
        other => panic!("expected a conflict, got {other:?}"),
    }
    append_one(store, write(stream, exact(2), 1)).await.unwrap();
    assert_eq!(whole_log(&fresh).await.len(), 3);
}
