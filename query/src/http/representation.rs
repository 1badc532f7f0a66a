//! Documents as clients see them, and their entity tags.

use axum::http::{HeaderMap, HeaderValue, header};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use tidelog_domain::{Version, document_key};
use twox_hash::XxHash64;

use crate::store::Document;

/// What the framework sets in every document, whatever the view's own fields.
const ENVELOPE: [&str; 4] = ["id", "created_at", "updated_at", "version"];

/// What says whether a document is deleted, where deleted ones are shown.
pub(super) const DELETED: &str = "deleted";

/// A document in `data`: its id, the view's own fields, its times and its version. Where `deleted` ones are shown, also
/// whether it is one.
pub(super) fn shown(document: Document, deleted: bool) -> Value {
    let mut shown = Map::with_capacity(document.data.len() + ENVELOPE.len());
    shown.insert("id".to_owned(), Value::from(document_key(&document.id)));
    let own = document.data.into_iter();
    let is_set = |name: &str| ENVELOPE.contains(&name) || deleted && name == DELETED;
    shown.extend(own.filter(|(name, _)| !is_set(name)));
    shown.insert(
        "created_at".to_owned(),
        time_text(document.created_at).into(),
    );
    shown.insert(
        "updated_at".to_owned(),
        time_text(document.updated_at).into(),
    );
    shown.insert("version".to_owned(), json!(document.version));
    if deleted {
        shown.insert(DELETED.to_owned(), Value::Bool(document.deleted));
    }
    Value::Object(shown)
}

/// A time in UTC, to the microsecond, so that texts sort as times do.
pub(super) fn time_text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// The strong entity tag `"n.<representation>"` of `body`, which shows a document at `version`.
pub(super) fn entity_tag(version: Version, body: &str) -> String {
    format!(
        "\"{version}.{:016x}\"",
        XxHash64::oneshot(0, body.as_bytes())
    )
}

/// Whether `If-None-Match` names `tag`, so that the client has this representation already.
pub(super) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let lines = headers.get_all(header::IF_NONE_MATCH).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// `text` as a header's value; texts of ours always are.
pub(super) fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn document() -> Document {
        Document {
            id: "p1".to_owned(),
            data: Map::from_iter([
                ("title".to_owned(), json!("a")),
                ("version".to_owned(), json!("mine")),
                ("body".to_owned(), json!("b")),
            ]),
            version: Version::new(3),
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::from_timestamp_micros(1_500_000).unwrap(),
            deleted: false,
            applied: BTreeMap::new(),
            revision: 9,
        }
    }

    #[test]
    fn a_document_shows_its_own_fields_between_id_and_times() {
        assert_eq!(
            shown(document(), false).to_string(),
            r#"{"id":"p1","title":"a","body":"b","created_at":"1970-01-01T00:00:00.000000Z","updated_at":"1970-01-01T00:00:01.500000Z","version":3}"#
        );
    }

    #[test]
    fn a_tag_changes_with_the_body_and_begins_with_the_version() {
        let tag = entity_tag(Version::new(3), "body");
        assert!(tag.starts_with("\"3.") && tag.ends_with('"'), "{tag}");
        assert_ne!(tag, entity_tag(Version::new(3), "other body"));
        assert_eq!(tag, entity_tag(Version::new(3), "body"));
    }

    #[test]
    fn a_known_tag_is_found_among_several_also_a_weak_one() {
        let known = |line: &str| {
            let headers = [(header::IF_NONE_MATCH, HeaderValue::from_str(line).unwrap())];
            is_known(&headers.into_iter().collect(), "\"3.a\"")
        };
        assert!(known("\"3.a\"") && known("\"1\", W/\"3.a\"") && known("*"));
        assert!(!known("\"3\"") && !known("3.a") && !known(""));
        assert!(!is_known(&HeaderMap::new(), "\"3.a\""));
    }
}
