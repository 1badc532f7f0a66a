//! The right to build a view's next version: one replay a view has it at a time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidelog_eventbus::{Permission, StateError};
use tokio::time::sleep;

use super::ReplayError;
use super::alias::{Switch, What, change};
use super::progress::Meter;
use super::rest::wake;
use super::silence::{Sign, Silence};
use crate::store::{Alias, Kind, ReadError, ReadStore, Replaying};

/// How often a replay that runs already is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How often a replay is calmed that changes meanwhile.
const MAX_TRIES: usize = 8;

/// The owner of a replay that nobody runs.
const NOBODY: &str = "";

/// A claim that was made. It lasts while it [beats](Claim::beat).
#[derive(Clone)]
pub(super) struct Claim {
    pub(super) store: Arc<dyn ReadStore>,
    pub(super) view: String,
    pub(super) owner: String,
    /// What is built.
    pub(super) building: Replaying,
    /// What comes with the switch.
    switch: Switch,
}

/// The replay was given up by others, because nothing was heard of it for too long.
#[derive(Debug)]
pub(super) struct Lost;

impl Claim {
    /// Claims `view` for `owner`, who never claimed anything before, to build `what`; `switch` comes with it.
    ///
    /// Where another replay runs, it is listened to: if it beats, or ends, this one is turned down; if it is silent for `lease`, it
    /// is dead. What it built so far is gone on with if it is the same, and else given up for good.
    pub(super) async fn make(
        store: Arc<dyn ReadStore>,
        view: &str,
        owner: &str,
        what: &What,
        switch: Switch,
        lease: Duration,
    ) -> Result<Self, ReplayError> {
        let mut silence = Silence::default();
        let mut heard: Option<String> = None;
        let running = |owner: &str| ReplayError::AlreadyRunning {
            view: view.to_owned(),
            owner: owner.to_owned(),
        };
        loop {
            let alias = store.load_alias(view).await?;
            let alias = alias
                .filter(|alias| alias.built)
                .ok_or_else(|| ReplayError::NotBuilt {
                    view: view.to_owned(),
                })?;
            let Some(other) = &alias.replaying else {
                if let Some(other) = heard {
                    return Err(running(&other));
                }
                let begun = match what.kind {
                    Kind::Build => alias.begun(view, owner, what),
                    Kind::Rollback => alias.rolling_back(owner, what).ok_or_else(|| {
                        ReplayError::NothingBefore {
                            view: view.to_owned(),
                        }
                    })?,
                };
                let expected = alias.revision;
                store.compare_and_set_alias(view, expected, &begun).await?;
                continue;
            };
            if other.owner == owner {
                let building = other.clone();
                calm(&*store, view, owner).await?;
                return Ok(Self {
                    building,
                    store,
                    view: view.to_owned(),
                    owner: owner.to_owned(),
                    switch,
                });
            }
            let is_free = other.is_left()
                || match silence.look(other) {
                    Sign::Alive => return Err(running(&other.owner)),
                    Sign::Silent(time) => time >= lease,
                    Sign::First => false,
                };
            if !is_free {
                heard = Some(other.owner.clone());
                sleep(LOOK_EVERY).await;
                continue;
            }
            heard = None;
            if !what.is_built_by(other) {
                give_up(&*store, view, &alias).await?;
            } else if let Some(ours) = alias.taken_over(owner) {
                tracing::info!(view, collection = %other.collection, "a replay goes on with what another one left");
                let expected = alias.revision;
                store.compare_and_set_alias(view, expected, &ours).await?;
            }
        }
    }

    /// Wakes the version before, which came to rest when readers were led away from it: to go back to it.
    pub(super) async fn wake_building(&self) -> Result<(), ReadError> {
        let is_ours = |alias: &Alias| alias.replay_of(&self.owner).is_some();
        wake(&*self.store, &self.view, &self.building.collection, is_ours).await
    }

    /// Whether the claim still stands.
    pub(super) async fn is_held(&self) -> Result<bool, ReadError> {
        let alias = self.store.load_alias(&self.view).await?;
        Ok(alias.is_some_and(|alias| alias.replay_of(&self.owner).is_some()))
    }

    /// Keeps the claim alive with a beat every `interval`, which says what `meter` does; returns when it is lost.
    ///
    /// A claim that has switched is not lost, though it is gone: the answer to the switch is still to come.
    pub(super) async fn beat(&self, interval: Duration, meter: &Meter) -> Result<Infallible, Lost> {
        loop {
            sleep(interval).await;
            let progress = Some(meter.progress());
            let beaten = change(&*self.store, &self.view, |alias| {
                alias.beaten(&self.owner, false, progress)
            });
            let held = match beaten.await {
                Ok(Some(_)) => Ok(true),
                Ok(None) => self.has_switched().await,
                Err(error) => Err(error),
            };
            match held {
                Ok(true) => {}
                Ok(false) => return Err(Lost),
                // It may be heard again before the lease is over; if not, the next step finds out.
                Err(error) => {
                    tracing::debug!(view = self.view, %error, "a replay could not say that it lives")
                }
            }
        }
    }

    /// Says that from now on the version that is read may be paused. `None` when the claim is lost.
    pub(super) async fn begin_to_switch(&self) -> Result<Option<Alias>, ReadError> {
        change(&*self.store, &self.view, |alias| {
            alias.beaten(&self.owner, true, None)
        })
        .await
    }

    /// Leads readers to what was built. `None` when the claim is lost.
    pub(super) async fn switch(&self) -> Result<Option<Alias>, ReadError> {
        let switched = change(&*self.store, &self.view, |alias| {
            alias.switched(&self.owner, self.switch)
        });
        if let Some(alias) = switched.await? {
            return Ok(Some(alias));
        }
        // It may have been made by an earlier try, whose answer was lost; or by who went on with what we had built.
        self.load_switched().await
    }

    async fn has_switched(&self) -> Result<bool, ReadError> {
        Ok(self.load_switched().await?.is_some())
    }

    /// The alias, if it leads to what was built, or did before another replay took over.
    async fn load_switched(&self) -> Result<Option<Alias>, ReadError> {
        let built = &self.building.collection;
        let alias = self.store.load_alias(&self.view).await?;
        Ok(alias.filter(|alias| match self.building.kind {
            Kind::Build => alias.collection == *built || alias.previous.as_ref() == Some(built),
            // It was the version before from the beginning.
            Kind::Rollback => alias.collection == *built,
        }))
    }

    /// Leaves the replay to whoever goes on with it: the version that is read goes on, what was built stays for a while.
    pub(super) async fn leave(&self) -> Result<(), ReadError> {
        let left = change(&*self.store, &self.view, |alias| {
            alias.replay_of(&self.owner)?;
            alias.taken_over(NOBODY)
        });
        left.await?;
        calm(&*self.store, &self.view, NOBODY).await
    }

    /// Gives the replay up: the version that is read goes on, what was built is retired.
    pub(super) async fn give_up(&self) -> Result<(), ReadError> {
        // A name of its own, so that nothing that is still on its way by the old one counts any more.
        let leaving = format!("{} (giving up)", self.owner);
        let taken = change(&*self.store, &self.view, |alias| {
            alias.replay_of(&self.owner)?;
            alias.taken_over(&leaving)
        });
        taken.await?;
        calm(&*self.store, &self.view, &leaving).await?;
        change(&*self.store, &self.view, |alias| {
            alias.replay_of(&leaving)?;
            Some(alias.given_up())
        })
        .await?;
        Ok(())
    }
}

/// While the claim stands, what is built may be worked on.
#[async_trait]
impl Permission for Claim {
    async fn is_granted(&self) -> Result<bool, StateError> {
        let held = self.is_held().await;
        held.map_err(|error| StateError::Unavailable(Box::new(error)))
    }
}

/// Takes the replay that `alias` says to run away from its owner, who is dead, if it has not changed meanwhile; says whether it
/// did. The version that is read goes on, and another replay may go on with what was built.
pub(crate) async fn leave(
    store: &dyn ReadStore,
    view: &str,
    alias: &Alias,
) -> Result<bool, ReadError> {
    if let Some(left) = alias.taken_over(NOBODY)
        && !store
            .compare_and_set_alias(view, alias.revision, &left)
            .await?
    {
        return Ok(false);
    }
    calm(store, view, NOBODY).await?;
    Ok(true)
}

/// Gives up the replay that `alias` says to run, whose owner is dead, if nobody has taken it over meanwhile; says whether it did.
pub(crate) async fn give_up(
    store: &dyn ReadStore,
    view: &str,
    alias: &Alias,
) -> Result<bool, ReadError> {
    if !leave(store, view, alias).await? {
        return Ok(false);
    }
    let given_up = change(store, view, |now| {
        let left = now.replay_of(NOBODY)?;
        let same = alias.replaying.as_ref()?.collection == left.collection;
        (same && !left.switching).then(|| now.given_up())
    });
    Ok(given_up.await?.is_some())
}

/// Wakes the version that is read, where a replay that is `owner`'s now may have paused it.
///
/// That is said of the replay until all is awake: should this process die in between, the next one finds it, and wakes it again. And the
/// replay has its new owner *before* the first record is woken, so that the old one, should it live, pauses none after that. The beat
/// goes up with each new owner: who was slow says of no later one that all is awake.
async fn calm(store: &dyn ReadStore, view: &str, owner: &str) -> Result<(), ReadError> {
    for _ in 0..MAX_TRIES {
        let alias = store.load_alias(view).await?;
        let Some((alias, running)) = alias
            .as_ref()
            .and_then(|alias| Some((alias, alias.switching_of(owner)?)))
        else {
            return Ok(());
        };
        let beat = running.beat;
        let is_same = |now: &Alias| {
            let running = now.switching_of(owner);
            running.is_some_and(|running| running.beat == beat)
        };
        wake(store, view, &alias.collection, is_same).await?;
        let calmed = |now: &Alias| is_same(now).then(|| now.calmed(owner))?;
        change(store, view, calmed).await?;
    }
    Err(ReadError::Unavailable(
        "the replay of the view kept changing".into(),
    ))
}

/// Wakes the version that is read where `alias` says that a replay, which nobody runs, may have paused it.
pub(crate) async fn calm_left(
    store: &dyn ReadStore,
    view: &str,
    alias: &Alias,
) -> Result<(), ReadError> {
    match alias.switching_of(NOBODY) {
        Some(_) => calm(store, view, NOBODY).await,
        None => Ok(()),
    }
}
