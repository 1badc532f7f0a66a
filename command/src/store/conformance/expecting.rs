//! Expected versions, checks, and appends to several streams.

use tidelog_domain::{Append, ExpectedVersion, Version};

use super::StoreFactory;
use super::support::{
    append, append_one, assert_conflict, events_of, exact, grow, open, part, stream, streams_of,
    whole_log, write,
};

/// `Any`, `NoStream`, `Exists` and `Exact` hold when they should, and name the version when they do not.
///
/// # Panics
///
/// When the store does not.
pub async fn each_expected_version_is_checked(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let on_missing = [
        (ExpectedVersion::Any, true),
        (ExpectedVersion::NoStream, true),
        (ExpectedVersion::Exists, false),
        (exact(0), true),
        (exact(1), false),
    ];
    for (n, (expected, fits)) in on_missing.into_iter().enumerate() {
        let missing = stream(&format!("missing-{n}"));
        let verdict = append_one(&*store, write(&missing, expected, 2)).await;
        if fits {
            assert_eq!(verdict.unwrap()[0].version, Version::new(2), "{expected:?}");
        } else {
            assert_conflict(&verdict, &missing, 0);
            assert!(events_of(&*store, &missing).await.is_empty());
        }
    }
    let on_three = [
        (ExpectedVersion::Any, true),
        (ExpectedVersion::NoStream, false),
        (ExpectedVersion::Exists, true),
        (exact(0), false),
        (exact(2), false),
        (exact(3), true),
        (exact(4), false),
    ];
    for (n, (expected, fits)) in on_three.into_iter().enumerate() {
        let three = stream(&format!("three-{n}"));
        grow(&*store, &three, 3).await;
        let verdict = append_one(&*store, write(&three, expected, 1)).await;
        if fits {
            assert_eq!(verdict.unwrap()[0].version, Version::new(4), "{expected:?}");
        } else {
            assert_conflict(&verdict, &three, 3);
        }
    }
    whole_log(&*store).await;
}

/// An exact version beyond the stream's end is a conflict, whatever the store remembers of the stream.
///
/// # Panics
///
/// When the store does not.
pub async fn an_exact_version_too_high_is_a_conflict_and_leaves_no_gap(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let (known, missing) = (stream("known"), stream("missing"));
    grow(&*store, &known, 3).await;
    let verdicts = append(
        &*store,
        vec![write(&known, exact(100), 1), write(&missing, exact(7), 1)],
    )
    .await;
    assert_conflict(&verdicts[0], &known, 3);
    assert_conflict(&verdicts[1], &missing, 0);
    let after = append_one(&*store, write(&known, exact(3), 1)).await;
    assert_eq!(after.unwrap()[0].version, Version::new(4));
    whole_log(&*store).await;
}

/// A write without events checks the version, and says it, but changes nothing.
///
/// # Panics
///
/// When the store does not.
pub async fn a_check_appends_nothing(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let (two, missing) = (stream("two"), stream("missing"));
    grow(&*store, &two, 2).await;
    let checks = vec![
        write(&two, exact(2), 0),
        write(&two, exact(1), 0),
        write(&missing, ExpectedVersion::NoStream, 0),
        write(&missing, ExpectedVersion::Exists, 0),
    ];
    let verdicts = append(&*store, checks).await;
    let right = verdicts[0].as_ref().unwrap();
    assert_eq!(
        (&right[0].stream, right[0].version),
        (&two, Version::new(2))
    );
    assert_eq!((right[0].position, right[0].recorded_at), (None, None));
    assert_conflict(&verdicts[1], &two, 2);
    assert_eq!(verdicts[2].as_ref().unwrap()[0].version, Version::NONE);
    assert_conflict(&verdicts[3], &missing, 0);
    let events: usize = whole_log(&*store).await.iter().map(Vec::len).sum();
    assert_eq!(events, 2);
}

/// An append to streams of several partitions is written as a whole, or, when one of them is not as expected, not at all.
///
/// # Panics
///
/// When the store does not.
pub async fn an_append_to_several_streams_happens_as_a_whole(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let targets: Vec<_> = (0..3).map(|p| streams_of(p, 1).remove(0)).collect();
    let to_all = |expected: [ExpectedVersion; 3]| {
        let writes = targets.iter().zip(expected);
        Append::new(
            writes
                .map(|(stream, expected)| part(stream, expected, 2))
                .collect(),
        )
    };
    let appended = append_one(&*store, to_all([ExpectedVersion::NoStream; 3])).await;
    for (one, target) in appended.unwrap().iter().zip(&targets) {
        assert_eq!((&one.stream, one.version), (target, Version::new(2)));
        assert_eq!(one.position.unwrap().number(), 2);
    }
    let verdict = append_one(&*store, to_all([exact(2), exact(1), exact(2)])).await;
    assert_conflict(&verdict, &targets[1], 2);
    for target in &targets {
        assert_eq!(events_of(&*store, target).await.len(), 2);
    }
    let again = append_one(&*store, to_all([exact(2), exact(2), ExpectedVersion::Any])).await;
    assert_eq!(again.unwrap()[2].version, Version::new(4));
    whole_log(&*store).await;
}

/// A check beside a write turns the whole append down when it fails.
///
/// # Panics
///
/// When the store does not.
pub async fn an_append_may_depend_on_a_stream_that_it_does_not_write(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let (written, guard) = (streams_of(0, 1).remove(0), streams_of(1, 1).remove(0));
    grow(&*store, &guard, 2).await;
    let guarded = |version| {
        Append::new(vec![
            part(&written, ExpectedVersion::Any, 1),
            part(&guard, exact(version), 0),
        ])
    };
    assert_conflict(&append_one(&*store, guarded(1)).await, &guard, 2);
    assert!(events_of(&*store, &written).await.is_empty());
    let appended = append_one(&*store, guarded(2)).await.unwrap();
    assert_eq!(appended[0].version, Version::new(1));
    assert_eq!(
        (appended[1].version, appended[1].position),
        (Version::new(2), None)
    );
    assert_eq!(whole_log(&*store).await.concat().len(), 3);
}

/// The very same append again, its event ids too: where it expects a version it is a conflict, not a second time.
///
/// # Panics
///
/// When the store does not.
pub async fn an_append_that_is_repeated_is_not_written_again(factory: &dyn StoreFactory) {
    let store = open(factory).await;
    let once = stream("once");
    let created = write(&once, ExpectedVersion::NoStream, 2);
    let changed = write(&once, exact(2), 1);
    for first in [&created, &changed] {
        append_one(&*store, first.clone()).await.unwrap();
    }
    for again in [&created, &changed] {
        assert_conflict(&append_one(&*store, again.clone()).await, &once, 3);
    }
    let stored: Vec<_> = events_of(&*store, &once).await;
    let stored: Vec<_> = stored.into_iter().map(|event| event.id).collect();
    let sent: Vec<_> = [&created, &changed]
        .into_iter()
        .flat_map(|append| &append.writes[0].events)
        .map(|event| event.id)
        .collect();
    assert_eq!(stored, sent);
    whole_log(&*store).await;
}
