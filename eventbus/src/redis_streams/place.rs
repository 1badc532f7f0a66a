//! Where a Redis is, as its URL says: one server, or the nodes of a cluster.

use std::time::Duration;

use redis::cluster::ClusterClient;
use redis::io::tcp::TcpSettings;
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    TlsCertificates,
};

use super::InvalidRedisBus;
use super::connection::RESPONSE_TIMEOUT;

/// How long a connection to one node of a cluster may take; short, since one that is away holds up the first look at all of them.
const NODE_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How often the library tries a command again on a cluster that is being rearranged, before our own back-off has it.
const CLUSTER_RETRIES: u32 = 4;

/// How long the library waits between these tries, at most.
const CLUSTER_RETRY_WAIT_MS: u64 = 100;

/// Where a Redis is.
pub(crate) struct Place {
    /// The server, or the nodes of a cluster that are asked first. There is one at least.
    pub(crate) nodes: Vec<ConnectionInfo>,
    /// For a cluster: what sends each command to the node that has its key.
    pub(crate) cluster: Option<ClusterClient>,
}

/// A host and a port.
pub(crate) type Node = (String, u16);

impl Place {
    /// Reads `redis://` and `rediss://` for one server, `redis+cluster://` and `rediss+cluster://` for a cluster.
    pub(crate) fn parse(url: &str) -> Result<Self, InvalidRedisBus> {
        let (urls, is_cluster) = match one_url_a_node(url) {
            Some(urls) => (urls, true),
            None => (vec![url.to_owned()], false),
        };
        let certificates = certificates(urls.first().map_or(url, String::as_str))?;
        let nodes: Vec<_> = urls
            .iter()
            .map(|url| node(url, certificates.as_ref()))
            .collect::<Result<_, _>>()
            .map_err(InvalidRedisBus::Url)?;
        if is_cluster && nodes.iter().any(|node| node.redis_settings().db() != 0) {
            return Err(InvalidRedisBus::ClusterDatabase);
        }
        let cluster = is_cluster
            .then(|| cluster(&nodes, certificates))
            .transpose()
            .map_err(InvalidRedisBus::Url)?;
        Ok(Self { nodes, cluster })
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// The nodes that are asked first, by host and port.
    pub(crate) fn seeds(&self) -> impl Iterator<Item = Node> {
        self.nodes.iter().filter_map(|node| match node.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some((host.clone(), *port))
            }
            _ => None,
        })
    }

    /// How another node of the same cluster is reached: with the same user, and TLS or not as the first.
    pub(crate) fn reach(&self, (host, port): &Node) -> Option<ConnectionInfo> {
        let first = self.nodes.first()?;
        let (host, port) = (host.clone(), *port);
        let addr = match first.addr() {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        Some(first.clone().set_addr(addr))
    }
}

/// The URLs of the nodes that a cluster's URL names; `None` when it is none of a cluster.
fn one_url_a_node(url: &str) -> Option<Vec<String>> {
    let (scheme, rest) = url.split_once("+cluster://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at_checked(end)?;
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    let urls = hosts
        .split(',')
        .map(|host| format!("{scheme}://{user}{host}{tail}"));
    Some(urls.collect())
}

/// What connects to one node.
fn node(url: &str, certificates: Option<&TlsCertificates>) -> redis::RedisResult<ConnectionInfo> {
    let info = url.into_connection_info()?;
    // In the other protocol answers have another shape.
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP2);
    let info = info.set_redis_settings(settings).set_tcp_settings(tcp());
    match certificates {
        None => Ok(info),
        Some(certificates) => Client::build_with_tls(info, certificates.clone())
            .map(|client| client.get_connection_info().clone()),
    }
}

fn cluster(
    nodes: &[ConnectionInfo],
    certificates: Option<TlsCertificates>,
) -> redis::RedisResult<ClusterClient> {
    let builder = ClusterClient::builder(nodes.to_vec())
        .connection_timeout(NODE_CONNECT_TIMEOUT)
        .response_timeout(RESPONSE_TIMEOUT)
        .overall_response_timeout(Some(RESPONSE_TIMEOUT))
        .retries(CLUSTER_RETRIES)
        .min_retry_wait(1)
        .max_retry_wait(CLUSTER_RETRY_WAIT_MS)
        .tcp_settings(tcp());
    match certificates {
        None => builder.build(),
        Some(certificates) => builder.certs(certificates).build(),
    }
}

fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

/// The certificates that the URL's parameters name; they are called as redis-py calls them.
fn certificates(url: &str) -> Result<Option<TlsCertificates>, InvalidRedisBus> {
    let Some(url) = redis::parse_redis_url(url) else {
        return Ok(None);
    };
    let file = |parameter: &'static str| {
        let path = url.query_pairs().find(|(name, _)| name == parameter);
        let read = path.map(|(_, path)| std::fs::read(&*path));
        read.transpose()
            .map_err(|source| InvalidRedisBus::TlsFile { parameter, source })
    };
    let root_cert = file("ssl_ca_certs")?;
    let client_tls = match (file("ssl_certfile")?, file("ssl_keyfile")?) {
        (None, None) => None,
        (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig {
            client_cert,
            client_key,
        }),
        _ => return Err(InvalidRedisBus::TlsPair),
    };
    if root_cert.is_none() && client_tls.is_none() {
        return Ok(None);
    }
    Ok(Some(TlsCertificates {
        client_tls,
        root_cert,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(url: &str) -> Vec<Node> {
        Place::parse(url).ok().unwrap().seeds().collect()
    }

    fn node(host: &str, port: u16) -> Node {
        (host.to_owned(), port)
    }

    #[test]
    fn one_server_is_no_cluster() {
        let place = Place::parse("redis://ann:p%40ss@h:1/3").ok().unwrap();
        assert!(!place.is_cluster());
        assert_eq!(place.seeds().collect::<Vec<_>>(), [node("h", 1)]);
        assert_eq!(place.nodes[0].redis_settings().password(), Some("p@ss"));
        assert_eq!(place.nodes[0].redis_settings().db(), 3);
    }

    #[test]
    fn the_nodes_of_a_cluster_share_the_user_and_what_follows() {
        let url = "redis+cluster://ann:p%40ss@a:1,b,[::1]:3/";
        let place = Place::parse(url).ok().unwrap();
        assert!(place.is_cluster());
        assert_eq!(
            place.seeds().collect::<Vec<_>>(),
            [node("a", 1), node("b", 6379), node("::1", 3)]
        );
        for info in &place.nodes {
            assert_eq!(info.redis_settings().username(), Some("ann"));
            assert_eq!(info.redis_settings().password(), Some("p@ss"));
        }
        assert_eq!(seeds("redis+cluster://a"), [node("a", 6379)]);
    }

    #[test]
    fn another_node_is_reached_as_the_first_is() {
        let place = Place::parse("rediss+cluster://ann:secret@a:1,b:2")
            .ok()
            .unwrap();
        let other = place.reach(&node("c", 3)).unwrap();
        assert!(
            matches!(other.addr(), ConnectionAddr::TcpTls { host, port: 3, .. } if host == "c")
        );
        assert_eq!(other.redis_settings().password(), Some("secret"));
    }

    #[test]
    fn what_cannot_be_is_refused_without_showing_it() {
        for url in [
            "mysql+cluster://ann:hunter2@a",
            "redis+cluster://ann:hunter2@",
            "redis+cluster://ann:hunter2@a,,b",
            "redis+cluster://ann:hunter2@a/7",
            "rediss://ann:hunter2@a?ssl_ca_certs=/no/such/file",
            "rediss://ann:hunter2@a?ssl_certfile=/dev/null",
            "ann:hunter2@a",
        ] {
            let Err(error) = Place::parse(url) else {
                panic!("{url} was taken");
            };
            let text = format!("{error} {error:?}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
