//! Looking at a view's alias, and clearing up what replays leave behind.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Shared, ViewsOptions};
use crate::replay::{Sign, Silence, calm_left, change, give_up, leave};
use crate::store::{Alias, ReadError};
use tidelog_domain::causes;

/// What was seen of a view's alias.
#[derive(Clone, Debug, Default)]
pub(super) enum Seen {
    /// Nobody has looked yet.
    #[default]
    Pending,
    /// There is none.
    Nothing,
    /// This.
    Alias(Arc<Alias>),
}

/// Looks after one view's alias.
#[derive(Default)]
pub(super) struct Steward {
    replay: Silence,
    /// The version before that was seen last, and since when.
    previous: Option<(String, Instant)>,
    /// Since when each collection is known to be retired.
    retired: HashMap<String, Instant>,
    /// Whether the last look failed.
    failing: bool,
}

impl Steward {
    /// Looks at the alias of `view`, and clears up where it is time. `None` when the store did not answer.
    pub(super) async fn look(&mut self, shared: &Shared, view: &str) -> Option<Seen> {
        let looked = self.try_look(shared, view).await;
        match &looked {
            Ok(_) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(
                    view,
                    error = causes(error),
                    "the view's alias cannot be looked at; trying again"
                );
            }
            Err(_) => {}
        }
        looked.ok()
    }

    async fn try_look(&mut self, shared: &Shared, view: &str) -> Result<Seen, ReadError> {
        let Some(alias) = shared.store.load_alias(view).await? else {
            return Ok(Seen::Nothing);
        };
        self.listen_to_replay(shared, view, &alias).await?;
        self.let_go_of_previous(shared, view, &alias).await?;
        self.drop_retired(shared, view, &alias).await?;
        Ok(Seen::Alias(Arc::new(alias)))
    }

    /// Takes a replay of which nothing has been heard for a whole lease away from its owner, so that the version that is read goes on
    /// at once; and gives it up when no other has gone on with it for long.
    async fn listen_to_replay(
        &mut self,
        shared: &Shared,
        view: &str,
        alias: &Alias,
    ) -> Result<(), ReadError> {
        let Some(running) = &alias.replaying else {
            return Ok(());
        };
        let ViewsOptions {
            replay,
            resume_grace,
            ..
        } = &shared.options;
        let store = &*shared.store;
        let silent_for = match self.replay.look(running) {
            Sign::Silent(time) => time,
            Sign::First | Sign::Alive => Duration::ZERO,
        };
        if running.is_left() {
            calm_left(store, view, alias).await?;
            if silent_for >= *resume_grace && give_up(store, view, alias).await? {
                tracing::warn!(view, collection = %running.collection, "nobody went on with a replay; it was cleared away");
            }
        } else if silent_for >= replay.lease && leave(store, view, alias).await? {
            tracing::warn!(view, owner = %running.owner, "a replay died; the next one goes on where it was");
        }
        Ok(())
    }

    /// Retires the version before when nobody has gone back to it for the whole grace period, unless it is to be kept.
    async fn let_go_of_previous(
        &mut self,
        shared: &Shared,
        view: &str,
        alias: &Alias,
    ) -> Result<(), ReadError> {
        let is_known = |(known, _): &(String, Instant)| alias.previous.as_ref() == Some(known);
        if !self.previous.as_ref().is_some_and(is_known) {
            let previous = alias.previous.clone();
            self.previous = previous.map(|previous| (previous, Instant::now()));
        }
        let Some((previous, since)) = &self.previous else {
            return Ok(());
        };
        if alias.keep || since.elapsed() < shared.options.rollback_grace {
            return Ok(());
        }
        let same = |now: &Alias| now.previous.as_ref() == Some(previous) && !now.keep;
        let cleaned = |now: &Alias| same(now).then(|| now.cleaned())?;
        if change(&*shared.store, view, cleaned).await?.is_some() {
            tracing::info!(view, collection = %previous, "the version before is kept no longer");
        }
        Ok(())
    }

    /// Drops what has been retired for the whole grace period.
    async fn drop_retired(
        &mut self,
        shared: &Shared,
        view: &str,
        alias: &Alias,
    ) -> Result<(), ReadError> {
        self.retired
            .retain(|collection, _| alias.retired.contains(collection));
        for collection in &alias.retired {
            let since = self.retired.entry(collection.clone());
            let since = since.or_insert_with(Instant::now);
            if since.elapsed() < shared.options.drop_grace || is_in_use(alias, collection) {
                continue;
            }
            shared.store.drop_collection(collection).await?;
            change(&*shared.store, view, |alias| Some(alias.rid_of(collection))).await?;
            tracing::info!(view, %collection, "an old version was dropped");
        }
        Ok(())
    }
}

/// Whether something still leads to `collection`: never so for a retired one, and not to be gambled with.
fn is_in_use(alias: &Alias, collection: &str) -> bool {
    let building = alias.replaying.as_ref().map(|running| &running.collection);
    alias.collection == collection
        || alias.previous.as_deref() == Some(collection)
        || building.is_some_and(|building| building == collection)
}
