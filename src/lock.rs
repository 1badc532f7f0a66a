//! The lock file: what is persisted does not change by accident.

use std::path::{Path, PathBuf};

use tidelog_domain::{Lock, ShapeChange};

use crate::App;

/// What the lock file is called; it lies beside the program's `Cargo.toml`, and is committed.
pub const LOCK_FILE: &str = "tidelog.lock.json";

/// The environment variable that, when it is `update`, lets a test take over what is new.
const MODE: &str = "TIDELOG_LOCK";

/// Why the lock file and the program do not fit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The file cannot be read or written.
    #[error("the lock file {path} cannot be read or written")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no lock file.
    #[error("{path} is no lock file: take it back from version control")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// What is stored differs.
    #[error("what events are stored as is not what {path} says:{}", list(.changes))]
    Changed {
        /// The file.
        path: PathBuf,
        /// What differs, and what to do about each.
        changes: Vec<ShapeChange>,
    },
}

/// One a line.
fn list(changes: &[ShapeChange]) -> String {
    changes
        .iter()
        .map(|change| format!("\n- {change}"))
        .collect()
}

/// Compares what the events of `app` are stored as with the file `path`; where `update`, takes over what is new.
///
/// A changed shape without a new version, and a stored shape that nothing reads any more, are never taken over. A file that
/// does not exist is an empty one. [`lock_test!`](crate::lock_test) calls it in a test.
///
/// # Errors
///
/// [`LockError`], whose message says what to do.
pub fn check_lock(app: &App, path: &Path, update: bool) -> Result<(), LockError> {
    let file = |source| LockError::File {
        path: path.to_path_buf(),
        source,
    };
    let malformed = |source| LockError::Malformed {
        path: path.to_path_buf(),
        source,
    };
    let locked: Lock = match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map_err(malformed)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Lock::default(),
        Err(error) => return Err(file(error)),
    };
    let deciders = app.deciders().iter().map(|decider| decider.as_ref());
    let changed = |changes| LockError::Changed {
        path: path.to_path_buf(),
        changes,
    };
    if !update {
        let changes = locked.compare(deciders);
        if changes.is_empty() {
            return Ok(());
        }
        return Err(changed(changes));
    }
    let updated = locked.clone().update(deciders).map_err(changed)?;
    if updated == locked && path.exists() {
        return Ok(());
    }
    let mut text = serde_json::to_string_pretty(&updated).map_err(malformed)?;
    text.push('\n');
    std::fs::write(path, text).map_err(file)
}

/// What [`lock_test!`](crate::lock_test) does.
///
/// # Panics
///
/// With what [`check_lock`] says.
#[doc(hidden)]
#[track_caller]
pub fn require_lock(app: &App, directory: &str) {
    let update = std::env::var(MODE).is_ok_and(|mode| mode == "update");
    let path = Path::new(directory).join(LOCK_FILE);
    if let Err(error) = check_lock(app, &path, update) {
        let source = std::error::Error::source(&error);
        let cause = source.map_or(String::new(), |source| format!(": {source}"));
        panic!("{error}{cause}");
    }
}

/// A test that compares what the events of an [`App`] are stored as with `tidelog.lock.json` beside the `Cargo.toml`.
///
/// It fails when the shape of an event changed without a new schema version, or when what may be stored is no longer
/// read, and says what to do. What is new is taken over by `TIDELOG_LOCK=update cargo test`; commit the file then.
///
/// ```
/// # use tidelog::App;
/// fn app() -> App {
///     App::new("bank") // .aggregate::<Account>()
/// }
///
/// tidelog::lock_test!(app());
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! lock_test {
    ($app:expr) => {
        #[test]
        fn events_are_stored_as_the_lock_file_says() {
            $crate::__require_lock(&$app, ::core::env!("CARGO_MANIFEST_DIR"));
        }
    };
}

#[cfg(test)]
mod tests {
    use tidelog_domain::EntitySchema;

    use super::*;

    fn app(schema: &str) -> App {
        App::new("blog").entity_schema(EntitySchema::parse("post", schema).unwrap())
    }

    const FIRST: &str = r#"{"type": "object", "properties": {"title": {"type": "string"}}}"#;
    const CHANGED: &str = r#"{"type": "object", "properties": {"title": {"type": "integer"}}}"#;
    const SECOND: &str = r#"{"type": "object", "properties": {"title": {"type": "integer"}}, "x-tidelog-version": 2}"#;

    fn changes(app: &App, path: &Path, update: bool) -> Vec<String> {
        match check_lock(app, path, update).unwrap_err() {
            LockError::Changed { changes, .. } => changes.iter().map(ToString::to_string).collect(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_is_new_is_taken_over_only_when_that_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LOCK_FILE);
        let new = changes(&app(FIRST), &path, false);
        assert_eq!(new.len(), 3);
        assert!(new[0].contains("TIDELOG_LOCK=update"), "{}", new[0]);
        assert!(!path.exists());
        check_lock(&app(FIRST), &path, true).unwrap();
        check_lock(&app(FIRST), &path, false).unwrap();
        let remarks = FIRST.replace(
            r#""string""#,
            r#""string", "description": "what it is about""#,
        );
        check_lock(&app(&remarks), &path, false).unwrap();
    }

    #[test]
    fn a_shape_that_changed_under_its_version_is_refused_also_by_an_update() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LOCK_FILE);
        check_lock(&app(FIRST), &path, true).unwrap();
        for update in [false, true] {
            let refused = changes(&app(CHANGED), &path, update);
            assert!(
                refused[0].contains("raise the schema version to 2"),
                "{}",
                refused[0]
            );
        }
        check_lock(&app(FIRST), &path, false).unwrap();
        check_lock(&app(SECOND), &path, true).unwrap();
        check_lock(&app(SECOND), &path, false).unwrap();
        // What was stored once stays locked: going back would leave it unread.
        let back = changes(&app(FIRST), &path, true);
        assert!(
            back.iter().all(|one| one.contains("no longer read")),
            "{back:?}"
        );
    }

    #[test]
    fn an_aggregate_that_is_gone_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LOCK_FILE);
        check_lock(&app(FIRST), &path, true).unwrap();
        let gone = changes(&App::new("blog"), &path, false);
        assert!(gone[0].contains("no longer in the program"), "{gone:?}");
        check_lock(&App::new("blog"), &path, true).unwrap();
        check_lock(&App::new("blog"), &path, false).unwrap();
    }

    #[test]
    fn a_file_that_is_no_lock_is_said_to_be_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LOCK_FILE);
        std::fs::write(&path, "{\"agregates\": {}}").unwrap();
        let error = check_lock(&app(FIRST), &path, false).unwrap_err();
        assert!(error.to_string().contains("version control"), "{error}");
    }
}
