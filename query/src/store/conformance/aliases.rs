//! Aliases: which version of a view is read.

use std::sync::Arc;

use futures_util::future::join_all;
use tidelog_domain::HistoryId;
use uuid::Uuid;

use super::ReadStoreFactory;
use super::sample::unique;
use crate::store::{Alias, Kind, Progress, Replaying};

fn alias(number: u64) -> Alias {
    Alias {
        collection: format!("post_{number}"),
        built: number > 1,
        number,
        fingerprint: "é\"'$.\0".to_owned(),
        previous: (number > 1).then(|| format!("post_{}", number - 1)),
        previous_number: (number > 1).then(|| number - 1),
        previous_fingerprint: (number > 2).then(|| "é\"'$.\0".to_owned()),
        keep: number > 2,
        refused: (1..number.min(4)).map(|n| format!("é\"'$.\0{n}")).collect(),
        replaying: (number > 2).then(|| Replaying {
            collection: format!("post_{number}_next"),
            number,
            owner: "é\"'$.\0".to_owned(),
            beat: number,
            switching: number > 3,
            fingerprint: "é\"'$.\0".to_owned(),
            history: Some(HistoryId::new(Uuid::from_u128(number.into()))),
            kind: Kind::Rollback,
            progress: Some(Progress {
                events: number,
                of: i64::MAX.unsigned_abs(),
                per_second: 0,
                comparing: true,
            }),
        }),
        retired: (1..number.min(4)).map(|n| format!("post_{n}")).collect(),
        last_number: number,
        revision: 77,
    }
}

/// Made at 0, changed only at its revision; the stored revision is the store's own.
pub async fn an_alias_changes_only_at_its_revision(factory: &dyn ReadStoreFactory) {
    let store = factory.store().await;
    let (view, other) = (unique("post"), unique("ticket"));
    assert_eq!(store.load_alias(&view).await.unwrap(), None);
    for (expected, number, done) in [
        (1, 1, false),
        (0, 1, true),
        (0, 2, false),
        (2, 2, false),
        (1, 2, true),
        (1, 3, false),
        (2, i64::MAX.unsigned_abs(), true),
    ] {
        let set = store
            .compare_and_set_alias(&view, expected, &alias(number))
            .await;
        assert_eq!(set.unwrap(), done, "{expected}");
        if done {
            let expected = Alias {
                revision: expected + 1,
                ..alias(number)
            };
            assert_eq!(store.load_alias(&view).await.unwrap(), Some(expected));
        }
    }
    assert_eq!(store.load_alias(&other).await.unwrap(), None);
}

/// Two replays that are ready at once do not both switch.
pub async fn of_racing_changes_of_an_alias_just_one_is_made(factory: &dyn ReadStoreFactory) {
    let store = factory.store().await;
    let view = unique("post");
    for expected in 0..4 {
        let racers = (1..=32).map(|racer| {
            let (store, view) = (Arc::clone(&store), view.clone());
            tokio::spawn(async move {
                let set = store
                    .compare_and_set_alias(&view, expected, &alias(racer))
                    .await;
                set.unwrap().then_some(racer)
            })
        });
        let winners: Vec<_> = join_all(racers)
            .await
            .into_iter()
            .filter_map(Result::unwrap)
            .collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        let stored = store.load_alias(&view).await.unwrap().unwrap();
        assert_eq!((stored.number, stored.revision), (winners[0], expected + 1));
    }
}
