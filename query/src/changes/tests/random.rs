//! Random logs, cuts and restarts: in the end each client knows what the fold says, and was told nothing twice.

use proptest::prelude::*;

use super::*;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// A post gets one of two titles.
    Write(u8, bool),
    Delete(u8),
    /// A client takes so many messages, if they come.
    Take(u8),
    /// The client is cut off; what it had not taken is lost.
    Cut,
    /// The process that keeps the view is killed, and another one starts.
    Kill,
    /// Time passes, in milliseconds.
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6_u8, any::<bool>()).prop_map(|(id, title)| Step::Write(id, title)),
        1 => (1..6_u8).prop_map(Step::Delete),
        4 => (1..4_u8).prop_map(Step::Take),
        3 => Just(Step::Cut),
        1 => Just(Step::Kill),
        4 => (0..300_u16).prop_map(Step::Pass),
    ]
}

/// What a client that knows all of it knows.
async fn expected(system: &System, asked: &Asked) -> BTreeMap<String, u64> {
    let alias = system.alias(asked.view.name()).await;
    let query = asked.query.clone();
    let found = system.store.find(&alias.collection, &query).await.unwrap();
    let found = found.into_iter();
    found
        .filter(|doc| asked.id.as_ref().is_none_or(|id| *id == doc.id))
        .map(|doc| (doc.id, doc.revision))
        .collect()
}

async fn run(asked: Asked, steps: Vec<Step>, is_here: bool) {
    let system = System::new();
    let mut process = system.start(vec![posts(), authors()]);
    system.write("post-0", "in").await;
    system.settled(&*asked.view).await;
    let live = |process: &crate::testing::Process| {
        if is_here {
            process.views.live()
        } else {
            LiveViews::default()
        }
    };
    let mut client = Client::of(&system.changes(live(&process)), asked.clone()).await;
    // What is cut off before it knew anything begins anew; else it would have nothing to come back with.
    client.next().await;
    for step in steps {
        match step {
            Step::Write(id, is_in) => {
                let (title, author) = if is_in { ("in", "ann") } else { ("out", "bob") };
                let change = Change::Write(title.to_owned(), author.to_owned());
                system.log.change(&format!("post-{id}"), &change).await;
            }
            Step::Delete(id) => {
                system
                    .log
                    .change(&format!("post-{id}"), &Change::Delete)
                    .await;
            }
            Step::Take(messages) => {
                for _ in 0..messages {
                    let message = timeout(Duration::from_millis(50), client.messages.recv()).await;
                    if let Ok(message) = message {
                        client.take(&message.expect("it goes on"));
                    }
                }
            }
            Step::Cut => client = client.back(&system.changes(live(&process))).await,
            Step::Kill => {
                process.kill();
                process = system.start(vec![posts(), authors()]);
                if is_here {
                    // Its connections die with it.
                    client = client.back(&system.changes(live(&process))).await;
                }
            }
            Step::Pass(milliseconds) => sleep(Duration::from_millis(milliseconds.into())).await,
        }
    }
    system.settled(&*asked.view).await;
    let expected = expected(&system, &asked).await;
    let knows = |client: &Client| {
        let documents = client.documents.iter();
        let documents = documents.map(|(id, document)| (id.clone(), document.revision));
        documents.collect::<BTreeMap<_, _>>()
    };
    while let Ok(message) = timeout(PATIENCE, client.messages.recv()).await {
        let message = message.expect("it goes on");
        let ends = matches!(message.shown, Shown::Reset | Shown::Dropped(_));
        assert!(!ends, "{message:?}");
        client.take(&message);
    }
    assert_eq!(knows(&client), expected);
    process.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_cut_a_client_knows_in_the_end_what_the_fold_says_and_hears_nothing_twice(
        steps in prop::collection::vec(step(), 1..60),
        which in 0..5_u8,
        is_here: bool,
    ) {
        let asked = match which {
            0 => post("post-0"),
            1 => titled("in"),
            // Documents that streams of several partitions make.
            2 => super::asked(authors(), None, Filter::default()),
            3 => super::asked(authors(), Some("ann"), Filter::default()),
            _ => all_posts(),
        };
on_a_clock_of_its_own(asked, steps, is_here);
    }
}

/// A document that leaves a list while a client is away, and is changed again before it is told.
#[test]
fn a_document_that_left_a_list_and_is_changed_again_is_told_to_be_gone() {
    let (come, go) = (|id| Step::Write(id, true), |id| Step::Write(id, false));
    let steps = [
        vec![go(2), come(1), Step::Cut, Step::Pass(63)],
        vec![go(5), go(0), Step::Cut, Step::Pass(50)],
        vec![go(0), Step::Pass(104)],
    ];
    // What happens at the same moment takes turns in no certain order.
    for _ in 0..20 {
        on_a_clock_of_its_own(titled("in"), steps.concat(), true);
    }
}

fn on_a_clock_of_its_own(asked: Asked, steps: Vec<Step>, is_here: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(run(asked, steps, is_here));
}
