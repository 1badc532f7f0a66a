//! What was checked, what was found, and what to do.

use std::fmt::Write;

use serde::Serialize;

use crate::cli::table::{coloured, tone};
use crate::settings::Settings;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Finding {
    #[serde(rename = "ok")]
    Ok,
    #[serde(rename = "warn")]
    Warn,
    #[serde(rename = "FAIL")]
    Fail,
    #[serde(rename = "skip")]
    Skip,
}

impl Finding {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
            Self::Skip => "skip",
        }
    }
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    pub(super) check: &'static str,
    pub(super) finding: Finding,
    /// What was found.
    pub(super) found: String,
    /// What to do.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

/// All checks, in the order in which they were made.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    checks: Vec<Check>,
}

impl Report {
    pub(super) fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, Finding::Ok, found, None);
    }

    pub(super) fn warn(
        &mut self,
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(check, Finding::Warn, found, Some(advice.into()));
    }

    pub(super) fn fail(
        &mut self,
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(check, Finding::Fail, found, Some(advice.into()));
    }

    pub(super) fn skip(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, Finding::Skip, found, None);
    }

    fn add(
        &mut self,
        check: &'static str,
        finding: Finding,
        found: impl Into<String>,
        advice: Option<String>,
    ) {
        self.checks.push(Check {
            check,
            finding,
            found: found.into(),
            advice,
        });
    }

    /// What the settings say that can be told from them alone.
    pub(super) fn settings(&mut self, settings: &Settings) {
        let role = settings.role.name();
        self.ok("settings", format!("they can be used, for the role {role}"));
        let address = &settings.admin_addr;
        let host = address.rsplit_once(':').map_or("", |(host, _)| host);
        let host = host.trim_matches(['[', ']']);
        let ip = host.parse::<std::net::IpAddr>();
        if host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback()) {
            self.ok(
                "admin listener",
                format!("only this machine reaches {address}"),
            );
        } else if settings.admin_tokens.is_empty() {
            self.warn(
                "admin listener",
                format!("other machines may reach {address}, and read everything there without a token"),
                "say who may by admin_tokens, or see to it that only operators reach it: a firewall, a network of its own",
            );
        } else {
            self.ok(
                "admin listener",
                format!("other machines may reach {address}, with a token; without a proxy with TLS before it tokens can be read on the way"),
            );
        }
    }

    /// How many checks were made.
    pub(super) const fn len(&self) -> usize {
        self.checks.len()
    }

    /// Whether something has to be seen to.
    pub(super) fn has_failures(&self) -> bool {
        self.checks.iter().any(|own| own.finding == Finding::Fail)
    }

    /// For programs.
    pub(super) fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(&self.checks)
    }

    /// For people: a line each, and below it what to do.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for own in &self.checks {
            let name = own.finding.name();
            let blanks = " ".repeat(6 - name.len());
            let name = coloured(name, tone(name));
            let _ = writeln!(text, "{name}{blanks}{}: {}", own.check, own.found);
            if let Some(advice) = &own.advice {
                let _ = writeln!(text, "      do: {advice}");
            }
        }
        text
    }

    #[cfg(test)]
    pub(super) fn checks(&self) -> &[Check] {
        &self.checks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_stands_below_what_was_found() {
        let mut report = Report::default();
        report.ok("log", "fine");
        report.fail("clock", "an hour off", "set it");
        let text = anstream::adapter::strip_str(&report.text()).to_string();
        assert_eq!(
            text,
            "ok    log: fine\nFAIL  clock: an hour off\n      do: set it\n"
        );
        assert!(report.has_failures());
        let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(json[1]["finding"], "FAIL");
        assert_eq!(json[0].get("do"), None);
    }

    #[test]
    fn an_admin_listener_that_others_reach_is_told_of() {
        let finding = |address: &str| {
            let mut report = Report::default();
            report.settings(&Settings {
                admin_addr: address.to_owned(),
                ..Settings::in_memory()
            });
            report.checks()[1].finding
        };
        for here in ["127.0.0.1:5050", "localhost:1", "[::1]:5050"] {
            assert_eq!(finding(here), Finding::Ok, "{here}");
        }
        for beyond in ["0.0.0.0:5050", "[::]:5050", "10.0.0.7:5050", "host:1"] {
            assert_eq!(finding(beyond), Finding::Warn, "{beyond}");
        }
    }
}
