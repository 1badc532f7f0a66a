//! Where the servers are.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use tokio::sync::OnceCell;

/// The program of this repository that fetches the servers.
const SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../servers");

/// The servers' directory: `bin/` starts them, `template/` has fresh data directories of the two databases.
#[derive(Debug)]
pub(crate) struct Installation {
    directory: PathBuf,
}

impl Installation {
    /// The servers of this machine; the first call of a process fetches what is missing.
    pub(crate) async fn get() -> &'static Self {
        static INSTALLATION: OnceCell<Installation> = OnceCell::const_new();
        INSTALLATION.get_or_init(Self::locate).await
    }

    async fn locate() -> Self {
        Self {
            directory: told("path").await,
        }
    }

    /// Whether MySQL could not be fetched, so that MariaDB stands in for it.
    pub(crate) fn mysql_is_missing(&self) -> bool {
        !self.program("mysqld").exists()
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.directory.join("bin").join(name)
    }

    /// A data directory to copy from.
    pub(crate) fn template(&self, engine: &str) -> PathBuf {
        self.directory.join("template").join(engine).join("data")
    }
}

/// The directory of the Python modules that examples use, redis-py among them: what `PYTHONPATH` must be for them. Fetched
/// when it is missing.
pub async fn python_path() -> PathBuf {
    told("python").await
}

/// The program that checks pages of metrics as Prometheus does. Fetched when it is missing.
pub async fn promtool() -> PathBuf {
    told("promtool").await
}

/// The directory of a browser (`chromium`) and of what drives it (`node_modules/playwright-core`). Fetched when it is missing.
pub async fn browser_path() -> PathBuf {
    told("browser").await
}

/// The directory of what reads exported schemas (`node_modules`). Fetched when it is missing.
pub async fn schemas_path() -> PathBuf {
    told("schemas").await
}

/// The directory of what a worker in Node needs (`node_modules`). Fetched when it is missing.
pub async fn workers_path() -> PathBuf {
    told("workers").await
}

/// The directory of what messaging is measured beside (`node_modules/@streamerson/core`). Fetched when it is missing.
pub async fn streamerson_path() -> PathBuf {
    told("streamerson").await
}

/// The directory that `tests/servers` tells of when it is asked for `what`.
async fn told(what: &str) -> PathBuf {
    let told = Command::new(SERVERS)
        .arg(what)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await;
    let output = told.unwrap_or_else(|error| panic!("cannot run {SERVERS}: {error}"));
    assert!(
        output.status.success(),
        "`tests/servers {what}` failed: what the tests run on is missing"
    );
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())
}

/// Copies the directory `from`, with all that is in it, to the new path `to`.
pub(crate) async fn copy_directory(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .await;
    assert!(
        copied.is_ok_and(|status| status.success()),
        "cannot copy {} to {}",
        from.display(),
        to.display()
    );
}
