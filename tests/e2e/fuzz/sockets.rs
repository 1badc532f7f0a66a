//! What clients say over a WebSocket.

use tidelog_http::SocketMessage;

use super::fuzz;
use super::inputs::Target;

const MESSAGES: Target = Target {
    name: "messages of sockets",
    examples: &[
        r#"{"id":"1","subscribe":"/posts?author_name=Ann"}"#,
        r#"{"id":"1","subscribe":"/post/1","after":"1.0190a4f1","headers":{"consistency-token":"1.x.0-1"}}"#,
        r#"{"id":"1","unsubscribe":true}"#,
        r#"{"id":"7","command":{"method":"POST","path":"/post","headers":{"Idempotency-Key":"k"},"body":{"title":"A","n":[1.0,null]}}}"#,
        r#"{"id":"7","command":{"method":"DELETE","path":"/post/1"}}"#,
        r#"{"ping":{"at":[1]}}"#,
    ],
    near: &[
        r#"{"id":"1","unsubscribe":false}"#,
        r#"{"id":1,"subscribe":"/a"}"#,
        r#"{"id":"1","subscribe":"a"}"#,
        r#"{"id":"1","subscribe":"/a","unsubscribe":true}"#,
        r#"{"id":"1","command":{"method":"GET","path":"/a"}}"#,
        r#"{"id":"1","command":{"method":"POST","path":"/a","headers":{"host":"b"}}}"#,
        r#"{"ping":1,"id":"1"}"#,
    ],
    words: &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"id\"",
        "\"subscribe\"",
        "\"unsubscribe\"",
        "\"command\"",
        "\"ping\"",
        "\"after\"",
        "\"headers\":{",
        "\"body\":",
        "\"method\":\"PATCH\"",
        "\"path\":\"/",
        "\"if-match\":\"1\"",
        "true",
        "null",
        "\\u0000",
        "\\ud800",
        "//",
        "?",
        "#",
        "@",
    ],
};

#[test]
fn messages() {
    fuzz(&MESSAGES, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let Ok(message) = SocketMessage::parse(&text) else {
            return false;
        };
        let written = message.to_json();
        let again = SocketMessage::parse(&written).expect("what is written can be read");
        assert_eq!(again.to_json(), written);
        let path = match &message {
            SocketMessage::Subscribe { path, .. } => Some(path),
            SocketMessage::Command { command, .. } => Some(&command.path),
            _ => None,
        };
        // Nothing but a path of this service.
        assert!(path.is_none_or(|path| path.as_str().starts_with('/')));
        true
    });
}
