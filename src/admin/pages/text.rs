//! Numbers and times as people read them.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;

/// The most bytes of JSON that a page shows of one thing.
const MAX_SHOWN_BYTES: usize = 64 * 1024;

/// A moment: for programs, exactly, and how long ago.
pub(super) struct Moment {
    pub(super) iso: String,
    pub(super) full: String,
    pub(super) ago: String,
}

impl Moment {
    pub(super) fn of(at: DateTime<Utc>) -> Self {
        let seconds = (Utc::now() - at).num_seconds();
        Self {
            iso: at.to_rfc3339_opts(SecondsFormat::Millis, true),
            full: at.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
            ago: ago(seconds),
        }
    }
}

/// How long ago something was.
fn ago(seconds: i64) -> String {
    match seconds {
        ..=1 => "just now".to_owned(),
        _ => format!("{} ago", span(seconds.unsigned_abs())),
    }
}

/// A span of time, in its largest unit.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A span of time that may be less than a second.
pub(super) fn short_span(seconds: f64) -> String {
    if seconds < 0.05 {
        "0 s".to_owned()
    } else if seconds < 10.0 {
        format!("{seconds:.1} s")
    } else {
        span(std::time::Duration::from_secs_f64(seconds.min(1e15)).as_secs())
    }
}

/// A number with commas.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 event`, `2 events`.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// A text as a part of a path.
pub(super) fn segment(text: &str) -> String {
    let encoded: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    // What stands for a blank in a form is a plus in a path.
    encoded.replace('+', "%20")
}

/// Pairs as an address has them; those without a value are left out.
pub(super) fn encoded<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs).finish()
}

/// JSON over several lines, cut where it is very long.
pub(super) fn json(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    if text.len() > MAX_SHOWN_BYTES {
        let cut = text.floor_char_boundary(MAX_SHOWN_BYTES);
        let left = text.len() - cut;
        text.truncate(cut);
        text.push_str(&format!("\n… and {} bytes more", number(left as u64)));
    }
    text
}

/// A value in a cell of a table.
pub(super) fn cell(value: Option<&Value>) -> String {
    const MAX_CHARS: usize = 120;
    let text = match value {
        None | Some(Value::Null) => return "–".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    if text.chars().count() <= MAX_CHARS {
        return text;
    }
    let cut: String = text.chars().take(MAX_CHARS).collect();
    format!("{cut}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans_are_short() {
        assert_eq!(number(0), "0");
        assert_eq!(number(999), "999");
        assert_eq!(number(1_000), "1,000");
        assert_eq!(number(12_345_678), "12,345,678");
        assert_eq!(counted(1, "event", "events"), "1 event");
        assert_eq!(ago(0), "just now");
        assert_eq!(ago(-5), "just now");
        assert_eq!(ago(90), "90 s ago");
        assert_eq!(ago(7_300), "2 h ago");
        assert_eq!(short_span(0.0), "0 s");
        assert_eq!(short_span(0.25), "0.2 s");
        assert_eq!(short_span(125.0), "2 min");
    }

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(segment("post/7f@3 +"), "post%2F7f%403%20%2B");
        assert_eq!(
            encoded([("a", "x y&"), ("b", ""), ("c", "1")]),
            "a=x+y%26&c=1"
        );
    }

    #[test]
    fn long_json_is_cut_between_characters() {
        let long = Value::String("é".repeat(MAX_SHOWN_BYTES));
        let shown = json(&long);
        assert!(shown.len() < MAX_SHOWN_BYTES + 100);
        assert!(shown.contains("bytes more"));
        assert_eq!(cell(Some(&long)).chars().count(), 121);
    }
}
