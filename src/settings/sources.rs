//! Where each setting's value comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::known::{Kind, SETTINGS, Setting};

/// The file that is read when no other is named and it is there.
pub(crate) const DEFAULT_FILE: &str = "tidelog.toml";

/// Who set a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag(String),
    /// An environment variable.
    Environment(String),
    /// A key of a file.
    File(PathBuf),
    /// Nobody: it is the default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag --{flag}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Settings that cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSettings {
    /// The file cannot be read.
    #[error("the settings file {path} cannot be read: {reason}")]
    File {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// The file has a key that is no setting.
    #[error("{path} sets `{key}`, which is not a setting; the settings are: {known}")]
    UnknownKey {
        /// Which file.
        path: String,
        /// Which key.
        key: String,
        /// The keys there are.
        known: String,
    },
    /// A value is not of its kind.
    #[error("{key} ({origin}) is not {expected}; found {found}")]
    Value {
        /// The setting's key.
        key: &'static str,
        /// Where the value came from.
        origin: Origin,
        /// What it should be.
        expected: String,
        /// What it is, secrets masked.
        found: String,
    },
    /// A value has the right form, and still cannot be used.
    #[error("{env} is {found}, which cannot be used: {reason}")]
    Unusable {
        /// The setting's key.
        key: &'static str,
        /// Its first environment variable.
        env: &'static str,
        /// What it is, secrets masked.
        found: String,
        /// Why.
        reason: String,
    },
    /// A setting that is needed has no value.
    #[error(
        "{key} is not set: {why}; set the environment variable {env}, the flag --{flag}, or the key {key} in {DEFAULT_FILE}"
    )]
    Missing {
        /// The setting's key.
        key: &'static str,
        /// Its first environment variable.
        env: &'static str,
        /// Its flag.
        flag: String,
        /// What it is needed for.
        why: String,
    },
}

/// All settings as texts, each with its origin.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    values: BTreeMap<&'static str, (String, Origin)>,
}

impl Layers {
    /// Puts the layers together: `flags` first, then `env`, then the file, then the defaults.
    ///
    /// `file` is a file that MUST be there; without it `tidelog.toml` is read when it is. An empty variable
    /// counts as unset. Files are read by programs that are built with the feature `cli`.
    ///
    /// # Errors
    ///
    /// [`InvalidSettings`] when the file cannot be read or has an unknown key.
    pub fn gather(
        flags: &BTreeMap<&'static str, String>,
        env: impl Fn(&str) -> Option<String>,
        file: Option<&Path>,
    ) -> Result<Self, InvalidSettings> {
        let file = match file {
            Some(path) => Some(path.to_path_buf()),
            None => Some(PathBuf::from(DEFAULT_FILE))
                .filter(|path| cfg!(feature = "cli") && path.exists()),
        };
        let from_file = file
            .as_deref()
            .map(read_file)
            .transpose()?
            .unwrap_or_default();
        let mut values = BTreeMap::new();
        for setting in SETTINGS {
            let found = None
                .or_else(|| {
                    flags
                        .get(setting.key)
                        .map(|value| (value.clone(), Origin::Flag(setting.flag())))
                })
                .or_else(|| from_environment(setting, &env))
                .or_else(|| from_file.get(setting.key).cloned())
                .or_else(|| {
                    setting
                        .default
                        .map(|value| (value.to_owned(), Origin::Default))
                });
            values.extend(found.map(|found| (setting.key, found)));
        }
        Ok(Self { values })
    }

    /// The value of `key` and where it came from.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<(&str, &Origin)> {
        self.values
            .get(key)
            .map(|(value, origin)| (value.as_str(), origin))
    }

    /// Forgets what the environment says of `keys`, and returns the variables that were ignored.
    #[cfg(feature = "cli")]
    pub(crate) fn ignore_environment(&mut self, keys: &[&'static str]) -> Vec<String> {
        let mut ignored = Vec::new();
        for key in keys {
            if let Some((_, Origin::Environment(name))) = self.values.get(key) {
                ignored.push(name.clone());
                self.values.remove(key);
            }
        }
        ignored
    }

    /// All settings in the table's order, each with the value to show (secrets masked) and its origin.
    pub fn shown(&self) -> impl Iterator<Item = (&'static Setting, Option<(String, &Origin)>)> {
        SETTINGS.iter().map(|setting| {
            let value = self.get(setting.key);
            (
                setting,
                value.map(|(value, origin)| (shown(setting.kind, value), origin)),
            )
        })
    }
}

/// The value as it may be shown.
pub(crate) fn shown(kind: Kind, value: &str) -> String {
    match kind {
        Kind::SecretUrl => shown_url(value),
        // How many there are tells nothing of what they are.
        Kind::Secret => vec!["***"; value.split(',').count()].join(","),
        _ => value.to_owned(),
    }
}

/// A backend's URL as it may be shown.
pub(crate) fn shown_url(value: &str) -> String {
    // With several hosts it is no URL to the letter: it is shown as one of the first, with the others put back.
    match hosts(value) {
        Some((before, first, others)) => {
            let end = before.len() + first.len() + others.len();
            let after = value.get(end..).unwrap_or_default();
            let mark = if before.ends_with('@') { "@" } else { "://" };
            let one = shown_url_of_one(&format!("{before}{first}{after}"));
            one.replacen(
                &format!("{mark}{first}"),
                &format!("{mark}{first}{others}"),
                1,
            )
        }
        None => shown_url_of_one(value),
    }
}

/// What is before the hosts of a URL that names several, the first of them, and the others with the commas before them.
fn hosts(value: &str) -> Option<(&str, &str, &str)> {
    let start = value.find("://")? + 3;
    let rest = value.get(start..)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at_checked(end)?;
    if after.contains('@') {
        // A password with a slash in it, which ends the hosts too early.
        return None;
    }
    let start = start + authority.rfind('@').map_or(0, |at| at + 1);
    let all = authority.get(authority.rfind('@').map_or(0, |at| at + 1)..)?;
    let (first, others) = all.split_at_checked(all.find(',')?)?;
    Some((value.get(..start)?, first, others))
}

/// The same for one host.
fn shown_url_of_one(value: &str) -> String {
    let Ok(mut url) = url::Url::parse(value) else {
        return "(not a URL; not shown, as it may hold a password)".to_owned();
    };
    let masked = url.password().is_none() || url.set_password(Some("***")).is_ok();
    let secrets: Vec<(String, String)> = url
        .query_pairs()
        .map(|(name, value)| {
            let secret = ["pass", "secret", "token", "key"]
                .iter()
                .any(|word| name.to_lowercase().contains(word));
            (
                name.to_string(),
                if secret {
                    "***".to_owned()
                } else {
                    value.to_string()
                },
            )
        })
        .collect();
    if !secrets.is_empty() {
        url.query_pairs_mut().clear().extend_pairs(secrets);
    }
    if masked {
        url.to_string()
    } else {
        "(not shown, as it may hold a password)".to_owned()
    }
}

/// The first of the setting's variables that has a value.
fn from_environment(
    setting: &Setting,
    env: &impl Fn(&str) -> Option<String>,
) -> Option<(String, Origin)> {
    setting.env.iter().find_map(|name| {
        let value = env(name).filter(|value| !value.is_empty())?;
        Some((value, Origin::Environment((*name).to_owned())))
    })
}

/// The settings of a file, by key.
#[cfg(feature = "cli")]
fn read_file(path: &Path) -> Result<BTreeMap<String, (String, Origin)>, InvalidSettings> {
    let unreadable = |reason: String| InvalidSettings::File {
        path: path.display().to_string(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    // The parser's own rendering would quote the line, which may hold a password.
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(0, |span| {
            text.get(..span.start).unwrap_or("").lines().count().max(1)
        });
        unreadable(format!("line {line}: {}", error.message()))
    })?;
    table
        .into_iter()
        .map(|(key, value)| file_value(path, key, &value))
        .collect()
}

/// The settings of a file, for which a parser is missing.
#[cfg(not(feature = "cli"))]
fn read_file(path: &Path) -> Result<BTreeMap<String, (String, Origin)>, InvalidSettings> {
    Err(InvalidSettings::File {
        path: path.display().to_string(),
        reason: "this program was built without the feature `cli`, which reads it".to_owned(),
    })
}

/// One key of a file.
#[cfg(feature = "cli")]
fn file_value(
    path: &Path,
    key: String,
    value: &toml::Value,
) -> Result<(String, (String, Origin)), InvalidSettings> {
    if Setting::find(&key).is_none() {
        let known = SETTINGS
            .iter()
            .map(|setting| setting.key)
            .collect::<Vec<_>>()
            .join(", ");
        return Err(InvalidSettings::UnknownKey {
            path: path.display().to_string(),
            key,
            known,
        });
    }
    let text = match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(flag) => flag.to_string(),
        other => {
            let reason = format!(
                "`{key}` is a {}; write it as a text, a number, or true or false",
                other.type_str()
            );
            return Err(InvalidSettings::File {
                path: path.display().to_string(),
                reason,
            });
        }
    };
    Ok((key, (text, Origin::File(path.to_path_buf()))))
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_flag_goes_before_the_environment_before_the_file_before_the_default() {
        let file =
            file("command_addr = \"file:1\"\nquery_addr = \"file:2\"\nadmin_addr = \"file:3\"\n");
        let flags = BTreeMap::from([("command_addr", "flag:1".to_owned())]);
        let env = |name: &str| match name {
            "TIDELOG_COMMAND_ADDR" => Some("env:1".to_owned()),
            "TIDELOG_QUERY_ADDR" => Some("env:2".to_owned()),
            "TIDELOG_ADMIN_ADDR" => Some(String::new()),
            _ => None,
        };
        let layers = Layers::gather(&flags, env, Some(file.path())).unwrap();
        let value = |key| {
            layers
                .get(key)
                .map(|(value, origin)| (value, origin.clone()))
        };
        assert_eq!(
            value("command_addr"),
            Some(("flag:1", Origin::Flag("command-addr".into())))
        );
        assert_eq!(
            value("query_addr"),
            Some(("env:2", Origin::Environment("TIDELOG_QUERY_ADDR".into())))
        );
        assert_eq!(
            value("admin_addr"),
            Some(("file:3", Origin::File(file.path().into())))
        );
        assert_eq!(value("data_dir"), Some(("tidelog-data", Origin::Default)));
        assert_eq!(value("database_url"), None);
    }

    #[test]
    fn an_alias_counts_only_where_the_first_name_is_unset() {
        let both = |name: &str| match name {
            "TIDELOG_BUS_URL" => Some("redis://one".to_owned()),
            "REDIS_URL" => Some("redis://two".to_owned()),
            _ => None,
        };
        let alias = |name: &str| (name == "REDIS_URL").then(|| "redis://two".to_owned());
        let bus = |env: &dyn Fn(&str) -> Option<String>| {
            let layers = Layers::gather(&BTreeMap::new(), env, None).unwrap();
            layers.get("bus_url").map(|(value, _)| value.to_owned())
        };
        assert_eq!(bus(&both).as_deref(), Some("redis://one"));
        assert_eq!(bus(&alias).as_deref(), Some("redis://two"));
    }

    #[test]
    fn an_unknown_key_of_the_file_is_named() {
        let file = file("databse_url = \"mysql://x\"");
        let error = Layers::gather(&BTreeMap::new(), |_| None, Some(file.path())).unwrap_err();
        assert!(error.to_string().contains("`databse_url`"), "{error}");
    }

    #[test]
    fn a_broken_file_is_named_by_its_line_and_not_quoted() {
        let file = file("log = \"info\"\ndatabase_url = \"mysql://u:hunter2@h/d\n");
        let error = Layers::gather(&BTreeMap::new(), |_| None, Some(file.path()))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("line 2") && !error.contains("hunter2"),
            "{error}"
        );
    }

    #[test]
    fn a_password_is_never_shown() {
        for secret in [
            "mysql://root:hunter2@127.0.0.1:3306/app",
            "mysql://root:hunter2@:bad",
            "redis://:hunter2@host",
            "mongodb://h/db?authMechanismProperties=x&tlsCertificateKeyFilePassword=hunter2",
            "redis+cluster://ann:hunter2@a:1,b:2/",
            "redis+cluster://ann:hunter2,a:1/b@c:1,d:2/",
            "redis+cluster://ann:1,hunter2/b@c:1,d:2/",
            "redis+cluster://ann:hun/hunter2@a:1,b:2/",
            "mongodb://ann:x,hunter2@a:1,b:2/db?password=hunter2",
        ] {
            let shown = shown(Kind::SecretUrl, secret);
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(shown(Kind::SecretUrl, "redis://host:1/"), "redis://host:1/");
        assert_eq!(
            shown(Kind::SecretUrl, "redis+cluster://ann:secret@a:1,b:2,c/"),
            "redis+cluster://ann:***@a:1,b:2,c/"
        );
        assert_eq!(
            shown(Kind::SecretUrl, "mongodb://a:1,b:2/db"),
            "mongodb://a:1,b:2/db"
        );
    }
}
