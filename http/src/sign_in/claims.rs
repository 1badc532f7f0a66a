//! What a token says, once its signature is known to be right.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use tidelog_domain::Tenant;

use super::Refused;
use crate::caller::SignedIn;
use crate::roles::MAX_ROLE_CHARS;

/// How far the clocks of an issuer and of this machine may be apart.
pub(super) const LEEWAY: Duration = Duration::from_secs(30);

/// The most characters of a principal.
const MAX_PRINCIPAL_CHARS: usize = 255;

/// The most roles of a token.
const MAX_ROLES: usize = 64;

/// The most audiences of a token.
const MAX_AUDIENCES: usize = 64;

/// The last second that a number of JSON tells exactly.
const LAST_SECOND: f64 = 9_007_199_254_740_992.0;

/// The claim that has the roles where the operator does not say.
pub const ROLES_CLAIM: &str = "roles";

/// What a token has to say to be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Who issues tokens: the claim `iss`, to the letter.
    pub issuer: String,
    /// For whom tokens are: one of the claim `aud`, to the letter.
    pub audience: String,
    /// Which claim has the roles: its name, or the names that lead to it, with dots between. [`ROLES_CLAIM`], unless said.
    pub roles_claim: String,
    /// Which claim has the tenant; `None` where there is no tenancy. Where there is, a token without one is refused.
    pub tenant_claim: Option<String>,
}

/// Reads the claims of a token at the time `now`.
pub(super) fn read(
    claims: &Map<String, Value>,
    expected: &Expected,
    now: SystemTime,
) -> Result<SignedIn, Refused> {
    if claims.get("iss").and_then(Value::as_str) != Some(&*expected.issuer) {
        return Err(Refused::Issuer);
    }
    if !is_for(claims.get("aud"), &expected.audience) {
        return Err(Refused::Audience);
    }
    let expires_at = time(claims, "exp")?.ok_or(Refused::Claims)? + LEEWAY;
    if expires_at <= now {
        return Err(Refused::Expired);
    }
    for begins in ["nbf", "iat"] {
        if time(claims, begins)?.is_some_and(|at| at > now + LEEWAY) {
            return Err(Refused::NotYet);
        }
    }
    let principal = claims.get("sub").and_then(Value::as_str);
    let principal = principal.filter(|name| {
        (1..=MAX_PRINCIPAL_CHARS).contains(&name.chars().count())
            && !name.trim().is_empty()
            && !name.chars().any(is_unseen)
    });
    let principal = principal.ok_or(Refused::Claims)?;
    let roles = roles(at(claims, &expected.roles_claim))?;
    let tenant = match &expected.tenant_claim {
        None => None,
        Some(claim) => {
            let name = at(claims, claim).and_then(Value::as_str);
            let tenant = name.and_then(|name| Tenant::new(name).ok());
            Some(tenant.ok_or(Refused::Tenant)?)
        }
    };
    Ok(SignedIn {
        principal: principal.into(),
        tenant,
        roles,
        expires_at,
    })
}

/// Whether a character is not seen, or has others read in another order: control and format characters, and separators of lines. With them one
/// name could be taken for another.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}')
}

/// Whether a token for `audience` is for us.
fn is_for(audience: Option<&Value>, ours: &str) -> bool {
    match audience {
        Some(Value::String(one)) => one == ours,
        Some(Value::Array(all)) => {
            all.len() <= MAX_AUDIENCES
                && all.iter().all(Value::is_string)
                && all.iter().any(|one| one == ours)
        }
        _ => false,
    }
}

/// The time of the claim `name`, in seconds of Unix time; fractions are dropped.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<SystemTime>, Refused> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = value
        .as_f64()
        .filter(|seconds| (0.0..=LAST_SECOND).contains(seconds));
    let since = seconds.map(|seconds| Duration::from_secs_f64(seconds.trunc()));
    let at = since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    at.map(Some).ok_or(Refused::Claims)
}

/// The claim called `path`; else what the names in `path` lead to, with dots between.
fn at<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let mut names = path.split('.');
    let first = claims.get(names.next()?)?;
    names.try_fold(first, |value, name| value.as_object()?.get(name))
}

/// The roles in a claim: a list of texts, or one text with blanks between.
fn roles(claim: Option<&Value>) -> Result<Box<[Box<str>]>, Refused> {
    let roles: Option<Vec<&str>> = match claim {
        None => Some(Vec::new()),
        Some(Value::String(text)) => Some(text.split_ascii_whitespace().collect()),
        Some(Value::Array(list)) => list.iter().map(Value::as_str).collect(),
        Some(_) => None,
    };
    let fits = |roles: &Vec<&str>| {
        let fits = |role: &&str| (1..=MAX_ROLE_CHARS).contains(&role.chars().count());
        roles.len() <= MAX_ROLES && roles.iter().all(fits)
    };
    let roles = roles.filter(fits).ok_or(Refused::Claims)?;
    Ok(roles.into_iter().map(Box::from).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn expected() -> Expected {
        Expected {
            issuer: "https://issuer.example".to_owned(),
            audience: "tidelog".to_owned(),
            roles_claim: ROLES_CLAIM.to_owned(),
            tenant_claim: None,
        }
    }

    /// Claims that are fine, with `changes`, where `null` takes one away.
    fn claims(changes: Value) -> Map<String, Value> {
        let mut claims = json!({
            "iss": "https://issuer.example", "aud": "tidelog", "sub": "ann", "exp": NOW + 60, "iat": NOW,
        });
        let claims = claims.as_object_mut().unwrap();
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.remove(name);
            } else {
                claims.insert(name.clone(), value.clone());
            }
        }
        claims.clone()
    }

    fn read_by(expected: &Expected, changes: Value) -> Result<SignedIn, Refused> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        read(&claims(changes), expected, now)
    }

    fn refused(changes: Value) -> Option<Refused> {
        read_by(&expected(), changes).err()
    }

    #[test]
    fn only_the_issuer_and_the_audience_to_the_letter_will_do() {
        for iss in [
            json!(null),
            json!("https://issuer.example/"),
            json!(["https://issuer.example"]),
            json!("HTTPS://issuer.example"),
        ] {
            assert_eq!(refused(json!({"iss": iss})), Some(Refused::Issuer));
        }
        for aud in [
            json!(null),
            json!("Tidelog"),
            json!([]),
            json!(["other"]),
            json!(["tidelog", 7]),
            json!({"tidelog": true}),
            json!(vec!["tidelog"; MAX_AUDIENCES + 1]),
        ] {
            assert_eq!(refused(json!({"aud": aud})), Some(Refused::Audience));
        }
        assert_eq!(refused(json!({"aud": ["other", "tidelog"]})), None);
    }

    #[test]
    fn a_token_counts_from_its_beginning_to_its_end_and_half_a_minute_around() {
        for (changes, outcome) in [
            (json!({"exp": NOW - 29}), None),
            (json!({"exp": NOW - 30}), Some(Refused::Expired)),
            (json!({"exp": 0}), Some(Refused::Expired)),
            (json!({"exp": NOW as f64 + 0.5}), None),
            (json!({"exp": null}), Some(Refused::Claims)),
            (json!({"exp": -1}), Some(Refused::Claims)),
            (json!({"exp": "1900000000"}), Some(Refused::Claims)),
            (json!({"exp": 1e300}), Some(Refused::Claims)),
            (json!({"exp": u64::MAX}), Some(Refused::Claims)),
            (json!({"exp": LAST_SECOND}), None),
            (json!({"nbf": NOW + 30}), None),
            (json!({"nbf": NOW + 31}), Some(Refused::NotYet)),
            (json!({"nbf": true}), Some(Refused::Claims)),
            (json!({"iat": NOW + 31}), Some(Refused::NotYet)),
            (json!({"iat": null}), None),
        ] {
            assert_eq!(refused(changes.clone()), outcome, "{changes}");
        }
    }

    #[test]
    fn somebody_has_to_be_named_in_a_way_that_can_be_printed() {
        let long = "ü".repeat(MAX_PRINCIPAL_CHARS + 1);
        for sub in [
            json!(null),
            json!(""),
            json!(" "),
            json!("\u{a0}\u{2003}"),
            json!(7),
            json!("a\nb"),
            json!("a\u{202e}b"),
            json!("a\u{200b}"),
            json!("a\u{2028}b"),
            json!("\u{feff}a"),
            json!(long),
        ] {
            let claims = json!({"sub": sub});
            assert_eq!(refused(claims), Some(Refused::Claims), "{sub:?}");
        }
        assert_eq!(refused(json!({"sub": "Ann Müller 山田"})), None);
        let sub = "ü".repeat(MAX_PRINCIPAL_CHARS);
        assert_eq!(refused(json!({"sub": sub})), None);
    }

    #[test]
    fn roles_are_a_list_or_a_text_wherever_the_operator_says() {
        let read = |claim: &str, changes| {
            let expected = Expected {
                roles_claim: claim.to_owned(),
                ..expected()
            };
            let read = read_by(&expected, changes)?;
            Ok(read.roles.join("+"))
        };
        for (claim, changes, roles) in [
            ("roles", json!({}), Ok("")),
            ("roles", json!({"roles": ["a", "b c"]}), Ok("a+b c")),
            ("scope", json!({"scope": " a  b "}), Ok("a+b")),
            ("realm.roles", json!({"realm": {"roles": ["a"]}}), Ok("a")),
            (
                "https://x.example/roles",
                json!({"https://x.example/roles": ["a"]}),
                Ok("a"),
            ),
            ("realm.roles", json!({"realm": "a"}), Ok("")),
            ("roles", json!({"roles": [7]}), Err(Refused::Claims)),
            ("roles", json!({"roles": [""]}), Err(Refused::Claims)),
            ("roles", json!({"roles": {"a": true}}), Err(Refused::Claims)),
            (
                "roles",
                json!({"roles": vec!["a"; MAX_ROLES + 1]}),
                Err(Refused::Claims),
            ),
            (
                "roles",
                json!({"roles": ["a".repeat(MAX_ROLE_CHARS + 1)]}),
                Err(Refused::Claims),
            ),
        ] {
            let roles = roles.map(str::to_owned);
            assert_eq!(read(claim, changes.clone()), roles, "{claim}: {changes}");
        }
    }

    #[test]
    fn where_there_are_tenants_a_token_has_to_name_one() {
        let tenants = Expected {
            tenant_claim: Some("org.id".to_owned()),
            ..expected()
        };
        for org in [
            json!(null),
            json!({"id": null}),
            json!({"id": ""}),
            json!({"id": "a:b"}),
            json!({"id": ["acme"]}),
            json!("acme"),
        ] {
            let read = read_by(&tenants, json!({"org": org}));
            assert_eq!(read.err(), Some(Refused::Tenant), "{org}");
        }
        let read = read_by(&tenants, json!({"org": {"id": "acme"}})).unwrap();
        assert_eq!(read.tenant, Tenant::new("acme").ok());
        // Without tenancy nobody asks.
        let read = read_by(&expected(), json!({"org": {"id": "acme"}})).unwrap();
        assert_eq!(read.tenant, None);
    }
}
