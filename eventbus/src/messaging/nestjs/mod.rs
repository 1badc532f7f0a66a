//! The form of the Redis Streams transport for NestJS (`nestjs-redis-stream-microservice`), as a server of it and as a client.
//!
//! It is a form of [the bus on Redis](super::RedisMessageBus), and not a bus of its own: what is read becomes a message of ours before
//! anything else sees it, and what is written becomes one of theirs after. So taking, holding, claiming, trying again, dead letters and
//! trimming are the same, and so is what happens when a process dies at any step. What differs:
//!
//! | step | in this form |
//! |---|---|
//! | a channel | is the stream whose key is the pattern |
//! | a request | has its id as the `correlationId`, which a reply repeats |
//! | done | the reply goes to the one response stream, which is cut at about [`MAX_RESPONSES`]; the request stays for other groups until it is trimmed |
//! | an inbox | reads the response stream from its end on, by itself: no group, so that nothing is left when it goes |
//! | an emit that comes again | has the same id: what its sender says (ours do), else one that is made of its place |
//!
//! `docs/interop-nestjs.md` has the bytes, and what the form cannot carry.

use std::collections::HashMap;

use super::names::{Channel, InvalidName, Subject};

mod form;
mod header;
mod inbox;

pub(super) use form::NestForm;
pub(super) use inbox::NestInbox;

/// The stream that all replies go to.
pub(super) const RESPONSES: &str = "x-nestjs-redis-stream-response";

/// About how many replies the response stream keeps: who is behind by more has lost some, and times out.
pub(super) const MAX_RESPONSES: usize = 100_000;

/// How long a pattern may be, in bytes.
pub(super) const MAX_PATTERN_BYTES: usize = 256;

/// Which pattern of NestJS each subject is. A subject that is not named here is the pattern of its own name.
#[derive(Clone, Debug, Default)]
pub struct NestPatterns(HashMap<Channel, String>);

impl NestPatterns {
    /// With `subject` as `pattern`: for one that is no subject's name, such as `users:create`.
    ///
    /// # Errors
    ///
    /// [`InvalidName::Pattern`].
    pub fn with<Message, Reply>(
        mut self,
        subject: &Subject<Message, Reply>,
        pattern: &str,
    ) -> Result<Self, InvalidName> {
        let is_fit = (1..=MAX_PATTERN_BYTES).contains(&pattern.len())
            // Its dead letters are a stream in the same slot of a cluster.
            && !pattern.contains(['{', '}'])
            && pattern != RESPONSES;
        if !is_fit {
            return Err(InvalidName::Pattern);
        }
        self.0.insert(subject.channel(), pattern.to_owned());
        Ok(self)
    }

    fn key(&self, channel: &Channel) -> String {
        let named = self.0.get(channel).cloned();
        named.unwrap_or_else(|| channel.to_string())
    }
}
