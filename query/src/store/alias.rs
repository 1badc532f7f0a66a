//! The alias of a view: which version of it is read, and which one is being built.

use serde::{Deserialize, Serialize};
use tidelog_domain::HistoryId;

/// Which version of a view is read, and what it was before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The collection that reads go to, once it is [built](Self::built).
    pub collection: String,
    /// Whether readers are led to it. False only while a view's first version is being built.
    #[serde(default = "built")]
    pub built: bool,
    /// The number of that version, from 1.
    pub number: u64,
    /// The fingerprint of the definition that it was built with.
    pub fingerprint: String,
    /// The collection before it, kept for a rollback.
    pub previous: Option<String>,
    /// The number of that version; `None` where there is none, or an older program wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_number: Option<u64>,
    /// The fingerprint of the definition that it was built with; `None` as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_fingerprint: Option<String>,
    /// Whether that version is kept until somebody says otherwise.
    #[serde(default, skip_serializing_if = "is_false")]
    pub keep: bool,
    /// The fingerprints of definitions that an operator rolled back from, the latest last: a program with one of them does not replay
    /// the view by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// The version that is being built to take its place, while a replay runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaying: Option<Replaying>,
    /// Collections that nobody is led to any more, to be dropped after a grace period.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<String>,
    /// The highest number that a version of the view was ever given: no collection's name is used twice, so that
    /// a replay that was thought dead can never write into another's.
    #[serde(default)]
    pub last_number: u64,
    /// Goes up with each write of the alias.
    #[serde(default)]
    pub revision: u64,
}

/// What an alias says that does not say whether its version is built.
const fn built() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
const fn is_false(it: &bool) -> bool {
    !*it
}

impl Alias {
    /// Leads to `collection`, the first version of a view, built with the definition of this fingerprint.
    #[must_use]
    pub fn first(collection: impl Into<String>, fingerprint: impl Into<String>) -> Self {
        Self {
            collection: collection.into(),
            built: true,
            number: 1,
            fingerprint: fingerprint.into(),
            previous: None,
            previous_number: None,
            previous_fingerprint: None,
            keep: false,
            refused: Vec::new(),
            replaying: None,
            retired: Vec::new(),
            last_number: 1,
            revision: 0,
        }
    }
}

/// A replay in progress: a lease on the right to build the view's next version.
///
/// It has expired when it has not changed for a time on the observer's own clock. Who goes away leaves it to
/// [nobody](Self::is_left): another replay may go on with what is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaying {
    /// The collection that is being built.
    pub collection: String,
    /// The number of that version.
    pub number: u64,
    /// Who builds it: a text that no other replay has, ever. Empty when nobody does.
    pub owner: String,
    /// Goes up every now and then while the owner is alive.
    pub beat: u64,
    /// Whether it may have paused the state records of the version that is read: who takes a dead replay over, or clears it away,
    /// must resume them first.
    #[serde(default)]
    pub switching: bool,
    /// The fingerprint of the definition of that version. Empty when an older program wrote this: nobody goes on with it.
    #[serde(default)]
    pub fingerprint: String,
    /// The history of the log that it folds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryId>,
    /// Whether it builds a version, or goes back to the one before.
    #[serde(default, skip_serializing_if = "Kind::is_build")]
    pub kind: Kind,
    /// How far it was when it was last heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// What a replay does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It builds the next version.
    #[default]
    Build,
    /// It goes back to the version before.
    Rollback,
}

impl Kind {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
    const fn is_build(&self) -> bool {
        matches!(self, Self::Build)
    }
}

/// How far a replay is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Events that are folded, by it and by those before it that went away.
    pub events: u64,
    /// Events that the log has, as far as is known. It may grow meanwhile.
    pub of: u64,
    /// How many it has folded a second, since it began or went on.
    pub per_second: u64,
    /// Whether all of that is of a comparison: what is built is compared with a fold of the log.
    #[serde(default)]
    pub comparing: bool,
}

impl Progress {
    /// In how many seconds all is folded, at this rate; `None` while there is none.
    #[must_use]
    pub fn eta_seconds(&self) -> Option<u64> {
        let left = self.of.saturating_sub(self.events);
        left.checked_div(self.per_second)
    }
}

impl Replaying {
    /// Whether nobody builds it now, and another replay may go on with it at once.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.owner.is_empty()
    }
}
