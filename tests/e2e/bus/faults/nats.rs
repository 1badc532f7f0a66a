//! NATS that is emptied, killed, guarded, small, or spoken to over TLS.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidelog_domain::{Position, RecordedEvent};
use tidelog_eventbus::{EventBus, NatsConnectError, NatsEventBus};
use tidelog_test_support::{Engine, Server, ServerOptions, unique_name};

use super::Service;
use super::tls::certificates;
use crate::bus::kit::{Log, P0, nats_at, partitions, stream_in};
use crate::services::{Backends, Role, Service as Program};

async fn nats(arguments: &[&str]) -> Server {
    let options = ServerOptions {
        arguments: arguments.iter().map(|own| (*own).to_owned()).collect(),
        ..ServerOptions::default()
    };
    Server::start_with(Engine::Nats, options).await
}

fn bus(url: &str) -> NatsEventBus {
    NatsEventBus::new(url, "app").unwrap()
}

/// The URL of a server for this user.
fn url_of(server: &Server, user: &str) -> String {
    server.url().replace("://", &format!("://{user}@"))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_that_is_emptied_in_the_middle_loses_nothing() {
    let server = nats(&[]).await;
    let service = Service::on(Arc::new(bus(server.url()))).await;
    let streams = nats_at(server.url()).await;
    for _ in 0..5 {
        service.works().await;
        for partition in partitions().iter() {
            drop(
                streams
                    .delete_stream(format!("app-events-{partition}"))
                    .await,
            );
        }
        service.works().await;
    }
    service.is_well_again().await;
    service.has_no_wrong_order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_that_is_killed_and_comes_back_loses_nothing() {
    let mut server = nats(&[]).await;
    let service = Service::on(Arc::new(bus(server.url()))).await;
    for _ in 0..3 {
        service.works().await;
        server.kill();
        service.works().await;
        service.bus_is_down().await;
        server.restart().await;
        service.is_well_again().await;
    }
    service.has_no_wrong_order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_that_went_back_to_an_older_state_loses_nothing() {
    let mut server = nats(&[]).await;
    let service = Service::on(Arc::new(bus(server.url()))).await;
    service.works().await;
    let snapshot = server.snapshot().await;
    service.is_well_again().await;
    service.works().await;
    server.restore(&snapshot).await;
    service.works().await;
    service.is_well_again().await;
    service.has_no_wrong_order().await;
}

#[tokio::test]
async fn a_wrong_password_is_named_as_such_by_nats_and_not_shown() {
    let server = nats(&["--user", "ann", "--pass", "ri@ght"]).await;
    bus(&url_of(&server, "ann:ri%40ght"))
        .server()
        .await
        .unwrap();
    for user in ["ann:hunter2", "hunter2"] {
        let error = bus(&url_of(&server, user)).server().await.unwrap_err();
        assert!(
            matches!(error, NatsConnectError::Refused(_)) && !error.is_temporary(),
            "{error:?}"
        );
        let text = format!("{} {error:?}", tidelog_domain::causes(&error));
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn a_nats_without_jetstream_is_named_as_such() {
    let file = tempfile::NamedTempFile::new().unwrap();
    // The user of an account that has none.
    let accounts = r#"accounts { A { users: [ { user: ann, password: right } ] } }"#;
    std::fs::write(file.path(), accounts).unwrap();
    let server = nats(&["-c", text(file.path())]).await;
    let error = bus(&url_of(&server, "ann:right"))
        .server()
        .await
        .unwrap_err();
    assert!(
        matches!(error, NatsConnectError::NoJetStream(_)) && !error.is_temporary(),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_too_large_for_nats_is_read_from_the_log() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "max_payload: 4096\n").unwrap();
    let server = nats(&["-c", text(file.path())]).await;
    let small = bus(server.url());
    let warnings = small.server().await.unwrap().warnings;
    assert!(warnings[0].contains("4096"), "{warnings:?}");
    let service = Service::on(Arc::new(small)).await;
    service.works().await;
    let (log, stream) = (&service.log, stream_in(P0));
    log.append_large(&stream, 8_000).await;
    service.works().await;
    service.is_well_again().await;
    let after = [(P0, Position::START)];
    let wait = Duration::from_millis(1);
    let on_bus = service.bus.read(log.history(), &after, 100_000, wait).await;
    let sizes = |events: &[RecordedEvent]| {
        let sizes = events.iter().map(|event| event.payload.as_bytes().len());
        sizes.filter(|size| *size >= 8_000).count()
    };
    assert_eq!(sizes(&log.events(P0).await), 1);
    assert_eq!(sizes(&on_bus.unwrap()), 0);
}

#[tokio::test]
async fn a_user_with_the_documented_rights_does_what_is_needed_on_nats() {
    let app = unique_name();
    let file = tempfile::NamedTempFile::new().unwrap();
    let account = include_str!("../../../../deploy/nats/account.conf");
    std::fs::write(file.path(), account.replace("APP", &app)).unwrap();
    let server = nats(&["-c", text(file.path())]).await;
    let url = url_of(&server, "tidelog:PASSWORD");
    let bus = NatsEventBus::new(&url, &app).unwrap();
    bus.server().await.unwrap();
    let log = Log::new();
    log.append(2_000).await;
    let everything = async |bus: &NatsEventBus| {
        for partition in partitions().iter() {
            let events = log.events(partition).await;
            bus.publish(log.history(), partition, &events)
                .await
                .unwrap();
            let last = bus.last(log.history(), partition).await.unwrap();
            assert_eq!(last, events.last().map(|event| event.cursor()));
            let after = [(partition, Position::START)];
            let wait = Duration::from_millis(1);
            let read = bus.read(log.history(), &after, 10_000, wait).await;
            assert_eq!(read.unwrap(), events);
        }
    };
    everything(&bus).await;
    // With other settings, which change the streams.
    let other = NatsEventBus::new(&url, &app).unwrap().keeping(5_000);
    log.append(100).await;
    everything(&other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_from_nats_over_tls_and_a_certificate_that_is_not_trusted_is_refused() {
    let files = certificates();
    let file = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let (authority, crt, key) = (file("ca.crt"), file("server.crt"), file("server.key"));
    let arguments = ["--tls", "--tlscert", &crt, "--tlskey", &key];
    let arguments = [&arguments[..], &["--tlsverify", "--tlscacert", &authority]].concat();
    let server = nats(&arguments).await;
    let (crt, key) = (file("client.crt"), file("client.key"));
    let ours = format!("ssl_certfile={crt}&ssl_keyfile={key}");
    let url = |more: &str| format!("nats+tls://127.0.0.1:{}/?{more}", server.port());
    let trusting = url(&format!("ssl_ca_certs={authority}&{ours}"));
    let service = Service::on(Arc::new(bus(&trusting))).await;
    service.works().await;
    service.is_well_again().await;
    let error = bus(&url(&ours)).server().await.unwrap_err();
    assert!(
        matches!(error, NatsConnectError::Tls(_)) && !error.is_temporary(),
        "{error:?}"
    );
    assert!(tidelog_domain::causes(&error).contains("UnknownIssuer"));

    let mut backends = Backends::fresh().await;
    backends.bus_url = trusting;
    let program = Program::start(Role::EventBus, &backends).await;
    let said = program.process().output();
    assert!(said.contains("the event bus is on NATS (2."), "{said}");
    backends.bus_url = url(&ours);
    let program = Program::launch(Role::EventBus, &backends.settings());
    let line = program.process().wait_for_line("error: ").await;
    assert!(line.contains("TIDELOG_BUS_URL"), "{line}");
    program.process().wait_for_line("UnknownIssuer").await;
}
