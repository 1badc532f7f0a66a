//! Whether upcasters lead from every older shape to today's.

use std::collections::BTreeMap;

use super::{Upcaster, Upcasters};

/// Why upcasters cannot be used. A program with such does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUpcasters {
    /// Two begin at the same shape.
    #[error("two upcasters begin at {event_type}, version {version}: take one of them away")]
    Twice {
        /// The event.
        event_type: String,
        /// Its schema version.
        version: u32,
    },
    /// A version is 0.
    #[error("the upcaster {upcaster} has a version 0: schema versions begin at 1")]
    Zero {
        /// From where to where.
        upcaster: String,
    },
    /// One begins at a shape that is current, or newer.
    #[error(
        "the upcaster {upcaster} begins at version {current} or above, which is the current one: let the event say that its \
         version is a higher one, or take the upcaster away"
    )]
    Current {
        /// From where to where.
        upcaster: String,
        /// The current version.
        current: u32,
    },
    /// They lead in a circle.
    #[error("the upcasters from {event_type}, version {version}, lead in a circle")]
    Cycle {
        /// The event.
        event_type: String,
        /// Its schema version.
        version: u32,
    },
    /// A chain ends at a shape that is not current.
    #[error(
        "the upcasters from {event_type}, version {version}, end at {end}, version {end_version}, which is not the current \
         shape of any event here: add the steps that are missing"
    )]
    DeadEnd {
        /// The event that the chain begins at.
        event_type: String,
        /// Its schema version.
        version: u32,
        /// The event that it ends at.
        end: String,
        /// Its schema version.
        end_version: u32,
    },
    /// Events of an older version may be stored, and nothing reads them.
    #[error(
        "{event_type} is at version {current}, and no upcaster begins at its version {version}: add one (or \
         `Upcaster::unchanged`, when all that is new is optional)"
    )]
    Gap {
        /// The event.
        event_type: String,
        /// The version without a step.
        version: u32,
        /// The current version.
        current: u32,
    },
}

impl Upcasters {
    /// Whether every older shape leads to a current one: no step is there twice, none goes on from a current shape, none
    /// leads in a circle or nowhere, and no version is left out.
    ///
    /// The versions of an event begin at 1, or where an upcaster first leads to it from another name.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), InvalidUpcasters> {
        if let Some(Upcaster {
            event_type, from, ..
        }) = self.surplus.first()
        {
            return Err(InvalidUpcasters::Twice {
                event_type: event_type.to_string(),
                version: *from,
            });
        }
        let steps = || self.steps.values().flat_map(BTreeMap::values);
        steps().try_for_each(|step| self.check_start(step))?;
        steps().try_for_each(|step| self.check_end(step))?;
        let mut current = self.current.iter();
        current.try_for_each(|(name, version)| self.check_versions(name, *version))
    }

    fn check_start(&self, step: &Upcaster) -> Result<(), InvalidUpcasters> {
        if step.from == 0 || step.to == 0 {
            let upcaster = step.to_string();
            return Err(InvalidUpcasters::Zero { upcaster });
        }
        match self.current.get(&step.event_type) {
            Some(&current) if step.from >= current => {
                let upcaster = step.to_string();
                Err(InvalidUpcasters::Current { upcaster, current })
            }
            _ => Ok(()),
        }
    }

    fn check_end(&self, step: &Upcaster) -> Result<(), InvalidUpcasters> {
        let (event_type, version) = (step.event_type.to_string(), step.from);
        let last = self.chain(&event_type, version).last();
        let (end, end_version) = last.map_or((&*event_type, version), Upcaster::target);
        if self.step(end, end_version).is_some() {
            return Err(InvalidUpcasters::Cycle {
                event_type,
                version,
            });
        }
        if self.current.get(end) == Some(&end_version) {
            return Ok(());
        }
        Err(InvalidUpcasters::DeadEnd {
            end: end.to_owned(),
            end_version,
            event_type,
            version,
        })
    }

    /// Whether a step begins at each older version of the event `name`.
    fn check_versions(&self, name: &str, current: u32) -> Result<(), InvalidUpcasters> {
        let steps = self.steps.values().flat_map(BTreeMap::values);
        let arrivals = steps.filter(|step| *step.to_type == *name && *step.event_type != *name);
        let own = self.steps.get(name);
        let first = match (arrivals.map(|step| step.to).min(), own) {
            (None, _) => 1,
            (Some(arrival), None) => arrival,
            (Some(arrival), Some(own)) => {
                own.keys().next().map_or(arrival, |&own| own.min(arrival))
            }
        };
        let missing = (first..current).find(|version| self.step(name, *version).is_none());
        missing.map_or(Ok(()), |version| {
            Err(InvalidUpcasters::Gap {
                event_type: name.to_owned(),
                version,
                current,
            })
        })
    }
}
