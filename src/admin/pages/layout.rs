//! What all pages share: the frame, where one is, who one is, what was just done.

use super::{Site, assets};
use crate::admin::access::Principal;
use crate::admin::actions;

/// The frame of a page.
pub(super) struct Shell {
    pub(super) app: String,
    pub(super) title: String,
    here: &'static str,
    pub(super) who: Option<Who>,
    pub(super) message: Option<&'static Message>,
    /// Whether a part of it is renewed by itself.
    pub(super) live: bool,
    pub(super) style: &'static str,
    pub(super) htmx: &'static str,
}

/// Who looks at it.
pub(super) struct Who {
    pub(super) name: String,
    pub(super) permission: &'static str,
    pub(super) reads_only: bool,
    pub(super) signed_in: bool,
    pub(super) form_token: String,
}

/// A page that every page leads to.
pub(super) struct Item {
    pub(super) name: &'static str,
    pub(super) href: &'static str,
    pub(super) is_here: bool,
}

/// The pages that every page leads to.
const PAGES: [(&str, &str); 7] = [
    ("Overview", "/admin"),
    ("Streams", "/admin/streams"),
    ("Events", "/admin/events"),
    ("Subscriptions", "/admin/subscriptions"),
    ("Set aside", "/admin/parked"),
    ("Views", "/admin/views"),
    ("Audit", "/admin/audit"),
];

/// What was just done.
pub(super) struct Message {
    code: &'static str,
    pub(super) kind: &'static str,
    pub(super) text: &'static str,
}

const fn message(code: &'static str, kind: &'static str, text: &'static str) -> Message {
    Message { code, kind, text }
}

/// All that can have been done: the address names one of them, and brings no text of its own.
static MESSAGES: [Message; 14] = [
    message(
        "paused",
        "ok",
        "It is paused. Nothing is lost: it goes on where it stands.",
    ),
    message(
        "pausing",
        "busy",
        "It is being paused: what is being handled is finished first.",
    ),
    message("resumed", "ok", "It goes on."),
    message("retried", "ok", "It was tried again, and goes on."),
    message(
        "retried-in-vain",
        "bad",
        "It was tried again and cannot be handled still: it is set aside as before.",
    ),
    message(
        "asked",
        "busy",
        "It is asked for, and done as soon as the owner of the partition gets to it.",
    ),
    message(
        "waits-for-resume",
        "busy",
        "It is asked for, and done once the subscription is resumed.",
    ),
    message(
        "skipped",
        "ok",
        "The event was skipped, and the sequence goes on.",
    ),
    message(
        "skipped-next-waits",
        "bad",
        "The event was skipped; a later one of the sequence cannot be handled either.",
    ),
    message(
        "replaying",
        "busy",
        "The replay has begun. Until it is done, the version before is read.",
    ),
    message("rolled-back", "ok", "The version before is read again."),
    message("cleaned", "ok", "The version before was let go of."),
    message(
        "restarted",
        "ok",
        "It goes on from there, with nothing set aside.",
    ),
    message("replayed", "ok", "What was asked for was replayed."),
];

impl Shell {
    /// The same, saying what was just done.
    pub(super) fn saying(self, code: Option<&str>) -> Self {
        let mut all = MESSAGES.iter();
        let message = all.find(|message| Some(message.code) == code);
        Self { message, ..self }
    }

    /// The same, of which a part is renewed by itself.
    pub(super) fn live(self) -> Self {
        Self { live: true, ..self }
    }

    /// The pages that it leads to.
    pub(super) fn nav(&self) -> impl Iterator<Item = Item> {
        PAGES.iter().map(|(name, href)| Item {
            name,
            href,
            is_here: *href == self.here,
        })
    }
}

impl Site {
    /// The frame of the page `title`, which belongs to the page at `here`.
    pub(super) fn shell(
        &self,
        title: &str,
        here: &'static str,
        principal: Option<&Principal>,
    ) -> Shell {
        let who = principal.map(|principal| Who {
            name: principal.name().to_owned(),
            permission: principal.permission().name(),
            reads_only: !principal.may(&actions::PAUSE),
            signed_in: self.access.has_sign_in(),
            form_token: principal.form_token(),
        });
        Shell {
            app: self.app.clone(),
            title: title.to_owned(),
            here,
            who,
            message: None,
            live: false,
            style: assets::STYLE,
            htmx: assets::HTMX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_messages_share_a_code() {
        let mut codes: Vec<_> = MESSAGES.iter().map(|own| own.code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), MESSAGES.len());
    }
}
