//! The names of collections and views, which adapters put into commands: checked before anything else.

use tidelog_eventbus::StateError;

use super::ReadError;

/// The longest name of a collection or a view, in bytes. MongoDB allows 255 for database and collection together.
pub const MAX_NAME_BYTES: usize = 128;

/// What an adapter's own collections and tables begin with, and a view's therefore must not.
const RESERVED: &str = "tidelog_";

/// Whether `name` may name a collection or a view: lower-case letters, digits, `_` and `-`, a letter first, at most
/// [`MAX_NAME_BYTES`], not beginning with `tidelog_`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES
        && !name.starts_with(RESERVED)
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

/// `name`, or [`ReadError::InvalidName`].
pub(crate) fn checked(name: &str) -> Result<&str, ReadError> {
    if is_name(name) {
        Ok(name)
    } else {
        Err(ReadError::InvalidName {
            name: name.to_owned(),
        })
    }
}

/// `name`, or an error that a caller of [`StateStore`](tidelog_eventbus::StateStore) knows to be final.
pub(crate) fn checked_for_state(name: &str) -> Result<&str, StateError> {
    checked(name).map_err(|error| StateError::Corrupt {
        what: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_of_what_every_store_takes_as_it_is() {
        for name in ["post", "post_1", "a-b-9", &"x".repeat(MAX_NAME_BYTES)] {
            assert!(is_name(name), "{name:?}");
        }
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        for name in [
            "",
            "Post",
            "1post",
            "_post",
            "po st",
            "po.st",
            "po$t",
            "po\"st",
            "po\0st",
            "système",
            "tidelog_views",
            &long,
        ] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
