//! One trip to Redis for what several tasks have to do at the same time. A pipeline of its own for each would cost more than its commands do: a
//! write, a read on the other side, and as much again for the answer.
//!
//! The first task that comes starts a gathering, which ends when every task that could run meanwhile has run. Nobody waits for the trips
//! before it: one that is not answered holds up nobody but its own. What nobody waits for any longer is left out, and a trip goes on only
//! while somebody waits for a part of it, so that what callers hold bounds what trips do.

use std::future::Future;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::Failed;
use crate::lock::lock;

/// How many go in one trip, and about how many bytes (a single one may have more): a trip has to be through within its time-out.
const MAX_ITEMS: usize = 500;
const MAX_BYTES: usize = 512 * 1024;

/// What is gathered at the moment.
pub(super) struct Gathering<T, A>(Mutex<Vec<Waiting<T, A>>>);

struct Waiting<T, A> {
    item: T,
    bytes: usize,
    tell: oneshot::Sender<Result<A, Failed>>,
}

impl<T, A> Default for Gathering<T, A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Send + 'static, A: Send + 'static> Gathering<T, A> {
    /// Has `run` do `item`, of about so many bytes, with what else there is, and gives the answer to it. `run` gives an answer to each, or says
    /// why there is none.
    pub(super) async fn run<F, Trip>(
        self: &Arc<Self>,
        item: T,
        bytes: usize,
        run: F,
    ) -> Result<A, Failed>
    where
        F: Fn(Vec<T>) -> Trip + Send + Sync + 'static,
        Trip: Future<Output = Result<Vec<Result<A, Failed>>, Failed>> + Send,
    {
        let (tell, answer) = oneshot::channel();
        let is_first = {
            let mut waiting = lock(&self.0);
            waiting.push(Waiting { item, bytes, tell });
            waiting.len() == 1
        };
        if is_first {
            let gathered = Gathered(Some(Arc::clone(self)));
            tokio::spawn(async move {
                tokio::task::yield_now().await;
                let trips = gathered.end().into_iter();
                futures_util::future::join_all(trips.map(|trip| go(trip, &run))).await;
            });
        }
        answer.await.unwrap_or(Err(Failed::Ended))
    }
}

/// A gathering that is under way. Those who wait are told when it ends otherwise than it should: the next begins another.
struct Gathered<T, A>(Option<Arc<Gathering<T, A>>>);

impl<T, A> Gathered<T, A> {
    /// Ends it: what was gathered, by trips.
    fn end(mut self) -> Vec<Vec<Waiting<T, A>>> {
        let (mut trips, mut bytes) = (vec![Vec::new()], 0);
        for waiting in self.take() {
            bytes += waiting.bytes;
            match trips.last_mut() {
                Some(trip) if trip.is_empty() || (trip.len() < MAX_ITEMS && bytes <= MAX_BYTES) => {
                    trip.push(waiting);
                }
                _ => {
                    bytes = waiting.bytes;
                    trips.push(vec![waiting]);
                }
            }
        }
        trips
    }

    fn take(&mut self) -> Vec<Waiting<T, A>> {
        let gathering = self.0.take();
        gathering.map_or_else(Vec::new, |gathering| {
            std::mem::take(&mut lock(&gathering.0))
        })
    }
}

impl<T, A> Drop for Gathered<T, A> {
    fn drop(&mut self) {
        self.take();
    }
}

async fn go<T, A, F, Trip>(trip: Vec<Waiting<T, A>>, run: &F)
where
    F: Fn(Vec<T>) -> Trip,
    Trip: Future<Output = Result<Vec<Result<A, Failed>>, Failed>>,
{
    let waited_for = trip.into_iter().filter(|one| !one.tell.is_closed());
    let (items, mut callers): (Vec<_>, Vec<_>) = waited_for.map(|one| (one.item, one.tell)).unzip();
    if items.is_empty() {
        return;
    }
    let all_are_gone = async {
        for caller in &mut callers {
            caller.closed().await;
        }
    };
    let answers = tokio::select! {
        biased;
        answers = run(items) => answers,
        () = all_are_gone => return,
    };
    // A caller who is gone hears nothing.
    match answers {
        Ok(answers) => {
            for (caller, answer) in callers.into_iter().zip(answers) {
                let _gone = caller.send(answer);
            }
        }
        Err(failed) => {
            for caller in callers {
                let _gone = caller.send(Err(failed.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;

    type Numbers = Arc<Gathering<u32, u32>>;

    /// Numbers that are gathered, and the trips that there were.
    #[derive(Clone, Default)]
    struct Trips {
        gathering: Numbers,
        trips: Arc<Mutex<Vec<Vec<u32>>>>,
    }

    impl Trips {
        /// The answer to a number is its double, and that to 7 an error.
        async fn double(&self, number: u32, bytes: usize) -> Result<u32, Failed> {
            let trips = Arc::clone(&self.trips);
            let run = move |numbers: Vec<u32>| {
                lock(&trips).push(numbers.clone());
                let double = |number: u32| match number {
                    7 => Err(Failed::Ended),
                    number => Ok(2 * number),
                };
                async move { Ok(numbers.into_iter().map(double).collect()) }
            };
            self.gathering.run(number, bytes, run).await
        }

        fn sizes(&self) -> Vec<usize> {
            lock(&self.trips).iter().map(Vec::len).collect()
        }
    }

    /// Until what was gathered is in a trip.
    async fn is_under_way(gathering: &Gathering<u32, u32>) {
        while !lock(&gathering.0).is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_comes_at_once_goes_in_one_trip_and_each_has_its_own_answer() {
        let trips = Trips::default();
        let answers = join_all((0..100).map(|number| trips.double(number, 10))).await;
        for (number, answer) in (0..).zip(answers) {
            match answer {
                Err(Failed::Ended) => assert_eq!(number, 7),
                answer => assert_eq!(answer.unwrap(), 2 * number),
            }
        }
        assert_eq!(trips.sizes(), [100]);
        assert_eq!(trips.double(100, 10).await.unwrap(), 200);
        assert_eq!(trips.sizes(), [100, 1], "nothing stays behind");
    }

    #[tokio::test]
    async fn a_trip_has_a_bound_in_items_and_in_bytes() {
        let trips = Trips::default();
        join_all((0..1_100).map(|number| trips.double(number, 1))).await;
        assert_eq!(trips.sizes(), [500, 500, 100]);
        let (trips, large) = (Trips::default(), MAX_BYTES + 1);
        let sizes = [1, large, 1, MAX_BYTES - 1, 1, large];
        join_all(sizes.map(|bytes| trips.double(0, bytes))).await;
        assert_eq!(trips.sizes(), [1, 1, 2, 1, 1]);
    }

    #[tokio::test]
    async fn what_fails_as_a_whole_fails_for_each() {
        let gathering = Numbers::default();
        let fail = |number| gathering.run(number, 1, |_| async { Err(Failed::Ended) });
        let answers = join_all((0..3).map(fail)).await;
        let failed = |answer: &Result<u32, _>| matches!(answer, Err(Failed::Ended));
        assert!(answers.iter().all(failed), "{answers:?}");
    }

    #[tokio::test]
    async fn who_goes_away_takes_nothing_from_the_others() {
        let trips = Trips::default();
        let mut gone = Box::pin(trips.double(1, 1));
        assert!((&mut gone).now_or_never().is_none(), "it has begun");
        drop(gone);
        assert_eq!(trips.double(2, 1).await.unwrap(), 4);
        assert_eq!(*lock(&trips.trips), [[2]], "nobody waits for the other");
    }

    #[tokio::test]
    async fn a_trip_is_over_when_nobody_waits_for_it() {
        let gathering = Arc::new(Gathering::<u32, u32>::default());
        let under_way = Arc::new(());
        let for_ever = |under_way: Arc<()>| {
            move |_: Vec<u32>| {
                let under_way = Arc::clone(&under_way);
                async move {
                    let _under_way = under_way;
                    std::future::pending().await
                }
            }
        };
        let mut waits = [1, 2]
            .map(|number| Box::pin(gathering.run(number, 1, for_ever(Arc::clone(&under_way)))));
        for waits in &mut waits {
            assert!(waits.now_or_never().is_none(), "it has begun");
        }
        is_under_way(&gathering).await;
        let [first, second] = waits;
        drop(first);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(Arc::strong_count(&under_way) > 1, "somebody waits");
        drop(second);
        while Arc::strong_count(&under_way) > 1 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_trip_that_is_not_answered_holds_up_nobody_else() {
        let trips = Trips::default();
        let for_ever = |_| std::future::pending();
        let mut waits = Box::pin(trips.gathering.run(1, 1, for_ever));
        assert!((&mut waits).now_or_never().is_none(), "it has begun");
        is_under_way(&trips.gathering).await;
        assert_eq!(trips.double(2, 1).await.unwrap(), 4);
        assert!(waits.now_or_never().is_none());
    }

    #[test]
    fn after_a_runtime_that_ended_the_next_begins_anew() {
        let trips = Trips::default();
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap()
        };
        let first = runtime();
        let begun = trips.clone();
        drop(first.spawn(async move { begun.double(1, 1).await }));
        let once = async { tokio::task::yield_now().await };
        first.block_on(once);
        assert_eq!(lock(&trips.gathering.0).len(), 1, "it has begun");
        drop(first);
        assert_eq!(runtime().block_on(trips.double(2, 1)).unwrap(), 4);
    }
}
