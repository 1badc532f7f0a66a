//! The tests of one process share a server of each engine, and nothing on it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail loudly")]

use mongodb::bson::{Document, doc};
use sqlx::{Connection, Executor, MySqlConnection};
use tidelog_test_support::{
    Server, fresh_mongodb_database, fresh_mysql_database, shared, unique_name,
};

#[tokio::test]
async fn each_test_has_a_mysql_database_of_its_own() {
    each_test_has_a_database_of_its_own(shared::mysql().await).await;
    assert!(std::ptr::eq(shared::mysql().await, shared::mysql().await));
}

#[tokio::test]
async fn each_test_has_a_mariadb_database_of_its_own() {
    each_test_has_a_database_of_its_own(shared::mariadb().await).await;
}

async fn each_test_has_a_database_of_its_own(server: &Server) {
    for _ in 0..2 {
        let url = fresh_mysql_database(server).await;
        let mut connection = MySqlConnection::connect(&url).await.unwrap();
        // It would fail where the table is there already.
        connection
            .execute("CREATE TABLE same_name (n INT)")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn each_test_has_a_mongodb_database_of_its_own() {
    let server = shared::mongodb().await;
    for _ in 0..2 {
        let url = fresh_mongodb_database(server);
        let client = mongodb::Client::with_uri_str(&url).await.unwrap();
        let database = client.default_database().unwrap();
        // It would fail where the document is there already.
        database
            .collection::<Document>("same_name")
            .insert_one(doc! { "_id": 1 })
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn each_test_has_redis_keys_of_its_own() {
    let client = redis::Client::open(shared::redis().await.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for _ in 0..2 {
        let set = redis::cmd("SETNX")
            .arg(unique_name())
            .arg("value")
            .query_async(&mut connection)
            .await;
        assert_eq!(set, Ok(1));
    }
}

#[tokio::test]
async fn each_test_has_nats_subjects_of_its_own() {
    let client = async_nats::connect(shared::nats().await.url())
        .await
        .unwrap();
    let jetstream = async_nats::jetstream::new(client);
    for _ in 0..2 {
        let name = unique_name();
        let config = async_nats::jetstream::stream::Config {
            subjects: vec![format!("{name}.>")],
            name: name.clone(),
            ..Default::default()
        };
        jetstream.create_stream(config).await.unwrap();
        let acknowledged = jetstream
            .publish(format!("{name}.a"), "value".into())
            .await
            .unwrap();
        assert_eq!(acknowledged.await.unwrap().sequence, 1);
    }
}

#[tokio::test]
async fn the_broker_of_kafka_answers() {
    assert!(std::ptr::eq(shared::kafka().await, shared::kafka().await));
}
