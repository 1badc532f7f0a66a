//! Who a Kafka is, and why there is no connection to it.

use std::error::Error;

use super::SERVER_TIMEOUT;

/// What a Kafka says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KafkaServer {
    /// How many brokers it has.
    pub brokers: usize,
    /// What an operator should change.
    pub warnings: Vec<String>,
}

/// Why there is no connection to Kafka.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KafkaConnectError {
    /// No broker answers there in time.
    #[error("no broker of Kafka answers there within {} ms", SERVER_TIMEOUT.as_millis())]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
}

impl KafkaConnectError {
    /// Whether trying again later can help, with the settings as they are.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }
}
