//! What a decoder said, without the values that it came across: those are a payload's, and are for nobody's log.

use serde::de::Error as _;

/// What stands for a value.
const MASK: &str = "…";

/// What comes between a value and what should be in its place.
const EXPECTED: &str = ", expected ";

/// The same error without values: its place stays, and what was expected there.
pub(crate) fn masked(error: serde_json::Error) -> serde_json::Error {
    // Of what is not JSON, only the place is told anyway.
    match error.is_data() {
        true => serde_json::Error::custom(without_values(&error.to_string())),
        false => error,
    }
}

fn without_values(text: &str) -> String {
    let (what, place) = text
        .rfind(" at line ")
        .map_or((text, ""), |at| text.split_at(at));
    let names_no_value = ["missing field `", "duplicate field `", "invalid length "];
    if names_no_value.iter().any(|start| what.starts_with(start)) {
        return text.to_owned();
    }
    let starts = [
        "invalid type: ",
        "invalid value: ",
        "unknown variant ",
        "unknown field ",
    ];
    let known = starts.iter().any(|start| what.starts_with(start));
    // The last one: a value may have such words, too.
    let expected = known.then(|| what.rfind(EXPECTED)).flatten();
    let (found, expected) = expected.map_or((what, ""), |at| what.split_at(at));
    format!("{}{expected}{place}", without_quoted(found))
}

/// Leaves out what is between the first mark of quotation and the last.
fn without_quoted(text: &str) -> String {
    let is_mark = |c: char| matches!(c, '"' | '`' | '\'');
    match (text.find(is_mark), text.rfind(is_mark)) {
        (Some(first), Some(last)) => {
            let after = text.get(last + 1..).unwrap_or_default();
            let before = text.get(..first).unwrap_or_default();
            // One mark alone begins something that has no end.
            let after = if first == last { "" } else { after };
            format!("{before}{MASK}{after}")
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Account {
        #[allow(dead_code, reason = "what it is read to does not matter")]
        number: u8,
        #[allow(dead_code, reason = "what it is read to does not matter")]
        kind: Option<Kind>,
    }

    #[derive(Debug, Deserialize)]
    enum Kind {
        Private,
        Business,
    }

    fn said<T: DeserializeOwned + std::fmt::Debug>(json: &str) -> String {
        let error = serde_json::from_str::<T>(json).unwrap_err();
        let masked = masked(error);
        assert!(
            !format!("{masked} {masked:?}").contains("secret"),
            "{masked:?}"
        );
        masked.to_string()
    }

    #[test]
    fn a_value_is_not_repeated() {
        for (json, expected) in [
            (
                r#"{"number": "secret"}"#,
                "invalid type: string …, expected u8 at line 1 column 19",
            ),
            (
                r#"{"number": 300}"#,
                "invalid value: integer …, expected u8 at line 1 column 14",
            ),
            (
                r#"{"number": "secret, expected `u8` at line 1 column 2"}"#,
                "invalid type: string …, expected u8 at line 1 column 53",
            ),
            (
                r#"{"number": 1, "kind": "secret"}"#,
                "unknown variant …, expected `Private` or `Business` at line 1 column 30",
            ),
            (
                r#"{"secret": 1}"#,
                "unknown field …, expected `number` or `kind` at line 1 column 9",
            ),
            (
                "\"secret\"",
                "invalid type: string …, expected struct Account at line 1 column 8",
            ),
        ] {
            assert_eq!(said::<Account>(json), expected);
        }
        let kinds = [Kind::Private, Kind::Business];
        assert_eq!(kinds.len(), 2);
    }

    #[test]
    fn what_is_missing_is_told() {
        assert_eq!(
            said::<Account>("{}"),
            "missing field `number` at line 1 column 2"
        );
        assert_eq!(
            said::<Account>("{\"number\""),
            "EOF while parsing an object at line 1 column 9"
        );
    }

    #[test]
    fn what_code_of_a_user_says_is_told_without_what_it_quotes() {
        for (text, expected) in [
            ("\"it's secret\" is no colour", "… is no colour"),
            (
                "expected a colour, found `secret`",
                "expected a colour, found …",
            ),
            ("an apostrophe isn't secret", "an apostrophe isn…"),
            ("a colour is missing", "a colour is missing"),
        ] {
            let error = masked(serde_json::Error::custom(text));
            assert_eq!(error.to_string(), expected);
        }
    }
}
