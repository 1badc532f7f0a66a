use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::app::app;
use crate::server::{ServerSettings, serve};

/// The files of a certificate, which can be renewed.
struct Pair {
    directory: TempDir,
    /// What a client trusts.
    trusted: CertificateDer<'static>,
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self {
            directory: tempfile::tempdir().unwrap(),
            trusted: CertificateDer::from(Vec::new()),
        };
        pair.renew();
        pair
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn renew(&mut self) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        self.trusted = cert.der().clone();
        std::fs::write(self.path("cert.pem"), cert.pem()).unwrap();
        std::fs::write(self.path("key.pem"), signing_key.serialize_pem()).unwrap();
    }

    fn read(&self) -> Result<Tls, TlsError> {
        Tls::read(&self.path("cert.pem"), &self.path("key.pem"))
    }
}

async fn start(tls: Tls) -> (SocketAddr, DropGuard) {
    let settings = ServerSettings {
        header_timeout_ms: 100,
        idle_timeout_ms: 3_600_000,
        ..ServerSettings::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let router = app(Router::new().route("/", get("hello")));
    tokio::spawn(serve(listener, router, settings, Some(tls), stop.clone()));
    (address, stop.drop_guard())
}

/// What a client that trusts `root` alone is answered.
async fn ask(address: SocketAddr, root: &CertificateDer<'static>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), PROTOCOL.to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(PROTOCOL));
    let get = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(get).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

#[tokio::test]
async fn who_trusts_the_certificate_is_answered_and_who_does_not_turns_away() {
    let (own, other) = (Pair::new(), Pair::new());
    let (address, _stop) = start(own.read().unwrap()).await;
    assert!(ask(address, &own.trusted).await.unwrap().ends_with("hello"));
    ask(address, &other.trusted).await.unwrap_err();
}

#[tokio::test]
async fn a_request_in_the_clear_is_not_answered() {
    let (address, _stop) = start(Pair::new().read().unwrap()).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut rest = Vec::new();
    drop(client.read_to_end(&mut rest).await);
    assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1"));
}

#[tokio::test]
async fn a_handshake_that_does_not_come_holds_up_nobody_and_is_ended() {
    let pair = Pair::new();
    let (address, _stop) = start(pair.read().unwrap()).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let answer = ask(address, &pair.trusted).await.unwrap();
    assert!(answer.ends_with("hello"));
    let mut rest = Vec::new();
    drop(silent.read_to_end(&mut rest).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_taken_and_a_bad_one_is_not() {
    let mut pair = Pair::new();
    let tls = pair.read().unwrap();
    let (address, _stop) = start(tls.clone()).await;
    let before = pair.trusted.clone();
    let watching = tokio::spawn(tls.clone().watch(Duration::from_millis(5)));
    std::fs::write(pair.path("key.pem"), "no key").unwrap();
    assert!(tls.look().is_err());
    assert!(ask(address, &before).await.is_ok());
    pair.renew();
    while ask(address, &pair.trusted).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ask(address, &before).await.unwrap_err();
    watching.abort();
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name() {
    let (pair, other) = (Pair::new(), Pair::new());
    let missing = Tls::read(&pair.path("nowhere.pem"), &pair.path("key.pem")).unwrap_err();
    assert!(missing.to_string().contains("nowhere.pem"), "{missing}");
    let no_certificate = Tls::read(&pair.path("key.pem"), &pair.path("key.pem")).unwrap_err();
    assert!(
        no_certificate.to_string().contains("has no certificate"),
        "{no_certificate}"
    );
    let no_key = Tls::read(&pair.path("cert.pem"), &pair.path("cert.pem")).unwrap_err();
    assert!(
        no_key.to_string().contains("has no private key"),
        "{no_key}"
    );
    let unfit = Tls::read(&pair.path("cert.pem"), &other.path("key.pem")).unwrap_err();
    assert!(matches!(unfit, TlsError::Unfit { .. }), "{unfit}");
    let tls = format!("{:?}", pair.read().unwrap());
    assert!(!tls.contains("PRIVATE"), "{tls}");
}
