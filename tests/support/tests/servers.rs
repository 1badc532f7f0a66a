//! The servers start, answer, keep their data and end when they should.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

mod faults {
    use std::path::Path;
    use std::process::Command;
    use std::time::Duration;

    use mongodb::bson::{Document, doc};
    use sqlx::{Connection, Executor, MySqlConnection};
    use tidelog_test_support::{Engine, Process, Server, TcpProxy};

    #[tokio::test]
    async fn mysql_keeps_its_data_over_a_kill_and_goes_back_to_a_snapshot() {
        sql_keeps_its_data(Engine::MySql).await;
    }

    #[tokio::test]
    async fn a_commit_whose_answer_is_lost_on_the_way_is_done_all_the_same() {
        let server = Server::start(Engine::MySql).await;
        execute(server.url(), "CREATE TABLE numbers (n INT)").await;
        let proxy = TcpProxy::start(server.port()).await;
        let url = proxy.url(&format!("{}?ssl-mode=DISABLED", server.url()));
        let mut connection = MySqlConnection::connect(&url).await.unwrap();
        let mut transaction = connection.begin().await.unwrap();
        transaction
            .execute("INSERT INTO numbers VALUES (7)")
            .await
            .unwrap();

        let lost = proxy.lose_answer_to(b"COMMIT");
        assert!(matches!(
            transaction.commit().await,
            Err(sqlx::Error::Io(_))
        ));
        lost.await;
        assert_eq!(sum(server.url()).await, 7);
    }

    #[tokio::test]
    async fn mariadb_keeps_its_data_over_a_kill_and_goes_back_to_a_snapshot() {
        sql_keeps_its_data(Engine::MariaDb).await;
    }

    async fn sql_keeps_its_data(engine: Engine) {
        let mut server = Server::start(engine).await;
        let url = server.url().to_owned();
        execute(&url, "CREATE TABLE numbers (n INT)").await;
        execute(&url, "INSERT INTO numbers VALUES (1)").await;
        let snapshot = server.snapshot().await;
        execute(&url, "INSERT INTO numbers VALUES (2)").await;

        server.kill();
        assert!(MySqlConnection::connect(&url).await.is_err());
        server.restart().await;
        assert_eq!(sum(&url).await, 3);

        server.restore(&snapshot).await;
        assert_eq!(sum(&url).await, 1);

        let mut connection = MySqlConnection::connect(&url).await.unwrap();
        let query =
            "SELECT CONCAT_WS(' ', @@log_bin + 0, @@sync_binlog, @@innodb_flush_log_at_trx_commit)";
        let durability: String = sqlx::query_scalar(query)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(durability, "1 1 1");
    }

    async fn execute(url: &str, statement: &'static str) {
        MySqlConnection::connect(url)
            .await
            .unwrap()
            .execute(statement)
            .await
            .unwrap();
    }

    async fn sum(url: &str) -> i64 {
        let mut connection = MySqlConnection::connect(url).await.unwrap();
        sqlx::query_scalar("SELECT CAST(SUM(n) AS SIGNED) FROM numbers")
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn redis_keeps_its_data_over_a_kill_and_a_graceful_stop() {
        let mut server = Server::start(Engine::Redis).await;
        set(&server, "a").await;
        server.kill();
        server.restart().await;
        assert_eq!(get(&server).await, "a");

        set(&server, "b").await;
        server.stop().await;
        assert_eq!(server.process_id(), None);
        server.restart().await;
        assert_eq!(get(&server).await, "b");
    }

    #[tokio::test]
    async fn a_paused_server_answers_only_when_it_is_resumed() {
        let server = Server::start(Engine::Redis).await;
        set(&server, "a").await;
        server.pause();
        let answer = get(&server);
        tokio::pin!(answer);
        tokio::time::timeout(Duration::from_millis(100), &mut answer)
            .await
            .expect_err("it is paused");
        server.resume();
        assert_eq!(answer.await, "a");
    }

    async fn redis(server: &Server) -> redis::aio::MultiplexedConnection {
        let patient = redis::AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None);
        let client = redis::Client::open(server.url()).unwrap();
        client
            .get_multiplexed_async_connection_with_config(&patient)
            .await
            .unwrap()
    }

    async fn set(server: &Server, value: &str) {
        let command = redis::cmd("SET").arg("key").arg(value).to_owned();
        command
            .query_async::<()>(&mut redis(server).await)
            .await
            .unwrap();
    }

    async fn get(server: &Server) -> String {
        redis::cmd("GET")
            .arg("key")
            .query_async(&mut redis(server).await)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn mongodb_keeps_its_data_over_a_kill_and_goes_back_to_a_snapshot() {
        let mut server = Server::start(Engine::MongoDb).await;
        insert(&server, 1).await;
        let snapshot = server.snapshot().await;
        insert(&server, 2).await;

        server.kill();
        server.restart().await;
        assert_eq!(count(&server).await, 2);

        server.restore(&snapshot).await;
        assert_eq!(count(&server).await, 1);
        insert(&server, 3).await;
    }

    #[tokio::test]
    async fn nats_keeps_its_data_over_a_kill_and_goes_back_to_a_snapshot() {
        let mut server = Server::start(Engine::Nats).await;
        let config = async_nats::jetstream::stream::Config {
            name: "numbers".to_owned(),
            ..Default::default()
        };
        streams(&server).await.create_stream(config).await.unwrap();
        publish(&server).await;
        let snapshot = server.snapshot().await;
        assert_eq!(publish(&server).await, 2);

        server.kill();
        server.restart().await;
        assert_eq!(publish(&server).await, 3);

        server.restore(&snapshot).await;
        assert_eq!(publish(&server).await, 2);
    }

    async fn streams(server: &Server) -> async_nats::jetstream::Context {
        let client = async_nats::connect(server.url()).await.unwrap();
        async_nats::jetstream::new(client)
    }

    /// The place of one more message.
    async fn publish(server: &Server) -> u64 {
        let streams = streams(server).await;
        let published = streams.publish("numbers", "1".into()).await.unwrap();
        published.await.unwrap().sequence
    }

    #[tokio::test]
    async fn the_broker_of_kafka_starts_again() {
        let mut server = Server::start(Engine::Kafka).await;
        server.kill();
        server.restart().await;
        server.stop().await;
        server.restart().await;
    }

    async fn documents(server: &Server) -> mongodb::Collection<Document> {
        let client = mongodb::Client::with_uri_str(server.url()).await.unwrap();
        client.default_database().unwrap().collection("numbers")
    }

    async fn insert(server: &Server, number: i32) {
        documents(server)
            .await
            .insert_one(doc! { "_id": number })
            .await
            .unwrap();
    }

    async fn count(server: &Server) -> u64 {
        documents(server)
            .await
            .count_documents(doc! {})
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_server_that_cannot_start_fails_the_test_with_its_log() {
        let options = tidelog_test_support::ServerOptions {
            arguments: vec!["--no-such-setting".to_owned(), "1".to_owned()],
            ..Default::default()
        };
        let failed = tokio::spawn(Server::start_with(Engine::Redis, options))
            .await
            .unwrap_err()
            .into_panic();
        let message = failed.downcast_ref::<String>().unwrap();
        assert!(message.contains("no-such-setting"), "{message}");
    }

    #[tokio::test]
    async fn servers_and_programs_end_with_a_killed_test_process() {
        let mut holder = Process::start(Command::new(env!("CARGO_BIN_EXE_tidelog-test-hold")));
        let line = holder.wait_for_line("holding").await;
        let [_, server, program, directory] =
            line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        assert!(runs(server) && runs(program) && Path::new(directory).exists());
        holder.kill();
        let gone = async {
            while runs(server) || runs(program) || Path::new(directory).exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let bound = Duration::from_secs(60);
        assert!(
            tokio::time::timeout(bound, gone).await.is_ok(),
            "not all gone: {line}"
        );
    }

    /// Whether a process runs: one that has ended and that nobody has waited for does not.
    fn runs(process: &str) -> bool {
        let state = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        state
            .rsplit_once(") ")
            .is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
    }
}
