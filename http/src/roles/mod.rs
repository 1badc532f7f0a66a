//! What a caller may do, by the roles that its token has.

mod parse;

use std::collections::BTreeMap;
use std::fmt;

pub use parse::InvalidRules;

/// The most characters of a role.
pub const MAX_ROLE_CHARS: usize = 128;

/// Something that one caller may do and another may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// A command to an aggregate.
    Command {
        /// The aggregate's name.
        aggregate: &'a str,
        /// The command's name.
        command: &'a str,
    },
    /// A command over several aggregates, by its name.
    Several(&'a str),
    /// Reading a view, by its name: its documents, lists, histories and what changes in them.
    View(&'a str),
    /// A request to a route that the program declares, by the subject that it goes to.
    Route(&'a str),
    /// Following the log. It has the events of all tenants, so a caller with a tenant never may.
    Feed,
    /// Looking at everything in the administration. A caller with a tenant never may.
    AdminRead,
    /// Acting in the administration, and looking.
    AdminOperate,
}

impl fmt::Display for Operation<'_> {
    /// As a rule names it: `account/deposit`, `transfer`, `view/statement`, `route/shop.price`, `feed`, `admin/read`, `admin/operate`. No two
    /// are called the same: the commands of an aggregate called `view` or `route` are `command:view/…`, a command over several called `feed` is
    /// `command:feed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command {
                aggregate: aggregate @ ("view" | "route"),
                command,
            } => write!(f, "command:{aggregate}/{command}"),
            Self::Several(name @ "feed") => write!(f, "command:{name}"),
            Self::Command { aggregate, command } => write!(f, "{aggregate}/{command}"),
            Self::Several(name) => f.write_str(name),
            Self::View(name) => write!(f, "view/{name}"),
            Self::Route(subject) => write!(f, "route/{subject}"),
            Self::Feed => f.write_str("feed"),
            Self::AdminRead => f.write_str("admin/read"),
            Self::AdminOperate => f.write_str("admin/operate"),
        }
    }
}

/// Which roles may do what.
///
/// What a program declares counts unless the operator says otherwise ([`Rules::overridden_by`]). A command or view of which nobody says
/// anything is for every caller that is signed in; the feed and the administration are for nobody. So is what the rules do not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(BTreeMap<String, Allowed>);

/// Who may do one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    /// Every caller that is signed in.
    SignedIn,
    /// Those that have one of these.
    AnyOf(Box<[Box<str>]>),
}

impl Allowed {
    fn of<R: AsRef<str>>(roles: &[R]) -> Self {
        if roles.is_empty() {
            return Self::SignedIn;
        }
        Self::AnyOf(roles.iter().map(|role| role.as_ref().into()).collect())
    }
}

impl Rules {
    /// The rules of a program that has these commands and views, each with the roles that it declares; without one it declares nothing.
    pub fn declared<'a, R: AsRef<str>>(
        operations: impl IntoIterator<Item = (Operation<'a>, Vec<R>)>,
    ) -> Self {
        let operations = operations.into_iter();
        Self(
            operations
                .map(|(operation, roles)| (operation.to_string(), Allowed::of(&roles)))
                .collect(),
        )
    }

    /// Whether a caller with these roles may do it.
    #[must_use]
    pub fn allow<R: AsRef<str>>(&self, operation: &Operation<'_>, roles: &[R]) -> bool {
        match self.0.get(&operation.to_string()) {
            Some(Allowed::SignedIn) => true,
            Some(Allowed::AnyOf(any)) => {
                let mut roles = roles.iter();
                roles.any(|role| any.iter().any(|one| **one == *role.as_ref()))
            }
            None => false,
        }
    }

    /// The roles of which a caller needs one: none where every caller that is signed in may, `None` where nobody may.
    #[must_use]
    pub fn needed(&self, operation: &Operation<'_>) -> Option<Vec<&str>> {
        match self.0.get(&operation.to_string())? {
            Allowed::SignedIn => Some(Vec::new()),
            Allowed::AnyOf(any) => Some(any.iter().map(AsRef::as_ref).collect()),
        }
    }
}

/// Whether `text` can be a role in a rule.
fn is_role(text: &str) -> bool {
    (1..=MAX_ROLE_CHARS).contains(&text.chars().count())
        && !text.contains(|c: char| c.is_control() || c.is_whitespace() || "|,=".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_spoke_of_is_for_nobody() {
        let deposit = Operation::Command {
            aggregate: "account",
            command: "deposit",
        };
        let rules = Rules::declared([(deposit, vec!["teller"]), (Operation::View("a"), vec![])]);
        assert!(rules.allow(&deposit, &["clerk", "teller"]));
        assert!(!rules.allow(&deposit, &["Teller", "tell"]));
        assert!(!rules.allow::<&str>(&deposit, &[]));
        assert!(rules.allow::<&str>(&Operation::View("a"), &[]));
        for other in [
            Operation::View("b"),
            Operation::Several("deposit"),
            Operation::Feed,
            Operation::AdminRead,
            Operation::AdminOperate,
        ] {
            assert!(!rules.allow(&other, &["teller"]), "{other}");
            assert_eq!(rules.needed(&other), None);
        }
    }

    #[test]
    fn no_two_operations_are_called_the_same() {
        let command = Operation::Command {
            aggregate: "view",
            command: "post",
        };
        for (one, other) in [
            (command, Operation::View("post")),
            (Operation::Several("feed"), Operation::Feed),
            (
                Operation::Command {
                    aggregate: "route",
                    command: "post",
                },
                Operation::Route("post"),
            ),
        ] {
            assert_ne!(one.to_string(), other.to_string());
        }
    }
}
