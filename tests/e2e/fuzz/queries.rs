//! The addresses of what is read: ids, filters, orders, cursors, the feed, and the searches of the administration.

use tidelog_query::store::conformance::a_request_is_understood_or_refused;

use super::fuzz;
use super::inputs::Target;
use super::requests::{Part, Site, in_url, request_of};

const FILTERS: Target = Target {
    name: "filters",
    examples: &[
        "title[prefix]=a&sort=-rating,title&limit=3",
        "match=any&tags[contains]=a&author.name[in]=a,b&created_at[gt]=2026-01-31T12:00:00Z",
        "after=MTph",
        "fields=title,author.name&count=exact&deleted=include",
        "rating[gte]=1.5&rating[lt]=5&published=true&id[ne]=a",
        "author[exists]=false&version[lte]=7",
    ],
    near: &[
        "title[$where]=1",
        "match=some",
        "after=!!",
        "sort=-",
        "limit=0",
        "rating[gte]=NaN",
        "tags[in]=",
    ],
    words: &[
        "title",
        "rating",
        "likes",
        "published",
        "tags",
        "author.name",
        "author",
        "id",
        "created_at",
        "version",
        "match",
        "sort",
        "limit",
        "after",
        "fields",
        "count",
        "deleted",
        "[eq]",
        "[ne]",
        "[in]",
        "[gt]",
        "[gte]",
        "[lt]",
        "[lte]",
        "[prefix]",
        "[contains]",
        "[exists]",
        "=",
        "&",
        "any",
        "exact",
        "include",
        "MTph",
        "Mjpb",
        "%5B",
        "%5D",
        "%26",
    ],
};

/// By the language itself, which says more of what was understood than an answer does.
#[test]
fn filters() {
    fuzz(&FILTERS, |bytes| {
        std::str::from_utf8(bytes).is_ok_and(a_request_is_understood_or_refused)
    });
}

const READS: Target = Target {
    name: "addresses of documents and of the feed",
    examples: &[
        "q/note/a",
        "q/note/a/history",
        "q/note/a?version=1&fields=title",
        "q/notes?title[prefix]=Note&sort=-stars,title&limit=2",
        "q/notes?tags[contains]=x&author.name=Ann&count=exact",
        "q/notes?after=MTph",
        "q/openapi.json",
        "c/events?partition=0",
        "c/events?partition=3&limit=10",
        "c/events/heads",
    ],
    near: &[
        "q/note/%2e%2e",
        "q/note/a?version=0",
        "q/notes?sort=x",
        "q/notes?after=Mjpb",
        "c/events?partition=99",
        "c/events",
        "q/note/%ff",
    ],
    words: &[
        "q/",
        "c/",
        "note",
        "/a",
        "/history",
        "?",
        "&",
        "=",
        "version=",
        "fields=",
        "title",
        "stars",
        "weight",
        "author.year",
        "sort=",
        "limit=",
        "after=",
        "count=exact",
        "deleted=include",
        "[in]=",
        "[gte]=",
        "partition=",
        "1.0190a4f1b2c37d4e8f9012345678abcd.0-0",
        "events",
        "heads",
        "/changes",
    ],
};

#[test]
fn reads() {
    let mut site = Site::new();
    fuzz(&READS, move |bytes| {
        let (part, rest) = match bytes {
            [b'c', rest @ ..] => (Part::Commands, rest),
            [b'q', rest @ ..] => (Part::Queries, rest),
            _ => return false,
        };
        request_of(&in_url(rest), &[]).is_some_and(|request| site.ask(part, request))
    });
}

const SEARCHES: Target = Target {
    name: "addresses of the administration",
    examples: &[
        "/api/events?type=note.created&order=oldest&limit=3&payload=true",
        "/api/events?stream=note/a&since=2026-01-01T00:00:00Z&until=2030-01-01T00:00:00Z",
        "/api/events?correlation=x&causation=0190a4f1-b2c3-7d4e-8f90-12345678abcd",
        "/api/streams?prefix=note/&limit=2",
        "/api/streams/note/a",
        "/api/audit?limit=5",
        "/api/parked",
        "/api/subscriptions",
        "/api/views/note",
        "/events?type=note.created&stream=note/a",
        "/streams/note/a?version=1",
        "/views/note?title=Note",
        "",
    ],
    near: &[
        "/api/events?type=",
        "/api/events?limit=0",
        "/api/events?since=yesterday",
        "/api/events?stream=note",
        "/api/streams/note/%2f",
        "/nothing",
    ],
    words: &[
        "/api",
        "/events",
        "/streams",
        "/audit",
        "/parked",
        "/skipped",
        "/subscriptions",
        "/views",
        "/note",
        "/a",
        "?",
        "&",
        "=",
        "type=",
        "stream=",
        "correlation=",
        "causation=",
        "since=",
        "until=now",
        "order=newest",
        "limit=",
        "after=",
        "payload=",
        "prefix=",
        "version=",
        "from=",
        "to=",
        "1.0190a4f1b2c37d4e8f9012345678abcd.3-17",
        "2026-05-01T12:00:00Z",
    ],
};

#[test]
fn searches() {
    let mut site = Site::new();
    fuzz(&SEARCHES, move |bytes| {
        let path = format!("/admin{}", in_url(bytes));
        // What shows what happens as it happens does not end.
        let ends = !path.contains("/live/");
        let request = request_of(&path, &[("host", "localhost")]).filter(|_| ends);
        request.is_some_and(|request| site.ask(Part::Admin, request))
    });
}
