//! Where keys come from, and how they are kept fresh.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "jwks-client")]
use super::fetch::Fetcher;
use super::keys::{InvalidKeys, KeySet};
use super::{Expected, Refused, Verifier};

/// The most bytes of a set of keys.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// How often keys are fetched, and asked for again by need, at most.
const PAUSE: Duration = Duration::from_secs(30);

/// How often keys of a URL are fetched when all is well.
const FETCH_EVERY: Duration = Duration::from_mins(5);

/// How long keys count after they were last read, when they cannot be read again.
const STALE_AFTER: Duration = Duration::from_hours(24);

/// The most requests that wait at a time for keys which are asked for. The others are told to ask again.
pub(super) const MAX_WAITING: usize = 32;

/// Where the keys are that tokens are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysFrom {
    /// A secret that the issuer shares, for HS256. For development.
    Secret(Secret),
    /// A file with a JSON Web Key Set. It is read again when it changes.
    File(PathBuf),
    /// A URL where a JSON Web Key Set is. It is fetched again by and by.
    Url {
        /// Which.
        url: url::Url,
        /// A PEM file with authorities that are trusted beside the public ones.
        ca: Option<PathBuf>,
    },
}

/// Something that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// The secret `bytes`.
    #[must_use]
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        Self(bytes.as_ref().into())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Why there can be no keys from where they should come from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSource {
    /// The secret cannot be one.
    #[error(transparent)]
    Secret(InvalidKeys),
    /// The file cannot be read.
    #[error("the keys in {path} cannot be read")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: Unread,
    },
    /// The URL is none that keys are fetched from.
    #[error(
        "keys are fetched from an https:// URL without a password, or from an http:// one on this machine"
    )]
    Url,
    /// There can be no HTTP client, or there is none in this program.
    #[error("keys cannot be fetched: {0}")]
    Client(String),
}

/// Why keys could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unread {
    /// They are not to be had.
    #[error("{0}")]
    Gone(String),
    /// There is more of it than keys may have.
    #[error("it has more than {MAX_BYTES} bytes")]
    TooLarge,
    /// It has no keys.
    #[error(transparent)]
    Keys(#[from] InvalidKeys),
}

/// The keys, as they are now.
pub(super) struct Keys {
    origin: Origin,
    expected: Expected,
    known: RwLock<Known>,
    /// When they were last asked for. Held while that is done: one asks, the others wait for what it hears.
    pub(super) asked: Arc<Mutex<Option<Instant>>>,
    /// For those who wait for what is heard.
    waiting: Semaphore,
}

enum Origin {
    /// They never change.
    Fixed,
    File(PathBuf),
    #[cfg(feature = "jwks-client")]
    Url(Fetcher),
}

#[derive(Default)]
struct Known {
    current: Option<Current>,
    /// What they were read from.
    text: Vec<u8>,
    read_at: Option<Instant>,
    /// Why they could not be read when that was last tried.
    problem: Option<String>,
}

/// What decides about tokens now.
#[derive(Clone)]
pub(super) struct Current {
    pub(super) verifier: Arc<Verifier>,
    /// Goes up when the keys change.
    pub(super) generation: u64,
}

impl Keys {
    /// The keys that are `from` there. Those of a file are read at once; those of a URL once it is asked for.
    pub(super) fn new(from: &KeysFrom, expected: Expected) -> Result<Self, InvalidSource> {
        let origin = match from {
            KeysFrom::Secret(_) => Origin::Fixed,
            KeysFrom::File(path) => Origin::File(path.clone()),
            #[cfg(feature = "jwks-client")]
            KeysFrom::Url { url, ca } => Origin::Url(Fetcher::new(url, ca.as_deref())?),
            #[cfg(not(feature = "jwks-client"))]
            KeysFrom::Url { .. } => {
                let missing = "the program was built without the feature jwks-client";
                return Err(InvalidSource::Client(missing.to_owned()));
            }
        };
        let keys = Self {
            origin,
            expected,
            known: RwLock::default(),
            asked: Arc::default(),
            waiting: Semaphore::new(MAX_WAITING),
        };
        match from {
            KeysFrom::Secret(secret) => {
                let set = KeySet::of_secret(&secret.0).map_err(InvalidSource::Secret)?;
                keys.replace(set, Vec::new());
            }
            KeysFrom::File(path) => {
                let unread = |source| InvalidSource::File {
                    path: path.display().to_string(),
                    source,
                };
                let text = read_file(path).map_err(unread)?;
                let set = KeySet::parse(&text).map_err(|error| unread(error.into()))?;
                keys.replace(set, text);
            }
            KeysFrom::Url { .. } => {}
        }
        Ok(keys)
    }

    /// What decides about tokens now.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`] where the keys were never read, or too long ago.
    pub(super) fn current(&self) -> Result<Current, Refused> {
        let known = self.known();
        let is_fresh = matches!(self.origin, Origin::Fixed)
            || known.read_at.is_some_and(|at| at.elapsed() < STALE_AFTER);
        let current = known.current.clone().filter(|_| is_fresh);
        current.ok_or(Refused::Unavailable)
    }

    /// Asks for the keys because one is missing; not where they were asked for a short while ago, be it by another request.
    ///
    /// Who asks may hang up: the keys are asked for all the same, and that counts from when it began. So nobody has them asked for again by
    /// hanging up.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`] where enough others wait for them.
    pub(super) async fn ask_by_need(self: &Arc<Self>) -> Result<(), Refused> {
        if matches!(self.origin, Origin::Fixed) {
            return Ok(());
        }
        let waits = self.waiting.try_acquire();
        let _waits = waits.map_err(|_| Refused::Unavailable)?;
        let mut asked = Arc::clone(&self.asked).lock_owned().await;
        if asked.is_none_or(|at| at.elapsed() >= PAUSE) {
            *asked = Some(Instant::now());
            let keys = Arc::clone(self);
            let asking = tokio::spawn(async move {
                keys.ask().await;
                drop(asked);
            });
            // Where it panicked, the keys are what they were.
            let _ = asking.await;
        }
        Ok(())
    }

    /// Keeps the keys fresh until it is told to stop.
    pub(super) async fn keep_fresh(&self, stop: CancellationToken) {
        if matches!(self.origin, Origin::Fixed) {
            return;
        }
        loop {
            let mut asked = self.asked.lock().await;
            let read = self.ask().await;
            *asked = Some(Instant::now());
            drop(asked);
            let is_file = matches!(self.origin, Origin::File(_));
            let pause = if read && !is_file { FETCH_EVERY } else { PAUSE };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Asks for the keys, and says whether there are some. What is wrong is told when it changes.
    pub(super) async fn ask(&self) -> bool {
        let read = match &self.origin {
            Origin::Fixed => return true,
            Origin::File(path) => read_file(path),
            #[cfg(feature = "jwks-client")]
            Origin::Url(fetcher) => fetcher.fetch().await,
        };
        let taken = read.and_then(|text| self.take(text));
        let mut known = self.known_mut();
        let problem = taken.err().map(|error| error.to_string());
        let is_news = known.problem != problem;
        match (&problem, is_news) {
            (Some(problem), true) => {
                let has_keys = known.current.is_some();
                tracing::warn!(
                    problem,
                    has_keys,
                    "the keys that sign tokens cannot be read; what was read before counts for a day"
                );
            }
            (None, true) => tracing::info!("the keys that sign tokens can be read again"),
            (_, false) => {}
        }
        known.problem.clone_from(&problem);
        problem.is_none()
    }

    /// Takes what was read for the keys.
    fn take(&self, text: Vec<u8>) -> Result<(), Unread> {
        if self.known().text == text {
            self.known_mut().read_at = Some(Instant::now());
            return Ok(());
        }
        let set = KeySet::parse(&text)?;
        tracing::info!(
            keys = set.len(),
            left_out = set.left_out(),
            "the keys that sign tokens were read"
        );
        self.replace(set, text);
        Ok(())
    }

    fn replace(&self, set: KeySet, text: Vec<u8>) {
        let verifier = Arc::new(Verifier::new(set, self.expected.clone()));
        let mut known = self.known_mut();
        let generation = known.current.as_ref().map_or(0, |one| one.generation) + 1;
        known.current = Some(Current {
            verifier,
            generation,
        });
        known.text = text;
        known.read_at = Some(Instant::now());
    }

    /// The keys were read then, and not since.
    #[cfg(test)]
    pub(super) fn read_at(&self, at: Instant) {
        self.known_mut().read_at = Some(at);
    }

    fn known(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> std::sync::RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, Unread> {
    use std::io::Read;
    let gone = |error: std::io::Error| Unread::Gone(error.to_string());
    let file = std::fs::File::open(path).map_err(gone)?;
    let mut text = Vec::new();
    let bound = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    file.take(bound + 1).read_to_end(&mut text).map_err(gone)?;
    if text.len() > MAX_BYTES {
        return Err(Unread::TooLarge);
    }
    Ok(text)
}
