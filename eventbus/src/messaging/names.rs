//! What subjects, shards and groups are called.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// How long a subject's, a shard's or a group's name may be, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// A text that cannot be a name here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// Not a subject.
    #[error(
        "a subject is 1 to {MAX_NAME_BYTES} letters, digits, '-' and '_', in parts with dots between them, like order.placed"
    )]
    Subject,
    /// Not a shard.
    #[error("a shard is 1 to {MAX_NAME_BYTES} letters, digits, '-', '.' and '_'")]
    Shard,
    /// Not a group.
    #[error("a group is 1 to {MAX_NAME_BYTES} letters, digits, '-', '.' and '_'")]
    Group,
    /// Not a message's id.
    #[error("a message's id is 1 to {MAX_NAME_BYTES} characters of printable ASCII without spaces")]
    MessageId,
    /// Not a pattern of NestJS.
    #[error("a pattern of NestJS is 1 to 256 bytes without braces")]
    Pattern,
}

/// What messages are about, and of which types they and their replies are: `Subject<PlaceOrder, Receipt>`.
///
/// A message that nobody replies to has `()` for a reply. `serde_json::Value`, `Box<serde_json::value::RawValue>` (the exact
/// bytes) and `String` (text) do for a program that passes on what it does not know.
///
/// ```
/// use tidelog_eventbus::messaging::Subject;
///
/// const PRICE: Subject<String, u64> = Subject::new("shop.price");
/// assert_eq!(PRICE.shard("eu-1").unwrap().to_string(), "shop.price/eu-1");
/// ```
pub struct Subject<Message, Reply = ()> {
    name: Cow<'static, str>,
    shard: Option<Arc<str>>,
    types: PhantomData<fn(Message) -> Reply>,
}

impl<Message, Reply> Subject<Message, Reply> {
    /// The subject called `name`, in a constant: a name that cannot be does not compile there.
    ///
    /// # Panics
    ///
    /// Outside of a constant, when `name` cannot be a subject's ([`InvalidName::Subject`]).
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        assert!(
            is_subject(name),
            "a subject is letters, digits, '-' and '_', in parts with dots between them"
        );
        Self {
            name: Cow::Borrowed(name),
            shard: None,
            types: PhantomData,
        }
    }

    /// The subject called `name`, where that is known when the program runs.
    ///
    /// # Errors
    ///
    /// [`InvalidName::Subject`].
    pub fn parse(name: impl Into<String>) -> Result<Self, InvalidName> {
        let name = name.into();
        if !is_subject(&name) {
            return Err(InvalidName::Subject);
        }
        Ok(Self {
            name: Cow::Owned(name),
            shard: None,
            types: PhantomData,
        })
    }

    /// The part of the subject that is called `shard`: of a tenant, a version or a key. It is a stream of its own, with workers of its
    /// own: those who handle the subject without a shard, or another one, have nothing of it.
    ///
    /// # Errors
    ///
    /// [`InvalidName::Shard`].
    pub fn shard(&self, shard: &str) -> Result<Self, InvalidName> {
        if !is_plain(shard) {
            return Err(InvalidName::Shard);
        }
        Ok(Self {
            name: self.name.clone(),
            shard: Some(shard.into()),
            types: PhantomData,
        })
    }

    /// Its name, without the shard.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its messages go.
    #[must_use]
    pub fn channel(&self) -> Channel {
        Channel(self.to_string().into())
    }
}

impl<Message, Reply> Clone for Subject<Message, Reply> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            shard: self.shard.clone(),
            types: PhantomData,
        }
    }
}

impl<Message, Reply> fmt::Display for Subject<Message, Reply> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.shard {
            Some(shard) => write!(f, "/{shard}"),
            None => Ok(()),
        }
    }
}

impl<Message, Reply> fmt::Debug for Subject<Message, Reply> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({self})")
    }
}

/// Where messages go on a bus: a subject, or one shard of it. As text: `order.placed` or `order.placed/eu-1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

impl Channel {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its subject's name.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.0
            .split_once('/')
            .map_or(&self.0, |(subject, _)| subject)
    }

    /// Which shard of the subject it is.
    #[must_use]
    pub fn shard(&self) -> Option<&str> {
        self.0.split_once('/').map(|(_, shard)| shard)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a group of workers: each message goes to one worker of each group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group(Arc<str>);

impl Group {
    /// The group called `name`.
    ///
    /// # Errors
    ///
    /// [`InvalidName::Group`].
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        if is_plain(name) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidName::Group)
        }
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What one message is known by: its sender's choice, or a UUID of version 7. A message that is sent again has the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// The id `text`.
    ///
    /// # Errors
    ///
    /// [`InvalidName::MessageId`].
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let is_fit = (1..=MAX_NAME_BYTES).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic());
        if is_fit {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName::MessageId)
        }
    }

    /// An id that no other message has.
    #[must_use]
    pub fn unique() -> Self {
        let mut text = uuid::Uuid::encode_buffer();
        let uuid = uuid::Uuid::now_v7();
        Self((&*uuid.hyphenated().encode_lower(&mut text)).into())
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `name` can be a subject's.
const fn is_subject(name: &str) -> bool {
    let mut rest = name.as_bytes();
    if rest.len() > MAX_NAME_BYTES {
        return false;
    }
    let mut is_in_part = false;
    while let Some((byte, after)) = rest.split_first() {
        is_in_part = match *byte {
            b'.' if is_in_part => false,
            b'-' | b'_' => true,
            byte if byte.is_ascii_alphanumeric() => true,
            _ => return false,
        };
        rest = after;
    }
    is_in_part
}

fn is_plain(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_parts_with_dots_between_them() {
        for name in ["a", "order.placed", "Order_2.placed-v2", "0"] {
            assert!(is_subject(name), "{name}");
        }
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        for name in [
            "", ".", "a.", ".a", "a..b", "a b", "a:b", "a/b", "ä", "*", "a.>", &long,
        ] {
            assert!(!is_subject(name), "{name}");
        }
    }

    #[test]
    fn a_shard_is_a_channel_of_its_own() {
        let subject: Subject<()> = Subject::new("order.placed");
        let shard = subject.shard("acme.eu").unwrap();
        assert_eq!(shard.channel().as_str(), "order.placed/acme.eu");
        assert_eq!(shard.channel().subject(), "order.placed");
        assert_eq!(shard.channel().shard(), Some("acme.eu"));
        assert_eq!(subject.channel().shard(), None);
        for shard in ["", "a/b", "a b", "{a}", "é"] {
            assert!(subject.shard(shard).is_err(), "{shard}");
        }
    }
}
