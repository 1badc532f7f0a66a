//! The question before an action: a page of its own, so that it needs no script and is read by everybody.

use askama::Template;
use tidelog_http::Problem;

use super::asking::Asker;
use super::layout::Shell;
use super::{Page, Refusal, Site, html, nothing_here};
use crate::admin::access::not_permitted;
use crate::admin::actions::Action;

/// What is asked before an action.
#[derive(Default)]
pub(super) struct Ask {
    pub(super) title: String,
    /// What will happen, to what.
    pub(super) lines: Vec<String>,
    pub(super) fields: Vec<Field>,
    /// What is sent along.
    pub(super) hidden: Vec<(&'static str, String)>,
    pub(super) button: &'static str,
    /// Whether it cannot be taken back.
    pub(super) is_grave: bool,
    /// Where it leads who does not want it.
    pub(super) back: String,
}

/// Something to be said about an action.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
}

/// What is said.
pub(super) enum Kind {
    Text,
    Number,
    Check,
    /// One of these: what is sent, and what is read.
    Choice(&'static [(&'static str, &'static str)]),
}

impl Field {
    pub(super) const fn new(name: &'static str, label: &'static str, kind: Kind) -> Self {
        Self {
            name,
            label,
            kind,
            required: false,
        }
    }

    pub(super) const fn required(self) -> Self {
        Self {
            required: true,
            ..self
        }
    }
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct Confirm {
    shell: Shell,
    ask: Ask,
    form_token: String,
}

/// The one of `actions` that `word` stands for in an address.
pub(super) fn action(actions: &[&'static Action], word: &str) -> Result<&'static Action, Refusal> {
    let mut actions = actions.iter().copied();
    let action = actions.find(|action| action.word() == word);
    action.ok_or_else(nothing_here)
}

/// The page that asks, for those who may.
pub(super) fn page(
    site: &Site,
    asker: &Asker,
    action: &Action,
    here: &'static str,
    ask: Ask,
) -> Page {
    allowed(asker, action)?;
    html(&Confirm {
        shell: site.shell(&ask.title, here, Some(&asker.principal)),
        ask,
        form_token: asker.principal.form_token(),
    })
}

/// Whether whoever asks may do it.
pub(super) fn allowed(asker: &Asker, action: &Action) -> Result<(), Problem> {
    if asker.principal.may(action) {
        Ok(())
    } else {
        Err(not_permitted(&asker.principal, action))
    }
}
