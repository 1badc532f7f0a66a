//! The user's program: its aggregates and its views.

use std::path::Path;
use std::sync::Arc;

use tidelog_domain::{
    Aggregate, Decider, EntityDecider, EntitySchema, EntityView, InvalidUpcasters, Projection,
    TypedDecider, TypedProjector, ViewDefinition,
};

use crate::entities::InvalidEntities;

/// A program: a name, its aggregates, its read models.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let app = tidelog::App::new("blog").entities_from(None)?;
/// app.check()?;
/// # Ok(())
/// # }
/// ```
///
/// A program without any aggregate of its own takes its entities from the directory that the setting `entities` names, and
/// without that serves the two demo entities, `post` and `customer`.
pub struct App {
    name: String,
    deciders: Vec<Arc<dyn Decider>>,
    views: Vec<Arc<dyn ViewDefinition>>,
}

/// A program that contradicts itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidApp {
    /// The program's name cannot be part of a key.
    #[error("an app's name is 1 to 64 of a-z, 0-9, _ and -, but this one is called {0:?}")]
    Name(String),
    /// Two aggregates have the same name.
    #[error(
        "two aggregates are called {0}: rename one, or take its file out of the entities' directory"
    )]
    Aggregate(String),
    /// Two views have the same name or plural.
    #[error("two views are called {0}: rename one, or give it another plural")]
    View(String),
    /// Events that may be stored are not brought to today's shape.
    #[error("the upcasters of {0} cannot be used")]
    Upcasters(String, #[source] InvalidUpcasters),
}

impl App {
    /// A program called `name`: 1 to 64 of `a-z 0-9 _ -`. The name is part of the event bus's keys: two programs that
    /// share a bus need two names.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            deciders: Vec::new(),
            views: Vec::new(),
        }
    }

    /// The program's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same with an aggregate that is written in Rust.
    #[must_use]
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        self.deciders.push(Arc::new(TypedDecider::<A>::new()));
        self
    }

    /// The same with an entity that is a JSON Schema, and its default view.
    #[must_use]
    pub fn entity_schema(mut self, schema: EntitySchema) -> Self {
        self.views.push(Arc::new(EntityView::new(schema.clone())));
        self.deciders.push(Arc::new(EntityDecider::new(schema)));
        self
    }

    /// The same with a read model that is written in Rust.
    #[must_use]
    pub fn projection<P: Projection>(mut self) -> Self {
        self.views.push(Arc::new(TypedProjector::<P>::new()));
        self
    }

    /// The same with the entities of `directory`, each `<name>.schema.json` of it one; without a directory, and where the
    /// program has no aggregate of its own, with the demo's.
    ///
    /// # Errors
    ///
    /// [`InvalidEntities`] for the first file that cannot be used.
    pub fn entities_from(self, directory: Option<&Path>) -> Result<Self, InvalidEntities> {
        crate::entities::with_entities(self, directory)
    }

    /// Runs the program's command line, which is `dev`, `serve`, `migrate`, `replay`, `doctor` and `config`, and gives the
    /// exit status: 0 when it did what was asked, 1 when that failed, 2 when it was asked wrongly.
    ///
    /// It makes a runtime of its own, so it MUST NOT be called from within one.
    #[cfg(feature = "cli")]
    #[must_use]
    pub fn run(self) -> std::process::ExitCode {
        crate::cli::run(self)
    }

    /// The aggregates.
    #[must_use]
    pub fn deciders(&self) -> &[Arc<dyn Decider>] {
        &self.deciders
    }

    /// The views.
    #[must_use]
    pub fn views(&self) -> &[Arc<dyn ViewDefinition>] {
        &self.views
    }

    /// Whether names are usable and unique, and upcasters lead from every older shape of an event to today's.
    ///
    /// # Errors
    ///
    /// The first that is not.
    pub fn check(&self) -> Result<(), InvalidApp> {
        let fits = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(fits) {
            return Err(InvalidApp::Name(self.name.clone()));
        }
        if let Some(name) = repeated(self.deciders.iter().map(|decider| decider.category())) {
            return Err(InvalidApp::Aggregate(name));
        }
        let names = self
            .views
            .iter()
            .flat_map(|view| [view.name(), view.plural()]);
        if let Some(name) = repeated(names) {
            return Err(InvalidApp::View(name));
        }
        self.check_upcasters()
    }

    fn check_upcasters(&self) -> Result<(), InvalidApp> {
        let deciders = self.deciders.iter();
        let deciders = deciders.map(|decider| (decider.category(), decider.upcasters()));
        let views = self.views.iter();
        let views = views.filter_map(|view| Some((view.name(), view.upcasters()?)));
        deciders.chain(views).try_for_each(|(name, upcasters)| {
            let checked = upcasters.check();
            checked.map_err(|source| InvalidApp::Upcasters(name.to_owned(), source))
        })
    }
}

/// The first name that comes twice.
fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut seen = std::collections::BTreeSet::new();
    names
        .into_iter()
        .find(|name| !seen.insert(*name))
        .map(str::to_owned)
}
