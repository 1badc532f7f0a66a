//! What every contender stores, and what is asked of it: posts, each created and then changed.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// About as much text as makes an event of 200 bytes.
const CONTENT: &str = "A hundred and twenty characters of text and a few more, about as much as fits two lines of a \
     page, so that an event has some 200 bytes";

/// A post was created: the event, and the body of the command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Created {
    pub(crate) title: String,
    pub(crate) content: String,
    pub(crate) author_name: String,
}

/// A post was changed: the event, and the body of the command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Changed {
    pub(crate) title: String,
    pub(crate) content: String,
}

/// What can be asked of a post.
#[derive(Clone, Debug)]
pub(crate) enum PostCommand {
    Create(Created),
    Change(Changed),
    /// This many events by one command: to make a long stream.
    Import(Import),
}

/// How many events are imported.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Import {
    pub(crate) events: usize,
}

/// What can happen to a post.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum PostEvent {
    Created(Created),
    Changed(Changed),
}

/// The state of a post.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Post {
    pub(crate) title: String,
    pub(crate) content: String,
    pub(crate) author_name: String,
}

/// The one rule.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("a post needs a title")]
pub(crate) struct NoTitle;

impl Post {
    /// What happens, the same for every contender.
    pub(crate) fn decide(&self, command: PostCommand) -> Result<Vec<PostEvent>, NoTitle> {
        match command {
            PostCommand::Create(post) if post.title.is_empty() => Err(NoTitle),
            PostCommand::Change(change) if change.title.is_empty() => Err(NoTitle),
            PostCommand::Create(post) => Ok(vec![PostEvent::Created(post)]),
            PostCommand::Change(change) => Ok(vec![PostEvent::Changed(change)]),
            PostCommand::Import(Import { events }) => Ok((0..events)
                .map(|n| PostEvent::Changed(changed(n)))
                .collect()),
        }
    }

    pub(crate) fn apply(&mut self, event: &PostEvent) {
        match event.clone() {
            PostEvent::Created(post) => {
                *self = Self {
                    title: post.title,
                    content: post.content,
                    author_name: post.author_name,
                }
            }
            PostEvent::Changed(change) => {
                (self.title, self.content) = (change.title, change.content);
            }
        }
    }
}

/// The creation of post `number`.
pub(crate) fn created(number: usize) -> Created {
    Created {
        title: format!("Title {number}"),
        content: CONTENT.to_owned(),
        author_name: "Ann".to_owned(),
    }
}

/// The change `number`.
pub(crate) fn changed(number: usize) -> Changed {
    Changed {
        title: format!("Title {number}, changed"),
        content: CONTENT.to_owned(),
    }
}

/// Why a command was not acknowledged.
#[derive(Debug)]
pub(crate) enum Miss {
    /// Another command came first, and nothing was written: it is sent again.
    Conflict,
    /// Anything else. It may have been written.
    Failed(String),
}

impl Miss {
    /// An error that is no conflict, with its causes.
    pub(crate) fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self::Failed(format!("{:#}", error.into()))
    }
}

/// A store of posts, opened on a database of its own.
#[async_trait]
pub(crate) trait Contender: Send + Sync {
    /// Sends one command and waits until it is acknowledged, which MUST mean that it is durable.
    async fn send(&self, id: &str, command: &PostCommand) -> Result<(), Miss>;

    /// Closes the connections.
    async fn close(&self);
}
