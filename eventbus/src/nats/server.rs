//! Who a NATS is, what an operator should change about it, and why there is no connection to it.

use std::error::Error;
use std::sync::Arc;

use async_nats::jetstream::context::{AccountError, AccountErrorKind};
use async_nats::{ConnectError, ConnectErrorKind, ServerInfo};

use super::place::CONNECT_TIMEOUT;
use crate::wire::LARGEST_EVENT_BYTES;

/// The oldest version that can be read from as the bus does: many messages at one request.
const OLDEST: (i64, i64) = (2, 11);

/// What a NATS server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NatsServer {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The name of its cluster, if it is in one.
    pub cluster: Option<String>,
    /// The most bytes that it takes in one message. An event that has more on the wire is not put on the bus.
    pub max_payload: usize,
    /// What an operator should change.
    pub warnings: Vec<String>,
}

/// Why there is no connection to NATS.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NatsConnectError {
    /// Nothing answers there in time.
    #[error("no NATS answers there within {} s", CONNECT_TIMEOUT.as_secs())]
    Unreachable(#[source] Arc<dyn Error + Send + Sync>),
    /// It does not let us in: a missing or wrong user, password, token or key.
    #[error(
        "NATS does not let us in: check the user and the password, the token or the credentials"
    )]
    Refused(#[source] Arc<dyn Error + Send + Sync>),
    /// TLS fails: its certificate is not to be trusted, or it wants one of ours, or there is no TLS.
    #[error("TLS fails: it is not trusted, or does not trust us, or has no TLS")]
    Tls(#[source] Arc<dyn Error + Send + Sync>),
    /// It is older than what the bus needs.
    #[error("it is NATS {version}, and 2.11 or later is needed")]
    TooOld {
        /// What it is.
        version: String,
    },
    /// It stores nothing for us.
    #[error(
        "NATS has no JetStream for this user: enable it on the server, and for the account (docs/engines.md)"
    )]
    NoJetStream(#[source] Arc<dyn Error + Send + Sync>),
    /// It is NATS, and cannot work now: its cluster has no leader, say.
    #[error("NATS is there, but its JetStream is not ready")]
    NotReady(#[source] Arc<dyn Error + Send + Sync>),
}

impl NatsConnectError {
    /// Whether trying again later can help, with the settings as they are.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::NotReady(_))
    }

    /// Which of them `error` is.
    pub(super) fn of(error: ConnectError) -> Self {
        let kind = error.kind();
        let error = Arc::new(error);
        match kind {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                Self::Refused(error)
            }
            ConnectErrorKind::Tls => Self::Tls(error),
            ConnectErrorKind::Io if is_of_tls(&error) => Self::Tls(error),
            _ => Self::Unreachable(error),
        }
    }

    /// It did not answer within the time it has.
    pub(crate) fn timed_out() -> Self {
        Self::Unreachable(Arc::new(std::io::Error::from(std::io::ErrorKind::TimedOut)))
    }

    /// JetStream does not say what we may use of it.
    pub(super) fn of_account(error: AccountError) -> Self {
        match error.kind() {
            AccountErrorKind::TimedOut | AccountErrorKind::Other => Self::NotReady(Arc::new(error)),
            AccountErrorKind::JetStream(ref own) if own.code() >= 500 && own.code() != 503 => {
                Self::NotReady(Arc::new(error))
            }
            _ => Self::NoJetStream(Arc::new(error)),
        }
    }
}

/// Whether the handshake failed, or an alert came.
fn is_of_tls(error: &ConnectError) -> bool {
    let io = error
        .source()
        .and_then(|error| error.downcast_ref::<std::io::Error>());
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidData)
}

/// What is in the greeting of a server; `is_recent` says whether its version is at least the given one.
pub(super) fn read_info(
    info: ServerInfo,
    is_recent: impl Fn(i64, i64) -> bool,
) -> Result<NatsServer, NatsConnectError> {
    let (major, minor) = OLDEST;
    if !is_recent(major, minor) {
        return Err(NatsConnectError::TooOld {
            version: info.version,
        });
    }
    let mut warnings = Vec::new();
    if info.max_payload < LARGEST_EVENT_BYTES {
        warnings.push(format!(
            "its max_payload is {} bytes: events that have more stay off the bus and are read from the log. Set it to \
             {LARGEST_EVENT_BYTES} or more",
            info.max_payload
        ));
    }
    Ok(NatsServer {
        name: info.server_name,
        version: info.version,
        cluster: info.cluster,
        max_payload: info.max_payload,
        warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(max_payload: usize) -> ServerInfo {
        ServerInfo {
            version: "2.10.3".to_owned(),
            max_payload,
            ..ServerInfo::default()
        }
    }

    #[test]
    fn a_server_that_is_too_old_is_refused() {
        let error = read_info(info(1_048_576), |_, minor| minor < 11).unwrap_err();
        assert!(error.to_string().contains("2.10.3"), "{error}");
        assert!(!error.is_temporary());
    }

    #[test]
    fn a_bound_that_is_below_the_largest_event_is_warned_of() {
        let warnings = |bytes| read_info(info(bytes), |_, _| true).unwrap().warnings;
        assert_eq!(warnings(1_048_576), [""; 0]);
        assert!(warnings(65_536)[0].contains("65536"));
    }
}
