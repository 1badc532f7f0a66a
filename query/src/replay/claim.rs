//! The right to build a view's next version: one replay a view has it at a time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::ReplayError;
use super::alias::change;
use super::rest::wake;
use super::silence::{Sign, Silence};
use crate::store::{Alias, ReadError, ReadStore, Replaying};

/// How often a replay that runs already is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A claim that was made. It lasts while it [beats](Claim::beat).
pub(super) struct Claim {
    pub(super) store: Arc<dyn ReadStore>,
    pub(super) view: String,
    pub(super) owner: String,
    /// What is built.
    pub(super) building: Replaying,
}

/// The replay was given up by others, because nothing was heard of it for too long.
#[derive(Debug)]
pub(super) struct Lost;

impl Claim {
    /// Claims `view` for `owner`, who never claimed anything before.
    ///
    /// Where another replay runs, it is listened to: if it beats, or ends, this one is turned down; if it is silent for `lease`, it
    /// is dead, and given up for good.
    pub(super) async fn make(
        store: Arc<dyn ReadStore>,
        view: &str,
        owner: &str,
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
            match (&alias.replaying, &heard) {
                (Some(ours), _) if ours.owner == owner => {
                    return Ok(Self {
                        building: ours.clone(),
                        store,
                        view: view.to_owned(),
                        owner: owner.to_owned(),
                    });
                }
                (None, Some(other)) => return Err(running(other)),
                (None, None) => {
                    let begun = alias.begun(view, owner);
                    let expected = alias.revision;
                    store.compare_and_set_alias(view, expected, &begun).await?;
                    continue;
                }
                (Some(other), _) => match silence.look(other) {
                    Sign::Alive => return Err(running(&other.owner)),
                    Sign::Silent(time) if time >= lease => {
                        if give_up(&*store, view, &alias).await? {
                            heard = None;
                        }
                        continue;
                    }
                    Sign::First | Sign::Silent(_) => heard = Some(other.owner.clone()),
                },
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Whether the claim still stands.
    pub(super) async fn is_held(&self) -> Result<bool, ReadError> {
        let alias = self.store.load_alias(&self.view).await?;
        Ok(alias.is_some_and(|alias| alias.replay_of(&self.owner).is_some()))
    }

    /// Keeps the claim alive with a beat every `interval`; returns when it is lost.
    ///
    /// A claim that has switched is not lost, though it is gone: the answer to the switch is still to come.
    pub(super) async fn beat(&self, interval: Duration) -> Result<Infallible, Lost> {
        loop {
            sleep(interval).await;
            let beaten = change(&*self.store, &self.view, |alias| {
                alias.beaten(&self.owner, false)
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
            alias.beaten(&self.owner, true)
        })
        .await
    }

    /// Leads readers to what was built. `None` when the claim is lost.
    pub(super) async fn switch(&self, fingerprint: &str) -> Result<Option<Alias>, ReadError> {
        let switched = change(&*self.store, &self.view, |alias| {
            alias.switched(&self.owner, fingerprint)
        });
        if let Some(alias) = switched.await? {
            return Ok(Some(alias));
        }
        // It may have been made by an earlier try, whose answer was lost.
        self.load_switched().await
    }

    async fn has_switched(&self) -> Result<bool, ReadError> {
        Ok(self.load_switched().await?.is_some())
    }

    /// The alias, if it leads to what was built, or did before another replay took over.
    async fn load_switched(&self) -> Result<Option<Alias>, ReadError> {
        let built = &self.building.collection;
        let alias = self.store.load_alias(&self.view).await?;
        Ok(alias
            .filter(|alias| alias.collection == *built || alias.previous.as_ref() == Some(built)))
    }

    /// Gives the replay up: the version that is read goes on, what was built is retired.
    pub(super) async fn give_up(&self) -> Result<(), ReadError> {
        loop {
            let alias = self.store.load_alias(&self.view).await?;
            let Some(alias) = alias.filter(|alias| alias.replay_of(&self.owner).is_some()) else {
                return Ok(());
            };
            if give_up(&*self.store, &self.view, &alias).await? {
                return Ok(());
            }
        }
    }
}

/// Gives up the replay that `alias` says to run, if it has not changed meanwhile; says whether it did.
///
/// The version that is read is woken *before* the replay is cleared away: should this process die in between, the next one finds
/// the replay still there, and wakes it again.
pub(crate) async fn give_up(
    store: &dyn ReadStore,
    view: &str,
    alias: &Alias,
) -> Result<bool, ReadError> {
    if alias.replaying.as_ref().is_some_and(|r| r.switching) {
        wake(store, &alias.collection).await?;
    }
    let given_up = alias.given_up();
    store
        .compare_and_set_alias(view, alias.revision, &given_up)
        .await
}
