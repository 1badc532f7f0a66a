//! Which servers may be spoken to without verified TLS.

use std::fmt;

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// That of the log.
    MySql,
    /// That of the event bus.
    Redis,
    /// That of the event bus, when it is this one.
    Nats,
    /// The same.
    Kafka,
    /// That of the read models.
    MongoDb,
}

impl Backend {
    const ALL: [Self; 5] = [
        Self::MySql,
        Self::Redis,
        Self::Nats,
        Self::Kafka,
        Self::MongoDb,
    ];

    /// Its name, as it is set.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::MySql => "mysql",
            Self::Redis => "redis",
            Self::Nats => "nats",
            Self::Kafka => "kafka",
            Self::MongoDb => "mongodb",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The kinds of server that may be beyond this machine without TLS, or with a TLS that does not make sure who they are. None unless said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InsecureBackends(Vec<Backend>);

impl InsecureBackends {
    /// Reads a list of `mysql`, `redis`, `nats`, `kafka` and `mongodb`, separated by commas; an empty text for none. `None` where it has something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.trim().is_empty() {
            return Some(Self::default());
        }
        let backend = |name: &str| Backend::ALL.into_iter().find(|one| one.name() == name);
        let listed: Option<Vec<_>> = text.split(',').map(|name| backend(name.trim())).collect();
        listed.map(Self)
    }

    /// Whether it has `backend`.
    #[cfg(feature = "servers")]
    pub(crate) fn has(&self, backend: Backend) -> bool {
        self.0.contains(&backend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list_of_the_kinds_of_server() {
        let read = |text| InsecureBackends::parse(text).map(|listed| listed.0);
        assert_eq!(read(""), Some(vec![]));
        assert_eq!(
            read("redis, mysql"),
            Some(vec![Backend::Redis, Backend::MySql])
        );
        assert_eq!(read("mongodb"), Some(vec![Backend::MongoDb]));
        assert_eq!(
            read("nats,kafka"),
            Some(vec![Backend::Nats, Backend::Kafka])
        );
        assert_eq!(
            [read("all"), read("redis,"), read("MySQL")],
            [None, None, None]
        );
    }
}
