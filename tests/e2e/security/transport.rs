//! What is said between clients, services and servers stays between them.

use std::path::PathBuf;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use reqwest::Certificate;
use tempfile::TempDir;
use tidelog_eventbus::{FeedAccess, FeedLogReader, LogReader};
use tidelog_test_support::{fresh_mongodb_database, fresh_mysql_database, shared};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::services::{Backends, CommandLine, Ended, Role, Service};
use crate::waiting::eventually;

/// A certificate for this machine, in files.
struct Pair {
    files: TempDir,
    pem: String,
}

impl Pair {
    fn new() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("cert.pem"), cert.pem()).unwrap();
        std::fs::write(files.path().join("key.pem"), signing_key.serialize_pem()).unwrap();
        Self {
            files,
            pem: cert.pem(),
        }
    }

    fn path(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    /// What a service is told to use it.
    fn settings(&self) -> [(&'static str, String); 2] {
        [
            ("TIDELOG_TLS_CERT", self.path("cert.pem")),
            ("TIDELOG_TLS_KEY", self.path("key.pem")),
        ]
    }

    /// A client that trusts it.
    fn client(&self) -> reqwest::Client {
        let certificate = Certificate::from_pem(self.pem.as_bytes()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([certificate]);
        client.build().unwrap()
    }
}

fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    let settings = settings.iter();
    settings.map(|(name, value)| (*name, &**value)).collect()
}

/// A `dev` that speaks HTTPS alone.
async fn over_tls(pair: &Pair) -> Service {
    let service = Service::launch(Role::Dev, &borrowed(&pair.settings()));
    let (client, admin) = (pair.client(), service.admin());
    let ready = format!("https://{}/health/ready", admin.address());
    eventually("the service to be ready", async || {
        let answer = client.get(&ready).send().await;
        let is_ready = answer.as_ref().is_ok_and(|answer| answer.status() == 200);
        let why = || format!("{answer:?}\n{}", service.process().output());
        is_ready.then_some(()).ok_or_else(why)
    })
    .await;
    service
}

#[tokio::test]
async fn with_a_certificate_every_listener_speaks_https_and_nothing_else() {
    let pair = Pair::new();
    let service = over_tls(&pair).await;
    let client = pair.client();
    for (listener, path) in [
        (service.commands(), "/openapi.json"),
        (service.queries(), "/posts"),
        (service.admin(), "/metrics"),
        (service.admin(), "/admin/api/views"),
    ] {
        let address = listener.address();
        let answer = client.get(format!("https://{address}{path}")).send().await;
        assert_eq!(answer.unwrap().status(), 200, "{path}");
        let in_the_clear = client.get(format!("http://{address}{path}")).send().await;
        in_the_clear.unwrap_err();
    }
    let said = service.process().stdout().join("\n");
    assert!(said.contains("commands  https://"), "{said}");
    assert!(!said.contains("http://"), "{said}");
}

#[tokio::test]
async fn the_command_line_asks_a_process_over_tls_that_it_trusts() {
    let (pair, other) = (Pair::new(), Pair::new());
    let service = over_tls(&pair).await;
    let data = service.home().join("tidelog-data").display().to_string();
    let address = format!("https://{}", service.admin().address());
    let views = async |trusted: String| -> Ended {
        let line = CommandLine::new(&["views"]).with([
            ("TIDELOG_DATA_DIR", &*data),
            ("TIDELOG_ADMIN_ADDR", &*address),
            ("TIDELOG_TLS_CA", &*trusted),
        ]);
        line.run().await
    };
    let asked = views(pair.path("cert.pem")).await.succeeded();
    assert!(asked.stdout.contains("post"), "{}", asked.output);
    let refused = views(other.path("cert.pem")).await;
    assert_eq!(refused.code, Some(3), "{}", refused.output);
    assert!(
        refused.output.contains("is not trusted"),
        "{}",
        refused.output
    );
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named() {
    let pair = Pair::new();
    let [certificate, key] = pair.settings();
    let nowhere = ("TIDELOG_TLS_KEY", pair.path("nowhere.pem"));
    for (settings, said) in [
        (vec![certificate.clone()], "TIDELOG_TLS_KEY"),
        (vec![key], "TIDELOG_TLS_CERT"),
        (vec![certificate, nowhere], "nowhere.pem"),
    ] {
        let ended = CommandLine::new(&["dev"])
            .with(borrowed(&settings))
            .run()
            .await;
        assert_eq!(ended.code, Some(2), "{}", ended.output);
        assert!(ended.output.contains(said), "no {said} in {}", ended.output);
    }
}

#[tokio::test]
async fn a_server_beyond_this_machine_must_show_who_it_is() {
    // All addresses of this machine, which no rule of ours takes for its own alone.
    let elsewhere = |url: &str| url.replacen("127.0.0.1", "0.0.0.0", 1);
    let fine = Backends::fresh().await;
    let (mysql, mongodb) = (shared::mysql().await, shared::mongodb().await);
    let database = elsewhere(&fresh_mysql_database(mysql).await);
    let database = format!("{database}?ssl-mode=disabled");
    let reads = elsewhere(&fresh_mongodb_database(mongodb));
    for (setting, role, url, advice) in [
        ("DATABASE_URL", "command", &*database, "verify_identity"),
        (
            "TIDELOG_BUS_URL",
            "command",
            "redis://cache.invalid",
            "rediss://",
        ),
        ("MONGODB_URL", "query", &*reads, "tls=true"),
    ] {
        let of_others = fine
            .settings()
            .into_iter()
            .filter(|(name, _)| *name != setting);
        let settings: Vec<_> = of_others.chain([(setting, url)]).collect();
        let refused = CommandLine::new(&["serve", "--role", role])
            .with(settings.iter().copied())
            .run()
            .await;
        assert_eq!(refused.code, Some(2), "{}", refused.output);
        for part in [setting, advice, "TIDELOG_INSECURE_BACKENDS"] {
            assert!(
                refused.output.contains(part),
                "no {part} in {}",
                refused.output
            );
        }
        let looked = CommandLine::new(&["doctor"])
            .with(settings.iter().copied())
            .run()
            .await;
        assert_ne!(looked.code, Some(0), "{}", looked.output);
        assert!(
            looked.output.contains("TIDELOG_INSECURE_BACKENDS"),
            "{}",
            looked.output
        );
    }
    let settings = [
        ("DATABASE_URL", &*database),
        ("TIDELOG_BUS_URL", &*fine.bus_url),
        ("MONGODB_URL", &*reads),
        ("TIDELOG_INSECURE_BACKENDS", "mysql,mongodb"),
    ];
    let service = Service::start_with(Role::All, &settings).await;
    let said = service.process().output();
    for setting in ["DATABASE_URL", "MONGODB_URL"] {
        let warned = said.lines().any(|line| {
            line.contains("WARN") && line.contains(setting) && line.contains("on the way")
        });
        assert!(warned, "nothing of {setting} in {said}");
    }
}

#[tokio::test]
async fn a_feed_is_followed_over_tls_that_is_trusted() {
    let pair = Pair::new();
    let service = over_tls(&pair).await;
    let url = format!("https://{}/events", service.commands().address());
    let read = async |ca: Option<PathBuf>| {
        let access = FeedAccess {
            ca,
            ..FeedAccess::default()
        };
        let feed = FeedLogReader::with_access("tidelog", url.parse().unwrap(), &access);
        feed.unwrap().heads().await
    };
    assert_eq!(
        read(Some(pair.path("cert.pem").into()))
            .await
            .unwrap()
            .len(),
        16
    );
    read(None).await.unwrap_err();
    read(Some(Pair::new().path("cert.pem").into()))
        .await
        .unwrap_err();
}

#[tokio::test]
async fn a_feed_is_shown_the_token_that_the_file_has_now_and_whoever_it_redirects_to_is_not() {
    let pair = Pair::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, mut heard) = mpsc::unbounded_channel();
    // What stands before a service, and sends everybody elsewhere.
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            let answer = "HTTP/1.1 307 Elsewhere\r\nlocation: /elsewhere\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            client.write_all(answer.as_bytes()).await.unwrap();
            heads.send(String::from_utf8(head).unwrap()).unwrap();
        }
    });
    let file = pair.files.path().join("token");
    let access = FeedAccess {
        token_file: Some(file.clone()),
        ..FeedAccess::default()
    };
    let url = format!("http://{address}/events").parse().unwrap();
    let feed = FeedLogReader::with_access("notes", url, &access).unwrap();
    for token in ["first", "second"] {
        std::fs::write(&file, token).unwrap();
        feed.heads().await.unwrap_err();
        let head = heard.recv().await.unwrap();
        assert!(head.starts_with("GET /events/heads "), "{head}");
        assert!(
            head.contains(&format!("authorization: Bearer {token}\r\n")),
            "{head}"
        );
        assert!(heard.try_recv().is_err(), "the redirect was followed");
    }
}
