//! Names: of aggregates, views, commands, events and rejections.

use proc_macro2::Span;
use syn::ext::IdentExt;
use syn::{Ident, LitStr};

/// The most bytes of a name.
const MAX_BYTES: usize = 64;

/// A name, and the place to point at when it will not do.
#[derive(Clone)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) span: Span,
}

impl Name {
    /// The name that was given, else that of `ident` in kebab-case.
    ///
    /// # Errors
    ///
    /// When a path or a stored event cannot have it.
    pub(crate) fn new(given: Option<&LitStr>, ident: &Ident) -> syn::Result<Self> {
        let name = match given {
            Some(given) => Self {
                text: given.value(),
                span: given.span(),
            },
            None => Self {
                text: kebab(&ident.unraw().to_string()),
                span: ident.span(),
            },
        };
        name.checked()
    }

    /// The name that was given.
    ///
    /// # Errors
    ///
    /// When a path or a stored event cannot have it.
    pub(crate) fn given(given: &LitStr) -> syn::Result<Self> {
        let (text, span) = (given.value(), given.span());
        Self { text, span }.checked()
    }

    fn checked(self) -> syn::Result<Self> {
        let fits = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if self.text.len() <= MAX_BYTES
            && self
                .text
                .starts_with(|first: char| first.is_ascii_lowercase())
            && self.text.bytes().all(fits)
        {
            return Ok(self);
        }
        Err(syn::Error::new(
            self.span,
            format!(
                "{:?} cannot be a name here: use a lower-case letter followed by up to 63 of a-z, 0-9, _ and -",
                self.text
            ),
        ))
    }
}

/// The first name that comes twice is an error, at its second place.
pub(crate) fn require_unique<'a>(
    names: impl IntoIterator<Item = &'a Name>,
    what: &str,
) -> syn::Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name.text.as_str()) {
            let message = format!("two {what} are called {:?}: rename one", name.text);
            return Err(syn::Error::new(name.span, message));
        }
    }
    Ok(())
}

/// `InsufficientFunds` as `insufficient-funds`, `HTTPRoute2` as `http-route2`.
fn kebab(camel: &str) -> String {
    words(camel).join("-").to_lowercase()
}

/// `InsufficientFunds` as `Insufficient funds`.
pub(crate) fn sentence(camel: &Ident) -> String {
    let camel = camel.unraw().to_string();
    let mut words = words(&camel).into_iter();
    let first = words.next().unwrap_or_default();
    words.fold(first, |said, word| said + " " + &word.to_lowercase())
}

/// A word begins with a capital after a small letter or a digit, and with the last of several capitals.
fn words(camel: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = '_';
    let mut letters = camel.chars().peekable();
    while let Some(letter) = letters.next() {
        let small_follows = letters.peek().is_some_and(|next| next.is_lowercase());
        let begins = letter.is_uppercase() && (!before.is_uppercase() || small_follows);
        match words.last_mut() {
            Some(word) if !begins => word.push(letter),
            _ => words.push(letter.to_string()),
        }
        before = letter;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kebab_case() {
        let pairs = [
            ("Open", "open"),
            ("InsufficientFunds", "insufficient-funds"),
            ("HTTPRoute2", "http-route2"),
            ("AddV2Item", "add-v2-item"),
            ("A", "a"),
        ];
        for (camel, expected) in pairs {
            assert_eq!(kebab(camel), expected);
        }
    }
}
