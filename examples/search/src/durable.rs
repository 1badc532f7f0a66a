//! Files that are as they were before or as they are to be, whatever happens in between, and that stay.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes `value` as the file at `path`, instead of what was there.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut file = File::create(&next)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    sync_parent(path)
}

/// What the file at `path` has; `None` where there is none. What cannot be understood is [`ErrorKind::InvalidData`].
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the directory at `path`, which is absolute, and those that it is in, where they are not there.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
        make_directory(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        // Who made it may have died before this.
        _ => sync_parent(path),
    }
}

/// Removes the directory at `path` with all that is in it, at once, by way of the empty or missing directory `trash`. (Where it stops
/// half-way, there is something in `trash`, and nothing at `path`.)
pub(crate) fn remove_directory(path: &Path, trash: &Path) -> io::Result<()> {
    empty(trash)?;
    match fs::rename(path, trash) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    sync_parent(path)?;
    sync_parent(trash)?;
    empty(trash)
}

/// Makes sure that there is nothing at `path`.
pub(crate) fn empty(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes sure that what is in the directory at `path` by name stays there.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync)
}
