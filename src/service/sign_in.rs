//! Who may use the services of a process: what the settings and the program say of it, and what a listener needs.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use tidelog_http::{
    Expected, InvalidRules, InvalidSource, KeysFrom, Operation, Rules, SignIn, secured,
};

use tokio::net::TcpListener;

use crate::App;
use crate::routes::{self, MessageRoute};
use crate::settings::{AuthSettings, Settings, flag, variable};

/// Settings by which nobody can sign in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSignIn {
    /// There are keys from two places.
    #[error("auth_jwks and auth_secret are both set: set the one that tokens are signed with")]
    TwoKeys,
    /// Something is missing that is needed with the keys.
    #[error("{key} is not set, which says {what}: set {env}, or {key} in tidelog.toml", env = variable(.key))]
    Missing {
        /// The setting.
        key: &'static str,
        /// What it says.
        what: &'static str,
    },
    /// There can be no keys.
    #[error("the keys that tokens are signed with cannot be had: check auth_jwks or auth_secret")]
    Keys(#[from] InvalidSource),
    /// The rules cannot be used.
    #[error("roles cannot be used")]
    Rules(#[from] InvalidRules),
    /// A listener would be open to others than this machine, and nobody signs in.
    #[error(
        "{key} listens beyond this machine, at {address}, and nobody signs in there: {advice}; or listen on 127.0.0.1; or say \
         --{} ({}=true) where something before it decides who gets here",
        flag("insecure_no_auth"),
        variable("insecure_no_auth")
    )]
    Open {
        /// The setting that names the address.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// How somebody can sign in.
        advice: &'static str,
    },
}

/// How somebody can sign in to the services.
const BY_TOKEN: &str = "set auth_jwks (or auth_secret), auth_issuer and auth_audience";

/// How somebody can sign in to the administration.
const BY_ADMIN_TOKEN: &str = "set admin_tokens, or auth_jwks, auth_issuer and auth_audience";

/// Who may use the services of `program`; `None` where nobody signs in.
pub(super) fn of(program: &App, settings: &Settings) -> Result<Option<SignIn>, InvalidSignIn> {
    let auth = &settings.auth;
    let keys = match (&auth.jwks, &auth.secret) {
        (Some(_), Some(_)) => return Err(InvalidSignIn::TwoKeys),
        (None, None) => return nobody(auth),
        (None, Some(secret)) => {
            tracing::warn!(
                "tokens are signed with a secret that is shared: right for development; else set {}",
                variable("auth_jwks")
            );
            KeysFrom::Secret(secret.clone())
        }
        (Some(place), None) => match place.parse() {
            Ok(url) if place.contains("://") => KeysFrom::Url {
                url,
                ca: settings.tls_ca.clone(),
            },
            Err(_) if place.contains("://") => return Err(InvalidSource::Url.into()),
            _ => KeysFrom::File(PathBuf::from(place)),
        },
    };
    let needed = |value: &Option<String>, key, what| {
        let value = value.clone();
        value.ok_or(InvalidSignIn::Missing { key, what })
    };
    let expected = Expected {
        issuer: needed(&auth.issuer, "auth_issuer", "who issues the tokens")?,
        audience: needed(&auth.audience, "auth_audience", "for whom the tokens are")?,
        roles_claim: auth.roles_claim.clone(),
        tenant_claim: auth.tenant_claim.clone(),
    };
    let rules = rules(program).overridden_by(auth.roles.as_deref().unwrap_or_default())?;
    Ok(Some(SignIn::new(&keys, expected, rules)?))
}

/// Nobody signs in, and nothing says that somebody should.
fn nobody(auth: &AuthSettings) -> Result<Option<SignIn>, InvalidSignIn> {
    let meant = [&auth.issuer, &auth.audience, &auth.tenant_claim];
    if meant.iter().any(|value| value.is_some()) {
        let what = "with which keys the tokens are signed";
        let key = "auth_jwks";
        return Err(InvalidSignIn::Missing { key, what });
    }
    if auth.roles.is_some() {
        tracing::warn!(
            "nobody signs in, so that the rules in {} do not count",
            variable("roles")
        );
    }
    Ok(None)
}

/// What the program declares of who may do what.
fn rules(program: &App) -> Rules {
    let commands = program.deciders().iter().flat_map(|decider| {
        let commands = decider.commands().iter();
        commands.map(|spec| {
            let operation = Operation::Command {
                aggregate: decider.category(),
                command: &spec.name,
            };
            (operation, decider.roles(&spec.name))
        })
    });
    let several = program.multi_stream_commands().iter();
    let several = several.map(|command| (Operation::Several(command.name()), command.roles()));
    let views = program.views().iter();
    let views = views.map(|view| (Operation::View(view.name()), view.roles()));
    let routes = program.message_routes().iter().map(MessageRoute::rule);
    Rules::declared(commands.chain(several).chain(views).chain(routes))
}

/// Whether these listeners, for commands, queries and the administration, may be open.
pub(super) fn require(
    [command, query, admin]: [&Option<TcpListener>; 3],
    settings: &Settings,
    sign_in: Option<&SignIn>,
) -> Result<(), InvalidSignIn> {
    let listeners = [
        ("command_addr", command),
        ("query_addr", query),
        ("admin_addr", admin),
    ];
    for (key, listener) in listeners {
        if let Some(Ok(address)) = listener.as_ref().map(TcpListener::local_addr) {
            require_at(key, address, settings, sign_in)?;
        }
    }
    Ok(())
}

/// Whether a listener at `address`, which the setting `key` names, may be open.
fn require_at(
    key: &'static str,
    address: SocketAddr,
    settings: &Settings,
    sign_in: Option<&SignIn>,
) -> Result<(), InvalidSignIn> {
    let is_admin = key == "admin_addr";
    let signs_in = sign_in.is_some() || is_admin && !settings.admin_tokens.is_empty();
    if signs_in || address.ip().is_loopback() {
        return Ok(());
    }
    if settings.auth.insecure_no_auth {
        tracing::warn!(
            %address,
            "{key} listens beyond this machine and nobody signs in: whoever reaches it may use it"
        );
        return Ok(());
    }
    let advice = if is_admin { BY_ADMIN_TOKEN } else { BY_TOKEN };
    Err(InvalidSignIn::Open {
        key,
        address,
        advice,
    })
}

/// The document of the command service, with who may do what.
pub(super) fn commands_secured(document: Value, sign_in: Option<&SignIn>) -> Value {
    let Some(sign_in) = sign_in else {
        return document;
    };
    secured(document, sign_in.rules(), |tag, id| {
        if let Some(subject) = tag.strip_prefix(routes::TAG) {
            return Operation::Route(subject);
        }
        match tag {
            "events" => Operation::Feed,
            name if name == id => Operation::Several(name),
            aggregate => {
                let command = id.strip_prefix(aggregate).unwrap_or_default();
                let command = command.trim_start_matches('.');
                Operation::Command { aggregate, command }
            }
        }
    })
}

/// The document of the query service, with who may read what.
pub(super) fn queries_secured(document: Value, sign_in: Option<&SignIn>) -> Value {
    match sign_in {
        Some(sign_in) => secured(document, sign_in.rules(), |view, _| Operation::View(view)),
        None => document,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use tidelog_eventbus::messaging::Subject;
    use tidelog_http::{ApiDocument, Secret};

    use super::*;

    fn app() -> App {
        App::new("blog").entities_from(None).unwrap()
    }

    fn signed(auth: AuthSettings) -> Settings {
        Settings {
            auth: AuthSettings {
                secret: Some(Secret::new([7; 32])),
                issuer: Some("https://issuer.example".to_owned()),
                audience: Some("blog".to_owned()),
                ..auth
            },
            ..Settings::in_memory()
        }
    }

    fn error(settings: &Settings) -> String {
        let error = of(&app(), settings).err().unwrap();
        tidelog_domain::causes(&error)
    }

    #[test]
    fn half_a_sign_in_is_none_and_says_what_is_missing() {
        assert!(of(&app(), &Settings::in_memory()).unwrap().is_none());
        let whole = signed(AuthSettings::default());
        assert!(of(&app(), &whole).unwrap().is_some());
        let changed = |change: fn(&mut AuthSettings)| {
            let mut settings = whole.clone();
            change(&mut settings.auth);
            error(&settings)
        };
        for (said, part) in [
            (changed(|auth| auth.issuer = None), "auth_issuer"),
            (changed(|auth| auth.audience = None), "auth_audience"),
            (changed(|auth| auth.secret = None), "auth_jwks"),
            (
                changed(|auth| auth.jwks = Some("a".to_owned())),
                "auth_secret",
            ),
            (
                changed(|auth| auth.secret = Some(Secret::new("short"))),
                "32 bytes",
            ),
            (
                changed(|auth| auth.roles = Some("post/publish=a".to_owned())),
                "post/create",
            ),
        ] {
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn a_listener_beyond_this_machine_needs_a_sign_in_or_to_be_told() {
        let require = |key, address: &str, settings: &Settings| {
            let sign_in = of(&app(), settings).unwrap();
            require_at(key, address.parse().unwrap(), settings, sign_in.as_ref())
        };
        let (nobody, signed) = (Settings::in_memory(), signed(AuthSettings::default()));
        for key in ["command_addr", "query_addr", "admin_addr"] {
            for address in ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1"] {
                assert!(require(key, address, &nobody).is_ok(), "{address}");
            }
            for address in ["0.0.0.0:1", "[::]:1", "10.0.0.7:1", "[::ffff:10.0.0.7]:1"] {
                let refused = require(key, address, &nobody).unwrap_err().to_string();
                for part in [key, address, "auth_jwks", "--insecure-no-auth"] {
                    assert!(refused.contains(part), "{refused}");
                }
                assert!(require(key, address, &signed).is_ok(), "{address}");
            }
        }
        let mut told = nobody.clone();
        told.auth.insecure_no_auth = true;
        assert!(require("query_addr", "0.0.0.0:1", &told).is_ok());
        let tokens = crate::settings::AdminTokens::parse("ann:read:0123456789abcdef");
        let tokens = Settings {
            admin_tokens: tokens.unwrap(),
            ..nobody
        };
        assert!(require("admin_addr", "0.0.0.0:1", &tokens).is_ok());
        assert!(require("query_addr", "0.0.0.0:1", &tokens).is_err());
    }

    #[test]
    fn the_documents_say_who_may_do_what() {
        let rules = "post/create=author, view/post=reader, feed=follower".to_owned();
        let settings = signed(AuthSettings {
            roles: Some(rules),
            ..AuthSettings::default()
        });
        let sign_in = of(&app(), &settings).unwrap();
        let app = app();
        let document = tidelog_command::command_document("blog", app.deciders(), &[]).finish();
        let commands = commands_secured(document.clone(), sign_in.as_ref());
        let roles =
            |path: &str, method: &str| commands["paths"][path][method]["x-tidelog-roles"].clone();
        assert_eq!(roles("/post", "post"), serde_json::json!(["author"]));
        assert_eq!(roles("/events", "get"), serde_json::json!(["follower"]));
        assert_eq!(roles("/post/{id}", "patch"), Value::Null);
        for status in ["401", "403"] {
            let responses = &commands["paths"]["/post/{id}"]["patch"]["responses"];
            let name = responses[status]["$ref"].as_str().unwrap();
            let place = name.trim_start_matches('#');
            assert!(commands.pointer(place).is_some(), "{name}");
        }
        let (get, watched) = (Method::GET, Subject::new("shop.watched"));
        let route = MessageRoute::send::<(), u32>(get, "/watched", &watched).roles(["watcher"]);
        let app = self::app().message_route(route);
        let sign_in = of(&app, &settings).unwrap();
        let mut routed = ApiDocument::new("blog", "");
        routes::describe(&mut routed, &app);
        let routed = commands_secured(routed.finish(), sign_in.as_ref());
        assert_eq!(
            routed["paths"]["/watched"]["get"]["x-tidelog-roles"],
            serde_json::json!(["watcher"])
        );
        let scheme = &commands["components"]["securitySchemes"]["token"];
        assert_eq!(scheme["bearerFormat"], "JWT");
        assert_eq!(commands_secured(document.clone(), None), document);
    }
}
