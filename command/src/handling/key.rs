//! Idempotency keys as clients bring them: the scope that they count in, the request that they belong to, and the id that a
//! creation gets from them.

use serde_json::Value;
use sha2::{Digest, Sha256};
use tidelog_domain::{EventId, IdempotencyKey, Metadata};
use uuid::{Builder, Uuid};

use super::{CommandRequest, MultiStreamRequest};

/// The most characters of an idempotency key.
pub const MAX_KEY_LENGTH: usize = 255;

/// What a client names a command by, so that it can be sent again without being done again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandKey {
    text: String,
    fingerprint: Option<[u8; 32]>,
}

/// The identity of a command that an in-process caller keeps, so that the command can be executed again without being done again:
/// what `Idempotency-Key` is over HTTP.
///
/// ```
/// use tidelog_command::{CommandId, CommandRequest};
///
/// // Made once, and kept with what is to be done: in a row of a queue, say.
/// let id = CommandId::new();
/// let deposit = || CommandRequest::new("account", "deposit", serde_json::json!({"cents": 5})).to("1");
/// // Both are one deposit, however often and by whichever process they are executed.
/// let (first, again) = (deposit().once(id), deposit().once(id));
/// assert_eq!(first, again);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(Uuid);

impl CommandId {
    /// A new one: a UUIDv7.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The command that is given because of `event` and called `name`: the same each time, so that a reaction that is given the event
    /// again does not do it again. One that gives several commands because of one event calls each by another name.
    ///
    /// With [`Recorded::metadata_for_commands`](tidelog_domain::Recorded::metadata_for_commands) what comes of it is found again under
    /// what caused it: `tidelog show` and the page of an event show the whole chain.
    ///
    /// It is a UUIDv8: its first half tells the event, its second half the event and the name.
    ///
    /// ```
    /// use tidelog_command::{CommandId, CommandRequest};
    /// use tidelog_domain::Recorded;
    ///
    /// /// What a reaction asks for when an order was paid.
    /// fn ship<E>(e: &Recorded<E>) -> CommandRequest {
    ///     CommandRequest::new("parcel", "send", serde_json::json!({"order": e.stream_id}))
    ///         .to(format!("of-{}", e.stream_id))
    ///         .once(CommandId::caused_by(e.id, "ship"))
    ///         .with_metadata(e.metadata_for_commands())
    /// }
    /// # let event = tidelog_domain::EventId::new(uuid::Uuid::from_u128(7));
    /// # let ship = CommandId::caused_by(event, "ship");
    /// # assert_eq!(ship, CommandId::caused_by(event, "ship"));
    /// # assert_ne!(ship, CommandId::caused_by(event, "bill"));
    /// # assert!(ship.is_caused_by(event));
    /// ```
    #[must_use]
    pub fn caused_by(event: EventId, name: &str) -> Self {
        let event = event.uuid();
        let [a, b, c, d, e, f, g, h, ..] = digest(b"cause", &[event.as_bytes()]);
        let [i, j, k, l, m, n, o, p, ..] =
            digest(b"caused command", &[event.as_bytes(), name.as_bytes()]);
        let bytes = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p];
        Self(Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// Whether it is a command that [`event` caused](Self::caused_by), whatever it is called.
    #[must_use]
    pub fn is_caused_by(self, event: EventId) -> bool {
        // Any name does: the first half is that of all of them.
        let (own, of_event) = (self.0.as_u64_pair(), Self::caused_by(event, "").0);
        self.0.get_version() == of_event.get_version() && own.0 == of_event.as_u64_pair().0
    }

    /// The number.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// The same as a key.
    pub(super) fn key(self) -> CommandKey {
        CommandKey {
            text: self.0.to_string(),
            fingerprint: None,
        }
    }
}

impl From<Uuid> for CommandId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

/// The identity of a command that a gateway sends: what makes it one command, however often its message is taken by a worker. It counts
/// where the client brought no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent(Uuid);

/// A message's id that is none of a gateway: not a UUIDv7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the id of a command's message must be a UUIDv7")]
pub(crate) struct InvalidSent;

impl Sent {
    /// What the message with the id `text` has.
    ///
    /// # Errors
    ///
    /// [`InvalidSent`].
    pub(crate) fn by_message(text: &str) -> Result<Self, InvalidSent> {
        let id = Uuid::try_parse(text).map_err(|_| InvalidSent)?;
        if id.get_version_num() != 7 {
            return Err(InvalidSent);
        }
        Ok(Self(id))
    }

    /// The same as the id of a command.
    pub(crate) const fn command_id(self) -> Uuid {
        self.0
    }

    /// The same as a key. What is not printable keeps it apart from every key that a client can bring.
    pub(crate) fn key(self) -> CommandKey {
        CommandKey {
            text: format!("\0{}", self.0),
            fingerprint: None,
        }
    }

    /// The id of what the command creates, where the client named none: a UUIDv7 of the same moment, the same each time.
    pub(crate) fn created_id(self) -> Uuid {
        let (high, _) = self.0.as_u64_pair();
        let mut random = [0; 10];
        let hash = digest(b"created by message", &[self.0.as_bytes()]);
        random
            .iter_mut()
            .zip(hash)
            .for_each(|(to, from)| *to = from);
        Builder::from_unix_timestamp_millis(high >> 16, &random).into_uuid()
    }
}

/// A text that cannot be an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has 1 to {MAX_KEY_LENGTH} printable ASCII characters")]
pub struct InvalidKey;

impl CommandKey {
    /// The key `text`: 1 to [`MAX_KEY_LENGTH`] printable ASCII characters, the space included. Something random is best, as a UUID.
    ///
    /// The request that it belongs to is told by its aggregate, id, command, body and precondition.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`].
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidKey> {
        let text = text.into();
        let legal = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if text.is_empty() || text.len() > MAX_KEY_LENGTH || !legal {
            return Err(InvalidKey);
        }
        Ok(Self {
            text,
            fingerprint: None,
        })
    }

    /// What the client wrote.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same, where the request is told by `parts`: for a protocol that knows its exact bytes.
    #[must_use]
    pub(crate) fn of_request(mut self, parts: &[&[u8]]) -> Self {
        self.fingerprint = Some(digest(b"request", parts));
        self
    }

    /// The key in its scope, as the log keeps it. `request` is the one that it came with.
    pub(super) fn scoped(&self, request: &CommandRequest) -> IdempotencyKey {
        let route = (request.category.as_str(), request.input.name.as_str());
        self.in_scope(route, &request.metadata, || fingerprint(request))
    }

    /// The same for a command over several aggregates.
    pub(super) fn scoped_to_all(&self, request: &MultiStreamRequest) -> IdempotencyKey {
        self.in_scope(("", &request.name), &request.metadata, || {
            digest(b"request", &[sorted(&request.body).to_string().as_bytes()])
        })
    }

    /// The scope is the tenant and the principal, where there are any, and the route: the aggregate, which a command over several does not
    /// have, and the command.
    fn in_scope(
        &self,
        (category, command): (&str, &str),
        metadata: &Metadata,
        fingerprint: impl FnOnce() -> [u8; 32],
    ) -> IdempotencyKey {
        let tenant = metadata.tenant.as_deref().unwrap_or_default();
        let principal = metadata.actor.as_deref().unwrap_or_default();
        let scope: [&[u8]; 5] = [
            tenant.as_bytes(),
            principal.as_bytes(),
            category.as_bytes(),
            command.as_bytes(),
            self.text.as_bytes(),
        ];
        IdempotencyKey {
            scoped: digest(b"key", &scope),
            fingerprint: self.fingerprint.unwrap_or_else(fingerprint),
        }
    }
}

/// The id that a creation with `key` gives its aggregate when the client names none: a UUIDv8 of the first bytes of the scoped key's
/// hash. So it is the same each time the command is sent, by whichever process.
pub(super) fn derived_id(key: &IdempotencyKey) -> Uuid {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = key.scoped;
    Builder::from_custom_bytes([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]).into_uuid()
}

/// What tells a request of an in-process client from another.
fn fingerprint(request: &CommandRequest) -> [u8; 32] {
    let id = request.id.as_deref();
    digest(
        b"request",
        &[
            &[u8::from(id.is_some())],
            id.unwrap_or_default().as_bytes(),
            sorted(&request.input.body).to_string().as_bytes(),
            request.precondition.text().as_bytes(),
        ],
    )
}

/// The same value with the fields of its objects in order: a queue or a database may have changed that.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            let fields = fields.into_iter();
            fields
                .map(|(name, value)| (name.clone(), sorted(value)))
                .collect()
        }
        Value::Array(values) => values.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// The hash of `parts`, each with its length before it, so that no two lists of parts are the same bytes; `purpose` keeps the
/// hashes of different things apart.
fn digest(purpose: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in std::iter::once(&purpose).chain(parts) {
        // No text here has more than 64 bits of length.
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidelog_domain::Version;

    use super::*;

    fn scoped(key: &str, request: &CommandRequest) -> IdempotencyKey {
        CommandKey::new(key).unwrap().scoped(request)
    }

    #[test]
    fn a_key_counts_within_its_route() {
        let create = CommandRequest::new("post", "create", Value::Null);
        let same = scoped("k", &create);
        assert_eq!(scoped("k", &create.clone()), same);
        let others = [
            scoped("l", &create),
            scoped("k", &CommandRequest::new("post", "delete", Value::Null)),
            scoped("k", &CommandRequest::new("note", "create", Value::Null)),
            scoped("ek", &CommandRequest::new("post", "creat", Value::Null)),
        ];
        for other in others {
            assert_ne!(other.scoped, same.scoped);
        }
    }

    #[test]
    fn a_key_is_that_of_one_principal_of_one_tenant() {
        let by = |tenant: Option<&str>, actor: Option<&str>| {
            let metadata = Metadata {
                tenant: tenant.map(str::to_owned),
                actor: actor.map(str::to_owned),
                ..Metadata::default()
            };
            let request = CommandRequest::new("post", "create", Value::Null);
            let one = scoped("k", &request.clone().with_metadata(metadata.clone()));
            let several = MultiStreamRequest {
                name: "move".to_owned(),
                body: Value::Null,
                metadata,
                command_id: Uuid::nil(),
                key: None,
            };
            let all = CommandKey::new("k").unwrap().scoped_to_all(&several);
            [one.scoped, all.scoped]
        };
        let callers = [
            by(None, None),
            by(Some("acme"), None),
            by(None, Some("acme")),
            by(Some("acme"), Some("ann")),
            by(Some("acme"), Some("bob")),
            by(Some("ac"), Some("meann")),
        ];
        let all: std::collections::HashSet<_> = callers.iter().flatten().collect();
        assert_eq!(all.len(), 2 * callers.len());
    }

    #[test]
    fn a_command_tells_the_event_that_caused_it() {
        let event = |id| EventId::new(Uuid::from_u128(id));
        let (ship, bill) = (
            CommandId::caused_by(event(1), "ship"),
            CommandId::caused_by(event(1), "bill"),
        );
        assert_ne!(ship, bill);
        assert_eq!(ship, CommandId::caused_by(event(1), "ship"));
        for (command, id, is) in [
            (ship, 1, true),
            (bill, 1, true),
            (ship, 2, false),
            (CommandId::from(Uuid::from_u128(1)), 1, false),
            (CommandId::new(), 1, false),
        ] {
            assert_eq!(command.is_caused_by(event(id)), is, "{command:?} {id}");
        }
    }

    #[test]
    fn the_order_of_fields_is_no_part_of_a_request() {
        let request = |body| CommandRequest::new("post", "create", body);
        let one = scoped("k", &request(json!({"a": [{"b": 1, "c": 2}], "d": 3})));
        let other = scoped("k", &request(json!({"d": 3, "a": [{"c": 2, "b": 1}]})));
        assert_eq!(one, other);
    }

    #[test]
    fn each_part_of_a_request_is_in_its_fingerprint() {
        let create = CommandRequest::new("post", "create", json!({"a": 1}));
        let same = scoped("k", &create);
        let others = [
            CommandRequest::new("post", "create", json!({"a": 2})),
            create.clone().to("1"),
            create.clone().to(""),
            create.clone().at(Version::new(1)),
        ];
        for other in others {
            let other = scoped("k", &other);
            assert_eq!(other.scoped, same.scoped);
            assert_ne!(other.fingerprint, same.fingerprint);
        }
    }

    #[test]
    fn the_id_of_a_creation_is_fixed_for_good() {
        let create = CommandRequest::new("post", "create", Value::Null);
        let id = derived_id(&scoped("8e03978e-40d5-43dd-bc93-6894a57f9324", &create));
        assert_eq!(id.get_version_num(), 8);
        assert_eq!(id.to_string(), "6504fcfb-0d41-83c0-9d5b-d0d17978972e");
    }

    #[test]
    fn what_cannot_be_a_key_is_refused() {
        for text in ["", "\n", "ü", "a\u{7f}", &"k".repeat(MAX_KEY_LENGTH + 1)] {
            assert_eq!(CommandKey::new(text), Err(InvalidKey), "{text}");
        }
        assert!(CommandKey::new("k".repeat(MAX_KEY_LENGTH)).is_ok());
    }
}
