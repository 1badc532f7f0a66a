//! What the macros' output names. Not for anybody else: it may change at any time.

pub use schemars;
pub use serde;
pub use serde_json;

pub use crate::aggregate::{Command, DecodeError, Event, Named, Rejection};
pub use crate::context::Context;
pub use crate::decider::{CommandInput, CommandSpec, Endpoint, FieldError, Lifecycle};
pub use crate::entity::{Change, Entity};
pub use crate::event::{Payload, RecordedEvent};
pub use crate::projection::{EventSet, View};
pub use crate::upcasting::{Upcaster, Upcasters};
pub use crate::variant::{
    command_specs, decode_command, decode_event, encode_event, event_schema, joined, sent_schema,
    stored_schema, unknown_event,
};
