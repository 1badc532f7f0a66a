//! Entities from files: each `<name>.schema.json` of a directory is one.

use std::path::{Path, PathBuf};

use tidelog_domain::{EntitySchema, InvalidSchema};

use crate::App;

/// How the file of an entity's schema ends.
const SUFFIX: &str = ".schema.json";

/// The most entities that a directory may have.
const MAX_ENTITIES: usize = 1_000;

/// The entities that are served when there are no others.
const DEMO: [(&str, &str); 2] = [
    (
        "post",
        include_str!("../examples/entities/post.schema.json"),
    ),
    (
        "customer",
        include_str!("../examples/entities/customer.schema.json"),
    ),
];

/// Why the entities could not be taken from a directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEntities {
    /// The directory, or a file of it, cannot be read.
    #[error("the entities in {path} cannot be read (setting `entities`)")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The directory has no schema, or too many.
    #[error(
        "{path} has {found} files that end in {SUFFIX}; 1 to {MAX_ENTITIES} are needed (setting `entities`)"
    )]
    Count {
        /// Which directory.
        path: PathBuf,
        /// How many there are.
        found: usize,
    },
    /// A file is no entity's schema.
    #[error("{path} is not the schema of an entity")]
    Schema {
        /// Which.
        path: PathBuf,
        /// Why.
        source: InvalidSchema,
    },
}

/// `app` with the entities of `directory`; where there is none, and the program has neither an aggregate nor a reaction of its
/// own, with the demo's.
///
/// # Errors
///
/// [`InvalidEntities`] for the first file that cannot be used.
pub(crate) fn with_entities(app: App, directory: Option<&Path>) -> Result<App, InvalidEntities> {
    match directory {
        Some(directory) => Ok(read(directory)?.into_iter().fold(app, App::entity_schema)),
        None if app.deciders().is_empty() && app.reactions().is_empty() => {
            let demo = DEMO
                .iter()
                .map(|(name, text)| parse(Path::new(name), name, text));
            Ok(demo
                .collect::<Result<Vec<_>, _>>()?
                .into_iter()
                .fold(app, App::entity_schema))
        }
        None => Ok(app),
    }
}

/// The entities of `directory`, by name.
fn read(directory: &Path) -> Result<Vec<EntitySchema>, InvalidEntities> {
    let unreadable = |path: &Path| {
        let path = path.to_path_buf();
        move |source| InvalidEntities::Unreadable { path, source }
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable(directory))? {
        let path = entry.map_err(unreadable(directory))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(SUFFIX));
        if let Some(name) = name.map(str::to_owned) {
            files.push((name, path));
        }
    }
    if files.is_empty() || files.len() > MAX_ENTITIES {
        return Err(InvalidEntities::Count {
            path: directory.to_path_buf(),
            found: files.len(),
        });
    }
    files.sort();
    let text = |path: &Path| std::fs::read_to_string(path).map_err(unreadable(path));
    files
        .iter()
        .map(|(name, path)| parse(path, name, &text(path)?))
        .collect()
}

/// The entity `name` from the text of the file at `path`.
fn parse(path: &Path, name: &str, text: &str) -> Result<EntitySchema, InvalidEntities> {
    EntitySchema::parse(name, text).map_err(|source| InvalidEntities::Schema {
        path: path.to_path_buf(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_directory_the_demo_is_served() {
        let app = with_entities(App::new("demo"), None).unwrap();
        let names: Vec<_> = app
            .deciders()
            .iter()
            .map(|decider| decider.category().to_owned())
            .collect();
        assert_eq!(names, ["post", "customer"]);
        app.check().unwrap();
    }

    #[test]
    fn a_directory_gives_its_entities_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write(
            "b.schema.json",
            r#"{"type":"object","properties":{"x":{"type":"string"}}}"#,
        );
        write(
            "a.schema.json",
            r#"{"type":"object","properties":{"x":{"type":"string"}}}"#,
        );
        write("notes.txt", "not an entity");
        let app = with_entities(App::new("demo"), Some(directory.path())).unwrap();
        let names: Vec<_> = app
            .deciders()
            .iter()
            .map(|decider| decider.category().to_owned())
            .collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file_and_the_setting() {
        let directory = tempfile::tempdir().unwrap();
        let error = |path: &Path| {
            with_entities(App::new("demo"), Some(path))
                .map(|_| ())
                .unwrap_err()
                .to_string()
        };
        assert!(error(directory.path()).contains("0 files that end in .schema.json"));
        assert!(error(&directory.path().join("missing")).contains("setting `entities`"));
        std::fs::write(directory.path().join("bad.schema.json"), "{").unwrap();
        assert!(error(directory.path()).contains("bad.schema.json"));
    }

    #[test]
    fn two_entities_of_one_name_are_refused() {
        let schema = || EntitySchema::parse("post", r#"{"type":"object"}"#).unwrap();
        let app = App::new("demo")
            .entity_schema(schema())
            .entity_schema(schema());
        assert_eq!(
            app.check().unwrap_err().to_string().split(':').next(),
            Some("two aggregates, or commands over several, are called post")
        );
    }
}
