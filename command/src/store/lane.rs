//! The way from a caller to the task that owns a connection: a caller who goes away cannot cancel a transaction.

use std::sync::Arc;

use tidelog_domain::{Append, Appended};
use tokio::sync::{mpsc, oneshot};

use super::AppendError;
use super::failure::Failure;
use super::plan::{Taint, fail_all};

/// How many batches may wait for one connection.
const QUEUE: usize = 16;

/// What becomes of each append of a batch.
pub(crate) type Verdicts = Vec<Result<Vec<Appended>, AppendError>>;

/// A batch that waits for its transaction.
#[derive(Debug)]
pub(crate) struct Job {
    /// The batch.
    pub(crate) batch: Arc<[Append]>,
    /// Where the verdicts go. Nobody may be there any more.
    pub(crate) answer: oneshot::Sender<Verdicts>,
}

/// The caller's end. The task ends when the last of its lanes is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Lane(mpsc::Sender<Job>);

/// The task of a lane is gone.
#[derive(Debug, thiserror::Error)]
#[error("the task that writes the log has ended")]
struct Ended;

impl Lane {
    /// A lane, and the end where its task takes the jobs from.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Job>) {
        let (jobs, taken) = mpsc::channel(QUEUE);
        (Self(jobs), taken)
    }

    /// Has the task append `batch`, and waits for what became of it.
    pub(crate) async fn append(&self, batch: Arc<[Append]>) -> Verdicts {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            batch: Arc::clone(&batch),
            answer,
        };
        if self.0.send(job).await.is_err() {
            let refuse = |_| Err(AppendError::Unavailable(Box::new(Ended)));
            return batch.iter().map(refuse).collect();
        }
        answered.await.unwrap_or_else(|_| {
            // It took the batch, and may have committed it before it ended.
            let doubt = |_| Err(AppendError::InDoubt(Box::new(Ended)));
            batch.iter().map(doubt).collect()
        })
    }
}

/// One who appends by a connection of its own.
pub(crate) trait Writer: Send {
    /// Appends the batch in one transaction, and gives what is tainted after it.
    ///
    /// # Errors
    ///
    /// Why none of it is in the log (but for [`Failure::InDoubt`]).
    fn append_together(
        &mut self,
        batch: &[Append],
        taint: Taint,
    ) -> impl Future<Output = Result<(Verdicts, Taint), Failure>> + Send;

    /// Appends the batch in one transaction; when the database refuses a statement, append by append, so that a bad one
    /// spoils no other.
    fn append(&mut self, batch: &[Append]) -> impl Future<Output = Verdicts> + Send {
        async move {
            match self.append_together(batch, Taint::default()).await {
                Ok((verdicts, _)) => verdicts,
                Err(Failure::Refused(_)) if batch.len() > 1 => self.append_one_by_one(batch).await,
                Err(failure) => fail_all(batch, || failure.append_error()),
            }
        }
    }

    /// Appends each append of the batch in a transaction of its own, until the database fails.
    fn append_one_by_one(&mut self, batch: &[Append]) -> impl Future<Output = Verdicts> + Send {
        async move {
            let mut taint = Taint::default();
            let mut verdicts = Verdicts::with_capacity(batch.len());
            let mut rest = batch;
            while let Some((append, after)) = rest.split_first() {
                rest = after;
                let alone = std::slice::from_ref(append);
                match self.append_together(alone, taint.clone()).await {
                    Ok((verdict, tainted)) => {
                        verdicts.extend(verdict);
                        taint = tainted;
                    }
                    Err(failure) => {
                        verdicts.extend(fail_all(alone, || failure.append_error()));
                        taint.spread(alone);
                        if let Some(failure) = failure.of_what_follows() {
                            verdicts.extend(fail_all(rest, || failure.append_error()));
                            break;
                        }
                    }
                }
            }
            verdicts
        }
    }
}
