//! On what it is measured.

use std::fs::read_to_string;
use std::process::Command;

use serde::Serialize;
use sqlx::{Connection, MySqlConnection, SqliteConnection};

/// The machine, as far as it matters.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_gib: u64,
    system: String,
    /// Of the minute before the run: what else the machine had to do.
    load_average: String,
    date: String,
}

impl Machine {
    /// This one.
    pub(crate) fn this() -> Self {
        let kib = line_of("/proc/meminfo", "MemTotal");
        let kib = kib.split(' ').next().and_then(|kib| kib.parse().ok());
        let load = read_to_string("/proc/loadavg").unwrap_or_default();
        let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: line_of("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.unwrap_or(0_u64).div_ceil(1024 * 1024),
            system: format!("Linux {}", kernel.trim()),
            load_average: load.split(' ').next().unwrap_or_default().to_owned(),
            date: said("date", &["-u", "+%F"]),
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        format!(
            "{} cores ({}), {} GiB, {}, {}; load average before the run {}",
            self.cores, self.cpu, self.memory_gib, self.system, self.date, self.load_average
        )
    }
}

/// What is compared, and what it is built with.
#[derive(Debug, Serialize)]
pub(crate) struct Versions {
    mysql: String,
    sqlite: String,
    rustc: String,
    tidelog: String,
    crates: Vec<String>,
}

/// The crates of the lock file that matter.
const CRATES: [&str; 5] = ["cqrs-es", "evento", "mysql-es", "sqlx", "tidelog-command"];

impl Versions {
    /// Of everything that takes part.
    ///
    /// # Errors
    ///
    /// When the server cannot be asked.
    pub(crate) async fn found(mysql: &str) -> anyhow::Result<Self> {
        let mut connection = MySqlConnection::connect(mysql).await?;
        let version = sqlx::query_scalar("SELECT VERSION()");
        let mysql = version.fetch_one(&mut connection).await?;
        let mut connection = SqliteConnection::connect("sqlite::memory:").await?;
        let version = sqlx::query_scalar("SELECT sqlite_version()");
        let sqlite = version.fetch_one(&mut connection).await?;
        let here = env!("CARGO_MANIFEST_DIR");
        Ok(Self {
            mysql,
            sqlite,
            rustc: said("rustc", &["--version"]),
            tidelog: said("git", &["-C", here, "rev-parse", "--short", "HEAD"]),
            crates: crates(),
        })
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let crates = self.crates.join(", ");
        format!(
            "MySQL {}, SQLite {} (bundled), {}, tidelog at {}; {crates}",
            self.mysql, self.sqlite, self.rustc, self.tidelog
        )
    }
}

/// `name version` of each of [`CRATES`], more than once where the lock file has several.
fn crates() -> Vec<String> {
    let mut lines = include_str!("../Cargo.lock").lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let name = line
            .strip_prefix("name = ")
            .map(|name| name.trim_matches('"'));
        if let Some(name) = name.filter(|name| CRATES.contains(name)) {
            let version = lines
                .next()
                .and_then(|line| line.strip_prefix("version = "));
            found.push(format!(
                "{name} {}",
                version.unwrap_or("?").trim_matches('"')
            ));
        }
    }
    found
}

/// The settings of the server that durability depends on.
///
/// # Errors
///
/// When it cannot be asked.
pub(crate) async fn durability(mysql: &str) -> anyhow::Result<String> {
    let mut connection = MySqlConnection::connect(mysql).await?;
    let question = sqlx::query_scalar(
        "SELECT CONCAT('innodb_flush_log_at_trx_commit=', @@innodb_flush_log_at_trx_commit, ', sync_binlog=', \
         @@sync_binlog, ', log_bin=', @@log_bin, ', innodb_buffer_pool_size=', @@innodb_buffer_pool_size DIV 1048576, 'M')",
    );
    Ok(question.fetch_one(&mut connection).await?)
}

/// What follows `key` in a file of `key: value` lines.
fn line_of(file: &str, key: &str) -> String {
    let text = read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

/// What a command says; nothing where it cannot be run.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    said.unwrap_or_default()
}
