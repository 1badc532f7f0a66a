//! The pure part of tidelog: aggregates, events, versions, positions, projections, and tests of them.
//!
//! Nothing in this crate is asynchronous, does I/O, reads a clock or draws a random number: time and
//! identities come in from outside, so that every decision and every fold can be repeated exactly.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "tests fail loudly"
    )
)]

#[doc(hidden)]
pub mod __private;
mod aggregate;
mod append;
mod causes;
mod context;
mod decider;
pub mod entity;
mod event;
pub mod json;
mod masked;
mod multi_stream;
mod position;
pub mod prelude;
mod projection;
mod snapshots;
mod stream;
mod tenant;
pub mod testing;
mod token;
mod upcasting;
mod variant;

pub use aggregate::{Aggregate, Command, Data, Decision, DecodeError, Event, Named, Rejection};
pub use append::{Append, AppendKey, Appended, ExpectedVersion, IdempotencyKey, StreamWrite};
pub use causes::causes;
pub use context::Context;
pub use decider::{
    CommandInput, CommandSpec, Decider, Endpoint, EventDraft, FieldError, InvalidAggregate,
    Lifecycle, Loading, Refusal, State, TypedDecider,
};
pub use entity::{
    Change, Entity, EntityDecider, EntityEvent, EntitySchema, EntityView, InvalidSchema,
};
pub use event::{EventId, Metadata, NewEvent, Payload, RecordedEvent};
pub use multi_stream::{
    Aggregates, MultiStreamCommand, MultiStreamDecider, MultiStreamDecision,
    TypedMultiStreamDecider,
};
pub use position::{Cursor, HistoryId, Partition, Partitions, Position, Version};
pub use projection::{
    DocumentState, EventFilter, EventReader, EventSet, Folding, Keys, NotFolded, Projection,
    Recorded, TypedProjector, View, ViewDefinition,
};
pub use snapshots::{NoSnapshot, Snapshots};
pub use stream::{InvalidStreamId, MAX_ID_BYTES, StreamId};
pub use tenant::{
    InvalidTenant, MAX_TENANT_BYTES, Tenant, document_id, document_key, document_tenant,
};
pub use tidelog_macros::{
    aggregate, commands, data, entity, event_set, events, multi_stream_command, rejections, view,
};
pub use token::{ConsistencyToken, InvalidToken};
pub use upcasting::{
    EventShape, InvalidUpcasters, Lock, ShapeChange, Upcasted, Upcaster, Upcasters,
};
