//! One collection: a tantivy index of its documents, and a file of its state records.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tantivy::collector::TopDocs;
use tantivy::directory::MmapDirectory;
use tantivy::indexer::IndexWriterOptions;
use tantivy::query::{QueryParser, QueryParserError};
use tantivy::schema::{Field, IndexRecordOption, STORED, STRING, Schema, TEXT, Value as _};
use tantivy::{
    DocAddress, DocSet, Index, IndexReader, IndexWriter, ReloadPolicy, Searcher, TERMINATED,
    TantivyDocument, Term,
};
use tidelog::read_store::{
    Document, DocumentWrite, Partition, Query, ReadError, StateRecord, Written, matches, page,
};

use crate::durable;
use crate::index::{locked, unavailable, understood};
use crate::stored;

/// How long a query may read. A little less than a reader waits.
const PATIENCE: Duration = Duration::from_millis(4_500);

/// Why a search has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// What is searched for cannot be understood.
    #[error("what is searched for cannot be understood")]
    Text(#[from] QueryParserError),
    /// The view has not been built yet.
    #[error("the view has not been built yet")]
    NotBuilt,
    /// The index cannot be read.
    #[error(transparent)]
    Store(#[from] ReadError),
}

/// A version of a view.
pub(crate) struct Collection {
    directory: PathBuf,
    fields: Fields,
    index: Index,
    reader: IndexReader,
    /// While there is a writer, the reader sees its last commit.
    writer: Mutex<Option<IndexWriter>>,
    /// Changes of state records are made one by one.
    states: Mutex<()>,
    /// It has been dropped: nothing is written any more.
    is_gone: AtomicBool,
}

/// What is known of a document in the index.
#[derive(Clone, Copy)]
struct Fields {
    /// Its id, as it is.
    id: Field,
    /// The words of all texts in its data, unless it is deleted.
    text: Field,
    /// All of it.
    body: Field,
}

impl Collection {
    /// The collection in `directory`, which is made if it is not there.
    pub(crate) fn open(directory: &Path) -> Result<Self, ReadError> {
        let place = directory.join("index");
        durable::make_directory(directory).map_err(unavailable)?;
        durable::make_directory(&place).map_err(unavailable)?;
        let mut schema = Schema::builder();
        let fields = Fields {
            id: schema.add_text_field("id", STRING),
            text: schema.add_text_field("text", TEXT),
            body: schema.add_bytes_field("body", STORED),
        };
        let files = MmapDirectory::open(&place).map_err(unavailable)?;
        let index = Index::open_or_create(files, schema.build()).map_err(unavailable)?;
        durable::sync(&place).map_err(unavailable)?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual);
        Ok(Self {
            directory: directory.to_owned(),
            fields,
            reader: reader.try_into().map_err(unavailable)?,
            index,
            writer: Mutex::default(),
            states: Mutex::default(),
            is_gone: AtomicBool::new(false),
        })
    }

    /// From its return on nothing is written any more, also not by who has this already.
    pub(crate) fn close(&self) {
        self.is_gone.store(true, Ordering::SeqCst);
        *locked(&self.writer) = None;
        drop(locked(&self.states));
    }

    /// That it has not been dropped: to be asked under the lock of what is written.
    fn is_there(&self) -> Result<(), ReadError> {
        if self.is_gone.load(Ordering::SeqCst) {
            return Err(unavailable("the collection was just dropped"));
        }
        Ok(())
    }

    pub(crate) fn get(&self, ids: &[String]) -> Result<Vec<Document>, ReadError> {
        let searcher = self.reader.searcher();
        let mut ids: Vec<_> = ids.iter().collect();
        ids.sort_unstable();
        ids.dedup();
        let found = ids.into_iter().map(|id| self.document(&searcher, id));
        found.filter_map(Result::transpose).collect()
    }

    /// Makes those of `writes` whose conditions hold, all by one commit.
    pub(crate) fn write(&self, writes: &[DocumentWrite]) -> Result<Vec<Written>, ReadError> {
        let mut writer = locked(&self.writer);
        let written = self.write_with(&mut writer, writes);
        if written.is_err() {
            // What it has and has not committed goes with it.
            *writer = None;
        }
        written
    }

    fn write_with(
        &self,
        writer: &mut Option<IndexWriter>,
        writes: &[DocumentWrite],
    ) -> Result<Vec<Written>, ReadError> {
        let writer = self.opened(writer)?;
        let searcher = self.reader.searcher();
        let mut written = Vec::with_capacity(writes.len());
        for write in writes {
            let stored = self.document(&searcher, &write.document().id)?;
            written.push(match write.applied_to(stored.as_ref()) {
                Some(document) => {
                    writer.delete_term(self.id(&document.id));
                    let added = writer.add_document(self.indexed(&document)?);
                    added.map_err(unavailable)?;
                    Written::Applied
                }
                None => Written::Unmet,
            });
        }
        if written.contains(&Written::Applied) {
            writer.commit().map_err(unavailable)?;
            durable::sync(&self.directory.join("index")).map_err(unavailable)?;
            self.reader.reload().map_err(unavailable)?;
        }
        Ok(written)
    }

    fn opened<'w>(
        &self,
        writer: &'w mut Option<IndexWriter>,
    ) -> Result<&'w mut IndexWriter, ReadError> {
        self.is_there()?;
        match writer {
            Some(open) => Ok(open),
            none => {
                // One thread: a batch is small, and its commit is what takes time.
                let options = IndexWriterOptions::builder().num_merge_threads(1).build();
                let opened = self.index.writer_with_options(options);
                let opened = none.insert(opened.map_err(unavailable)?);
                // A commit of the one before that failed may have been made.
                self.reader.reload().map_err(unavailable)?;
                Ok(opened)
            }
        }
    }

    pub(crate) fn find(&self, query: &Query) -> Result<Vec<Document>, ReadError> {
        self.scan(|documents| page(documents, query))
    }

    pub(crate) fn count(&self, query: &Query) -> Result<u64, ReadError> {
        let fits = |document: &Document| {
            (query.deleted || !document.deleted) && matches(document, &query.filter)
        };
        let count = self.scan(|documents| documents.filter(fits).count())?;
        Ok(u64::try_from(count).unwrap_or(u64::MAX))
    }

    /// The documents that fit `text` best, the best first.
    pub(crate) fn search(&self, text: &str, limit: usize) -> Result<Vec<Document>, SearchError> {
        let mut parser = QueryParser::for_index(&self.index, vec![self.fields.text]);
        parser.set_conjunction_by_default();
        let query = parser.parse_query(text)?;
        let searcher = self.reader.searcher();
        let best = TopDocs::with_limit(limit).order_by_score();
        let hits = searcher.search(&query, &best).map_err(unavailable)?;
        let hits = hits.into_iter().map(|(_, address)| {
            let found = searcher.doc(address).map_err(unavailable)?;
            Ok(stored(&found, self.fields.body)?)
        });
        hits.collect()
    }

    /// What `look` sees in all documents, tombstones included, in no order.
    fn scan<T>(
        &self,
        look: impl FnOnce(&mut dyn Iterator<Item = Document>) -> T,
    ) -> Result<T, ReadError> {
        let deadline = Instant::now() + PATIENCE;
        let searcher = self.reader.searcher();
        let segments = searcher.segment_readers().iter();
        let stores = segments.map(|own| Ok((own.get_store_reader(1)?, own.alive_bitset())));
        let stores: io::Result<Vec<_>> = stores.collect();
        let stores = stores.map_err(unavailable)?;
        let all = stores.iter().flat_map(|(store, alive)| store.iter(*alive));
        let mut failed = Ok(());
        let mut documents = all.map_while(|found| {
            let document = in_time(deadline)
                .and_then(|()| found.map_err(unavailable))
                .and_then(|found| stored(&found, self.fields.body));
            document.map_err(|error| failed = Err(error)).ok()
        });
        let seen = look(&mut documents);
        drop(documents);
        failed.map(|()| seen)
    }

    /// The document of this id.
    fn document(&self, searcher: &Searcher, id: &str) -> Result<Option<Document>, ReadError> {
        match self.address(searcher, id).map_err(unavailable)? {
            Some(address) => {
                let found = searcher.doc(address).map_err(unavailable)?;
                stored(&found, self.fields.body).map(Some)
            }
            None => Ok(None),
        }
    }

    /// Where the document of this id is. Older states of it are deleted, and may still be there.
    fn address(&self, searcher: &Searcher, id: &str) -> tantivy::Result<Option<DocAddress>> {
        let term = self.id(id);
        for (number, segment) in (0..).zip(searcher.segment_readers()) {
            let ids = segment.inverted_index(self.fields.id)?;
            let Some(mut found) = ids.read_postings(&term, IndexRecordOption::Basic)? else {
                continue;
            };
            while found.doc() != TERMINATED {
                if !segment.is_deleted(found.doc()) {
                    return Ok(Some(DocAddress::new(number, found.doc())));
                }
                found.advance();
            }
        }
        Ok(None)
    }

    /// What the document of this id is found by.
    fn id(&self, id: &str) -> Term {
        Term::from_field_text(self.fields.id, id)
    }

    /// What the index is given of a document.
    fn indexed(&self, document: &Document) -> Result<TantivyDocument, ReadError> {
        let body = stored::to_bytes(document).map_err(|error| ReadError::Unwritable {
            id: document.id.clone(),
            reason: error.to_string(),
        })?;
        let mut indexed = TantivyDocument::new();
        indexed.add_text(self.fields.id, &document.id);
        indexed.add_bytes(self.fields.body, &body);
        if !document.deleted {
            let texts = document.data.values().flat_map(texts_of);
            texts.for_each(|text| indexed.add_text(self.fields.text, text));
        }
        Ok(indexed)
    }

    pub(crate) fn states(&self) -> Result<Vec<(Partition, u64, StateRecord)>, ReadError> {
        let states = self.read_states()?.into_iter();
        let states = states.map(|(partition, (revision, record))| (partition, revision, record));
        Ok(states.collect())
    }

    /// Writes a state record if the stored one has the revision `expected`.
    pub(crate) fn set_state(
        &self,
        partition: Partition,
        expected: u64,
        record: StateRecord,
    ) -> Result<bool, ReadError> {
        let _one_by_one = locked(&self.states);
        self.is_there()?;
        let mut states = self.read_states()?;
        let stored = states.get(&partition).map_or(0, |(revision, _)| *revision);
        if stored != expected {
            return Ok(false);
        }
        states.insert(partition, (expected.saturating_add(1), record));
        durable::write(&self.states_file(), &states).map_err(unavailable)?;
        Ok(true)
    }

    fn read_states(&self) -> Result<BTreeMap<Partition, (u64, StateRecord)>, ReadError> {
        let states = durable::read(&self.states_file()).map_err(understood)?;
        Ok(states.unwrap_or_default())
    }

    fn states_file(&self) -> PathBuf {
        self.directory.join("states.json")
    }
}

/// The document that was [indexed](Collection::indexed) as `found`.
fn stored(found: &TantivyDocument, body: Field) -> Result<Document, ReadError> {
    let bytes = found.get_first(body).and_then(|value| value.as_bytes());
    let document = stored::from_bytes(bytes.unwrap_or_default());
    document.map_err(|error| ReadError::Corrupt {
        what: format!("a document in the index: {error}"),
    })
}

/// All texts in `value`, as deep as they are.
fn texts_of(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts_of).collect(),
        Value::Object(fields) => fields.values().flat_map(texts_of).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

fn in_time(deadline: Instant) -> Result<(), ReadError> {
    if Instant::now() < deadline {
        return Ok(());
    }
    let why = format!("the collection cannot be read within {PATIENCE:?}");
    Err(ReadError::TooSlow(why.into()))
}
