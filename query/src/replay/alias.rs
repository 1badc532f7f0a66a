//! The steps of a replay as changes of the view's alias: pure, so that each can be looked at by itself.

use tidelog_domain::HistoryId;

use crate::store::{Alias, Kind, Progress, ReadError, ReadStore, Replaying};

/// How many definitions that were rolled back from are remembered.
const MAX_REFUSED: usize = 8;

/// How often a change is tried against an alias that others change at the same time.
const MAX_TRIES: usize = 32;

/// What a replay builds: only one that builds the same goes on with what another left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct What {
    /// A new version, or the one before.
    pub(super) kind: Kind,
    /// Of the view's definition.
    pub(super) fingerprint: String,
    /// Of the log.
    pub(super) history: HistoryId,
}

/// What comes with a switch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Switch {
    /// The version that was read is kept until somebody says otherwise.
    pub(super) keep: bool,
    /// Programs with the definition of the version that was read do not replay the view by themselves from now on.
    pub(super) refuse: bool,
}

impl What {
    /// Whether `running` builds it.
    pub(super) fn is_built_by(&self, running: &Replaying) -> bool {
        let is_same = running.kind == self.kind && running.history == Some(self.history);
        // There is only one version before, whoever goes back to it.
        is_same && (self.kind == Kind::Rollback || running.fingerprint == self.fingerprint)
    }
}

/// The collection of version `number` of `view`.
fn collection(view: &str, number: u64) -> String {
    format!("{view}_v{number}")
}

/// The view that `collection` is a version of, if it is one's.
pub(crate) fn view_of(collection: &str) -> Option<&str> {
    let (view, number) = collection.rsplit_once("_v")?;
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    is_number.then_some(view)
}

impl Alias {
    /// The first version of `view` begins to be built, with the definition of this fingerprint.
    pub(crate) fn founded(view: &str, fingerprint: &str) -> Self {
        Self {
            built: false,
            ..Self::first(collection(view, 1), fingerprint)
        }
    }

    /// The first version begins anew in another collection, because what is in `collection` has another history or
    /// another definition. `None` where it is built already, or somebody else began anew.
    pub(crate) fn founded_anew(
        &self,
        view: &str,
        collection: &str,
        fingerprint: &str,
    ) -> Option<Self> {
        if self.built || self.collection != collection {
            return None;
        }
        let number = self.last_number.max(self.number).saturating_add(1);
        let begun = self.retired.iter().chain([&self.collection]);
        Some(Self {
            collection: self::collection(view, number),
            number,
            last_number: number,
            fingerprint: fingerprint.to_owned(),
            retired: begun.cloned().collect(),
            ..self.clone()
        })
    }

    /// Readers are led to `collection`, the first version, from now on. `None` where they are already, or where it has
    /// been begun anew.
    pub(crate) fn opened(&self, collection: &str) -> Option<Self> {
        (!self.built && self.collection == collection).then(|| Self {
            built: true,
            ..self.clone()
        })
    }

    /// A replay by `owner` begins to build the next version of `view`: `what`.
    #[must_use]
    pub(super) fn begun(&self, view: &str, owner: &str, what: &What) -> Self {
        let number = self.last_number.max(self.number).saturating_add(1);
        Self {
            replaying: Some(Replaying {
                collection: collection(view, number),
                number,
                owner: owner.to_owned(),
                beat: 1,
                switching: false,
                fingerprint: what.fingerprint.clone(),
                history: Some(what.history),
                kind: Kind::Build,
                progress: None,
            }),
            last_number: number,
            ..self.clone()
        }
    }

    /// A replay by `owner` begins to go back to the version before. `None` where none is kept.
    pub(super) fn rolling_back(&self, owner: &str, what: &What) -> Option<Self> {
        let replaying = Replaying {
            collection: self.previous.clone()?,
            number: self.previous_number?,
            owner: owner.to_owned(),
            beat: 1,
            switching: false,
            fingerprint: self.previous_fingerprint.clone()?,
            history: Some(what.history),
            kind: Kind::Rollback,
            progress: None,
        };
        Some(Self {
            replaying: Some(replaying),
            ..self.clone()
        })
    }

    /// The replay by `owner`, if it still is the one that runs.
    pub(crate) fn replay_of(&self, owner: &str) -> Option<&Replaying> {
        self.replaying
            .as_ref()
            .filter(|running| running.owner == owner)
    }

    /// The replay by `owner` lives, and is so far; from now on it may pause the version that is read, if it is `switching`.
    pub(crate) fn beaten(
        &self,
        owner: &str,
        switching: bool,
        progress: Option<Progress>,
    ) -> Option<Self> {
        let running = self.replay_of(owner)?;
        Some(Self {
            replaying: Some(Replaying {
                beat: running.beat.saturating_add(1),
                switching: running.switching || switching,
                progress: progress.or(running.progress),
                ..running.clone()
            }),
            ..self.clone()
        })
    }

    /// The replay that runs goes over to `owner`; to nobody, where that is empty. Whether it may have paused the version that is
    /// read is still true of it.
    pub(crate) fn taken_over(&self, owner: &str) -> Option<Self> {
        let running = self.replaying.as_ref()?;
        Some(Self {
            replaying: Some(Replaying {
                owner: owner.to_owned(),
                beat: running.beat.saturating_add(1),
                ..running.clone()
            }),
            ..self.clone()
        })
    }

    /// The replay of `owner` that has paused, or may have paused, the version that is read.
    pub(crate) fn switching_of(&self, owner: &str) -> Option<&Replaying> {
        self.replay_of(owner).filter(|running| running.switching)
    }

    /// The replay of `owner` has not paused the version that is read, or has woken it. `None` where that is said already.
    pub(crate) fn calmed(&self, owner: &str) -> Option<Self> {
        let running = self.switching_of(owner)?;
        Some(Self {
            replaying: Some(Replaying {
                switching: false,
                ..running.clone()
            }),
            ..self.clone()
        })
    }

    /// The version of the replay by `owner` is read from now on; what was read before is kept for a rollback, and what
    /// was kept before goes, unless it is what is read now.
    pub(super) fn switched(&self, owner: &str, how: Switch) -> Option<Self> {
        let running = self.replay_of(owner)?.clone();
        let retired = match running.kind {
            Kind::Build => self.retired.iter().chain(&self.previous).cloned().collect(),
            Kind::Rollback => self.retired.clone(),
        };
        // What is built because somebody asks for it is refused no more.
        let refused = self.refused.iter().filter(|it| **it != running.fingerprint);
        let refuse = how.refuse && self.fingerprint != running.fingerprint;
        let refused = refused.chain(refuse.then_some(&self.fingerprint));
        let refused: Vec<_> = refused.cloned().collect();
        let too_many = refused.len().saturating_sub(MAX_REFUSED);
        Some(Self {
            collection: running.collection,
            number: running.number,
            fingerprint: running.fingerprint,
            previous: Some(self.collection.clone()),
            previous_number: Some(self.number),
            previous_fingerprint: Some(self.fingerprint.clone()),
            keep: how.keep,
            refused: refused.into_iter().skip(too_many).collect(),
            replaying: None,
            retired,
            ..self.clone()
        })
    }

    /// The version that was kept for a rollback goes. `None` where none is kept, or a rollback to it runs.
    pub(crate) fn cleaned(&self) -> Option<Self> {
        let previous = self.previous.clone()?;
        let running = self.replaying.as_ref();
        if running.is_some_and(|running| running.kind == Kind::Rollback) {
            return None;
        }
        Some(Self {
            previous: None,
            previous_number: None,
            previous_fingerprint: None,
            keep: false,
            retired: self.retired.iter().cloned().chain([previous]).collect(),
            ..self.clone()
        })
    }

    /// The replay that runs is given up, and what it built so far goes; what it would have gone back to stays.
    pub(crate) fn given_up(&self) -> Self {
        let built = self.replaying.iter();
        let built = built.filter(|running| running.kind == Kind::Build);
        let built = built.map(|running| &running.collection);
        Self {
            replaying: None,
            retired: self.retired.iter().chain(built).cloned().collect(),
            ..self.clone()
        }
    }

    /// The retired `collection` has been dropped.
    pub(crate) fn rid_of(&self, collection: &str) -> Self {
        let left = self.retired.iter().filter(|retired| *retired != collection);
        Self {
            retired: left.cloned().collect(),
            ..self.clone()
        }
    }
}

/// Changes the alias of `view` by compare-and-set as `change` says; `None` when it wants no change, or there is no alias.
///
/// After an error the change may have been made: `change` has to recognise that when it is called again.
pub(crate) async fn change(
    store: &dyn ReadStore,
    view: &str,
    change: impl Fn(&Alias) -> Option<Alias>,
) -> Result<Option<Alias>, ReadError> {
    for _ in 0..MAX_TRIES {
        let Some(alias) = store.load_alias(view).await? else {
            return Ok(None);
        };
        let Some(next) = change(&alias) else {
            return Ok(None);
        };
        let expected = alias.revision;
        if store.compare_and_set_alias(view, expected, &next).await? {
            return Ok(Some(next));
        }
    }
    Err(ReadError::Unavailable(
        "the view's alias kept changing".into(),
    ))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn what() -> What {
        What {
            kind: Kind::Build,
            fingerprint: "b".to_owned(),
            history: HistoryId::new(Uuid::from_u128(1)),
        }
    }

    #[test]
    fn a_collection_names_its_view() {
        for view in ["post", "post_v1", "p_vx"] {
            assert_eq!(view_of(&collection(view, 12)), Some(view));
        }
        for other in ["post", "post_v", "post_vx", "post_v1x"] {
            assert_eq!(view_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_replay_builds_under_a_name_that_was_never_used() {
        let first = Alias::first("post_v1", "a");
        let begun = first.begun("post", "me", &what());
        assert_eq!(begun.replay_of("me").unwrap().collection, "post_v2");
        let again = begun.given_up().begun("post", "me", &what());
        assert_eq!(again.replay_of("me").unwrap().collection, "post_v3");
        assert_eq!(again.retired, ["post_v2"]);
        assert_eq!(again.collection, "post_v1");
    }

    #[test]
    fn a_first_version_is_opened_once_and_never_again_begun_anew() {
        let first = Alias::founded("post", "a");
        let anew = first.founded_anew("post", "post_v1", "b").unwrap();
        assert_eq!((anew.collection.as_str(), anew.number), ("post_v2", 2));
        assert_eq!((anew.fingerprint.as_str(), anew.built), ("b", false));
        assert_eq!(anew.retired, ["post_v1"]);
        assert_eq!(anew.opened("post_v1"), None);
        assert_eq!(anew.founded_anew("post", "post_v1", "a"), None);
        let open = anew.opened("post_v2").unwrap();
        assert!(open.built);
        assert_eq!(open.opened("post_v2"), None);
        assert_eq!(open.founded_anew("post", "post_v2", "a"), None);
        assert_eq!(open.begun("post", "me", &what()).last_number, 3);
    }

    #[test]
    fn a_switch_keeps_one_version_for_a_rollback() {
        let switch = |alias: &Alias| {
            alias
                .begun("post", "me", &what())
                .switched("me", Switch::default())
                .unwrap()
        };
        let second = switch(&Alias::first("post_v1", "a"));
        assert_eq!((second.collection.as_str(), second.number), ("post_v2", 2));
        assert_eq!(second.previous.as_deref(), Some("post_v1"));
        assert_eq!(
            (second.fingerprint.as_str(), second.retired.len()),
            ("b", 0)
        );
        let third = switch(&second);
        assert_eq!(third.previous.as_deref(), Some("post_v2"));
        assert_eq!(third.retired, ["post_v1"]);
        assert_eq!(third.rid_of("post_v1").retired, [""; 0]);
    }

    #[test]
    fn a_replay_that_goes_over_to_another_is_still_said_to_have_paused_until_it_is_calmed() {
        let begun = Alias::first("post_v1", "a").begun("post", "me", &what());
        assert!(what().is_built_by(begun.replay_of("me").unwrap()));
        let dead = begun.beaten("me", true, None).unwrap();
        let taken = dead.taken_over("you").unwrap();
        assert_eq!(taken.replay_of("me"), None);
        assert_eq!(taken.switching_of("you").unwrap().beat, 3);
        assert_eq!(dead.calmed("you"), None);
        let calm = taken.calmed("you").unwrap();
        assert_eq!(calm.switching_of("you"), None);
        assert_eq!(calm.calmed("you"), None);
        assert_eq!(calm.replaying.unwrap().collection, "post_v2");
    }

    #[test]
    fn nobody_goes_on_with_what_has_another_definition_or_history() {
        let begun = Alias::first("post_v1", "a").begun("post", "me", &what());
        let running = begun.replaying.unwrap();
        let other = What {
            fingerprint: "c".to_owned(),
            ..what()
        };
        assert!(!other.is_built_by(&running));
        let other = What {
            history: HistoryId::new(Uuid::from_u128(2)),
            ..what()
        };
        assert!(!other.is_built_by(&running));
    }

    #[test]
    fn a_rollback_goes_back_and_forth_between_two_versions() {
        let first = Alias::first("post_v1", "a");
        assert_eq!(first.rolling_back("me", &what()), None);
        let keep = Switch {
            keep: true,
            refuse: false,
        };
        let second = first.begun("post", "me", &what()).switched("me", keep);
        let second = second.unwrap();
        assert!(second.keep);
        let refuse = Switch {
            keep: false,
            refuse: true,
        };
        let going_back = second.rolling_back("me", &what()).unwrap();
        assert_eq!(going_back.cleaned(), None);
        assert_eq!(going_back.given_up().retired, [""; 0]);
        let back = going_back.switched("me", refuse).unwrap();
        assert_eq!((back.collection.as_str(), back.number), ("post_v1", 1));
        assert_eq!((back.fingerprint.as_str(), back.keep), ("a", false));
        assert_eq!(back.previous.as_deref(), Some("post_v2"));
        assert_eq!(back.previous_number, Some(2));
        assert_eq!(
            (back.refused.as_slice(), back.retired.len()),
            (&["b".to_owned()][..], 0)
        );
        let forth = back.rolling_back("me", &what()).unwrap();
        let forth = forth.switched("me", Switch::default()).unwrap();
        assert_eq!((forth.collection.as_str(), forth.number), ("post_v2", 2));
        assert_eq!(forth.refused, [""; 0]);
        assert_eq!(forth.begun("post", "me", &what()).last_number, 3);
        let cleaned = forth.cleaned().unwrap();
        assert_eq!(cleaned.retired, ["post_v1"]);
        assert_eq!(cleaned.rolling_back("me", &what()), None);
        assert_eq!(cleaned.cleaned(), None);
    }

    #[test]
    fn who_lost_the_replay_can_neither_beat_nor_switch() {
        let other = Alias::first("post_v1", "a").begun("post", "other", &what());
        assert_eq!(other.beaten("me", true, None), None);
        assert_eq!(other.switched("me", Switch::default()), None);
        let beaten = other.beaten("other", true, None).unwrap();
        let running = beaten.replay_of("other").unwrap();
        assert_eq!((running.beat, running.switching), (2, true));
        assert!(
            beaten
                .beaten("other", false, None)
                .unwrap()
                .replaying
                .unwrap()
                .switching
        );
    }
}
