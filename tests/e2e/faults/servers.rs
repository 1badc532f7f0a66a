//! A server is killed, or emptied, in the middle of 500 writes.

use tidelog_test_support::{
    Durability, Engine, Server, ServerOptions, fresh_mongodb_database, shared,
};

use super::{MEANWHILE, MIDDLE, WRITES, nothing_is_lost, reads_see_writes};
use crate::load::Load;
use crate::log::fresh_log;
use crate::services::{Backends, Role, Service, Site};
use tidelog_domain::Partitions;

#[tokio::test]
async fn redis_is_killed_in_the_middle_of_writes() {
    let mut redis = Server::start(Engine::Redis).await;
    a_lost_bus_is_no_loss(&mut redis).await;
}

/// Without its append-only file, Redis is empty after a kill: the bus is new.
#[tokio::test]
async fn a_redis_that_keeps_nothing_is_killed_in_the_middle_of_writes() {
    let options = ServerOptions {
        durability: Durability::Relaxed,
        ..ServerOptions::default()
    };
    let mut redis = Server::start_with(Engine::Redis, options).await;
    a_lost_bus_is_no_loss(&mut redis).await;
}

async fn a_lost_bus_is_no_loss(redis: &mut Server) {
    let backends = Backends {
        bus_url: redis.url().to_owned(),
        ..Backends::fresh().await
    };
    let site = Site::three(&backends).await;
    let mut load = Load::start(&site.commands, WRITES);
    load.reaches(MIDDLE).await;
    redis.kill();
    let broken = load.acknowledged();
    load.reaches(broken + MEANWHILE).await;
    redis.restart().await;
    nothing_is_lost(load, &backends).await;
    reads_see_writes(&site).await;
}

#[tokio::test]
async fn redis_is_flushed_in_the_middle_of_writes() {
    let redis = Server::start(Engine::Redis).await;
    let backends = Backends {
        bus_url: redis.url().to_owned(),
        ..Backends::fresh().await
    };
    let site = Site::three(&backends).await;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut load = Load::start(&site.commands, WRITES);
    for moment in [1, 2, 3] {
        load.reaches(moment * WRITES / 5).await;
        redis::cmd("FLUSHALL")
            .query_async::<()>(&mut connection)
            .await
            .unwrap();
    }
    nothing_is_lost(load, &backends).await;
    redis::cmd("FLUSHALL")
        .query_async::<()>(&mut connection)
        .await
        .unwrap();
    reads_see_writes(&site).await;
}

#[tokio::test]
async fn redis_is_full_in_the_middle_of_writes() {
    let redis = Server::start(Engine::Redis).await;
    let backends = Backends {
        bus_url: redis.url().to_owned(),
        ..Backends::fresh().await
    };
    let site = Site::three(&backends).await;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut load = Load::start(&site.commands, WRITES);
    load.reaches(MIDDLE).await;
    for bytes in ["1", "0"] {
        redis::cmd("CONFIG")
            .arg(&["SET", "maxmemory", bytes])
            .query_async::<()>(&mut connection)
            .await
            .unwrap();
        let then = load.acknowledged();
        load.reaches(then + MEANWHILE).await;
    }
    nothing_is_lost(load, &backends).await;
    reads_see_writes(&site).await;
}

#[tokio::test]
async fn a_redis_that_evicts_is_warned_of_when_a_service_starts() {
    let options = ServerOptions {
        durability: Durability::Relaxed,
        arguments: ["--maxmemory-policy", "allkeys-lru", "--maxmemory", "16mb"]
            .map(str::to_owned)
            .to_vec(),
    };
    let redis = Server::start_with(Engine::Redis, options).await;
    let backends = Backends {
        bus_url: redis.url().to_owned(),
        ..Backends::fresh().await
    };
    for role in [Role::Command, Role::EventBus, Role::All] {
        let service = Service::start(role, &backends).await;
        let output = service.process().output();
        for warned_of in ["maxmemory-policy is allkeys-lru", "bus_keep_bytes"] {
            let lines = output.lines().filter(|line| line.contains(warned_of));
            let lines: Vec<_> = lines.collect();
            assert_eq!(lines.len(), 1, "{warned_of}:\n{output}");
            assert!(lines[0].contains("WARN"), "{lines:?}");
        }
    }
}

#[tokio::test]
async fn mongod_is_killed_in_the_middle_of_writes() {
    let mut mongodb = Server::start(Engine::MongoDb).await;
    let backends = Backends {
        mongodb_url: fresh_mongodb_database(&mongodb),
        ..Backends::fresh().await
    };
    let site = Site::three(&backends).await;
    let mut load = Load::start(&site.commands, WRITES);
    load.reaches(MIDDLE).await;
    mongodb.kill();
    let broken = load.acknowledged();
    load.reaches(broken + MEANWHILE).await;
    let read = site.queries.get("/posts").await;
    read.problem(503, "unavailable");
    mongodb.restart().await;
    nothing_is_lost(load, &backends).await;
    reads_see_writes(&site).await;
}

#[tokio::test]
async fn mysqld_is_killed_in_the_middle_of_writes() {
    a_killed_database_loses_nothing(Engine::MySql).await;
}

#[tokio::test]
async fn mariadbd_is_killed_in_the_middle_of_writes() {
    a_killed_database_loses_nothing(Engine::MariaDb).await;
}

async fn a_killed_database_loses_nothing(engine: Engine) {
    let mut database = Server::start(engine).await;
    let backends = Backends {
        database_url: fresh_log(&database, Partitions::DEFAULT).await.service,
        bus_url: shared::redis().await.url().to_owned(),
        mongodb_url: fresh_mongodb_database(shared::mongodb().await),
    };
    let site = Site::three(&backends).await;
    let mut load = Load::start(&site.commands, WRITES);
    load.reaches(MIDDLE).await;
    database.kill();
    load.is_refused().await;
    database.restart().await;
    nothing_is_lost(load, &backends).await;
    reads_see_writes(&site).await;
}
