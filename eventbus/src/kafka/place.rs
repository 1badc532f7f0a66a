//! Where a Kafka is, as its URL says.

use rdkafka::ClientConfig;

use super::{InvalidKafkaBus, TIMEOUT_MS};

/// Where a Kafka is.
#[derive(Clone)]
pub(super) struct Place {
    /// The brokers that are asked first, `host:port`, separated by commas.
    brokers: String,
    /// How many brokers keep each partition; `None`: as the brokers have it.
    pub(super) replicas: Option<i32>,
}

impl Place {
    /// Reads `kafka://host:port,host:port/?replicas=3`.
    pub(super) fn parse(url: &str) -> Result<Self, InvalidKafkaBus> {
        let rest = url.strip_prefix("kafka://").ok_or(InvalidKafkaBus::Url)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let hosts = rest.strip_suffix('/').unwrap_or(rest);
        if hosts.contains('@') {
            return Err(InvalidKafkaBus::User);
        }
        if hosts.contains(['/', '#']) || query.contains('#') {
            return Err(InvalidKafkaBus::Url);
        }
        let brokers: Option<Vec<_>> = hosts.split(',').map(broker).collect();
        let brokers = brokers.ok_or(InvalidKafkaBus::Url)?.join(",");
        let mut parameters = url::form_urlencoded::parse(query.as_bytes());
        let replicas = parameters.find(|(name, _)| name == "replicas");
        let replicas = replicas.map(|(_, text)| text.parse().ok().filter(|n| *n > 0));
        if replicas == Some(None) {
            return Err(InvalidKafkaBus::Replicas);
        }
        Ok(Self {
            brokers,
            replicas: replicas.flatten(),
        })
    }

    /// What all connections have in common.
    pub(super) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "tidelog")
            .set("socket.timeout.ms", TIMEOUT_MS)
            .set("socket.connection.setup.timeout.ms", TIMEOUT_MS)
            .set("socket.nagle.disable", "true")
            // A topic that was deleted would be made anew with the broker's number of partitions and bounds.
            .set("allow.auto.create.topics", "false")
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "1000")
            .set("topic.metadata.refresh.fast.interval.ms", "50")
            // So long a topic that was just made may be unknown to brokers.
            .set("topic.metadata.propagation.max.ms", "1000");
        config
    }
}

/// The address of a broker, with its port.
fn broker(host: &str) -> Option<String> {
    let address = url::Url::parse(&format!("kafka://{host}")).ok()?;
    let port = address.port().unwrap_or(9092);
    let host = address.host_str().filter(|host| !host.is_empty())?;
    Some(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broker_or_several_are_named() {
        let brokers = |url| Place::parse(url).ok().map(|place| place.brokers);
        assert_eq!(brokers("kafka://h").unwrap(), "h:9092");
        assert_eq!(brokers("kafka://a:1,[::1]:2/").unwrap(), "a:1,[::1]:2");
        let place = Place::parse("kafka://a?replicas=3").ok().unwrap();
        assert_eq!(place.replicas, Some(3));
    }

    #[test]
    fn what_cannot_be_is_refused_without_showing_it() {
        for url in [
            "redis://hunter2",
            "kafka://",
            "kafka://hunter2,,b",
            "kafka://hunter2/path",
            "kafka://ann:hunter2@a",
            "kafka://a?replicas=hunter2",
        ] {
            let Err(error) = Place::parse(url) else {
                panic!("{url} was taken");
            };
            let text = format!("{error} {error:?}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
