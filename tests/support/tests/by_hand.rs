//! What a person does with `tests/servers`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

mod faults {
    use std::path::Path;
    use std::process::{Command, Output};

    use mongodb::bson::{Document, doc};
    use sqlx::{Connection, Executor, MySqlConnection};

    /// The servers of a directory, stopped when the test ends.
    struct Started<'a>(&'a Path);

    impl Started<'_> {
        /// Starts them and returns their URLs, after a check of the lines that a shell evaluates.
        fn start(&self) -> [String; 3] {
            let output = servers("start", self.0);
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let lines = String::from_utf8(output.stdout).unwrap();
            let lines: Vec<_> = lines.lines().collect();
            assert_eq!(lines.len(), 3, "{lines:?}");
            ["DATABASE_URL", "REDIS_URL", "MONGODB_URL"].map(|name| {
                let line = lines
                    .iter()
                    .find(|line| line.starts_with(&format!("export {name}='")))
                    .unwrap();
                line.split('\'').nth(1).unwrap().to_owned()
            })
        }
    }

    impl Drop for Started<'_> {
        fn drop(&mut self) {
            servers("stop", self.0);
        }
    }

    fn servers(command: &str, directory: &Path) -> Output {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../servers");
        Command::new(program)
            .arg(command)
            .arg(directory)
            .output()
            .unwrap()
    }

    #[tokio::test]
    async fn the_data_of_started_servers_is_there_when_they_are_started_again() {
        let directory = tempfile::tempdir().unwrap();
        let started = Started(directory.path());
        let [mysql, redis, mongodb] = started.start();
        assert_eq!(
            started.start(),
            [&mysql, &redis, &mongodb].map(Clone::clone),
            "they run already"
        );

        MySqlConnection::connect(&mysql)
            .await
            .unwrap()
            .execute("CREATE TABLE kept AS SELECT 1 AS n")
            .await
            .unwrap();
        let mut connection = redis::Client::open(redis)
            .unwrap()
            .get_multiplexed_async_connection()
            .await
            .unwrap();
        redis::cmd("SET")
            .arg(&["kept", "2"])
            .query_async::<()>(&mut connection)
            .await
            .unwrap();
        collection(&mongodb)
            .await
            .insert_one(doc! { "_id": 3 })
            .await
            .unwrap();

        assert!(servers("stop", directory.path()).status.success());
        MySqlConnection::connect(&mysql)
            .await
            .expect_err("it is stopped");

        let [mysql, redis, mongodb] = started.start();
        let mut connection = MySqlConnection::connect(&mysql).await.unwrap();
        let query = "SELECT CAST(n AS SIGNED) FROM kept WHERE @@sync_binlog = 1 AND @@innodb_flush_log_at_trx_commit = 1";
        let kept: i64 = sqlx::query_scalar(query)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(kept, 1);
        let mut connection = redis::Client::open(redis)
            .unwrap()
            .get_multiplexed_async_connection()
            .await
            .unwrap();
        assert_eq!(
            redis::cmd("GET")
                .arg("kept")
                .query_async::<String>(&mut connection)
                .await
                .unwrap(),
            "2"
        );
        assert_eq!(
            collection(&mongodb)
                .await
                .count_documents(doc! { "_id": 3 })
                .await
                .unwrap(),
            1
        );
    }

    async fn collection(url: &str) -> mongodb::Collection<Document> {
        mongodb::Client::with_uri_str(url)
            .await
            .unwrap()
            .default_database()
            .unwrap()
            .collection("kept")
    }
}
