//! A handler that says of each event whether it was handled, as reactions do.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tidelog_domain::{Partition, RecordedEvent};
use tidelog_eventbus::{EventFailure, Failure, Handled, Handler, HandlerError};

type Fails = Box<dyn Fn(&RecordedEvent) -> Option<Failure> + Send + Sync>;
type Sequences = Box<dyn Fn(&RecordedEvent) -> Vec<String> + Send + Sync>;

/// Remembers what it handled, by sequence, and insists on each sequence's order.
pub(crate) struct Careful {
    fails: Mutex<Fails>,
    sequences: Sequences,
    handled: Mutex<BTreeMap<String, Vec<u64>>>,
}

impl Careful {
    /// Whose sequences are the streams.
    pub(crate) fn new() -> Arc<Self> {
        Self::with_sequences(|event| vec![event.stream.to_string()])
    }

    pub(crate) fn with_sequences(
        sequences: impl Fn(&RecordedEvent) -> Vec<String> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            fails: Mutex::new(Box::new(|_| None)),
            sequences: Box::new(sequences),
            handled: Mutex::default(),
        })
    }

    /// Which events it cannot handle from now on.
    pub(crate) fn fail(
        &self,
        fails: impl Fn(&RecordedEvent) -> Option<Failure> + Send + Sync + 'static,
    ) {
        *self.fails.lock().unwrap() = Box::new(fails);
    }

    /// The positions that it handled of a sequence.
    pub(crate) fn of(&self, sequence: &str) -> Vec<u64> {
        let handled = self.handled.lock().unwrap();
        handled.get(sequence).cloned().unwrap_or_default()
    }
}

#[async_trait]
impl Handler for Careful {
    fn sequences(&self, event: &RecordedEvent) -> Result<Vec<String>, HandlerError> {
        Ok((self.sequences)(event))
    }

    async fn handle(
        &self,
        _: Partition,
        events: &[RecordedEvent],
    ) -> Result<Handled, HandlerError> {
        let mut outcome = Handled::default();
        let mut held_up: HashSet<String> = HashSet::new();
        for event in events {
            let sequences = (self.sequences)(event);
            if sequences.iter().any(|own| held_up.contains(own)) {
                held_up.extend(sequences);
                continue;
            }
            let failure = self.fails.lock().unwrap()(event);
            if let Some(failure) = failure {
                held_up.extend(sequences);
                outcome.failed.push(EventFailure {
                    position: event.position,
                    failure,
                });
                continue;
            }
            let mut handled = self.handled.lock().unwrap();
            for sequence in sequences {
                let of_it = handled.entry(sequence).or_default();
                assert!(
                    of_it
                        .last()
                        .is_none_or(|last| *last < event.position.number()),
                    "out of order, or twice"
                );
                of_it.push(event.position.number());
            }
        }
        Ok(outcome)
    }
}
