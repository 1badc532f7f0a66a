//! A read store that is a full-text index in a directory, for one process.
//!
//! # What is on the disk
//!
//! ```text
//! lock                            held by the process that has the directory
//! aliases/<view>.json             which version of a view is read
//! collections/<name>/states.json  how far each partition of it is
//! collections/<name>/index/       its documents: a tantivy index
//! dropped/                        a collection that is just being removed
//! ```
//!
//! # What a crash leaves
//!
//! The port promises that what is answered is durable, and that each write is there as a whole or not at all. It does not want two writes to be
//! one: the projector writes documents *before* the checkpoint that speaks of them, and writes them on conditions that make a repetition
//! harmless. So three kinds of steps are enough, each atomic by itself:
//!
//! - **Documents**: one commit of tantivy for each call. It writes and syncs the files of a new segment, syncs the directory, then writes
//!   `meta.json` beside the old one, syncs that, and renames it over the old one: this is the moment in which the call happens. A crash
//!   before it leaves files that nothing names, which tantivy removes later. The rename itself is not synced by tantivy, so
//!   a power failure could still take it back: we sync the directory before we answer. Only then do readers see the new documents.
//! - **State records and aliases**: the whole file is written beside the old one, synced, renamed over it, and the directory synced
//!   ([`durable::write`]). A crash before the rename leaves the old one, and a `.next` that is overwritten by the next write.
//! - **Collections**: made by making directories, from the outside in, each synced into its parent, before anything is written into them; a
//!   half-made one reads as empty, which it is. Dropped by renaming the directory out of the way: documents and state records go
//!   in that one moment. What is left in `dropped` is removed at the next start.
//!
//! So a crash between a commit and its checkpoint leaves documents that are ahead of the checkpoint: their events come again, and their conditions,
//! which go by what the documents themselves say was applied to them, turn them down. The opposite, a checkpoint ahead of its documents,
//! would lose events: it cannot be, because a checkpoint is written only after the documents' call was answered, and they are in one
//! directory, restored together.
//!
//! A call that fails may have been made or not. What was not committed is given up with the writer, and the next call looks at what is there.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{self, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tidelog::read_store::{
    Alias, Document, DocumentWrite, Partition, Query, ReadError, ReadStore, StateError,
    StateRecord, StateStore, Written, check_storable, is_name,
};
use tokio::task::spawn_blocking;

use crate::collection::{Collection, SearchError};
use crate::durable;

/// A read store whose documents can be searched for by their words.
///
/// `find` and `count` read the whole collection: fine for the small filtered lists that are asked for beside a search, and for
/// collections of some ten thousand documents. Each batch of writes costs a commit, which is a good dozen syncs of the disk.
pub struct TantivyReadStore {
    place: Arc<Place>,
}

/// The directory, which is opened at its first use: a program may have a store that it does not come to use, as `--help` does not.
struct Place {
    directory: PathBuf,
    opened: Mutex<Option<Arc<Opened>>>,
}

/// The directory while it is ours.
struct Opened {
    directory: PathBuf,
    /// Changes of aliases are made one by one.
    aliases: Mutex<()>,
    collections: Mutex<HashMap<String, Arc<Collection>>>,
    /// Let go of when this is dropped, also by a crash.
    _lock: File,
}

impl TantivyReadStore {
    /// The store in `directory`, which is made if it is not there. Only one process, and one store in it, has it at a time.
    #[must_use]
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        let opened = Mutex::default();
        Self {
            place: Arc::new(Place { directory, opened }),
        }
    }

    /// The documents of `view` that fit the words of `text` best, at most `limit`, the best first.
    ///
    /// # Errors
    ///
    /// [`SearchError`].
    pub async fn search(
        &self,
        view: &str,
        text: &str,
        limit: usize,
    ) -> Result<Vec<Document>, SearchError> {
        let alias = self.load_alias(view).await?;
        let built = alias.filter(|alias| alias.built);
        let collection = built.ok_or(SearchError::NotBuilt)?.collection;
        let text = text.to_owned();
        self.run(move |opened| match opened.get(&collection)? {
            Some(collection) => collection.search(&text, limit),
            None => Ok(Vec::new()),
        })
        .await
    }

    /// Does `work`, which may block, and goes on with it when nobody waits for it any more.
    async fn run<T, E, W>(&self, work: W) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<ReadError> + Send + 'static,
        W: FnOnce(&Opened) -> Result<T, E> + Send + 'static,
    {
        let place = self.place.clone();
        let work = spawn_blocking(move || work(&*place.open()?));
        work.await.map_err(unavailable)?
    }
}

impl Place {
    fn open(&self) -> Result<Arc<Opened>, ReadError> {
        let mut opened = locked(&self.opened);
        match &*opened {
            Some(opened) => Ok(opened.clone()),
            None => Ok(opened
                .insert(Arc::new(Opened::new(&self.directory)?))
                .clone()),
        }
    }
}

impl Opened {
    fn new(directory: &Path) -> Result<Self, ReadError> {
        let directory = path::absolute(directory).map_err(unavailable)?;
        durable::make_directory(&directory).map_err(unavailable)?;
        let lock = File::create(directory.join("lock")).map_err(unavailable)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                unavailable(format!("another process has {}", directory.display()))
            }
            TryLockError::Error(error) => unavailable(error),
        })?;
        durable::empty(&directory.join("dropped")).map_err(unavailable)?;
        for name in ["aliases", "collections"] {
            durable::make_directory(&directory.join(name)).map_err(unavailable)?;
        }
        Ok(Self {
            directory,
            aliases: Mutex::default(),
            collections: Mutex::default(),
            _lock: lock,
        })
    }

    /// The collection called `name`, if it is there.
    fn get(&self, name: &str) -> Result<Option<Arc<Collection>>, ReadError> {
        self.collection(name, false)
    }

    /// The collection called `name`, which is made if it is not there.
    fn make(&self, name: &str) -> Result<Arc<Collection>, ReadError> {
        let made = self.collection(name, true)?;
        made.ok_or_else(|| unavailable("the collection is not there"))
    }

    fn collection(&self, name: &str, make: bool) -> Result<Option<Arc<Collection>>, ReadError> {
        let directory = self.directory_of(name)?;
        let mut collections = locked(&self.collections);
        if let Some(open) = collections.get(name) {
            return Ok(Some(open.clone()));
        }
        if !make && !directory.try_exists().map_err(unavailable)? {
            return Ok(None);
        }
        let open = Arc::new(Collection::open(&directory)?);
        collections.insert(name.to_owned(), open.clone());
        Ok(Some(open))
    }

    fn remove(&self, name: &str) -> Result<(), ReadError> {
        let directory = self.directory_of(name)?;
        let mut collections = locked(&self.collections);
        if let Some(open) = collections.remove(name) {
            open.close();
        }
        let trash = self.directory.join("dropped");
        durable::remove_directory(&directory, &trash).map_err(unavailable)
    }

    fn directory_of(&self, name: &str) -> Result<PathBuf, ReadError> {
        Ok(self.directory.join("collections").join(checked(name)?))
    }

    /// The alias of `view`, and its file.
    fn alias(&self, view: &str) -> Result<(Option<Alias>, PathBuf), ReadError> {
        let name = format!("{}.json", checked(view)?);
        let file = self.directory.join("aliases").join(name);
        Ok((durable::read(&file).map_err(understood)?, file))
    }
}

#[async_trait]
impl ReadStore for TantivyReadStore {
    async fn create_collection(&self, collection: &str) -> Result<(), ReadError> {
        let name = collection.to_owned();
        self.run(move |opened| opened.make(&name).map(drop)).await
    }

    async fn drop_collection(&self, collection: &str) -> Result<(), ReadError> {
        let name = collection.to_owned();
        self.run(move |opened| opened.remove(&name)).await
    }

    async fn get(&self, collection: &str, ids: &[&str]) -> Result<Vec<Document>, ReadError> {
        let name = collection.to_owned();
        let ids: Vec<_> = ids.iter().map(|id| (*id).to_owned()).collect();
        self.run(move |opened| match opened.get(&name)? {
            Some(collection) => collection.get(&ids),
            None => Ok(Vec::new()),
        })
        .await
    }

    async fn write(
        &self,
        collection: &str,
        writes: &[DocumentWrite],
    ) -> Result<Vec<Written>, ReadError> {
        let (name, writes) = (checked(collection)?.to_owned(), writes.to_vec());
        check_storable(&writes)?;
        self.run(move |opened| opened.make(&name)?.write(&writes))
            .await
    }

    async fn find(&self, collection: &str, query: &Query) -> Result<Vec<Document>, ReadError> {
        let (name, query) = (collection.to_owned(), query.clone());
        self.run(move |opened| match opened.get(&name)? {
            Some(collection) => collection.find(&query),
            None => Ok(Vec::new()),
        })
        .await
    }

    async fn count(&self, collection: &str, query: &Query) -> Result<u64, ReadError> {
        let (name, query) = (collection.to_owned(), query.clone());
        self.run(move |opened| match opened.get(&name)? {
            Some(collection) => collection.count(&query),
            None => Ok(0),
        })
        .await
    }

    async fn load_alias(&self, view: &str) -> Result<Option<Alias>, ReadError> {
        let view = view.to_owned();
        self.run(move |opened| Ok(opened.alias(&view)?.0)).await
    }

    async fn compare_and_set_alias(
        &self,
        view: &str,
        expected: u64,
        alias: &Alias,
    ) -> Result<bool, ReadError> {
        let view = view.to_owned();
        let revision = expected.saturating_add(1);
        let alias = Alias {
            revision,
            ..alias.clone()
        };
        self.run(move |opened| {
            let _one_by_one = locked(&opened.aliases);
            let (stored, file) = opened.alias(&view)?;
            if stored.map_or(0, |stored| stored.revision) != expected {
                return Ok(false);
            }
            durable::write(&file, &alias).map_err(unavailable)?;
            Ok(true)
        })
        .await
    }
}

#[async_trait]
impl StateStore for TantivyReadStore {
    async fn load_states(
        &self,
        subscription: &str,
    ) -> Result<Vec<(Partition, u64, StateRecord)>, StateError> {
        let name = subscription.to_owned();
        let states = self.run(move |opened| match opened.get(&name)? {
            Some(collection) => collection.states(),
            None => Ok(Vec::new()),
        });
        states.await.map_err(of_states)
    }

    async fn compare_and_set_state(
        &self,
        subscription: &str,
        partition: Partition,
        expected: u64,
        record: &StateRecord,
    ) -> Result<bool, StateError> {
        let (name, record) = (subscription.to_owned(), record.clone());
        let set =
            self.run(move |opened| opened.make(&name)?.set_state(partition, expected, record));
        set.await.map_err(of_states)
    }
}

/// `name`, if a view or a collection may be called that. Nothing else comes near a path.
fn checked(name: &str) -> Result<&str, ReadError> {
    let invalid = || ReadError::InvalidName {
        name: name.to_owned(),
    };
    is_name(name).then_some(name).ok_or_else(invalid)
}

/// What a lock guards. A panic cannot have left it half-changed: each change is one assignment.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error that may pass.
pub(crate) fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ReadError {
    ReadError::Unavailable(error.into())
}

/// An error of reading a file of ours: that it cannot be understood will not pass.
pub(crate) fn understood(error: std::io::Error) -> ReadError {
    match error.kind() {
        std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => ReadError::Corrupt {
            what: error.to_string(),
        },
        _ => unavailable(error),
    }
}

fn of_states(error: ReadError) -> StateError {
    match error {
        ReadError::Corrupt { what } => StateError::Corrupt { what },
        ReadError::InvalidName { .. } => StateError::Corrupt {
            what: error.to_string(),
        },
        other => StateError::Unavailable(Box::new(other)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tidelog::read_store::Retry;

    use super::*;

    fn record() -> StateRecord {
        serde_json::from_value(serde_json::json!({
            "owner": null,
            "epoch": 0,
            "checkpoint": {
                "history": "0198a000-0000-7000-8000-000000000001",
                "cursor": {"position": 0, "event_id": null},
            },
        }))
        .unwrap()
    }

    /// What a crash between two steps leaves, made by hand.
    #[tokio::test]
    async fn what_a_crash_leaves_half_made_harms_nothing() {
        let home = tempfile::tempdir().unwrap();
        let file = |name: &str| home.path().join(name);
        let (partition, record) = (Partition::new(1), record());
        let alias = Alias::first("page_v1", "a");
        {
            let store = TantivyReadStore::at(home.path());
            assert!(
                store
                    .compare_and_set_alias("page", 0, &alias)
                    .await
                    .unwrap()
            );
            let set = store.compare_and_set_state("page_v1", partition, 0, &record);
            assert!(set.await.unwrap());
        }
        fs::write(file("aliases/page.next"), "{\"coll").unwrap();
        fs::write(file("collections/page_v1/states.next"), "{").unwrap();
        fs::create_dir(file("collections/page_v2")).unwrap();
        fs::create_dir_all(file("collections/page_v3/index")).unwrap();
        fs::create_dir_all(file("dropped/index")).unwrap();

        let store = TantivyReadStore::at(home.path());
        let read = store.load_alias("page").await.unwrap();
        assert_eq!(read.unwrap().collection, "page_v1");
        assert!(!file("dropped").exists());
        assert!(
            store
                .compare_and_set_alias("page", 1, &alias)
                .await
                .unwrap()
        );
        for (collection, revision) in [("page_v1", 1), ("page_v2", 0), ("page_v3", 0)] {
            assert_eq!(store.get(collection, &["a"]).await.unwrap(), []);
            let set = store.compare_and_set_state(collection, partition, revision, &record);
            assert!(set.await.unwrap(), "{collection}");
        }
        store.drop_collection("page_v1").await.unwrap();
        assert_eq!(store.load_states("page_v1").await.unwrap(), []);
        assert!(!file("collections/page_v1").exists() && !file("dropped").exists());
    }

    #[tokio::test]
    async fn who_still_has_a_dropped_collection_writes_nothing_into_the_next_one() {
        let home = tempfile::tempdir().unwrap();
        let opened = Opened::new(home.path()).unwrap();
        let before = opened.make("page_v1").unwrap();
        opened.remove("page_v1").unwrap();
        let now = opened.make("page_v1").unwrap();
        assert!(before.write(&[]).is_err());
        assert!(before.set_state(Partition::new(1), 0, record()).is_err());
        assert_eq!(now.states().unwrap(), []);
        assert_eq!(now.write(&[]).unwrap(), []);
    }

    #[tokio::test]
    async fn what_is_damaged_is_told_apart_from_what_may_pass() {
        let home = tempfile::tempdir().unwrap();
        let store = TantivyReadStore::at(home.path());
        assert_eq!(store.load_alias("page").await.unwrap(), None);
        fs::write(home.path().join("aliases/page.json"), "{\"coll").unwrap();
        let damaged = store.load_alias("page").await.unwrap_err();
        assert_eq!(damaged.retry(), Retry::Never);
        let second = TantivyReadStore::at(home.path());
        let in_use = second.load_alias("page").await.unwrap_err();
        assert_eq!(in_use.retry(), Retry::AfterBackoff);
        drop(store);
        assert_eq!(second.load_alias("other").await.unwrap(), None);
    }
}
