//! The program as its users run it: over HTTP, killed and started again.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tidelog::read_store::{Query, ReadStore, StateStore};
use tidelog_search::TantivyReadStore;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{sleep, timeout};

/// How long a program may take to say what is wrong: generous, as it only matters when a test fails.
const PATIENCE: Duration = Duration::from_secs(90);

/// The program, in a directory of the test's.
struct Program {
    http: Client,
    /// Where it takes commands, answers queries, and is administrated.
    urls: [String; 3],
    /// Who closes this breaks what it prints.
    _stdout: Lines<BufReader<ChildStdout>>,
}

fn program(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidelog-search"));
    command.arg("dev").current_dir(home).kill_on_drop(true);
    for name in ["COMMAND", "QUERY", "ADMIN"] {
        command.env(format!("TIDELOG_{name}_ADDR"), "127.0.0.1:0");
    }
    command.env_remove("TIDELOG_DATA_DIR");
    command
}

impl Program {
    /// Starts it, and waits until it says where it is. The process is killed when it is dropped.
    async fn start(home: &Path) -> (Self, Child) {
        let mut child = program(home).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut urls = ["commands", "queries", "health"].map(|name| (name, String::new()));
        while urls.iter().any(|(_, url)| url.is_empty()) {
            let line = stdout.next_line().await.unwrap();
            let line = line.unwrap_or_else(|| panic!("the program ended"));
            for (name, url) in &mut urls {
                if let Some(found) = line.trim().strip_prefix(*name) {
                    *url = found.trim().trim_end_matches("/health/ready").to_owned();
                }
            }
        }
        let program = Self {
            http: Client::new(),
            urls: urls.map(|(_, url)| url),
            _stdout: stdout,
        };
        (program, child)
    }

    /// Writes a note, and gives the token of that.
    async fn write(&self, id: &str, text: &str) -> Result<String, reqwest::Error> {
        let note = json!({"id": id, "title": "A note", "text": text});
        let answer = self.http.post(format!("{}/note", self.urls[0])).json(&note);
        let answer = answer.send().await?;
        assert_eq!(answer.status(), 201);
        let token = answer.headers()["consistency-token"].to_str().unwrap();
        Ok(token.to_owned())
    }

    fn read(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.urls[1]))
    }

    /// The page that `GET /page/{id}` answers when it has what the token says.
    async fn read_after(&self, id: &str, token: &str) -> Result<Value, reqwest::Error> {
        let page = self.read(&format!("/page/{id}"));
        let page = page.header("consistency-token", token).send().await?;
        assert_eq!(page.status(), 200);
        Ok(page.json::<Value>().await?["data"].take())
    }

    /// The ids of the pages that are found by these words.
    async fn search(&self, words: &str) -> Vec<String> {
        let hits = self.read("/search").query(&[("q", words)]);
        let hits: Value = hits.send().await.unwrap().json().await.unwrap();
        let hits = hits["data"].as_array().unwrap().iter();
        hits.map(|hit| hit["id"].as_str().unwrap().to_owned())
            .collect()
    }

    async fn views(&self) -> Value {
        let views = self.http.get(format!("{}/admin/api/views", self.urls[2]));
        views.send().await.unwrap().json().await.unwrap()
    }
}

#[tokio::test]
async fn a_note_is_found_by_its_words_as_soon_as_it_is_read_and_after_a_replay() {
    let home = tempfile::tempdir().unwrap();
    let (program, _child) = Program::start(home.path()).await;
    program
        .write("a", "Milk, and honey from the bees")
        .await
        .unwrap();
    let token = program
        .write("b", "Bees, and what they like")
        .await
        .unwrap();
    let page = program.read_after("b", &token).await.unwrap();
    assert_eq!(page["text"], "Bees, and what they like");
    let finds = async |program: &Program| {
        assert_eq!(program.search("honey").await, ["a"]);
        // All words, in any case and order; or one of them; or in a row; or without one.
        assert_eq!(program.search("BEES honey").await, ["a"]);
        assert_eq!(program.search("honey like wax").await, [""; 0]);
        let mut both = program.search("honey OR like").await;
        both.sort();
        assert_eq!(both, ["a", "b"]);
        assert_eq!(program.search("\"from the bees\"").await, ["a"]);
        assert_eq!(program.search("bees -honey").await, ["b"]);
        assert_eq!(program.search("bees id:b").await, ["b"]);
    };
    finds(&program).await;
    let hits = program.read("/search?q=honey").send().await.unwrap();
    let hits: Value = hits.json().await.unwrap();
    let shown = json!({"id": "a", "title": "A note", "text": "Milk, and honey from the bees"});
    assert_eq!(hits, json!({"data": [shown]}));

    let replay = format!("{}/admin/api/views/page/replay", program.urls[2]);
    let replayed = program.http.post(replay).json(&json!({"compare": "full"}));
    assert!(replayed.send().await.unwrap().status().is_success());
    let views = program.views().await;
    let views = views["data"].as_array().unwrap().iter();
    let versions: Vec<_> = views.map(|view| &view["collection"]).collect();
    assert_eq!(versions, ["note_v1", "page_v2"]);
    finds(&program).await;
    let token = program.write("c", "Wax").await.unwrap();
    program.read_after("c", &token).await.unwrap();
    assert_eq!(program.search("wax").await, ["c"]);

    let deleted = program.http.delete(format!("{}/note/c", program.urls[0]));
    let deleted = deleted.send().await.unwrap();
    let token = &deleted.headers()["consistency-token"];
    let page = program.read("/page/c").header("consistency-token", token);
    assert_eq!(page.send().await.unwrap().status(), 404);
    assert_eq!(program.search("wax").await, [""; 0]);
}

#[tokio::test]
async fn a_search_that_cannot_be_understood_is_told_so() {
    let home = tempfile::tempdir().unwrap();
    let (program, _child) = Program::start(home.path()).await;
    let token = program.write("a", "Milk").await.unwrap();
    program.read_after("a", &token).await.unwrap();
    let search = async |name: &str, text: &str| {
        let asked = program.read("/search").query(&[(name, text)]);
        asked.send().await.unwrap()
    };
    let (brackets, long) = ("(".repeat(11), "a".repeat(201));
    for (name, text) in [
        ("q", "\"milk"),
        ("q", "body:x"),
        ("q", "author:x"),
        ("q", "-milk)"),
        ("q", &brackets),
        ("q", &long),
        ("p", "milk"),
    ] {
        let answer = search(name, text).await;
        assert_eq!(answer.status(), 400, "{text}");
        let media = &answer.headers()["content-type"];
        assert_eq!(media, "application/problem+json");
        let problem: Value = answer.json().await.unwrap();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("`q`"), "{detail}");
    }
    // Whatever is asked, the program goes on.
    for part in [
        "(", "((a) ", "-", "+", "\"", "NOT ", "a:", "[", "{", "*", "/", "^2", "\\", "a OR ",
    ] {
        let text = part.repeat(200 / part.len());
        let status = search("q", &text).await.status();
        assert!([200, 400].contains(&status.as_u16()), "{status}: {text}");
    }
}

/// A commit for each note, and a checkpoint: one of them is being made when the program is killed.
#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let home = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..3 {
        let (program, mut child) = Program::start(home.path()).await;
        for id in &acknowledged {
            assert_eq!(program.search(&format!("word{id}")).await, [id.as_str()]);
        }
        let enough = Duration::from_millis(500 + 150 * round);
        let write = async |id: &str| {
            let token = program.write(id, &format!("word{id}")).await?;
            program.read_after(id, &token).await
        };
        let mut ids = (0..).map(|number| format!("r{round}n{number}"));
        let begun = Instant::now();
        while begun.elapsed() < enough {
            let id = ids.next().unwrap();
            write(&id).await.unwrap();
            acknowledged.push(id);
        }
        let last = ids.next().unwrap();
        let kill = async {
            sleep(Duration::from_millis(3 * round)).await;
            child.start_kill().unwrap();
        };
        let (cut_off, ()) = tokio::join!(write(&last), kill);
        acknowledged.extend(cut_off.is_ok().then_some(last));
        child.wait().await.unwrap();
        everything_is_there(home.path(), &acknowledged).await;
    }
}

/// Each of these pages is, and each event that a checkpoint speaks of is in one.
async fn everything_is_there(home: &Path, ids: &[String]) {
    let store = TantivyReadStore::at(home.join("tidelog-data/index"));
    let alias = store.load_alias("page").await.unwrap().unwrap();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let found = store.get(&alias.collection, &ids).await.unwrap();
    assert_eq!(found.len(), ids.len());
    let all = Query {
        limit: 100_000,
        ..Query::default()
    };
    let all = store.find(&alias.collection, &all).await.unwrap();
    for (partition, _, record) in store.load_states(&alias.collection).await.unwrap() {
        // Each event makes a page, and positions have no gaps.
        let checkpoint = record.checkpoint.cursor.position;
        let applied = all.iter().filter_map(|page| page.applied.get(&partition));
        let applied = applied.filter(|position| **position <= checkpoint).count();
        assert_eq!(
            applied as u64,
            checkpoint.number(),
            "in partition {partition}"
        );
    }
}

#[tokio::test]
async fn a_second_program_is_told_that_the_index_is_in_use() {
    let home = tempfile::tempdir().unwrap();
    let _first = Program::start(home.path()).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut second = program(elsewhere.path());
    second.env("NOTEBOOK_INDEX", home.path().join("tidelog-data/index"));
    let ended = timeout(PATIENCE, second.output()).await.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(3));
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(
        said.contains("the store of the view page cannot be used"),
        "{said}"
    );
    assert!(said.contains("another process has "), "{said}");
}

#[tokio::test]
async fn traces_for_which_it_was_not_built_are_refused_at_the_start() {
    let home = tempfile::tempdir().unwrap();
    let mut program = program(home.path());
    program.env("TIDELOG_OTLP_ENDPOINT", "http://127.0.0.1:4318");
    let ended = timeout(PATIENCE, program.output()).await.unwrap().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(2), "{said}");
    for part in ["otlp_endpoint", "feature `otlp`"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    assert!(
        !home.path().join("tidelog-data").exists(),
        "something was begun"
    );
}
