//! The shapes that were ever stored, held on to in a file beside the program.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::decider::Decider;
use crate::json::meaning;

/// What events were stored as, ever: for each aggregate the names, the schema versions and the JSON Schemas.
///
/// It is kept as a file beside the program, and a test compares the two: so nobody changes by accident what is stored. As
/// JSON it is
///
/// ```json
/// {"aggregates": {"account": {"account.opened": {"1": {"type": "object"}}}}}
/// ```
///
/// with `null` for a schema that is not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    aggregates: BTreeMap<String, Shapes>,
}

/// For each event name the schema of each version.
type Shapes = BTreeMap<String, BTreeMap<u32, Value>>;

/// What is otherwise in a program than in its lock file, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeChange {
    /// An event, or a version of it, is not in the file yet.
    #[error(
        "{event_type}, version {version}, of {aggregate} is new: add it with TIDELOG_LOCK=update"
    )]
    Added {
        /// The aggregate.
        aggregate: String,
        /// The event.
        event_type: String,
        /// Its schema version.
        version: u32,
    },
    /// An aggregate of the file is not in the program.
    #[error(
        "the aggregate {aggregate} is no longer in the program: if its streams are to be left alone for good, take it out \
         of the file with TIDELOG_LOCK=update"
    )]
    Removed {
        /// The aggregate.
        aggregate: String,
    },
    /// The schema of a version is another one.
    #[error(
        "{event_type}, version {version}, of {aggregate} is stored in another shape than it was: undo the change, or raise \
         the schema version to {next} and add an upcaster from {version} (`Upcaster::unchanged`, when all that is new is \
         optional; for an entity \"x-tidelog-version\" alone will then do)"
    )]
    Changed {
        /// The aggregate.
        aggregate: String,
        /// The event.
        event_type: String,
        /// Its schema version.
        version: u32,
        /// The version that it should have.
        next: u32,
    },
    /// Events of this name and version may be stored, and the program does not read them.
    #[error(
        "{event_type}, version {version}, of {aggregate} may be stored, and is no longer read: keep it, or add an upcaster \
         from it to what took its place"
    )]
    Unread {
        /// The aggregate.
        aggregate: String,
        /// The event.
        event_type: String,
        /// Its schema version.
        version: u32,
    },
}

impl ShapeChange {
    /// Whether [`Lock::update`] takes it over. All else is to be mended in the program.
    #[must_use]
    pub const fn may_be_taken_over(&self) -> bool {
        matches!(self, Self::Added { .. } | Self::Removed { .. })
    }
}

impl Lock {
    /// What is otherwise in a program with the aggregates `deciders`. Titles, descriptions and the order of keywords in a
    /// schema do not count.
    #[must_use]
    pub fn compare<'a>(
        &self,
        deciders: impl IntoIterator<Item = &'a dyn Decider>,
    ) -> Vec<ShapeChange> {
        let mut changes = Vec::new();
        let mut present = BTreeSet::new();
        for decider in deciders {
            present.insert(decider.category());
            let locked = self.aggregates.get(decider.category());
            compare(decider, locked.unwrap_or(&Shapes::new()), &mut changes);
        }
        let removed = self.aggregates.keys();
        let removed = removed.filter(|aggregate| !present.contains(aggregate.as_str()));
        changes.extend(removed.map(|aggregate| ShapeChange::Removed {
            aggregate: aggregate.clone(),
        }));
        changes
    }

    /// The same with what is new in a program with the aggregates `deciders`, and without aggregates that it no longer has. The
    /// older versions of an event stay.
    ///
    /// # Errors
    ///
    /// The changes that cannot be taken over, because what is stored would not be read, or not as what it was.
    pub fn update<'a>(
        mut self,
        deciders: impl IntoIterator<Item = &'a dyn Decider> + Clone,
    ) -> Result<Self, Vec<ShapeChange>> {
        let mut refused = self.compare(deciders.clone());
        refused.retain(|change| !change.may_be_taken_over());
        if !refused.is_empty() {
            return Err(refused);
        }
        let mut updated = Self::default();
        for decider in deciders {
            let mut shapes = self
                .aggregates
                .remove(decider.category())
                .unwrap_or_default();
            for shape in decider.events() {
                let versions = shapes.entry(shape.event_type.to_string()).or_default();
                let schema = versions.entry(shape.schema_version).or_default();
                if schema.is_null() {
                    *schema = shape.schema.as_ref().map(meaning).unwrap_or_default();
                }
            }
            updated
                .aggregates
                .insert(decider.category().to_owned(), shapes);
        }
        Ok(updated)
    }
}

/// What is otherwise in one aggregate.
fn compare(decider: &dyn Decider, locked: &Shapes, changes: &mut Vec<ShapeChange>) {
    let aggregate = || decider.category().to_owned();
    for shape in decider.events() {
        let (event_type, version) = (shape.event_type.to_string(), shape.schema_version);
        let schema = shape.schema.as_ref().map(meaning).unwrap_or_default();
        let versions = locked.get(&event_type);
        match versions.and_then(|versions| versions.get(&version)) {
            Some(known) if *known == schema => {}
            Some(known) if !known.is_null() => changes.push(ShapeChange::Changed {
                aggregate: aggregate(),
                event_type,
                version,
                next: version.saturating_add(1),
            }),
            _ => changes.push(ShapeChange::Added {
                aggregate: aggregate(),
                event_type,
                version,
            }),
        }
    }
    for (event_type, versions) in locked {
        let unread = |version: &&u32| !decider.upcasters().reads(event_type, **version);
        changes.extend(
            versions
                .keys()
                .filter(unread)
                .map(|version| ShapeChange::Unread {
                    aggregate: aggregate(),
                    event_type: event_type.clone(),
                    version: *version,
                }),
        );
    }
}
