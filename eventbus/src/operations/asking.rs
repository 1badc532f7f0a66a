//! Asking the owners of partitions to do something, and hearing what came of it.

use std::time::Duration;

use tidelog_domain::{Partition, Position};
use tokio::time::Instant;

use super::{LOOK_AGAIN, OperationError, Operations, Stored, check_length};
use crate::parking::ParkedSequence;
use crate::state::{Ask, Request, StateRecord};

/// Something that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asked {
    /// Whose owner was asked.
    pub partition: Partition,
    /// What for.
    pub request: Request,
}

/// What came of something that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// Whose owner was asked.
    pub partition: Partition,
    /// Whether it is done.
    pub is_done: bool,
    /// Who is to do it; `None` when nobody works on the partition.
    pub owner: Option<String>,
    /// Whether the partition is paused, so that nobody will.
    pub is_paused: bool,
    /// What is set aside still, or again, of what was asked for.
    pub parked: Vec<ParkedSequence>,
}

/// Which event is to be skipped.
#[derive(Clone, Debug, Default)]
pub struct Skip<'a> {
    /// The sequence whose first waiting event it is.
    pub sequence: &'a str,
    /// Where; needed only when the sequence is set aside in several partitions.
    pub partition: Option<Partition>,
    /// Where the event is, so that no other is skipped in its place; else the one that is the first when it is asked for.
    pub position: Option<Position>,
    /// Why, for the record; not empty.
    pub reason: &'a str,
}

impl Operations {
    /// Asks for a sequence to be tried again, in order, in each partition where it is set aside. Asking twice is asking once.
    ///
    /// # Errors
    ///
    /// [`OperationError::NotParked`], [`OperationError::TooManyRequests`], [`OperationError::Contended`],
    /// [`OperationError::States`].
    pub async fn retry(&self, sequence: &str) -> Result<Vec<Asked>, OperationError> {
        let what = Ask::Retry {
            sequence: sequence.to_owned(),
        };
        let asked = self.ask_where(what, |record| record.parked.get(sequence).is_some());
        let asked = asked.await?;
        if asked.is_empty() {
            let sequence = sequence.to_owned();
            return Err(OperationError::NotParked { sequence });
        }
        Ok(asked)
    }

    /// Asks for all that is set aside to be tried again, in order. Nothing is asked for where nothing is.
    ///
    /// # Errors
    ///
    /// As [`Operations::retry`], but for [`OperationError::NotParked`].
    pub async fn retry_all(&self) -> Result<Vec<Asked>, OperationError> {
        self.ask_where(Ask::RetryAll, |record| !record.parked.is_empty())
            .await
    }

    /// Asks for the first event of a sequence to be passed over, after which the sequence goes on. The reason is kept with the
    /// [skipped events](Self::skipped). Which event it is, is settled here: if that one is handled or skipped before it comes to
    /// that, no other is.
    ///
    /// # Errors
    ///
    /// [`OperationError::Reason`], [`OperationError::NotParked`], [`OperationError::Ambiguous`], [`OperationError::Moved`],
    /// [`OperationError::TooManyRequests`], [`OperationError::Contended`], [`OperationError::States`].
    pub async fn skip(&self, skip: &Skip<'_>) -> Result<Asked, OperationError> {
        if skip.reason.trim().is_empty() {
            return Err(OperationError::Reason {
                why: "is missing: it is kept with the event",
            });
        }
        check_length(skip.reason)?;
        let sequence = skip.sequence.to_owned();
        let is_meant = |own: &Stored| {
            own.record.parked.get(skip.sequence).is_some()
                && skip.partition.is_none_or(|meant| meant == own.partition)
        };
        let mut found: Vec<_> = self.all().await?.into_iter().filter(is_meant).collect();
        if found.len() > 1 {
            let partitions = found.iter().map(|own| own.partition).collect();
            return Err(OperationError::Ambiguous {
                sequence,
                partitions,
            });
        }
        let not_parked = || OperationError::NotParked {
            sequence: sequence.clone(),
        };
        let stored = found.pop().ok_or_else(not_parked)?;
        let parked = stored.record.parked.get(skip.sequence);
        let first = parked.ok_or_else(not_parked)?.first;
        if skip.position.is_some_and(|meant| meant != first) {
            return Err(OperationError::Moved { sequence, first });
        }
        let what = Ask::Skip {
            sequence,
            position: first,
            reason: skip.reason.to_owned(),
        };
        self.ask(stored, what).await
    }

    /// What has come of what was asked for. It waits until all of it is done, at most for `patience`.
    ///
    /// # Errors
    ///
    /// [`OperationError::States`]. What was asked for stays so.
    pub async fn answers(
        &self,
        asked: &[Asked],
        patience: Duration,
    ) -> Result<Vec<Answer>, OperationError> {
        let deadline = Instant::now() + patience;
        loop {
            let stored = self.all().await?;
            let answers = asked.iter().map(|asked| answer(asked, &stored));
            let answers: Vec<_> = answers.collect();
            let is_over = Instant::now() >= deadline;
            if is_over || answers.iter().all(|answer| answer.is_done) {
                return Ok(answers);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Asks the owners of those partitions whose record fits.
    async fn ask_where(
        &self,
        what: Ask,
        fits: impl Fn(&StateRecord) -> bool,
    ) -> Result<Vec<Asked>, OperationError> {
        let mut asked = Vec::new();
        for stored in self.all().await? {
            if fits(&stored.record) {
                asked.push(self.ask(stored, what.clone()).await?);
            }
        }
        Ok(asked)
    }

    /// Asks the owner of a partition, unless the same is asked for already.
    async fn ask(&self, stored: Stored, what: Ask) -> Result<Asked, OperationError> {
        let partition = stored.partition;
        let request = match same(&stored.record, &what) {
            Some(open) => open.clone(),
            None => Request::now(what),
        };
        let step = |record: &StateRecord| {
            if same(record, &request.what).is_some() {
                return Ok(None);
            }
            let asked = record.asked(request.clone());
            let asked = asked.ok_or(OperationError::TooManyRequests { partition })?;
            Ok(Some(asked))
        };
        self.change(stored, step).await?;
        Ok(Asked { partition, request })
    }
}

/// An open request for the same.
fn same<'r>(record: &'r StateRecord, what: &Ask) -> Option<&'r Request> {
    let is_same = |open: &&Request| match (&open.what, what) {
        // The first reason counts.
        (
            Ask::Skip {
                sequence, position, ..
            },
            Ask::Skip {
                sequence: own,
                position: at,
                ..
            },
        ) => (sequence, position) == (own, at),
        (open, what) => open == what,
    };
    record.requests.iter().find(is_same)
}

/// What has come of it, as the records say.
fn answer(asked: &Asked, stored: &[Stored]) -> Answer {
    let record = stored.iter().find(|own| own.partition == asked.partition);
    let Some(record) = record.map(|own| &own.record) else {
        // The records went with the data beside them: nothing is set aside any more.
        return Answer {
            partition: asked.partition,
            is_done: true,
            owner: None,
            is_paused: false,
            parked: Vec::new(),
        };
    };
    let is_open = |open: &Request| open.id == asked.request.id;
    let parked = match &asked.request.what {
        Ask::Retry { sequence } | Ask::Skip { sequence, .. } => {
            record.parked.get(sequence).cloned().into_iter().collect()
        }
        Ask::RetryAll => record.parked.iter().cloned().collect(),
    };
    Answer {
        partition: asked.partition,
        is_done: !record.requests.iter().any(is_open),
        owner: record.owner.clone(),
        is_paused: record.is_paused(),
        parked,
    }
}
