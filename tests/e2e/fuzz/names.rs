//! Names and places that are written as text, and read back.

use tidelog::axum::Router;
use tidelog::axum::http::Method;
use tidelog_domain::{ConsistencyToken, StreamId, document_key, document_tenant};
use tidelog_eventbus::FeedCursor;
use tidelog_http::{CorsOrigins, cross_origin};

use super::fuzz;
use super::inputs::Target;

const HISTORY: &str = "0190a4f1b2c37d4e8f9012345678abcd";

const STREAMS: Target = Target {
    name: "streams",
    examples: &[
        "post/7f3a",
        "tidelog/audit",
        "a-b_c9/a.B~1_-",
        "acme:post/7f3a",
        "A.c-1_:a/b",
    ],
    near: &[
        "post",
        "Post/a",
        "post/..",
        "post/a b",
        "post/a%20",
        "/a",
        "post/",
        ":post/a",
        "a:b:post/a",
        "a/b:c",
    ],
    words: &["/", ":", "post", ".", "..", "~", "%2f", "A", "␟"],
};

#[test]
fn streams() {
    fuzz(&STREAMS, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let Ok(stream) = StreamId::parse(&text) else {
            return false;
        };
        assert_eq!(stream.as_str(), text);
        let tenant = stream.tenant();
        let again = StreamId::of(tenant.as_ref(), stream.category(), stream.id());
        assert_eq!(again, Ok(stream.clone()));
        let document = stream.document_id();
        assert_eq!(document_tenant(&document), tenant);
        assert_eq!(document_key(&document), stream.id());
        assert_eq!(StreamId::parse(&stream.to_string()), Ok(stream));
        true
    });
}

const PLACES: Target = Target {
    name: "tokens and cursors of the feed",
    examples: &[
        "1.0190a4f1b2c37d4e8f9012345678abcd.3-17.4-1",
        "1.0190a4f1-b2c3-7d4e-8f90-12345678abcd.0-0",
        "1.0190a4f1b2c37d4e8f9012345678abcd.t00c0ffee00c0ffee.3-17",
        "1.0190a4f1b2c37d4e8f9012345678abcd.3-17-0190a4f1b2c37d4e8f9012345678abce",
    ],
    near: &[
        "1.0190a4f1b2c37d4e8f9012345678abcd",
        "1.0190a4f1b2c37d4e8f9012345678abcd.0-0-0190a4f1b2c37d4e8f9012345678abce",
        "2.x.0-0",
        "1.0190a4f1b2c37d4e8f9012345678abcd.65536-1",
    ],
    words: &[
        ".",
        "-",
        "1.",
        HISTORY,
        "3-17",
        "65535",
        "65536",
        "urn:uuid:",
        "{",
        "+1",
    ],
};

#[test]
fn tokens_and_cursors() {
    fuzz(&PLACES, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let token = text.parse::<ConsistencyToken>();
        if let Ok(token) = &token {
            assert_eq!(token.to_string().parse().as_ref(), Ok(token));
        }
        let cursor = FeedCursor::read(&text);
        if let Some(cursor) = &cursor {
            assert_eq!(FeedCursor::read(&cursor.to_string()).as_ref(), Some(cursor));
        }
        token.is_ok() || cursor.is_some()
    });
}

const ORIGINS: Target = Target {
    name: "origins of other pages",
    examples: &[
        "*",
        "https://shop.example",
        "https://shop.example:8443,http://localhost:3000",
        "http://[::1]:3000",
    ],
    near: &[
        "https://shop.example/",
        "https://Shop.example",
        "http://shop.example:80",
        "null",
        "https://a, *",
    ],
    words: &[
        "https://",
        "http://",
        ",",
        ":",
        "*",
        "null",
        "[::1]",
        "localhost",
        ":443",
        ":80",
        "@",
        "xn--",
    ],
};

#[test]
fn origins() {
    fuzz(&ORIGINS, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let Some(origins) = CorsOrigins::parse(&text) else {
            return false;
        };
        // Each of them alone too, and all of them however they are spaced.
        let listed: Vec<_> = text.split(',').map(str::trim).collect();
        assert!(listed.iter().all(|one| CorsOrigins::parse(one).is_some()));
        assert_eq!(
            CorsOrigins::parse(&listed.join(" , ")),
            Some(origins.clone())
        );
        // They are sent as a header's value, each by itself.
        assert!(listed.iter().all(|one| !one.contains(char::is_control)));
        // The layer panics on what it takes for no list.
        let _ = cross_origin(Router::new(), &origins, &[Method::GET]);
        true
    });
}
