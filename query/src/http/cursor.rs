//! Where a page ended: opaque to clients, the last id to us.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What a cursor of this form begins with, so that another form can follow some day.
const FORM: &str = "1:";

/// The most bytes that a cursor may have, encoded.
const MAX_BYTES: usize = 2_048;

/// The cursor behind the document `id`.
pub(super) fn encode(id: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{FORM}{id}"))
}

/// The document that a cursor stands behind, when it is one of ours.
pub(super) fn decode(cursor: &str) -> Option<String> {
    if cursor.len() > MAX_BYTES {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    text.strip_prefix(FORM).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_anything_else_does_not() {
        for id in ["a", "", "Köln & more", &"x".repeat(1024)] {
            assert_eq!(decode(&encode(id)).as_deref(), Some(id));
        }
        for text in [
            "",
            "a",
            "!!",
            "MTph=",
            &URL_SAFE_NO_PAD.encode("2:a"),
            &"A".repeat(4_000),
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
