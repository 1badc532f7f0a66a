//! The views that a program knows, by name.

use std::sync::Arc;

use tidelog_domain::ViewDefinition;

/// The views of a program: each one's name and plural lead to it, and to no other.
#[derive(Clone, Default)]
pub struct Catalog {
    views: Arc<[Arc<dyn ViewDefinition>]>,
}

/// Two views that cannot be told apart by their names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two views answer to `{name}`: give one of them another name or plural")]
pub struct NameTaken {
    /// The name.
    pub name: String,
}

/// What a name in a URL stands for.
#[derive(Clone, Copy)]
pub enum Named<'a> {
    /// One document of the view.
    One(&'a Arc<dyn ViewDefinition>),
    /// A list of the view's documents.
    Many(&'a Arc<dyn ViewDefinition>),
}

impl Catalog {
    /// The catalog of `views`.
    ///
    /// # Errors
    ///
    /// [`NameTaken`] when a name or plural is used twice.
    pub fn new(views: Vec<Arc<dyn ViewDefinition>>) -> Result<Self, NameTaken> {
        let mut names: Vec<&str> = views
            .iter()
            .flat_map(|view| [view.name(), view.plural()])
            .collect();
        names.sort_unstable();
        let twice = names.windows(2).find_map(|pair| match pair {
            [a, b] if a == b => Some((*a).to_owned()),
            _ => None,
        });
        match twice {
            Some(name) => Err(NameTaken { name }),
            None => Ok(Self {
                views: views.into(),
            }),
        }
    }

    /// All views, in the order in which they were declared.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn ViewDefinition>> {
        self.views.iter()
    }

    /// The view called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn ViewDefinition>> {
        self.views.iter().find(|view| view.name() == name)
    }

    /// What `name` stands for: a view, or the list of its documents.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Named<'_>> {
        let many = || self.views.iter().find(|view| view.plural() == name);
        self.get(name)
            .map(Named::One)
            .or_else(|| many().map(Named::Many))
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.views.iter().map(|view| view.name()))
            .finish()
    }
}
