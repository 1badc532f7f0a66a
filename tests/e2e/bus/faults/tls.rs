//! Redis over TLS: its certificate is verified, and ours is shown where it is wanted.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tidelog_eventbus::{RedisConnectError, RedisEventBus};
use tidelog_test_support::{Durability, Engine, Server, ServerOptions, free_port};

use super::Service;
use crate::services::{Backends, Role, Service as Program};

/// A Redis with TLS, and the files that go with it.
struct Tls {
    _server: Server,
    files: TempDir,
    port: u16,
}

/// Makes a certificate and its key in `directory`, signed by `issuer`.
fn certificate(directory: &Path, name: &str, issuer: &Issuer<'_, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let hosts = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let params = CertificateParams::new(hosts).unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    let path = |end: &str| directory.join(format!("{name}.{end}"));
    std::fs::write(path("crt"), certificate.pem()).unwrap();
    std::fs::write(path("key"), key.serialize_pem()).unwrap();
}

/// The files of an authority, and of a server and a client that it knows.
pub(super) fn certificates() -> TempDir {
    // Another test may have been first.
    drop(rustls::crypto::ring::default_provider().install_default());
    let files = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // One with the name that the others have would look as if it had signed itself.
    let name = &mut params.distinguished_name;
    name.push(DnType::CommonName, "an authority of this test");
    let authority = files.path().join("ca.crt");
    std::fs::write(&authority, params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    for name in ["server", "client"] {
        certificate(files.path(), name, &issuer);
    }
    files
}

impl Tls {
    /// Starts a Redis that asks its clients for a certificate, or not.
    async fn start(clients_show_theirs: bool) -> Self {
        let files = certificates();
        let path = |name: &str| files.path().join(name);
        let (authority, crt, key) = (path("ca.crt"), path("server.crt"), path("server.key"));
        let port = free_port();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let arguments = [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", text(&crt)),
            ("--tls-key-file", text(&key)),
            ("--tls-ca-cert-file", text(&authority)),
            (
                "--tls-auth-clients",
                if clients_show_theirs { "yes" } else { "no" }.to_owned(),
            ),
        ];
        let options = ServerOptions {
            durability: Durability::Relaxed,
            arguments: arguments
                .into_iter()
                .flat_map(|(name, value)| [name.to_owned(), value])
                .collect(),
        };
        Self {
            _server: Server::start_with(Engine::Redis, options).await,
            files,
            port,
        }
    }

    /// The URL, with these parameters, each of which names a file.
    fn url(&self, host: &str, parameters: &[(&str, &str)]) -> String {
        let parameters = parameters.iter().map(|(name, file)| {
            let path = self.files.path().join(file);
            format!("{name}={}", path.display())
        });
        let parameters = parameters.collect::<Vec<_>>().join("&");
        format!("rediss://{host}:{}/?{parameters}", self.port)
    }
}

const AUTHORITY: (&str, &str) = ("ssl_ca_certs", "ca.crt");
const OURS: [(&str, &str); 2] = [
    ("ssl_certfile", "client.crt"),
    ("ssl_keyfile", "client.key"),
];

async fn error(url: &str) -> RedisConnectError {
    let server = RedisEventBus::new(url, "app").unwrap().server().await;
    server.expect_err("it is not to be trusted")
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_over_tls() {
    let tls = Tls::start(false).await;
    let url = tls.url("localhost", &[AUTHORITY]);
    let bus = RedisEventBus::new(&url, "app").unwrap();
    bus.server().await.unwrap();
    let service = Service::on(Arc::new(bus)).await;
    service.works().await;
    service.is_well_again().await;
}

#[tokio::test]
async fn a_certificate_of_an_authority_that_is_not_trusted_is_refused() {
    let tls = Tls::start(false).await;
    let error = error(&tls.url("localhost", &[])).await;
    assert!(
        matches!(error, RedisConnectError::Tls(_)) && !error.is_temporary(),
        "{error:?}"
    );
    assert!(tidelog_domain::causes(&error).contains("UnknownIssuer"));
}

#[tokio::test]
async fn who_shows_no_certificate_is_refused_where_one_is_wanted() {
    let tls = Tls::start(true).await;
    let error = error(&tls.url("localhost", &[AUTHORITY])).await;
    assert!(
        matches!(error, RedisConnectError::Tls(_)) && !error.is_temporary(),
        "{error:?}"
    );
    let [certificate, key] = OURS;
    let url = tls.url("127.0.0.1", &[AUTHORITY, certificate, key]);
    RedisEventBus::new(&url, "app")
        .unwrap()
        .server()
        .await
        .unwrap();
}

#[tokio::test]
async fn the_program_starts_with_a_redis_over_tls_and_says_what_is_wrong_with_its_certificate() {
    let tls = Tls::start(false).await;
    let mut backends = Backends::fresh().await;
    backends.bus_url = tls.url("localhost", &[AUTHORITY]);
    let program = Program::start(Role::EventBus, &backends).await;
    let said = program.process().output();
    assert!(said.contains("the event bus is on Redis"), "{said}");

    backends.bus_url = tls.url("localhost", &[]);
    let program = Program::launch(Role::EventBus, &backends.settings());
    let line = program.process().wait_for_line("error: ").await;
    assert!(line.contains("TIDELOG_BUS_URL"), "{line}");
    program.process().wait_for_line("UnknownIssuer").await;
}
