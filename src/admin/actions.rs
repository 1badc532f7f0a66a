//! Everything that somebody can do in the administration.

use axum::http::Request;

use crate::settings::Permission;

/// Something that can be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Action {
    /// What the record calls it.
    pub(crate) name: &'static str,
    /// What is needed for it.
    pub(crate) needs: Permission,
    /// Where it is POSTed, below `/admin`.
    pub(crate) route: &'static str,
}

macro_rules! actions {
    ($($constant:ident: $name:literal at $route:literal,)*) => {
        $(pub(crate) const $constant: Action = Action {
            name: $name,
            needs: Permission::Operate,
            route: $route,
        };)*

        /// All of them: what is POSTed elsewhere is refused.
        pub(crate) const ACTIONS: &[Action] = &[$($constant,)*];
    };
}

actions! {
    PAUSE: "subscription.pause" at "/api/subscriptions/{name}/pause",
    RESUME: "subscription.resume" at "/api/subscriptions/{name}/resume",
    RETRY: "parked.retry" at "/api/parked/{name}/retry",
    SKIP: "parked.skip" at "/api/parked/{name}/skip",
    REPLAY: "view.replay" at "/api/views/{view}/replay",
    ROLL_BACK: "view.rollback" at "/api/views/{view}/rollback",
    CLEAN: "view.clean" at "/api/views/{view}/clean",
    RESTART: "reaction.restart" at "/api/reactions/{name}/restart",
}

/// Declaring that the log has a new history: nobody can ask a running process for it.
#[cfg(feature = "cli")]
pub(crate) const NEW_HISTORY: Action = Action {
    name: "log.new-history",
    needs: Permission::Operate,
    route: "",
};

impl Action {
    /// What it is called in an address: the end of its name.
    #[cfg(feature = "pages")]
    pub(crate) fn word(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// The action that `request` asks for, if it is one, and what it is done to.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<(&'static Self, String)> {
        let path = request.uri().path();
        let path = path.strip_prefix("/admin").unwrap_or(path);
        ACTIONS.iter().find_map(|action| {
            let (before, after) = action.route.split_once('{')?;
            let (_, after) = after.split_once('}')?;
            let target = path.strip_prefix(before)?.strip_suffix(after)?;
            (!target.is_empty() && !target.contains('/')).then(|| (action, decoded(target)))
        })
    }
}

/// A part of a path as it was before it was encoded.
fn decoded(part: &str) -> String {
    // A plus is a plus in a path, and a blank in a form.
    let form = part.replace('+', "%2B");
    let pairs = url::form_urlencoded::parse(form.as_bytes());
    pairs.map(|(name, _)| name.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_known_by_its_route() {
        let of = |path: &str| {
            let request = Request::post(path).body(()).unwrap();
            Action::of(&request).map(|(action, target)| (action.name, target))
        };
        assert_eq!(
            of("/api/subscriptions/mail%40a+b/pause"),
            Some(("subscription.pause", "mail@a+b".to_owned()))
        );
        assert_eq!(
            of("/admin/api/views/post/replay?x=1"),
            Some(("view.replay", "post".to_owned()))
        );
        for path in ["/api/views//replay", "/api/views/a/b/replay", "/api/views"] {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
