//! A handler that remembers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tidelog_domain::{Partition, RecordedEvent};
use tidelog_eventbus::{Handled, Handler, HandlerError};

use super::{Log, eventually, partitions};

/// What a handler is to do with the next batch.
type Behaviour = Arc<dyn Fn(&[RecordedEvent]) -> Result<(), HandlerError> + Send + Sync>;

type Sequences = Box<dyn Fn(&RecordedEvent) -> Result<Vec<String>, HandlerError> + Send + Sync>;

/// A handler that remembers what it handled, and insists that each event comes once and in order.
pub(crate) struct Recorder {
    handled: Mutex<BTreeMap<Partition, Vec<RecordedEvent>>>,
    behaviour: Mutex<Behaviour>,
    wants: Box<dyn Fn(&RecordedEvent) -> bool + Send + Sync>,
    sequences: Sequences,
    /// Held by a test to stop the handler in the middle.
    pub(crate) gate: Arc<tokio::sync::RwLock<()>>,
    /// How many batches it was given.
    batches: AtomicUsize,
    /// How many it has ended with.
    ended: AtomicUsize,
}

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        Self::wanting(|_| true)
    }

    pub(crate) fn wanting(
        wants: impl Fn(&RecordedEvent) -> bool + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self::made(Box::new(wants), Box::new(stream)))
    }

    /// With sequences of its own.
    pub(crate) fn keyed(
        sequences: impl Fn(&RecordedEvent) -> Result<Vec<String>, HandlerError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self::made(Box::new(|_| true), Box::new(sequences)))
    }

    fn made(
        wants: Box<dyn Fn(&RecordedEvent) -> bool + Send + Sync>,
        sequences: Sequences,
    ) -> Self {
        Self {
            handled: Mutex::default(),
            behaviour: Mutex::new(Arc::new(|_| Ok(()))),
            wants,
            sequences,
            gate: Arc::default(),
            batches: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
        }
    }

    /// What it does from now on, before it remembers a batch.
    pub(crate) fn behave(
        &self,
        behaviour: impl Fn(&[RecordedEvent]) -> Result<(), HandlerError> + Send + Sync + 'static,
    ) {
        *self.behaviour.lock().unwrap() = Arc::new(behaviour);
    }

    pub(crate) fn positions(&self, partition: Partition) -> Vec<u64> {
        let handled = self.handled.lock().unwrap();
        let of_it = handled.get(&partition).map_or(&[][..], Vec::as_slice);
        of_it.iter().map(|event| event.position.number()).collect()
    }

    /// How many batches it was given, and has not ended with.
    pub(crate) fn waiting(&self) -> usize {
        let ended = self.ended.load(Ordering::SeqCst);
        self.batches.load(Ordering::SeqCst) - ended
    }

    pub(crate) fn count(&self) -> usize {
        self.handled.lock().unwrap().values().map(Vec::len).sum()
    }

    /// Waits until it has handled as much as the log has, and compares event by event.
    pub(crate) async fn has_all_of(&self, log: &Log) {
        let heads = log.heads().await;
        let all: u64 = heads.iter().map(|head| head.number()).sum();
        eventually("the handler has all events", || async {
            self.count() as u64 >= all
        })
        .await;
        for partition in partitions().iter() {
            let handled = self.handled.lock().unwrap().get(&partition).cloned();
            assert_eq!(
                handled.unwrap_or_default(),
                log.events(partition).await,
                "partition {partition}"
            );
        }
    }
}

fn stream(event: &RecordedEvent) -> Result<Vec<String>, HandlerError> {
    Ok(vec![event.stream.to_string()])
}

#[async_trait]
impl Handler for Recorder {
    fn wants(&self, event: &RecordedEvent) -> bool {
        (self.wants)(event)
    }

    fn sequences(&self, event: &RecordedEvent) -> Result<Vec<String>, HandlerError> {
        (self.sequences)(event)
    }

    async fn handle(
        &self,
        _partition: Partition,
        events: &[RecordedEvent],
    ) -> Result<Handled, HandlerError> {
        self.batches.fetch_add(1, Ordering::SeqCst);
        let _open = self.gate.read().await;
        self.ended.fetch_add(1, Ordering::SeqCst);
        assert!(!events.is_empty(), "a batch of nothing");
        let behaviour = Arc::clone(&*self.behaviour.lock().unwrap());
        behaviour(events)?;
        let mut handled = self.handled.lock().unwrap();
        for event in events {
            handled
                .entry(event.partition)
                .or_default()
                .push(event.clone());
        }
        Ok(Handled::default())
    }
}
