//! The form in which messages are on Redis: this library's own, or that of NestJS.

use redis::{Cmd, Value};

use super::answers::{self, Entry};
use super::{GROUP, MESSAGE, xadd_if_there};
use crate::messaging::error::MessageBusError;
use crate::messaging::names::{Channel, Group};
#[cfg(feature = "nestjs")]
use crate::messaging::nestjs::NestForm;

pub(super) enum Form {
    /// One field, which has a message as it is; keys with the name of the app. `docs/messaging.md` says it byte for byte.
    Own { app: String },
    #[cfg(feature = "nestjs")]
    Nest(NestForm),
}

impl Form {
    /// The stream of a channel.
    pub(super) fn key(&self, channel: &Channel) -> String {
        match self {
            Self::Own { app } => format!("{{{app}:messages:{channel}}}"),
            #[cfg(feature = "nestjs")]
            Self::Nest(form) => form.key(channel),
        }
    }

    /// The stream of the dead letters of a group, in the slot of the stream `key`.
    pub(super) fn dead_key(&self, key: &str, group: &Group) -> String {
        match self {
            Self::Own { .. } => format!("{key}:dead:{group}"),
            #[cfg(feature = "nestjs")]
            Self::Nest(_) => format!("{{{key}}}:dead:{group}"),
        }
    }

    /// Adds the fields of a message to `xadd`; of one that is for one group alone, which that is.
    pub(super) fn write(
        &self,
        xadd: &mut Cmd,
        message: &[u8],
        only: Option<&Group>,
    ) -> Result<(), MessageBusError> {
        match self {
            Self::Own { .. } => {
                xadd.arg(MESSAGE).arg(message);
                if let Some(group) = only {
                    xadd.arg(GROUP).arg(group.as_str());
                }
                Ok(())
            }
            #[cfg(feature = "nestjs")]
            Self::Nest(form) => form.write(xadd, message, only),
        }
    }

    /// The entry of a channel's stream; none where it was deleted.
    #[cfg_attr(
        not(feature = "nestjs"),
        allow(unused_variables, reason = "only the form of NestJS asks where it was")
    )]
    pub(super) fn read(&self, channel: &Channel, value: Value) -> Option<Entry> {
        match self {
            Self::Own { .. } => answers::entry(value),
            #[cfg(feature = "nestjs")]
            Self::Nest(form) => {
                let (id, fields) = answers::fields(value)?;
                let read = form.read(channel, &id, fields);
                Some(Entry {
                    id,
                    body: read.body.into(),
                    only: read.only,
                    error: None,
                    attempts: 0,
                })
            }
        }
    }

    /// The command that puts a reply into the inbox at `address`.
    pub(super) fn reply(&self, address: &str, reply: &[u8]) -> Cmd {
        match self {
            Self::Own { .. } => xadd_if_there(address, reply),
            #[cfg(feature = "nestjs")]
            Self::Nest(form) => form.reply(reply),
        }
    }

    /// Has `put`, which puts a reply, put another one beside it, the one of this number; whether that can be. (Each has a field of another
    /// name: many clients give the fields of an entry as a map.)
    pub(super) fn add_reply(&self, put: &mut Cmd, number: usize, reply: &[u8]) -> bool {
        match self {
            Self::Own { .. } => {
                put.arg(format!("{MESSAGE}:{number}")).arg(reply);
                true
            }
            #[cfg(feature = "nestjs")]
            Self::Nest(_) => false,
        }
    }

    /// Whether a request that is answered is taken off the stream. (Else it goes when every group has handled it.)
    pub(super) fn is_answered_once(&self) -> bool {
        match self {
            Self::Own { .. } => true,
            #[cfg(feature = "nestjs")]
            Self::Nest(_) => false,
        }
    }

    /// Whether a request can be replied to with several values.
    pub(super) fn has_several_values(&self) -> bool {
        self.is_answered_once()
    }
}
