//! One scan over the bytes of a body, before any of it is parsed.

/// How deep objects and lists of a body may be nested; `{}` is one deep.
///
/// Every parser and store behind it takes this much with room to spare, also with the envelope around it.
pub const MAX_DEPTH: usize = 32;

/// The most digits and signs that an `i64` is written with.
const MAX_INTEGER_BYTES: usize = 20;

/// What is wrong with a JSON text although a parser would take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonProblem {
    /// Objects and lists are nested too deep.
    #[error("objects and lists are nested more than {max} deep, at byte {offset}")]
    TooDeep {
        /// How deep they may be.
        max: usize,
        /// The byte that opens the one too many, from 0.
        offset: usize,
    },
    /// A whole number is outside the range that every store keeps exactly.
    #[error(
        "the integer at byte {offset} is outside -9223372036854775808 to 9223372036854775807 and would be rounded: send it as a text"
    )]
    IntegerRange {
        /// The first byte of the number, from 0.
        offset: usize,
    },
}

/// Refuses a JSON text that is nested deeper than `max_depth` or has an integer outside `i64`.
///
/// It runs in linear time and constant space, and never panics, whatever the bytes are. It does not say that the text is
/// JSON: that is the parser's business, after it. Numbers with a fraction or an exponent are left alone.
///
/// # Errors
///
/// The first [`JsonProblem`].
pub fn check(json: &[u8], max_depth: usize) -> Result<(), JsonProblem> {
    let mut depth = 0_usize;
    let mut offset = 0;
    while let Some(byte) = json.get(offset) {
        match byte {
            b'"' => {
                offset = after_text(json, offset + 1);
                continue;
            }
            b'-' | b'0'..=b'9' => {
                let end = after_number(json, offset);
                if !is_in_range(json.get(offset..end).unwrap_or_default()) {
                    return Err(JsonProblem::IntegerRange { offset });
                }
                offset = end;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > max_depth {
                    return Err(JsonProblem::TooDeep {
                        max: max_depth,
                        offset,
                    });
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        offset += 1;
    }
    Ok(())
}

/// The byte after the text whose opening quote is just before `offset`.
fn after_text(json: &[u8], mut offset: usize) -> usize {
    while let Some(byte) = json.get(offset) {
        match byte {
            b'"' => return offset + 1,
            b'\\' => offset += 2,
            _ => offset += 1,
        }
    }
    offset
}

/// The byte after the number that begins at `offset`.
fn after_number(json: &[u8], offset: usize) -> usize {
    let rest = json.get(offset..).unwrap_or_default();
    let length = rest
        .iter()
        .position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
        .unwrap_or(rest.len());
    offset + length
}

/// Whether a number has a fraction or an exponent, or else fits an `i64`.
fn is_in_range(number: &[u8]) -> bool {
    if number.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        return true;
    }
    let text = std::str::from_utf8(number).unwrap_or_default();
    let malformed = text.strip_prefix('-').unwrap_or(text);
    if malformed.is_empty() || malformed.contains(['-', '+']) {
        return true; // Not a number: the parser says so.
    }
    number.len() <= MAX_INTEGER_BYTES && text.parse::<i64>().is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// How deep a value is nested.
    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    #[test]
    fn a_text_at_the_limit_passes_and_one_beyond_it_does_not() {
        let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(check(nested(32).as_bytes(), MAX_DEPTH), Ok(()));
        assert_eq!(
            check(nested(33).as_bytes(), MAX_DEPTH),
            Err(JsonProblem::TooDeep {
                max: 32,
                offset: 32
            })
        );
        assert!(check(nested(100_000).as_bytes(), MAX_DEPTH).is_err());
    }

    #[test]
    fn brackets_and_digits_within_texts_do_not_count() {
        let json = br#"{"a": "[[[\"[\\", "99999999999999999999": "99999999999999999999"}"#;
        assert_eq!(check(json, 1), Ok(()));
    }

    #[test]
    fn siblings_do_not_add_up() {
        assert_eq!(check(b"[[1],[2],[{}]]", 3), Ok(()));
        assert!(check(b"[[1],[2],[{}]]", 2).is_err());
    }

    #[test]
    fn an_integer_that_would_be_rounded_is_refused() {
        for fits in [
            "9223372036854775807",
            "-9223372036854775808",
            "0",
            "-0",
            "1.5",
            "1e300",
            "99999999999999999999.0",
        ] {
            assert_eq!(check(fits.as_bytes(), 1), Ok(()), "{fits}");
        }
        for large in [
            "9223372036854775808",
            "-9223372036854775809",
            "18446744073709551615",
            "99999999999999999999999999999999",
        ] {
            let json = format!("[0, {large}]");
            assert_eq!(
                check(json.as_bytes(), 1),
                Err(JsonProblem::IntegerRange { offset: 4 }),
                "{large}"
            );
        }
    }

    /// Any JSON value that a parser of the default depth takes.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC*".prop_map(Value::from),
        ];
        leaf.prop_recursive(12, 64, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[\\[{\"]*", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = check(&bytes, MAX_DEPTH);
        }

        #[test]
        fn no_bytes_that_look_like_json_make_it_panic(text in "[-+.eE0-9\\[\\]{}\"\\\\:, ]{0,200}") {
            if check(text.as_bytes(), 4).is_ok() && let Ok(value) = serde_json::from_str(&text) {
                prop_assert!(depth(&value) <= 4, "{text}");
            }
        }

        #[test]
        fn it_agrees_with_the_parser_on_the_depth(value in any_json(), max in 0_usize..12) {
            let json = serde_json::to_vec(&value).unwrap();
            prop_assert_eq!(check(&json, max).is_ok(), depth(&value) <= max);
        }

        #[test]
        fn it_agrees_with_the_parser_on_integers(number in any::<i128>()) {
            let json = number.to_string();
            prop_assert_eq!(
                check(json.as_bytes(), 1).is_ok(),
                serde_json::from_str::<i64>(&json).is_ok()
            );
        }
    }
}
