//! Lanes: small writes share their commands.
//!
//! The partitions of a view that is followed live write a few documents and a state record each, again and again. A command for each
//! of them, journaled and on a majority, costs the server more than what is in it. So the statements of one kind for one
//! collection take a lane: one of its commands is under way, and what comes meanwhile goes in the next one, together. Where none is
//! under way nothing waits: the command in flight is all the waiting there is. (Where that takes long, others go beside it.)
//!
//! A request travels whole, in one command, and its answer is that of its own statements; what happens to the command as a whole
//! (no answer in time, a connection lost, no majority) happens to each request in it. Two statements for one document never
//! share a command, so that nothing rests on their order in it. A request that is large, or that finds a full command waiting,
//! goes by itself: it has nothing to gain. That bounds what waits, too.
//!
//! A lane is there as long as it has work. Its commands are sent by tasks of their own, so that nobody who stops waiting takes
//! others' writes with him; a task ends, and the last one takes the lane away, when it finds nobody waiting.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mongodb::bson::raw::{RawBsonRef, RawDocument, RawDocumentBuf};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::MongoReadStore;
use super::error::Fault;
use super::write::{COMMAND_MAX_BYTES, COMMAND_MAX_STATEMENTS, Failure, Kind};

/// How long what waits has to wait before one more command of its lane goes beside those that are under way. One at a time makes the largest
/// groups; but where its connection stalls, it must not hold up the leases of all partitions as long as a command may take.
const STALLED_AFTER: Duration = Duration::from_millis(500);
/// How many commands of a lane are under way at most.
const MAX_SENDERS: usize = 4;
/// The most statements of a request that shares a command. A larger one fills a command well enough.
const SHARED_MAX_STATEMENTS: usize = 100;
/// The most bytes of a request that shares a command.
const SHARED_MAX_BYTES: usize = 256 << 10;

/// What became of the statements of a request: the numbers of those that were not done, and why.
pub(super) type Outcome = Result<Vec<(usize, Failure)>, Fault>;

impl MongoReadStore {
    /// Runs statements that fit into one command.
    pub(super) async fn run(
        &self,
        kind: Kind,
        collection: &str,
        statements: Vec<RawDocumentBuf>,
    ) -> Outcome {
        let collection = collection.to_owned();
        let name = Name { kind, collection };
        let (mut answer, sender) = match self.lanes.enter(&name, statements) {
            Entered::Waiting(answer, sender) => (answer, sender),
            Entered::Alone(statements) => {
                return self.send(&name, statements.iter().collect()).await;
            }
        };
        self.serve_by(sender);
        let answered = match timeout(STALLED_AFTER, &mut answer).await {
            Ok(answered) => answered,
            Err(_) => {
                self.serve_by(self.lanes.one_more(&name));
                answer.await
            }
        };
        let ended = |_| Fault::Reported("the program ends before the answer came".to_owned());
        answered.map_err(ended).flatten()
    }

    fn serve_by(&self, sender: Option<Sender>) {
        if let Some(sender) = sender {
            tokio::spawn(self.clone().serve(sender));
        }
    }

    /// Sends what waits, until nothing does.
    async fn serve(self, mut sender: Sender) {
        while let Some(round) = sender.next_round() {
            let outcome = self.send(&sender.name, round.statements()).await;
            round.answer(&outcome);
        }
    }
}

/// The lanes of a store.
#[derive(Clone, Debug, Default)]
pub(super) struct Lanes(Arc<Mutex<HashMap<Name, Lane>>>);

/// Which lane it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub(super) kind: Kind,
    pub(super) collection: String,
}

/// What waits for a command, and how many are under way.
#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Request>,
    waiting_size: Size,
    senders: usize,
}

/// Statements that somebody waits for.
#[derive(Debug)]
struct Request {
    statements: Vec<RawDocumentBuf>,
    answer: oneshot::Sender<Outcome>,
}

/// What becomes of a request.
#[derive(Debug)]
enum Entered {
    /// It goes by itself.
    Alone(Vec<RawDocumentBuf>),
    /// It waits, and is answered. This one is to send it, unless another does already.
    Waiting(oneshot::Receiver<Outcome>, Option<Sender>),
}

impl Lanes {
    fn enter(&self, name: &Name, statements: Vec<RawDocumentBuf>) -> Entered {
        let size = Size::of(&statements);
        if !size.is_within(SHARED_MAX_STATEMENTS, SHARED_MAX_BYTES) {
            return Entered::Alone(statements);
        }
        let mut lanes = self.lock();
        let lane = lanes.entry(name.clone()).or_default();
        let waiting = lane.waiting_size.and(size);
        if !waiting.is_within(COMMAND_MAX_STATEMENTS, COMMAND_MAX_BYTES) {
            return Entered::Alone(statements);
        }
        let (answer, answered) = oneshot::channel();
        lane.waiting.push_back(Request { statements, answer });
        lane.waiting_size = waiting;
        let is_first = lane.senders == 0;
        Entered::Waiting(answered, is_first.then(|| self.sender(name, lane)))
    }

    /// One more sender, where something waits and there may be more.
    fn one_more(&self, name: &Name) -> Option<Sender> {
        let mut lanes = self.lock();
        let lane = lanes.get_mut(name)?;
        let is_due = !lane.waiting.is_empty() && lane.senders < MAX_SENDERS;
        is_due.then(|| self.sender(name, lane))
    }

    fn sender(&self, name: &Name, lane: &mut Lane) -> Sender {
        lane.senders += 1;
        Sender {
            lanes: self.clone(),
            name: name.clone(),
            has_left: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Lane>> {
        // Nothing that is done under the lock leaves a lane half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    /// Takes what goes in the next command: everything, up to a document that is written a second time.
    fn next_round(&mut self, kind: Kind) -> Vec<Request> {
        let mut documents = HashSet::new();
        let together = self.waiting.iter().take_while(|&request| {
            let mut of_request = request.statements.iter().map(|bson| document(kind, bson));
            of_request.all(|document| documents.insert(document))
        });
        let together = together.count();
        // The first goes in any case: what it says twice itself is its own affair.
        let together = together.max(1).min(self.waiting.len());
        let round: Vec<_> = self.waiting.drain(..together).collect();
        let left = self.waiting.iter().map(|left| Size::of(&left.statements));
        self.waiting_size = left.fold(Size::default(), Size::and);
        round
    }
}

/// The document that a statement writes: what is the same for two of the same, and may be for others.
fn document(kind: Kind, statement: &RawDocument) -> &[u8] {
    let with_id = match kind {
        Kind::Insert => Ok(statement),
        Kind::Update => statement.get_document("q"),
    };
    match with_id.map(|with_id| with_id.get("_id")) {
        Ok(Ok(Some(RawBsonRef::String(id)))) => id.as_bytes(),
        Ok(Ok(Some(RawBsonRef::Document(id)))) => id.as_bytes(),
        _ => &[],
    }
}

/// How much it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    statements: usize,
    bytes: usize,
}

impl Size {
    fn of(statements: &[RawDocumentBuf]) -> Self {
        let bytes = statements.iter().map(|bson| bson.as_bytes().len());
        Self {
            statements: statements.len(),
            bytes: bytes.sum(),
        }
    }

    const fn and(self, other: Self) -> Self {
        Self {
            statements: self.statements.saturating_add(other.statements),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    const fn is_within(self, statements: usize, bytes: usize) -> bool {
        self.statements <= statements && self.bytes <= bytes
    }
}

/// One that sends the commands of a lane, one after the other.
#[derive(Debug)]
struct Sender {
    lanes: Lanes,
    name: Name,
    has_left: bool,
}

impl Sender {
    /// What goes in the next command; `None` when nothing waits, and then this sender has left the lane.
    fn next_round(&mut self) -> Option<Round> {
        let lanes = self.lanes.clone();
        let mut lanes = lanes.lock();
        let lane = lanes.get_mut(&self.name)?;
        if lane.waiting.is_empty() {
            self.leave(&mut lanes);
            return None;
        }
        Some(Round(lane.next_round(self.name.kind)))
    }

    /// The last one to leave takes the lane away.
    fn leave(&mut self, lanes: &mut HashMap<Name, Lane>) {
        self.has_left = true;
        if let Some(lane) = lanes.get_mut(&self.name) {
            lane.senders = lane.senders.saturating_sub(1);
            if lane.senders == 0 {
                lanes.remove(&self.name);
            }
        }
    }
}

impl Drop for Sender {
    /// Where it ends before its work does, with its runtime or by a panic, and no other is left, those who wait are told.
    fn drop(&mut self) {
        if !self.has_left {
            let lanes = self.lanes.clone();
            self.leave(&mut lanes.lock());
        }
    }
}

/// The requests that share a command.
#[derive(Debug)]
struct Round(Vec<Request>);

impl Round {
    fn statements(&self) -> Vec<&RawDocumentBuf> {
        let requests = self.0.iter();
        requests.flat_map(|request| &request.statements).collect()
    }

    /// Gives each request what concerns it.
    fn answer(self, outcome: &Outcome) {
        let mut first = 0;
        for request in self.0 {
            let numbers = first..first + request.statements.len();
            first = numbers.end;
            let own = |failures: &Vec<(usize, Failure)>| {
                let own = failures
                    .iter()
                    .filter(|(number, _)| numbers.contains(number));
                own.map(|(number, failure)| (number - numbers.start, *failure))
                    .collect()
            };
            // Who does not wait any more need not be told.
            let _ = request
                .answer
                .send(outcome.as_ref().map(own).map_err(Clone::clone));
        }
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::rawdoc;
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    /// Inserts of documents with these ids.
    fn inserts<'i>(ids: impl IntoIterator<Item = &'i str>) -> Vec<RawDocumentBuf> {
        let insert = |id| rawdoc! { "_id": id };
        ids.into_iter().map(insert).collect()
    }

    fn name() -> Name {
        Name {
            kind: Kind::Insert,
            collection: "post_v1".to_owned(),
        }
    }

    type Answer = oneshot::Receiver<Outcome>;

    /// A request that waits, and its sender if it has one.
    fn waits(lanes: &Lanes, statements: Vec<RawDocumentBuf>) -> (Answer, Option<Sender>) {
        match lanes.enter(&name(), statements) {
            Entered::Waiting(answer, sender) => (answer, sender),
            Entered::Alone(..) => panic!("it does not wait"),
        }
    }

    fn is_alone(lanes: &Lanes, statements: Vec<RawDocumentBuf>) -> bool {
        matches!(lanes.enter(&name(), statements), Entered::Alone(..))
    }

    #[test]
    fn what_waits_shares_a_command_and_each_is_told_of_its_own_statements() {
        let lanes = Lanes::default();
        let (mut first, sender) = waits(&lanes, inserts(["a", "b"]));
        let (mut second, none) = waits(&lanes, inserts(["c"]));
        assert!(none.is_none(), "one sends already");
        let (mut third, _) = waits(&lanes, inserts(["d", "e"]));
        let mut sender = sender.unwrap();
        let round = sender.next_round().unwrap();
        let sent: Vec<_> = round.statements().into_iter().cloned().collect();
        assert_eq!(sent, inserts(["a", "b", "c", "d", "e"]));
        let failures = vec![
            (4, Failure::Unmet),
            (1, Failure::Unavailable(1)),
            (3, Failure::Unwritable("x")),
        ];
        round.answer(&Ok(failures));
        let told = |answer: &mut Answer| answer.try_recv().unwrap().unwrap();
        assert_eq!(told(&mut first), [(1, Failure::Unavailable(1))]);
        assert_eq!(told(&mut second), []);
        let expected = [(1, Failure::Unmet), (0, Failure::Unwritable("x"))];
        assert_eq!(told(&mut third), expected);
    }

    #[test]
    fn what_happens_to_the_command_happens_to_all_in_it() {
        let lanes = Lanes::default();
        let (mut first, sender) = waits(&lanes, inserts(["a"]));
        let (mut second, _) = waits(&lanes, inserts(["b"]));
        let round = sender.unwrap().next_round().unwrap();
        round.answer(&Err(Fault::Reported("no majority".to_owned())));
        for answer in [&mut first, &mut second] {
            let error = answer.try_recv().unwrap().unwrap_err();
            assert_eq!(error.to_string(), "no majority");
        }
    }

    #[test]
    fn a_document_that_waits_already_goes_with_the_next_command() {
        let lanes = Lanes::default();
        let (_first, sender) = waits(&lanes, inserts(["a"]));
        let (_second, _) = waits(&lanes, inserts(["b", "a"]));
        let (_third, _) = waits(&lanes, inserts(["b"]));
        let (_fourth, _) = waits(&lanes, inserts(["c"]));
        let mut sender = sender.unwrap();
        let mut sent = || {
            let round = sender.next_round()?;
            Some(round.statements().into_iter().cloned().collect::<Vec<_>>())
        };
        assert_eq!(sent(), Some(inserts(["a"])));
        assert_eq!(sent(), Some(inserts(["b", "a"])));
        assert_eq!(sent(), Some(inserts(["b", "c"])));
        assert_eq!(sent(), None);
    }

    #[test]
    fn one_that_names_a_document_twice_is_sent_all_the_same() {
        let lanes = Lanes::default();
        let (_answer, sender) = waits(&lanes, inserts(["a", "a"]));
        let round = sender.unwrap().next_round().unwrap();
        assert_eq!(round.statements().len(), 2);
    }

    #[test]
    fn updates_are_told_apart_by_what_they_look_for_and_records_by_their_partition() {
        let by_text = rawdoc! { "q": { "_id": "a", "revision": 1 }, "u": { "_id": "b" } };
        assert_eq!(document(Kind::Update, &by_text), b"a");
        let record = |partition: i32| rawdoc! { "q": { "_id": { "partition": partition } } };
        let (one, two) = (record(1), record(2));
        let of = |record| document(Kind::Update, record).to_vec();
        assert_ne!(of(&one), of(&two));
        assert_eq!(of(&one), of(&record(1)));
    }

    #[test]
    fn what_is_large_or_finds_a_full_command_goes_by_itself() {
        let lanes = Lanes::default();
        let ids: Vec<String> = (0..=SHARED_MAX_STATEMENTS).map(|n| n.to_string()).collect();
        assert!(is_alone(&lanes, inserts(ids.iter().map(String::as_str))));
        let large = rawdoc! { "_id": "a", "text": "x".repeat(SHARED_MAX_BYTES) };
        assert!(is_alone(&lanes, vec![large]));
        assert!(lanes.lock().is_empty());

        let mut waiting = Vec::new();
        let one = || inserts(["a"]);
        for _ in 0..COMMAND_MAX_STATEMENTS {
            waiting.push(waits(&lanes, one()));
        }
        assert!(is_alone(&lanes, one()));
        let (_, sender) = waiting.first_mut().unwrap();
        assert!(sender.as_mut().unwrap().next_round().is_some());
        assert!(!is_alone(&lanes, one()), "there is room again");
    }

    #[test]
    fn a_lane_is_gone_when_its_last_sender_has_nothing_to_send() {
        let lanes = Lanes::default();
        let (_first, sender) = waits(&lanes, inserts(["a"]));
        let (mut sender, mut other) = (sender.unwrap(), lanes.one_more(&name()).unwrap());
        assert!(sender.next_round().is_some());
        assert!(other.next_round().is_none());
        assert_eq!(lanes.lock().len(), 1);
        assert!(sender.next_round().is_none());
        assert!(lanes.lock().is_empty());
        // The next one begins it anew, and who has left does not leave again.
        let (_second, next) = waits(&lanes, inserts(["b"]));
        drop((sender, other));
        assert!(next.unwrap().next_round().is_some());
    }

    #[test]
    fn more_senders_come_only_where_something_waits_and_up_to_the_bound() {
        let lanes = Lanes::default();
        assert!(lanes.one_more(&name()).is_none());
        let (_first, sender) = waits(&lanes, inserts(["a"]));
        let mut sender = sender.unwrap();
        assert!(sender.next_round().is_some());
        assert!(lanes.one_more(&name()).is_none(), "nothing waits");
        let (_second, none) = waits(&lanes, inserts(["b"]));
        assert!(none.is_none());
        let more: Vec<_> = std::iter::from_fn(|| lanes.one_more(&name())).collect();
        assert_eq!(more.len() + 1, MAX_SENDERS);
    }

    #[test]
    fn who_waits_is_told_when_the_last_sender_ends_before_its_work() {
        let lanes = Lanes::default();
        let (_first, sender) = waits(&lanes, inserts(["a"]));
        let (mut second, _) = waits(&lanes, inserts(["b"]));
        let other = lanes.one_more(&name());
        drop(sender);
        assert_eq!(second.try_recv().unwrap_err(), TryRecvError::Empty);
        drop(other);
        assert_eq!(second.try_recv().unwrap_err(), TryRecvError::Closed);
        assert!(lanes.lock().is_empty());
    }
}
