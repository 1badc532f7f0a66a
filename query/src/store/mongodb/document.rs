//! A document as BSON.
//!
//! ```json
//! {"_id": "p1", "data": {…}, "version": 3, "created_at": 1767323045000006, "updated_at": …, "deleted": false,
//!  "applied": {"3": 17}, "revision": 2}
//! ```
//!
//! Times are microseconds since 1970, as 64-bit numbers: BSON's own dates have milliseconds only. They compare, sort and are
//! indexed as numbers. Whole numbers in `data` are 64-bit ones, others floating-point ones.

use chrono::{DateTime, Utc};
use mongodb::bson::raw::{CStr, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, cstr};
use serde_json::{Map, Number, Value};
use tidelog_domain::{Partition, Position, Version};

use crate::store::storable::unwritable;
use crate::store::{Applied, Document, ReadError};

/// Why a value cannot be BSON.
pub(super) type Unstorable = &'static str;

/// A document that is new, at revision 1.
pub(super) fn new(document: &Document) -> Result<RawDocumentBuf, ReadError> {
    let mut bson = RawDocumentBuf::new();
    bson.append(cstr!("_id"), document.id.as_str());
    append_state(&mut bson, document)?;
    bson.append(cstr!("created_at"), document.created_at.timestamp_micros());
    bson.append(cstr!("revision"), 1_i64);
    Ok(bson)
}

/// Appends what every write of a document writes.
pub(super) fn append_state(
    bson: &mut RawDocumentBuf,
    document: &Document,
) -> Result<(), ReadError> {
    let refused = |reason: Unstorable| unwritable(document, reason);
    bson.append(cstr!("data"), object(&document.data).map_err(refused)?);
    bson.append(cstr!("version"), signed(document.version.number()));
    bson.append(cstr!("updated_at"), document.updated_at.timestamp_micros());
    bson.append(cstr!("deleted"), document.deleted);
    let mut applied = RawDocumentBuf::new();
    for (partition, position) in &document.applied {
        let partition = partition.to_string();
        applied.append(
            name(&partition).map_err(refused)?,
            signed(position.number()),
        );
    }
    bson.append(cstr!("applied"), applied);
    Ok(())
}

/// The document that is stored as `bson`.
pub(super) fn read(bson: &RawDocument) -> Result<Document, ReadError> {
    named(bson, read_fields)
}

/// The id of the document that is stored as `bson`, and how far it is.
pub(super) fn read_applied(bson: &RawDocument) -> Result<(String, Applied), ReadError> {
    named(bson, |bson, id| Ok((id.to_owned(), applied(bson)?)))
}

/// What is read of a document, which is named where it cannot be.
fn named<T>(
    bson: &RawDocument,
    read: impl FnOnce(&RawDocument, &str) -> Result<T, Unreadable>,
) -> Result<T, ReadError> {
    let id = bson.get_str("_id").map_err(|error| ReadError::Corrupt {
        what: format!("the id of a document: {error}"),
    })?;
    read(bson, id).map_err(|error| ReadError::Corrupt {
        what: format!("the document {id:?}: {error}"),
    })
}

type Unreadable = Box<dyn std::error::Error + Send + Sync>;

fn read_fields(bson: &RawDocument, id: &str) -> Result<Document, Unreadable> {
    let time = |name| -> Result<DateTime<Utc>, Unreadable> {
        DateTime::from_timestamp_micros(bson.get_i64(name)?).ok_or("a time is out of range".into())
    };
    Ok(Document {
        id: id.to_owned(),
        data: fields(bson.get_document("data")?)?,
        version: Version::new(bson.get_i64("version")?.try_into()?),
        created_at: time("created_at")?,
        updated_at: time("updated_at")?,
        deleted: bson.get_bool("deleted")?,
        applied: applied(bson)?,
        revision: bson.get_i64("revision")?.try_into()?,
    })
}

fn applied(bson: &RawDocument) -> Result<Applied, Unreadable> {
    let mut applied = Applied::new();
    for entry in bson.get_document("applied")? {
        let (partition, position) = entry?;
        let position = position.as_i64().ok_or("a position is not a number")?;
        applied.insert(
            Partition::new(partition.as_str().parse()?),
            Position::new(position.try_into()?),
        );
    }
    Ok(applied)
}

/// A number as BSON has it. Versions, positions and revisions are far below the bound.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The name of a field, which ends in BSON where a NUL is.
pub(super) fn name(name: &str) -> Result<&CStr, Unstorable> {
    name.try_into()
        .map_err(|_| "the name of a field has a NUL in it")
}

/// A JSON object as BSON, its fields in their order.
pub(super) fn object(map: &Map<String, Value>) -> Result<RawDocumentBuf, Unstorable> {
    let mut bson = RawDocumentBuf::new();
    for (field, value) in map {
        let field = name(field)?;
        with_bson(value, |value| bson.append(field, value))?;
    }
    Ok(bson)
}

/// A JSON list as BSON.
fn array(items: &[Value]) -> Result<RawArrayBuf, Unstorable> {
    let mut bson = RawArrayBuf::new();
    for item in items {
        with_bson(item, |item| bson.push(item))?;
    }
    Ok(bson)
}

/// Hands `value` as BSON to `put`.
fn with_bson(value: &Value, put: impl FnOnce(RawBsonRef<'_>)) -> Result<(), Unstorable> {
    match value {
        Value::Null => put(RawBsonRef::Null),
        Value::Bool(value) => put(RawBsonRef::Boolean(*value)),
        Value::String(text) => put(RawBsonRef::String(text)),
        Value::Number(value) => put(number(value)?),
        Value::Array(items) => put(RawBsonRef::Array(&array(items)?)),
        Value::Object(map) => put(RawBsonRef::Document(&object(map)?)),
    }
    Ok(())
}

/// A number as BSON, of the same kind.
fn number(number: &Number) -> Result<RawBsonRef<'static>, Unstorable> {
    match (number.as_i64(), number.as_f64()) {
        (Some(whole), _) => Ok(RawBsonRef::Int64(whole)),
        (None, Some(float)) if number.is_f64() => Ok(RawBsonRef::Double(float)),
        _ => Err("a whole number is above 2^63 - 1"),
    }
}

/// A BSON document as a JSON object, its fields in their order.
pub(super) fn fields(bson: &RawDocument) -> Result<Map<String, Value>, Unreadable> {
    bson.iter()
        .map(|entry| {
            let (field, value) = entry?;
            Ok((field.as_str().to_owned(), json(value)?))
        })
        .collect()
}

/// A BSON value as JSON: one of those that [`object`] makes.
fn json(value: RawBsonRef<'_>) -> Result<Value, Unreadable> {
    Ok(match value {
        RawBsonRef::Null => Value::Null,
        RawBsonRef::Boolean(value) => value.into(),
        RawBsonRef::Int32(number) => number.into(),
        RawBsonRef::Int64(number) => number.into(),
        RawBsonRef::Double(number) => Number::from_f64(number)
            .map(Value::Number)
            .ok_or("a number is not finite")?,
        RawBsonRef::String(text) => text.into(),
        RawBsonRef::Document(document) => Value::Object(fields(document)?),
        RawBsonRef::Array(items) => items
            .into_iter()
            .map(|item| json(item?))
            .collect::<Result<_, Unreadable>>()?,
        other => return Err(format!("it has a {:?}", other.element_type()).into()),
    })
}
