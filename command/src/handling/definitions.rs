//! What commands a program has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use tidelog_domain::{Decider, MultiStreamDecider};

use super::DuplicateAggregate;

/// What commands a program has: its aggregates, and its commands over several of them. A clone has the same.
#[derive(Clone, Default)]
pub struct Definitions {
    deciders: HashMap<String, Arc<dyn Decider>>,
    multi_stream: HashMap<String, Arc<dyn MultiStreamDecider>>,
}

impl Definitions {
    /// These aggregates.
    ///
    /// # Errors
    ///
    /// [`DuplicateAggregate`].
    pub fn new(
        deciders: impl IntoIterator<Item = Arc<dyn Decider>>,
    ) -> Result<Self, DuplicateAggregate> {
        let mut by_name = HashMap::new();
        for decider in deciders {
            match by_name.entry(decider.category().to_owned()) {
                Entry::Vacant(entry) => entry.insert(decider),
                Entry::Occupied(entry) => {
                    let name = entry.key().clone();
                    return Err(DuplicateAggregate { name });
                }
            };
        }
        Ok(Self {
            deciders: by_name,
            multi_stream: HashMap::new(),
        })
    }

    /// The same, and these commands over several aggregates.
    ///
    /// # Errors
    ///
    /// [`DuplicateAggregate`].
    pub fn with_multi_stream(
        mut self,
        commands: impl IntoIterator<Item = Arc<dyn MultiStreamDecider>>,
    ) -> Result<Self, DuplicateAggregate> {
        for command in commands {
            let name = command.name().to_owned();
            let taken = self.deciders.contains_key(&name);
            if taken || self.multi_stream.insert(name.clone(), command).is_some() {
                return Err(DuplicateAggregate { name });
            }
        }
        Ok(self)
    }

    /// The aggregate called `category`.
    #[must_use]
    pub fn decider(&self, category: &str) -> Option<&Arc<dyn Decider>> {
        self.deciders.get(category)
    }

    /// All aggregates, in no particular order.
    pub fn deciders(&self) -> impl Iterator<Item = &Arc<dyn Decider>> {
        self.deciders.values()
    }

    /// The command over several aggregates that is called `name`.
    #[must_use]
    pub fn multi_stream(&self, name: &str) -> Option<&Arc<dyn MultiStreamDecider>> {
        self.multi_stream.get(name)
    }

    /// All commands over several aggregates, in no particular order.
    pub fn multi_streams(&self) -> impl Iterator<Item = &Arc<dyn MultiStreamDecider>> {
        self.multi_stream.values()
    }
}
