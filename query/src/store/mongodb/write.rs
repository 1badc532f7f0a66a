//! Conditional writes: the plain `insert` and `update` commands with many statements, which every server has.
//!
//! The reply to an `update` says how many statements found their document, not which. So that it says which, each one is an
//! upsert that can never insert: what it would insert has another `_id` (`$setOnInsert`) than the one it looked for, and the server
//! refuses that (error 66, "immutable field") for this statement alone, by its number, without a second look. A statement whose
//! condition holds never comes so far. (Even if it did, the other `_id` is a list, which no server stores.) The answer is therefore
//! exact whoever else writes at the same time, and no document is read again.
//!
//! An `insert` reports an `_id` that is taken as error 11000, also by the statement's number.

use std::time::Duration;

use mongodb::bson::raw::{RawArrayBuf, RawDocumentBuf, cstr};
use mongodb::bson::{Document as Bson, rawdoc};
use tidelog_domain::{Partition, Position};

use super::MongoReadStore;
use super::document::{append_state, name, new, signed};
use super::error::{Fault, code};
use super::lane::{Name, Outcome};
use crate::store::storable::unwritable;
use crate::store::{Document, DocumentWrite, ReadError, Written};

/// The most statements in one command.
pub(super) const COMMAND_MAX_STATEMENTS: usize = 1_000;
/// The most bytes in one command, but for a single statement that is larger. The server takes 16 MiB.
pub(super) const COMMAND_MAX_BYTES: usize = 8 << 20;
/// The largest statement. A document may have 16 MiB; a bit is left for what is around it in a command.
const STATEMENT_MAX_BYTES: usize = (16 << 20) - (64 << 10);

/// The two commands that write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Insert,
    Update,
}

/// A statement, and the number of its write in the batch.
struct Statement {
    index: usize,
    bson: RawDocumentBuf,
}

/// Why a statement was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Its condition did not hold.
    Unmet,
    /// Its document can never be stored.
    Unwritable(&'static str),
    /// It could not be done now.
    Unavailable(i32),
}

impl MongoReadStore {
    /// Makes the writes of a batch: inserts and updates side by side, each in as few commands as they fit into.
    pub(super) async fn write_batch(
        &self,
        collection: &str,
        writes: &[DocumentWrite],
    ) -> Result<Vec<Written>, ReadError> {
        let (mut inserts, mut updates) = (Vec::new(), Vec::new());
        for (index, write) in writes.iter().enumerate() {
            let bson = statement(write)?;
            if bson.as_bytes().len() > STATEMENT_MAX_BYTES {
                let reason = "it is larger than MongoDB takes (16 MiB)";
                return Err(unwritable(write.document(), reason));
            }
            let statements = match write {
                DocumentWrite::Insert(_) => &mut inserts,
                DocumentWrite::Replace(_) | DocumentWrite::Advance { .. } => &mut updates,
            };
            statements.push(Statement { index, bson });
        }
        let (inserts, updates) = tokio::try_join!(
            self.run_all(Kind::Insert, collection, inserts),
            self.run_all(Kind::Update, collection, updates)
        )?;
        answer(writes, inserts.into_iter().chain(updates))
    }

    /// Runs the statements, as many at once as fit into a command, and gives the failures.
    async fn run_all(
        &self,
        kind: Kind,
        collection: &str,
        mut statements: Vec<Statement>,
    ) -> Result<Vec<(usize, Failure)>, ReadError> {
        let mut failures = Vec::new();
        while !statements.is_empty() {
            let rest = statements.split_off(fitting(&statements));
            let (indexes, part): (Vec<_>, Vec<_>) = std::mem::replace(&mut statements, rest)
                .into_iter()
                .map(|statement| (statement.index, statement.bson))
                .unzip();
            for (number, failure) in self.run(kind, collection, part).await? {
                // A number that is none of the statements' was turned down with the reply.
                failures.extend(indexes.get(number).map(|index| (*index, failure)));
            }
        }
        Ok(failures)
    }

    /// Sends one command, and gives what became of its statements.
    pub(super) async fn send(&self, name: &Name, statements: Vec<&RawDocumentBuf>) -> Outcome {
        let count = statements.len();
        let statements: RawArrayBuf = statements.into_iter().map(|bson| &**bson).collect();
        let command = command(name, statements, self.timeout);
        let reply = self.bounded(self.database.run_raw_command(command)).await?;
        failures(name.kind, &reply, count)
    }
}

/// How many of the statements, at least one, go into the next command.
fn fitting(statements: &[Statement]) -> usize {
    let mut bytes = 0;
    let fit = statements
        .iter()
        .take(COMMAND_MAX_STATEMENTS)
        .take_while(|statement| {
            bytes += statement.bson.as_bytes().len();
            bytes <= COMMAND_MAX_BYTES
        });
    fit.count().max(1)
}

/// A command. It is unordered, so that a failure concerns its own statement only, and answered when a majority has it in
/// their journals.
fn command(name: &Name, statements: RawArrayBuf, timeout: Duration) -> RawDocumentBuf {
    let (command, list) = match name.kind {
        Kind::Insert => (cstr!("insert"), cstr!("documents")),
        Kind::Update => (cstr!("update"), cstr!("updates")),
    };
    let timeout = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
    let mut bson = RawDocumentBuf::new();
    bson.append(command, &*name.collection);
    bson.append(cstr!("ordered"), false);
    bson.append(
        cstr!("writeConcern"),
        rawdoc! { "w": "majority", "j": true, "wtimeout": timeout },
    );
    bson.append(cstr!("maxTimeMS"), timeout);
    bson.append(list, statements);
    bson
}

/// The statement for a write.
fn statement(write: &DocumentWrite) -> Result<RawDocumentBuf, ReadError> {
    let mut values = RawDocumentBuf::new();
    match write {
        DocumentWrite::Insert(document) => new(document),
        DocumentWrite::Replace(document) => {
            append_state(&mut values, document)?;
            values.append(cstr!("created_at"), document.created_at.timestamp_micros());
            let condition = rawdoc! {
                "_id": document.id.as_str(),
                "revision": signed(document.revision),
            };
            Ok(update(&condition, &values))
        }
        DocumentWrite::Advance {
            document,
            partition,
        } => {
            append_state(&mut values, document)?;
            Ok(update(&is_behind(document, *partition)?, &values))
        }
    }
}

/// An update that says so when its condition does not hold. See the module.
pub(super) fn update(condition: &RawDocumentBuf, values: &RawDocumentBuf) -> RawDocumentBuf {
    let mut change = rawdoc! { "$inc": { "revision": 1_i64 }, "$setOnInsert": { "_id": [] } };
    change.append(cstr!("$set"), values);
    let mut statement = rawdoc! { "upsert": true };
    statement.append(cstr!("q"), condition);
    statement.append(cstr!("u"), change);
    statement
}

/// That what is stored is behind `document` in `partition`. (What has no position there is behind, unless the document
/// has none either.)
fn is_behind(document: &Document, partition: Partition) -> Result<RawDocumentBuf, ReadError> {
    let position = document.applied.get(&partition).unwrap_or(&Position::START);
    let path = format!("applied.{partition}");
    let path = name(&path).map_err(|reason| unwritable(document, reason))?;
    let mut condition = rawdoc! { "_id": document.id.as_str() };
    if *position == Position::START {
        // Nothing is behind the start.
        condition.append(cstr!("revision"), rawdoc! { "$lt": 0_i64 });
    } else {
        let reached = rawdoc! { "$gte": signed(position.number()) };
        condition.append(path, rawdoc! { "$not": reached });
    }
    Ok(condition)
}

/// What a reply says of `count` statements: the numbers of those that were not done, and why.
fn failures(kind: Kind, reply: &Bson, count: usize) -> Outcome {
    if let Ok(error) = reply.get_document("writeConcernError") {
        let code = error.get_i32("code").unwrap_or_default();
        let reported = format!("the writes are not known to be on a majority (code {code})");
        return Err(Fault::Reported(reported));
    }
    let errors = reply
        .get_array("writeErrors")
        .map(Vec::as_slice)
        .unwrap_or_default();
    let failures: Vec<_> = errors
        .iter()
        .filter_map(|error| {
            let error = error.as_document()?;
            let number = usize::try_from(error.get_i32("index").ok()?).ok()?;
            Some((number, failure(kind, error))).filter(|_| number < count)
        })
        .collect();
    let done = reply
        .get_i32("n")
        .ok()
        .and_then(|n| usize::try_from(n).ok());
    if done.map(|done| done + failures.len()) != Some(count) || reply.contains_key("upserted") {
        let reported =
            format!("the reply does not say of each of {count} writes whether it was made");
        return Err(Fault::Reported(reported));
    }
    Ok(failures)
}

/// What the error of one statement means.
fn failure(kind: Kind, error: &Bson) -> Failure {
    let by_id = match error.get_document("keyPattern") {
        Ok(index) => index.contains_key("_id"),
        // Servers before 4.4 do not say which index it was, and views have no other.
        Err(_) => true,
    };
    match (kind, error.get_i32("code").unwrap_or_default()) {
        (Kind::Insert, code::DUPLICATE_KEY) if by_id => Failure::Unmet,
        (Kind::Update, code::IMMUTABLE_FIELD) => Failure::Unmet,
        (_, code::DUPLICATE_KEY) => {
            Failure::Unwritable("another document has its value of a unique index")
        }
        (_, code) if code::UNWRITABLE.contains(&code) => {
            Failure::Unwritable("MongoDB does not store such a document")
        }
        (_, code) => Failure::Unavailable(code),
    }
}

/// The answer to a batch, of which all but `failures` was done.
fn answer(
    writes: &[DocumentWrite],
    failures: impl Iterator<Item = (usize, Failure)>,
) -> Result<Vec<Written>, ReadError> {
    let mut written = vec![Written::Applied; writes.len()];
    let mut unwritable_write = None;
    let mut unavailable = None;
    for (index, failure) in failures {
        match failure {
            Failure::Unmet => {
                if let Some(written) = written.get_mut(index) {
                    *written = Written::Unmet;
                }
            }
            Failure::Unwritable(reason) => {
                let first = unwritable_write.get_or_insert((index, reason));
                *first = (*first).min((index, reason));
            }
            Failure::Unavailable(code) => unavailable = Some(code),
        }
    }
    if let Some((write, reason)) =
        unwritable_write.and_then(|(n, reason)| Some((writes.get(n)?, reason)))
    {
        return Err(unwritable(write.document(), reason));
    }
    match unavailable {
        None => Ok(written),
        Some(code) => {
            Err(Fault::Reported(format!("a write could not be made (code {code})")).into())
        }
    }
}
