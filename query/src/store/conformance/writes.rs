//! Conditional writes.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::json;
use tidelog_domain::{Partition, Position};

use super::ReadStoreFactory;
use super::sample::{
    PARTITION, advance, at_position, document, everything, find_ids, fresh, get_one, insert,
    with_data, write_one,
};
use crate::store::Written::{Applied, Unmet};
use crate::store::{Document, DocumentWrite, MAX_DATA_DEPTH, ReadError, Retry};

/// How many writers race.
const RACERS: usize = 32;

/// A second insert of an id changes nothing.
pub async fn a_document_is_inserted_once(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let first = Document {
        revision: 41,
        ..document("a")
    };
    let insert = DocumentWrite::Insert(first);
    assert_eq!(write_one(&*store, &collection, insert).await, Applied);
    let second = DocumentWrite::Insert(with_data("a", json!({"title": "Another"})));
    assert_eq!(write_one(&*store, &collection, second).await, Unmet);
    assert_eq!(get_one(&*store, &collection, "a").await, document("a"));
}

/// A tombstone is a document: its id is taken.
pub async fn an_insert_over_a_tombstone_is_unmet(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    let tombstone = Document {
        deleted: true,
        ..document("a")
    };
    insert(&*store, &collection, vec![tombstone.clone()]).await;
    let again = DocumentWrite::Insert(document("a"));
    assert_eq!(write_one(&*store, &collection, again).await, Unmet);
    assert_eq!(get_one(&*store, &collection, "a").await, tombstone);
}

/// A replacement needs the stored revision, writes everything, and makes the revision go up by one.
pub async fn a_document_is_replaced_only_at_its_revision(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    insert(&*store, &collection, vec![document("a")]).await;
    let at_revision = |revision| {
        let created_at = "2020-01-01T00:00:00Z".parse().unwrap();
        DocumentWrite::Replace(Document {
            revision,
            created_at,
            deleted: true,
            ..at_position("a", 2)
        })
    };
    assert_eq!(write_one(&*store, &collection, at_revision(0)).await, Unmet);
    assert_eq!(write_one(&*store, &collection, at_revision(2)).await, Unmet);
    assert_eq!(get_one(&*store, &collection, "a").await, document("a"));

    assert_eq!(
        write_one(&*store, &collection, at_revision(1)).await,
        Applied
    );
    let expected = Document {
        revision: 2,
        ..at_revision(1).document().clone()
    };
    assert_eq!(get_one(&*store, &collection, "a").await, expected);
    assert_eq!(write_one(&*store, &collection, at_revision(1)).await, Unmet);
    assert_eq!(get_one(&*store, &collection, "a").await, expected);

    let missing = DocumentWrite::Replace(document("b"));
    assert_eq!(write_one(&*store, &collection, missing).await, Unmet);
    assert!(store.get(&collection, &["b"]).await.unwrap().is_empty());
}

/// An advance needs a stored position below the new one; older and equal ones, and missing documents, are left alone.
pub async fn a_document_advances_only_past_the_position_that_it_has(
    factory: &dyn ReadStoreFactory,
) {
    let (store, collection) = fresh(factory).await;
    insert(&*store, &collection, vec![at_position("a", 9)]).await;
    for (position, expected) in [
        (8, Unmet),
        (9, Unmet),
        (11, Applied),
        (10, Unmet),
        (11, Unmet),
        (100, Applied),
        (12, Unmet),
    ] {
        let written = write_one(&*store, &collection, advance("a", position)).await;
        assert_eq!(written, expected, "{position}");
    }
    let stored = get_one(&*store, &collection, "a").await;
    assert_eq!(stored.data, at_position("a", 100).data);
    assert_eq!((stored.version.number(), stored.revision), (100, 3));

    assert_eq!(
        write_one(&*store, &collection, advance("b", 1)).await,
        Unmet
    );
    assert!(store.get(&collection, &["b"]).await.unwrap().is_empty());

    // Nothing of this partition was applied yet, so its first position is past what there is. And one that brings no
    // position brings nothing new.
    let elsewhere = |applied| DocumentWrite::Advance {
        document: Document {
            applied,
            ..document("a")
        },
        partition: Partition::new(12),
    };
    let nothing = elsewhere([(PARTITION, Position::new(500))].into());
    assert_eq!(write_one(&*store, &collection, nothing).await, Unmet);
    let first = elsewhere([(Partition::new(12), Position::new(1))].into());
    assert_eq!(
        write_one(&*store, &collection, first.clone()).await,
        Applied
    );
    let stored = get_one(&*store, &collection, "a").await;
    assert_eq!(stored.applied, first.document().applied);
}

/// An advance overwrites all but `created_at`, and the revision is the store's to count.
pub async fn an_advance_keeps_when_the_document_was_created(factory: &dyn ReadStoreFactory) {
    let (store, collection) = fresh(factory).await;
    insert(&*store, &collection, vec![document("a")]).await;
    let later = Document {
        created_at: "2030-01-01T00:00:00Z".parse().unwrap(),
        deleted: true,
        revision: 99,
        ..at_position("a", 5)
    };
    let write = DocumentWrite::Advance {
        document: later.clone(),
        partition: PARTITION,
    };
    assert_eq!(write_one(&*store, &collection, write).await, Applied);
    let expected = Document {
        created_at: document("a").created_at,
        revision: 2,
        ..later
    };
    assert_eq!(get_one(&*store, &collection, "a").await, expected);
}

/// The answers of a batch are in the order of its writes, whatever kinds they are of.
pub async fn a_batch_says_of_each_write_in_order_whether_it_was_made(
    factory: &dyn ReadStoreFactory,
) {
    let (store, collection) = fresh(factory).await;
    let stored = ["there", "advanced", "stale", "replaced", "wrong"];
    insert(&*store, &collection, stored.map(document).to_vec()).await;
    let writes = [
        DocumentWrite::Insert(document("new")),
        DocumentWrite::Insert(document("there")),
        advance("advanced", 2),
        advance("stale", 1),
        advance("missing", 2),
        DocumentWrite::Replace(document("replaced")),
        DocumentWrite::Replace(Document {
            revision: 5,
            ..document("wrong")
        }),
        DocumentWrite::Replace(document("missing too")),
        DocumentWrite::Insert(document("last")),
    ];
    let written = store.write(&collection, &writes).await.unwrap();
    assert_eq!(
        written,
        [
            Applied, Unmet, Applied, Unmet, Unmet, Applied, Unmet, Unmet, Applied
        ]
    );
    let again = store.write(&collection, &writes).await.unwrap();
    assert_eq!(again, [Unmet; 9]);
    assert!(store.write(&collection, &[]).await.unwrap().is_empty());
    let ids = find_ids(&*store, &collection, &everything()).await;
    assert_eq!(
        ids,
        [
            "advanced", "last", "new", "replaced", "stale", "there", "wrong"
        ]
    );
}

/// A batch is not cut off anywhere: thousands of writes, and more bytes than one command of some servers takes.
pub async fn a_large_batch_is_written_as_a_whole(factory: &dyn ReadStoreFactory) {
    const WRITES: usize = 2_500;
    let (store, collection) = fresh(factory).await;
    let text = "tide ".repeat(2_000);
    let documents: Vec<_> = (0..WRITES)
        .map(|n| with_data(&format!("{n:05}"), json!({"n": n, "text": text})))
        .collect();
    insert(&*store, &collection, documents).await;
    let writes: Vec<_> = (0..WRITES)
        .map(|n| match n % 3 {
            0 => advance(&format!("{n:05}"), 1),
            1 => DocumentWrite::Advance {
                document: Document {
                    applied: [(PARTITION, Position::new(2))].into(),
                    ..with_data(&format!("{n:05}"), json!({"text": text}))
                },
                partition: PARTITION,
            },
            _ => DocumentWrite::Insert(document(&format!("{n:05} new"))),
        })
        .collect();
    let written = store.write(&collection, &writes).await.unwrap();
    let expected: Vec<_> = (0..WRITES)
        .map(|n| if n % 3 == 0 { Unmet } else { Applied })
        .collect();
    assert_eq!(written, expected);
    let ids: Vec<_> = (0..WRITES).map(|n| format!("{n:05}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    assert_eq!(store.get(&collection, &ids).await.unwrap().len(), WRITES);
}

/// Many writers insert the same ids, each its own data: of each id one writer is told that it was made, and its data is there.
pub async fn of_racing_inserts_of_one_id_just_one_is_made(factory: &dyn ReadStoreFactory) {
    const IDS: usize = 8;
    let (store, collection) = fresh(factory).await;
    let racers = (0..RACERS).map(|racer| {
        let (store, collection) = (Arc::clone(&store), collection.clone());
        tokio::spawn(async move {
            let writes: Vec<_> = (0..IDS)
                .map(|n| DocumentWrite::Insert(with_data(&n.to_string(), json!({"by": racer}))))
                .collect();
            store.write(&collection, &writes).await.unwrap()
        })
    });
    let answers: Vec<_> = join_all(racers)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    for n in 0..IDS {
        let winners: Vec<_> = answers
            .iter()
            .enumerate()
            .filter_map(|(racer, written)| (written[n] == Applied).then_some(racer))
            .collect();
        let stored = get_one(&*store, &collection, &n.to_string()).await;
        assert_eq!(json!(winners), json!([stored.data["by"]]));
    }
}

/// Many writers read a counter and write it back, one higher, on its revision: the counter says how many were told that they
/// did.
pub async fn no_racing_replacement_is_lost(factory: &dyn ReadStoreFactory) {
    const TURNS: usize = 5;
    let (store, collection) = fresh(factory).await;
    insert(
        &*store,
        &collection,
        vec![with_data("a", json!({"count": 0}))],
    )
    .await;
    let racers = (0..RACERS).map(|_| {
        let (store, collection) = (Arc::clone(&store), collection.clone());
        tokio::spawn(async move {
            let mut made = 0_u64;
            for _ in 0..TURNS {
                let mut read = get_one(&*store, &collection, "a").await;
                let count = read.data["count"].as_u64().unwrap();
                read.data.insert("count".to_owned(), json!(count + 1));
                if write_one(&*store, &collection, DocumentWrite::Replace(read)).await == Applied {
                    made += 1;
                }
            }
            made
        })
    });
    let made: u64 = join_all(racers).await.into_iter().map(Result::unwrap).sum();
    let stored = get_one(&*store, &collection, "a").await;
    assert_eq!(stored.data["count"], json!(made));
    assert_eq!(stored.revision, made + 1);
    assert!(made >= 1);
}

/// Many writers take two documents through the same positions: each position is reached at most once, the last one surely, and
/// the revision counts them.
pub async fn of_racing_advances_to_one_position_just_one_is_made(factory: &dyn ReadStoreFactory) {
    const LAST: u64 = 10;
    let (store, collection) = fresh(factory).await;
    insert(&*store, &collection, ["a", "b"].map(document).to_vec()).await;
    let racers = (0..RACERS).map(|_| {
        let (store, collection) = (Arc::clone(&store), collection.clone());
        tokio::spawn(async move {
            let mut made = [[0_u64; 2]; LAST as usize + 1];
            for position in 2..=LAST {
                let writes = [advance("a", position), advance("b", position)];
                let written = store.write(&collection, &writes).await.unwrap();
                made[position as usize] = [0, 1].map(|n: usize| u64::from(written[n] == Applied));
            }
            made
        })
    });
    let made: Vec<_> = join_all(racers)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    for (n, id) in ["a", "b"].into_iter().enumerate() {
        let reached: Vec<u64> = (2..=LAST)
            .map(|position| made.iter().map(|of| of[position as usize][n]).sum())
            .collect();
        assert!(reached.iter().all(|times| *times <= 1), "{id}: {reached:?}");
        assert_eq!(reached.last(), Some(&1));
        let stored = get_one(&*store, &collection, id).await;
        assert_eq!(stored.data, at_position(id, LAST).data);
        assert_eq!(stored.revision, 1 + reached.iter().sum::<u64>());
    }
}

/// What some store could not keep exactly is refused by all, with the document's id, as a thing that no repetition helps.
pub async fn a_document_that_cannot_be_stored_is_named_and_nothing_is_changed(
    factory: &dyn ReadStoreFactory,
) {
    let (store, collection) = fresh(factory).await;
    insert(&*store, &collection, vec![document("bad")]).await;
    let deep = (0..=MAX_DATA_DEPTH).fold(json!(1), |inner, _| json!([inner]));
    for data in [
        json!({"n": [u64::MAX]}),
        json!({"a": {"x\0y": 1}}),
        json!({"x": deep}),
    ] {
        let mut bad = at_position("bad", 2);
        bad.data = super::sample::fields(data);
        for write in [
            DocumentWrite::Insert(bad.clone()),
            DocumentWrite::Replace(bad.clone()),
            DocumentWrite::Advance {
                document: bad.clone(),
                partition: PARTITION,
            },
        ] {
            let writes = [DocumentWrite::Insert(document("good")), write];
            let error = store.write(&collection, &writes).await.unwrap_err();
            assert_eq!(error.retry(), Retry::Never);
            assert!(
                matches!(&error, ReadError::Unwritable { id, .. } if id == "bad"),
                "{error:?}"
            );
        }
    }
    assert_eq!(get_one(&*store, &collection, "bad").await, document("bad"));
    let good = DocumentWrite::Insert(document("good one"));
    assert_eq!(write_one(&*store, &collection, good).await, Applied);
}
