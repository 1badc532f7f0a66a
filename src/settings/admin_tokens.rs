//! Who may use the administration.

use std::fmt;
use std::sync::Arc;

use ring::digest::{SHA256, digest};

/// How many characters a secret has at least: fewer can be guessed.
const MIN_SECRET_CHARS: usize = 16;

/// How many characters a secret has at most.
const MAX_SECRET_CHARS: usize = 256;

/// How many characters a name has at most.
const MAX_NAME_CHARS: usize = 64;

/// The people and programs that may use the administration, each with a secret. Of the secrets only hashes are kept.
///
/// None unless said: then whoever reaches the admin listener may read, and on loopback do everything.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AdminTokens(Arc<[AdminToken]>);

/// What somebody may do in the administration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Permission {
    /// See everything, payloads included.
    Read,
    /// Also act: pause, retry, skip, replay, roll back.
    Operate,
}

/// One who may use the administration.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AdminToken {
    pub(crate) name: Arc<str>,
    pub(crate) permission: Permission,
    hash: [u8; 32],
}

/// The secret of one of the [`AdminTokens`], to be shown to a process that has them.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminSecret(Arc<str>);

impl AdminSecret {
    /// The secret `text`: 16 to 256 printable ASCII characters, no blank among them; else `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_secret(text).then(|| Self(text.into()))
    }

    /// It, in the header `Authorization`.
    #[cfg(feature = "cli")]
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for AdminSecret {
    /// Says that there is one, never which.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminSecret(***)")
    }
}

/// Whether `text` can be a secret.
fn is_secret(text: &str) -> bool {
    let is_long = (MIN_SECRET_CHARS..=MAX_SECRET_CHARS).contains(&text.len());
    is_long && text.chars().all(|c| c.is_ascii_graphic())
}

impl AdminTokens {
    /// Reads `name:read:secret` and `name:operate:secret`, separated by commas; `None` where something else stands there. A name
    /// may come more than once, so that a secret can be replaced by another without a gap.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let tokens: Option<Vec<_>> = text.split(',').map(AdminToken::parse).collect();
        tokens.map(|tokens| Self(tokens.into()))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose secret this is. Hashes are compared, so how long that takes tells nothing of the secrets.
    pub(crate) fn of_secret(&self, secret: &str) -> Option<&AdminToken> {
        let hash = hash(secret);
        self.0.iter().find(|token| token.hash == hash)
    }

    /// Those of this name.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = &AdminToken> {
        self.0.iter().filter(move |token| *token.name == *name)
    }
}

impl AdminToken {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().splitn(3, ':');
        let (name, permission, secret) = (parts.next()?, parts.next()?, parts.next()?);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._@-".contains(c);
        let named = (1..=MAX_NAME_CHARS).contains(&name.len()) && name.chars().all(is_plain);
        if !named || !is_secret(secret) {
            return None;
        }
        Some(Self {
            name: name.into(),
            permission: Permission::parse(permission)?,
            hash: hash(secret),
        })
    }

    /// What is signed for this one is signed with it.
    pub(crate) const fn key(&self) -> &[u8; 32] {
        &self.hash
    }
}

impl Permission {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Read, Self::Operate]
            .into_iter()
            .find(|permission| permission.name() == text)
    }
}

impl fmt::Debug for AdminTokens {
    /// Says who, never what signs for them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:***", self.name, self.permission.name())
    }
}

fn hash(secret: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_tells_who_it_is_and_is_never_shown() {
        let tokens =
            AdminTokens::parse("ann:operate:hunter2hunter2:x, wall@hall:read:0123456789abcdef")
                .unwrap();
        let ann = tokens.of_secret("hunter2hunter2:x").unwrap();
        assert_eq!((&*ann.name, ann.permission), ("ann", Permission::Operate));
        let wall = tokens.of_secret("0123456789abcdef").unwrap();
        assert_eq!(
            (&*wall.name, wall.permission),
            ("wall@hall", Permission::Read)
        );
        assert!(tokens.of_secret("0123456789abcdeF").is_none());
        let shown = format!("{tokens:?}");
        assert_eq!(shown, "[ann:operate:***, wall@hall:read:***]");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in [
            "",
            "ann",
            "ann:operate",
            "ann:operate:tooshort",
            "ann:admin:0123456789abcdef",
            ":read:0123456789abcdef",
            "an n:read:0123456789abcdef",
            "ann:read:0123456789 abcdef",
            "ann:read:0123456789abcdef,",
        ] {
            assert!(AdminTokens::parse(text).is_none(), "{text:?}");
        }
    }
}
