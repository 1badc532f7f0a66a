//! What an app may be called where its name becomes part of a key or a subject on a server.

/// Whether `name` is 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-'.
pub(crate) fn is_app_name(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(is_plain)
}
