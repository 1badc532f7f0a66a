//! `--wait-for-backends`: servers that come up later than the services.

use tidelog_domain::Partitions;
use tidelog_test_support::{Engine, Server, fresh_mongodb_database};

use crate::log::fresh_log;
use crate::services::{Backends, Role, Service};

#[tokio::test]
async fn a_service_that_waits_for_its_servers_starts_when_they_come_up() {
    for (role, engine, setting) in [
        (Role::Command, Engine::MySql, "DATABASE_URL"),
        (Role::EventBus, Engine::Redis, "TIDELOG_BUS_URL"),
        (Role::Query, Engine::MongoDb, "MONGODB_URL"),
    ] {
        let mut server = Server::start(engine).await;
        let mut backends = Backends::fresh().await;
        match engine {
            Engine::MySql | Engine::MariaDb => {
                backends.database_url = fresh_log(&server, Partitions::DEFAULT).await.service
            }
            Engine::Redis | Engine::Nats | Engine::Kafka => {
                backends.bus_url = server.url().to_owned()
            }
            Engine::MongoDb => backends.mongodb_url = fresh_mongodb_database(&server),
        }
        server.kill();
        let mut settings = backends.settings().to_vec();
        settings.push(("TIDELOG_WAIT_FOR_BACKENDS", "90s"));
        let mut service = Service::launch(role, &settings);
        service.process().wait_for_line("waiting for").await;
        assert!(
            service.process().output().contains(setting),
            "{}",
            service.process().output()
        );
        server.restart().await;
        service.ready().await;
    }
}
