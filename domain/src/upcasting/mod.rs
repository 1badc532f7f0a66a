//! Evolution of events: what was stored in an older shape is brought to today's before anybody reads it.
//!
//! A stored event is never edited. When its shape changes, its schema version goes up by one, and an [`Upcaster`] says how
//! the payload of the version before becomes one of the new. Chains of them run on raw JSON, between the stored bytes and
//! `decode`, wherever a state or a view is folded.
//!
//! ```
//! use serde_json::{Value, json};
//! use tidelog_domain::{Payload, Upcaster, Upcasters};
//!
//! fn whole_cents(payload: Value) -> Value {
//!     json!({"cents": payload["euros"].as_u64().map(|euros| euros * 100)})
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let upcasters = Upcasters::new(
//!     [("account.deposited", 2)],
//!     [
//!         Upcaster::new("account.paid_in", 1, whole_cents).renamed("account.deposited", 2),
//!         Upcaster::new("account.deposited", 1, whole_cents),
//!     ],
//! );
//! upcasters.check()?;
//! let stored = Payload::of(&json!({"euros": 5}))?;
//! let today = upcasters.upcast("account.paid_in", 1, &stored)?;
//! assert_eq!((today.event_type, today.schema_version), ("account.deposited", 2));
//! assert_eq!(today.payload.decode::<Value>()?, json!({"cents": 500}));
//! # Ok(())
//! # }
//! ```

mod check;
mod lock;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::aggregate::{DecodeError, Event};
use crate::event::{Payload, RecordedEvent};

pub use check::InvalidUpcasters;
pub use lock::{Lock, ShapeChange};

/// The shape in which an event is stored today.
#[derive(Clone, Debug, PartialEq)]
pub struct EventShape {
    /// Its stored name.
    pub event_type: Arc<str>,
    /// The version of its shape, from 1.
    pub schema_version: u32,
    /// The JSON Schema of its payload, where it is known.
    pub schema: Option<Value>,
}

impl EventShape {
    /// The shapes of `E`, in the order of [`Event::TYPES`].
    #[must_use]
    pub fn of<E: Event>() -> Vec<Self> {
        let shape = |&event_type: &&'static str| Self {
            event_type: event_type.into(),
            schema_version: E::current_version(event_type),
            schema: E::schema(event_type),
        };
        E::TYPES.iter().map(shape).collect()
    }
}

/// One step from an older shape of an event to a newer one: pure, on raw JSON.
#[derive(Clone)]
pub struct Upcaster {
    event_type: Arc<str>,
    from: u32,
    to_type: Arc<str>,
    to: u32,
    revision: u32,
    /// `None` where the older payload can be read as the newer as it is.
    step: Option<fn(Value) -> Value>,
}

impl Upcaster {
    /// Brings the payload of the event `event_type` from schema version `from` to the next one.
    ///
    /// `step` MUST give the same for the same payload, and MUST NOT panic on any that was ever stored: what it cannot read it
    /// gives back as it is, and `decode` says what is wrong with it.
    #[must_use]
    pub fn new(event_type: &str, from: u32, step: fn(Value) -> Value) -> Self {
        Self {
            step: Some(step),
            ..Self::unchanged(event_type, from)
        }
    }

    /// Says that the payload of the event `event_type` in schema version `from` can be read as one of the next version as it
    /// is: all that is new about that is optional.
    #[must_use]
    pub fn unchanged(event_type: &str, from: u32) -> Self {
        let event_type: Arc<str> = event_type.into();
        Self {
            to_type: Arc::clone(&event_type),
            event_type,
            from,
            to: from.saturating_add(1),
            revision: 1,
            step: None,
        }
    }

    /// The same, but its result is the event `event_type` in schema version `version`.
    #[must_use]
    pub fn renamed(mut self, event_type: &str, version: u32) -> Self {
        self.to_type = event_type.into();
        self.to = version;
        self
    }

    /// The same with the number of its revision, 1 unless said otherwise. It goes up when the function gives something else
    /// than before: then views are built anew, and snapshots are taken anew.
    #[must_use]
    pub fn revision(self, revision: u32) -> Self {
        Self { revision, ..self }
    }

    /// Whether it begins at the same shape as `other`.
    pub(crate) fn begins_with(&self, other: &Self) -> bool {
        (&self.event_type, self.from) == (&other.event_type, other.from)
    }

    /// Where it leads.
    fn target(&self) -> (&str, u32) {
        (&self.to_type, self.to)
    }
}

impl fmt::Debug for Upcaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upcaster({self})")
    }
}

impl fmt::Display for Upcaster {
    /// `account.paid_in 1 → account.deposited 2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (to_type, to) = self.target();
        write!(f, "{} {} → {to_type} {to}", self.event_type, self.from)
    }
}

/// An event in today's shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Upcasted<'a> {
    /// Its name today.
    pub event_type: &'a str,
    /// The version of its shape today.
    pub schema_version: u32,
    /// Its payload: the stored bytes where no step changed them.
    pub payload: Cow<'a, Payload>,
}

/// The current shapes of some events, and the steps that lead there from all older ones.
#[derive(Clone, Debug, Default)]
pub struct Upcasters {
    current: BTreeMap<Arc<str>, u32>,
    steps: BTreeMap<Arc<str>, BTreeMap<u32, Upcaster>>,
    /// Steps that begin where another one does.
    surplus: Vec<Upcaster>,
}

impl Upcasters {
    /// Leads to the shapes `current`, each the stored name and the schema version of an event, by `steps`.
    ///
    /// Nothing is checked yet: see [`Upcasters::check`].
    #[must_use]
    pub fn new<'a>(
        current: impl IntoIterator<Item = (&'a str, u32)>,
        steps: impl IntoIterator<Item = Upcaster>,
    ) -> Self {
        let current = current.into_iter();
        let mut new = Self {
            current: current
                .map(|(name, version)| (name.into(), version))
                .collect(),
            ..Self::default()
        };
        new.extend(steps);
        new
    }

    /// Leads to the shapes of `E`, as it says itself.
    #[must_use]
    pub fn of<E: Event>() -> Self {
        let current = E::TYPES.iter();
        Self::new(
            current.map(|&name| (name, E::current_version(name))),
            E::upcasters(),
        )
    }

    /// Leads to the shapes of both: for events of several aggregates.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.current.extend(other.current);
        self.extend(other.steps.into_values().flat_map(BTreeMap::into_values));
        self.surplus.extend(other.surplus);
        self
    }

    fn extend(&mut self, steps: impl IntoIterator<Item = Upcaster>) {
        for step in steps {
            let from = self.steps.entry(Arc::clone(&step.event_type)).or_default();
            if let Some(other) = from.insert(step.from, step) {
                self.surplus.push(other);
            }
        }
    }

    /// Brings a stored event to today's shape. Without a step it is as it was stored.
    ///
    /// An event whose name is not among the current ones is given back as it is: `decode` says what it makes of it.
    ///
    /// # Errors
    ///
    /// [`DecodeError::UnknownVersion`] when no chain leads to the current version: a newer program wrote it, or a step is
    /// missing. [`DecodeError::Payload`] when a step has to read what is not JSON.
    pub fn upcast<'a>(
        &'a self,
        event_type: &'a str,
        schema_version: u32,
        payload: &'a Payload,
    ) -> Result<Upcasted<'a>, DecodeError> {
        let unreadable = |source| DecodeError::payload(event_type, schema_version, source);
        let (mut at, mut json) = ((event_type, schema_version), None);
        for step in self.chain(event_type, schema_version) {
            at = step.target();
            if let Some(run) = step.step {
                let before = match json.take() {
                    Some(before) => before,
                    None => payload.decode().map_err(unreadable)?,
                };
                json = Some(run(before));
            }
        }
        let (name, version) = at;
        match self.current.get(name) {
            Some(&known) if known != version => Err(DecodeError::UnknownVersion {
                event_type: event_type.to_owned(),
                schema_version,
                known,
            }),
            _ => Ok(Upcasted {
                event_type: name,
                schema_version: version,
                payload: match json {
                    Some(json) => Cow::Owned(Payload::of(&json).map_err(unreadable)?),
                    None => Cow::Borrowed(payload),
                },
            }),
        }
    }

    /// The same for an event with its envelope, as views read it.
    ///
    /// # Errors
    ///
    /// As [`Upcasters::upcast`].
    pub fn upcast_event<'a>(
        &self,
        event: &'a RecordedEvent,
    ) -> Result<Cow<'a, RecordedEvent>, DecodeError> {
        let stored = (&*event.event_type, event.schema_version);
        let today = self.upcast(stored.0, stored.1, &event.payload)?;
        if (today.event_type, today.schema_version) == stored {
            return Ok(Cow::Borrowed(event));
        }
        Ok(Cow::Owned(RecordedEvent {
            event_type: today.event_type.into(),
            schema_version: today.schema_version,
            payload: today.payload.into_owned(),
            ..event.clone()
        }))
    }

    /// Those of the names that events are stored under whose chain leads to one of `names`; `names` themselves among them.
    #[must_use]
    pub fn stored_names(&self, names: &[&str]) -> Vec<String> {
        let mut stored: BTreeSet<&str> = names.iter().copied().collect();
        for step in self.steps.values().flat_map(BTreeMap::values) {
            let last = self.chain(&step.event_type, step.from).last();
            if last.is_some_and(|last| names.contains(&&*last.to_type)) {
                stored.insert(&step.event_type);
            }
        }
        stored.into_iter().map(str::to_owned).collect()
    }

    /// Whether a stored event of this name and version is read today.
    #[must_use]
    pub fn reads(&self, event_type: &str, schema_version: u32) -> bool {
        let last = self.chain(event_type, schema_version).last();
        let (name, version) = last.map_or((event_type, schema_version), Upcaster::target);
        self.current.get(name) == Some(&version)
    }

    /// Changes whenever stored events may be read as something else: by the current names and versions, and by the steps
    /// with their revisions. What a step does cannot be seen: its revision says so.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut text = String::new();
        for (name, version) in &self.current {
            text.push_str(&format!("{name} {version}\n"));
        }
        for step in self.steps.values().flat_map(BTreeMap::values) {
            let changes = step.step.is_some();
            text.push_str(&format!("{step} {changes} #{}\n", step.revision));
        }
        format!("{:016x}", twox_hash::XxHash64::oneshot(0, text.as_bytes()))
    }

    /// The steps from a shape on. There are at most as many as there are steps at all, so that a circle has an end.
    fn chain<'a>(&'a self, event_type: &str, version: u32) -> impl Iterator<Item = &'a Upcaster> {
        let bound = self.steps.values().map(BTreeMap::len).sum();
        let first = self.step(event_type, version);
        let next = |step: &&Upcaster| self.step(&step.to_type, step.to);
        std::iter::successors(first, next).take(bound)
    }

    fn step(&self, event_type: &str, version: u32) -> Option<&Upcaster> {
        self.steps.get(event_type)?.get(&version)
    }
}

#[cfg(test)]
mod tests;
