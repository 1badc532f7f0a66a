//! The tester of projections refuses a view that depends on the order between partitions, and lets the others pass.

extern crate tidelog_domain as tidelog;

use std::sync::atomic::{AtomicU32, Ordering};

use tidelog::prelude::*;
use tidelog::testing::PastEvent;

/// What happens to a post.
#[events("post")]
enum PostEvent {
    Written { author: String },
    Renamed { title: String },
    Deleted,
}

fn written(id: &str) -> PastEvent {
    let author = "ann".to_owned();
    on(id, PostEvent::Written { author })
}

fn renamed(id: &str, title: &str) -> PastEvent {
    let title = title.to_owned();
    on(id, PostEvent::Renamed { title })
}

fn deleted(id: &str) -> PastEvent {
    on(id, PostEvent::Deleted)
}

/// Everything goes into one document, whatever post it happened to.
const ALL: &str = "all";

/// A view over all posts, by what becomes of it.
macro_rules! over_all_posts {
    ($view:ident { $($field:ident: $type:ty),* }, $project:expr) => {
        #[view]
        struct $view {
            $($field: $type),*
        }

        impl Projection for $view {
            type Event = PostEvent;

            fn keys(_: &Recorded<PostEvent>) -> Keys {
                vec![ALL.to_owned()]
            }

            fn project(view: Option<Self>, _: &str, e: &Recorded<PostEvent>) -> Option<Self> {
                let project: fn(Option<Self>, &Recorded<PostEvent>) -> Option<Self> = $project;
                project(view, e)
            }
        }
    };
}

over_all_posts!(Count { posts: i64 }, |view, e| {
    let Count { posts } = view.unwrap_or_default();
    let change = match e.event {
        PostEvent::Written { .. } => 1,
        PostEvent::Renamed { .. } => 0,
        PostEvent::Deleted => -1,
    };
    let posts = posts + change;
    Some(Count { posts })
});

#[test]
fn a_view_that_counts_passes() {
    given_events([
        written("1"),
        written("2"),
        renamed("1", "a"),
        deleted("1"),
        written("3"),
    ])
    .then_view(ALL, Count { posts: 2 });
    let many = (0..40).map(|post| written(&post.to_string()));
    given_events(many).then_view(ALL, Count { posts: 40 });
}

over_all_posts!(LastTitle { title: String }, |view, e| {
    match &e.event {
        PostEvent::Renamed { title } => Some(LastTitle {
            title: title.clone(),
        }),
        _ => view,
    }
});

#[test]
#[should_panic(
    expected = "post/1@1, post/2@1: {\"title\":\"b\"}\npost/2@1, post/1@1: {\"title\":\"a\"}"
)]
fn a_view_that_goes_by_the_last_writer_of_two_is_refused() {
    let title = "b".to_owned();
    given_events([renamed("1", "a"), renamed("2", "b")]).then_view(ALL, LastTitle { title });
}

#[test]
fn a_view_may_go_by_the_last_writer_of_one() {
    let title = "b".to_owned();
    given_events([renamed("1", "a"), renamed("1", "b")]).then_view(ALL, LastTitle { title });
}

#[test]
#[should_panic(expected = "the order between partitions")]
fn streams_that_share_a_partition_today_count_as_apart() {
    let log = given_events((0..40).map(|post| renamed(&post.to_string(), "a")));
    let mut names = log.events().iter().map(|event| &event.stream);
    let first = log.events().first().map(|event| event.partition);
    let id = names
        .rfind(|name| Some(name.partition(tidelog::Partitions::DEFAULT)) == first)
        .map(|name| name.id().to_owned());
    let (one, other) = (renamed("0", "a"), renamed(&id.unwrap_or_default(), "b"));
    let log = given_events([one, other]);
    let partitions: Vec<_> = log.events().iter().map(|event| event.partition).collect();
    assert_eq!(partitions.first(), partitions.last(), "they share one");
    let title = "b".to_owned();
    log.then_view(ALL, LastTitle { title });
}

over_all_posts!(Posts { ids: Vec<String> }, |view, e| {
    let mut posts = view.unwrap_or_default();
    match e.event {
        PostEvent::Written { .. } => posts.ids.push(e.stream_id.clone()),
        PostEvent::Renamed { .. } => {}
        PostEvent::Deleted => posts.ids.retain(|id| *id != e.stream_id),
    }
    posts.ids.sort_unstable();
    (!posts.ids.is_empty()).then_some(posts)
});

#[test]
fn a_view_that_is_deleted_with_its_last_post_passes() {
    let log = [written("1"), deleted("1"), written("2"), renamed("2", "a")];
    given_events(log).then_view(
        ALL,
        Posts {
            ids: vec!["2".to_owned()],
        },
    );
    let log = [written("1"), written("2"), deleted("2"), deleted("1")];
    given_events(log).then_no_view::<Posts>(ALL);
}

over_all_posts!(Deletable { titles: i64 }, |view, e| {
    let Deletable { titles } = view.unwrap_or_default();
    match e.event {
        PostEvent::Deleted => None,
        _ => Some(Deletable { titles: titles + 1 }),
    }
});

#[test]
#[should_panic(expected = "the order between partitions")]
fn a_view_that_one_post_deletes_and_another_makes_anew_is_refused() {
    let log = [written("1"), deleted("1"), written("2")];
    given_events(log).then_view(ALL, Deletable { titles: 1 });
}

over_all_posts!(LatestTen { latest: Vec<String> }, |view, e| {
    let mut view = view.unwrap_or_default();
    match e.event {
        PostEvent::Written { .. } => {
            let at = e.recorded_at.to_rfc3339();
            view.latest.push(format!("{at} {}", e.stream_id));
        }
        PostEvent::Renamed { .. } => {}
        PostEvent::Deleted => {
            let own = format!(" {}", e.stream_id);
            view.latest.retain(|line| !line.ends_with(&own));
        }
    }
    view.latest.sort_unstable();
    view.latest.reverse();
    view.latest.truncate(10);
    Some(view)
});

/// Posts 1 to 12, in order; the last one is deleted.
fn twelve_posts() -> impl Iterator<Item = PastEvent> {
    let posts = (1..=12).map(|post| written(&post.to_string()));
    posts.chain([deleted("12")])
}

/// Posts by when they were written, which [`given_events`] knows by their number.
fn lines(posts: impl Iterator<Item = u32>) -> Vec<String> {
    let line = |post: u32| format!("1970-01-01T00:00:{post:02}+00:00 {post}");
    posts.map(line).collect()
}

#[test]
#[should_panic(expected = "the order between partitions")]
fn a_view_that_keeps_no_more_than_the_ten_it_shows_is_refused() {
    let latest = lines((3..=11).rev());
    given_events(twelve_posts()).then_view(ALL, LatestTen { latest });
}

over_all_posts!(
    LatestOfAll {
        all: std::collections::BTreeSet<String>,
        latest: Vec<String>
    },
    |view, e| {
        let mut view = view.unwrap_or_default();
        let own = format!(" {}", e.stream_id);
        match e.event {
            PostEvent::Written { .. } => {
                view.all.insert(e.recorded_at.to_rfc3339() + &own);
            }
            PostEvent::Renamed { .. } => {}
            PostEvent::Deleted => view.all.retain(|line| !line.ends_with(&own)),
        }
        view.latest = view.all.iter().rev().take(10).cloned().collect();
        Some(view)
    }
);

#[test]
fn a_view_that_keeps_all_to_show_the_latest_ten_passes() {
    let all = lines(1..=11).into_iter().collect();
    let latest = lines((2..=11).rev());
    given_events(twelve_posts()).then_view(ALL, LatestOfAll { all, latest });
}

static FOLDED: AtomicU32 = AtomicU32::new(0);

over_all_posts!(Chance { number: u32 }, |_, _| {
    let number = FOLDED.fetch_add(1, Ordering::Relaxed);
    Some(Chance { number })
});

#[test]
#[should_panic(expected = "folding the same events again made another document all")]
fn a_view_that_depends_on_something_else_is_refused() {
    given_events([written("1")]).then_view(ALL, Chance { number: 0 });
}

#[test]
#[should_panic(expected = "document all after the same 1")]
fn a_document_that_is_not_asked_for_is_looked_at_too() {
    given_events([
        deleted("3"),
        renamed("1", "a"),
        deleted("1"),
        renamed("2", "b"),
    ])
    .then_no_view::<LastTitle>("other");
}
