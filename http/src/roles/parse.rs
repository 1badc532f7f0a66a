//! The rules that an operator sets, in one text.

use std::collections::BTreeMap;

use super::{Allowed, MAX_ROLE_CHARS, Operation, Rules, is_role};

/// What stands for all commands of an aggregate, all views, and every role.
const ALL: &str = "*";

/// What only a rule of the operator opens, beside commands and views.
const NAMED_HERE: [Operation<'_>; 3] = [
    Operation::Feed,
    Operation::AdminRead,
    Operation::AdminOperate,
];

/// A text that sets no rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRules {
    /// It is no `what=role|role`.
    #[error(
        "the rule {0:?} is not written as what=role|role, where a role has 1 to {MAX_ROLE_CHARS} characters and none of them is a blank"
    )]
    Form(String),
    /// It is about something that the program does not have.
    #[error("the rule is about {what}, which there is not; there are: {there_is}")]
    Unknown {
        /// What it is about.
        what: String,
        /// What rules can be about.
        there_is: String,
    },
    /// Two rules are about the same.
    #[error("two rules are about {0}: write one, with the roles of both")]
    Twice(String),
}

impl Rules {
    /// The same with the rules of `text` where it has any: `account/deposit=teller|manager, account/*=manager, transfer=manager,
    /// view/statement=auditor, view/*=reader, feed=follower, admin/read=ops, admin/operate=ops-lead`.
    ///
    /// The rule of one command or view goes before that of all (`*`), and each of them before what the program declares. The role `*`
    /// stands for every caller that is signed in.
    ///
    /// # Errors
    ///
    /// [`InvalidRules`] for the first that cannot be one, or is about nothing that there is.
    pub fn overridden_by(&self, text: &str) -> Result<Self, InvalidRules> {
        let mut exact = BTreeMap::new();
        let mut wide = BTreeMap::new();
        for rule in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            let (what, allowed) = read(rule)?;
            let group = what.strip_suffix(ALL).filter(|group| group.ends_with('/'));
            let known = match group {
                Some(group) => wide.insert(group, allowed),
                None => exact.insert(what, allowed),
            };
            if known.is_some() {
                return Err(InvalidRules::Twice(what.to_owned()));
            }
        }
        let mut rules = self.0.clone();
        for (group, allowed) in wide {
            let members = rules.iter_mut().filter(|(name, _)| name.starts_with(group));
            let mut found = false;
            for (_, member) in members {
                member.clone_from(&allowed);
                found = true;
            }
            if !found {
                return Err(self.unknown(&format!("{group}{ALL}")));
            }
        }
        for (what, allowed) in exact {
            let is_own = NAMED_HERE.iter().any(|own| own.to_string() == what);
            if !is_own && !self.0.contains_key(what) {
                return Err(self.unknown(what));
            }
            rules.insert(what.to_owned(), allowed);
        }
        Ok(Self(rules))
    }

    fn unknown(&self, what: &str) -> InvalidRules {
        let own = NAMED_HERE.iter().map(ToString::to_string);
        let there_is: Vec<String> = self.0.keys().cloned().chain(own).collect();
        InvalidRules::Unknown {
            what: what.to_owned(),
            there_is: there_is.join(", "),
        }
    }
}

/// What a rule is about, and who may.
fn read(rule: &str) -> Result<(&str, Allowed), InvalidRules> {
    let malformed = || InvalidRules::Form(rule.to_owned());
    let (what, roles) = rule.split_once('=').ok_or_else(malformed)?;
    let roles: Vec<&str> = roles.split('|').map(str::trim).collect();
    if !roles.iter().all(|role| is_role(role)) {
        return Err(malformed());
    }
    let allowed = if roles.contains(&ALL) {
        Allowed::SignedIn
    } else {
        Allowed::of(&roles)
    };
    Ok((what.trim(), allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPOSIT: Operation<'_> = Operation::Command {
        aggregate: "account",
        command: "deposit",
    };
    const CLOSE: Operation<'_> = Operation::Command {
        aggregate: "account",
        command: "close",
    };

    fn declared() -> Rules {
        Rules::declared([
            (DEPOSIT, vec!["teller"]),
            (CLOSE, vec!["teller"]),
            (Operation::Several("transfer"), vec![]),
            (Operation::View("statement"), vec![]),
            (Operation::View("account"), vec![]),
        ])
    }

    fn needed<'a>(rules: &'a Rules, operation: Operation<'_>) -> Vec<&'a str> {
        rules.needed(&operation).unwrap_or_else(|| vec!["(nobody)"])
    }

    #[test]
    fn the_narrower_rule_goes_before_the_wider_and_both_before_what_is_declared() {
        let rules = "account/*=manager, account/close = owner|manager ,view/statement=auditor, feed=follower";
        let rules = declared().overridden_by(rules).unwrap();
        assert_eq!(needed(&rules, DEPOSIT), ["manager"]);
        assert_eq!(needed(&rules, CLOSE), ["owner", "manager"]);
        assert_eq!(needed(&rules, Operation::View("statement")), ["auditor"]);
        assert!(needed(&rules, Operation::View("account")).is_empty());
        assert_eq!(needed(&rules, Operation::Feed), ["follower"]);
        assert_eq!(needed(&rules, Operation::AdminRead), ["(nobody)"]);
        assert_eq!(declared().overridden_by("").unwrap(), declared());
        let open = declared().overridden_by("account/deposit=*").unwrap();
        assert!(needed(&open, DEPOSIT).is_empty());
    }

    #[test]
    fn a_rule_about_nothing_that_there_is_says_what_there_is() {
        for rule in [
            "account/withdraw=a",
            "acount/*=a",
            "statement=a",
            "view/transfer=a",
            "admin/write=a",
            "admin/*=a",
            "*=a",
        ] {
            let error = declared().overridden_by(rule).unwrap_err().to_string();
            let (what, _) = rule.split_once('=').unwrap();
            for part in [what, "account/close", "view/statement", "admin/operate"] {
                assert!(error.contains(part), "{error}");
            }
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for rule in [
            "account/deposit",
            "account/deposit=",
            "account/deposit=a||b",
            "account/deposit=a b",
            "account/deposit=a=b",
        ] {
            let error = declared().overridden_by(rule).unwrap_err();
            assert!(matches!(error, InvalidRules::Form(_)), "{rule}: {error}");
        }
        let twice = declared().overridden_by("feed=a,feed=b").unwrap_err();
        assert_eq!(twice, InvalidRules::Twice("feed".to_owned()));
    }
}
