//! What there is of each view, as the aliases say it: for operators, from any process.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidelog_domain::ViewDefinition;

use crate::catalog::Catalog;
use crate::indexes::{state_of, usable_indexes};
use crate::store::{Alias, Index, IndexState, Kind, ReadError, ReadStore, Replaying};

/// A view, its versions, and the replay that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewReport {
    /// Its name.
    pub view: String,
    /// The number of the version that is read; `None` until the first one is built.
    pub version: Option<u64>,
    /// The collection of that version.
    pub collection: Option<String>,
    /// Whether that version is one of this program's definition.
    pub is_current: bool,
    /// The version before, where it is kept for a rollback.
    pub previous: Option<Previous>,
    /// Whether an operator rolled back from this program's definition, so that it does not replay the view by itself.
    pub is_refused: bool,
    /// The indexes that this program declares for it, and how far they are in the version that is read.
    #[serde(default)]
    pub indexes: Vec<IndexReport>,
    /// The replay that runs, or was left in the middle.
    pub replay: Option<ReplayReport>,
    /// How the last replay or rollback ended that the process that is asked was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastReplay>,
}

/// How a replay or a rollback ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReplay {
    /// When.
    pub ended_at: DateTime<Utc>,
    /// What was done, as the answer to the request says it; nothing where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<Value>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An index that a view declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexReport {
    /// By what, in the words of `sort`.
    pub by: String,
    /// How far it is.
    pub state: IndexState,
}

/// The version before the one that is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Its number; `None` where an older program left it, and there is no way back to it.
    pub version: Option<u64>,
    /// Its collection.
    pub collection: String,
    /// Whether it is one of this program's definition.
    pub is_current: bool,
    /// Whether it is kept until somebody says otherwise.
    pub keep: bool,
}

/// A replay that runs, or was left in the middle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayReport {
    /// What it does.
    pub state: ReplayState,
    /// The number of the version that it builds.
    pub version: u64,
    /// The collection of that version.
    pub collection: String,
    /// Events that are folded, or read to be compared.
    pub events: u64,
    /// Events that the log has, as far as is known.
    pub of: u64,
    /// How many that are a second.
    pub per_second: u64,
    /// In how many seconds all are.
    pub eta_seconds: Option<u64>,
}

/// What a replay does, as far as other processes see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ReplayState {
    /// It builds.
    Building,
    /// What it has built is compared with the log.
    Comparing,
    /// The version that is read rests, or is about to, and the new one takes over.
    Switching,
    /// It goes back to the version before.
    RollingBack,
    /// Nobody runs it; the next one goes on with it.
    Left,
}

impl ViewReport {
    /// What `alias` says of `view`; of its indexes nothing.
    #[must_use]
    pub fn of(view: &dyn ViewDefinition, alias: Option<&Alias>) -> Self {
        let read = alias.filter(|alias| alias.built);
        let replay = alias.and_then(|alias| alias.replaying.as_ref());
        Self {
            view: view.name().to_owned(),
            version: read.map(|alias| alias.number),
            collection: read.map(|alias| alias.collection.clone()),
            is_current: read.is_some_and(|alias| alias.fingerprint == view.fingerprint()),
            previous: read.and_then(|alias| Previous::of(view, alias)),
            is_refused: read.is_some_and(|alias| alias.refused.contains(&view.fingerprint())),
            indexes: Vec::new(),
            replay: replay.map(ReplayReport::of),
            last: None,
        }
    }

    /// What there is of `view` in `store`.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub async fn read(view: &dyn ViewDefinition, store: &dyn ReadStore) -> Result<Self, ReadError> {
        let alias = store.load_alias(view.name()).await?;
        let mut report = Self::of(view, alias.as_ref());
        let declared = usable_indexes(view);
        if let (Some(collection), false) = (&report.collection, declared.is_empty()) {
            let kept = store.indexes(collection).await?;
            let state = |index: &Index| IndexReport {
                by: index.text(),
                state: state_of(index, &kept),
            };
            report.indexes = declared.iter().map(state).collect();
        }
        Ok(report)
    }

    /// What there is of each view of `catalog` in `store`.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub async fn all(catalog: &Catalog, store: &dyn ReadStore) -> Result<Vec<Self>, ReadError> {
        let mut all = Vec::new();
        for view in catalog.iter() {
            all.push(Self::read(&**view, store).await?);
        }
        Ok(all)
    }
}

impl Previous {
    fn of(view: &dyn ViewDefinition, alias: &Alias) -> Option<Self> {
        let fingerprint = alias.previous_fingerprint.as_ref();
        Some(Self {
            version: alias.previous_number,
            collection: alias.previous.clone()?,
            is_current: fingerprint == Some(&view.fingerprint()),
            keep: alias.keep,
        })
    }
}

impl ReplayReport {
    fn of(running: &Replaying) -> Self {
        let progress = running.progress.unwrap_or_default();
        Self {
            state: match running {
                left if left.is_left() => ReplayState::Left,
                switching if switching.switching => ReplayState::Switching,
                back if back.kind == Kind::Rollback => ReplayState::RollingBack,
                _ if progress.comparing => ReplayState::Comparing,
                _ => ReplayState::Building,
            },
            version: running.number,
            collection: running.collection.clone(),
            events: progress.events,
            of: progress.of,
            per_second: progress.per_second,
            eta_seconds: progress.eta_seconds(),
        }
    }
}
