//! Who asks, whether the request is theirs, and what they may do. Nothing else of the administration decides that.
//!
//! Three things reach an admin listener that should not: who has no business there; a page of another site that makes the browser
//! of somebody who has send a request (CSRF); and a page that gave its own name the listener's address, so that the browser takes
//! the two for one (DNS rebinding).

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tidelog_http::{Operation, Problem, ProblemKind, Refused, SignIn, count_refused, is_own_host};
use uuid::Uuid;

use super::actions::Action;
use super::session;
#[cfg(feature = "cli")]
use crate::service::machine;
use crate::settings::{AdminToken, AdminTokens, Permission, variable};

/// The cookie of a session.
const COOKIE: &str = "tidelog_admin";

/// What a browser says of where a request comes from.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The name of whoever uses a listener without signing in.
const LOCAL: &str = "local";

/// What goes before the name of whoever signs in as to the services: so they are not taken for one who has an admin token of that name, which has no
/// colon, nor for [`LOCAL`].
const ISSUED: &str = "jwt:";

/// The most characters of a host that are repeated to a client.
const MAX_QUOTED_CHARS: usize = 64;

/// Who may use the administration of a process. Cloning gives another handle to the same.
#[derive(Clone)]
pub(crate) struct Access(Arc<Rules>);

#[derive(Clone)]
struct Rules {
    tokens: AdminTokens,
    /// Who may use the services, of whom some may use the administration.
    sign_in: Option<SignIn>,
    /// Where the process listens; `None` where its routers are mounted by somebody else, who guards them.
    listener: Option<SocketAddr>,
    /// Whether it speaks TLS.
    is_tls: bool,
    /// The host that the setting names.
    host: String,
    /// What forms are signed with where nobody signs in.
    key: [u8; 32],
}

/// Who asks for something.
#[derive(Clone)]
pub(crate) struct Principal {
    name: Arc<str>,
    permission: Permission,
    via: Via,
    /// What its forms are signed with.
    key: [u8; 32],
}

/// The way by which somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// An HTTP client.
    Api,
    /// A page.
    Page,
    /// The command line, in its own process.
    Cli,
}

impl Via {
    /// What the record calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Page => "page",
            Self::Cli => "cli",
        }
    }
}

impl Principal {
    fn new(name: &str, permission: Permission, key: [u8; 32]) -> Self {
        Self {
            name: name.into(),
            permission,
            via: Via::Api,
            key,
        }
    }

    fn of(token: &AdminToken) -> Self {
        Self::new(&token.name, token.permission, *token.key())
    }

    /// Who runs the command line, as far as the environment tells: who has the passwords of the servers needs no other.
    #[cfg(feature = "cli")]
    pub(crate) fn of_command_line() -> Self {
        let user = ["USER", "LOGNAME", "USERNAME"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
        let plain = |c: &char| c.is_ascii_alphanumeric() || "._@-".contains(*c);
        let user: String = user
            .iter()
            .flat_map(|user| user.chars())
            .filter(plain)
            .collect();
        let user = if user.is_empty() {
            "command-line"
        } else {
            &user
        };
        let name = format!("{user}@{}", machine());
        Self {
            via: Via::Cli,
            ..Self::new(&name, Permission::Operate, random_key())
        }
    }

    /// The same, asking by a page.
    #[cfg(feature = "pages")]
    pub(crate) fn by_page(&self) -> Self {
        Self {
            via: Via::Page,
            ..self.clone()
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What it may do.
    #[cfg(feature = "pages")]
    pub(crate) fn permission(&self) -> Permission {
        self.permission
    }

    /// How it asks.
    pub(crate) fn via(&self) -> Via {
        self.via
    }

    /// What its forms bring along, so that nobody else's are taken for them.
    #[cfg(feature = "pages")]
    pub(crate) fn form_token(&self) -> String {
        session::form_token(&self.key, &self.name)
    }

    /// Whether a form that brought this is its own.
    #[cfg(feature = "pages")]
    pub(crate) fn is_form_token(&self, brought: &str) -> bool {
        session::is_form_token(&self.key, &self.name, brought)
    }

    /// Whether it may do this.
    pub(crate) fn may(&self, action: &Action) -> bool {
        self.permission >= action.needs
    }
}

impl Access {
    /// For those who have one of `tokens`, at `listener`, which the setting calls `address`. Without tokens: for whoever reaches it,
    /// who may act on loopback alone.
    pub(crate) fn new(tokens: AdminTokens, address: &str, listener: Option<SocketAddr>) -> Self {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        Self(Arc::new(Rules {
            tokens,
            sign_in: None,
            listener,
            is_tls: false,
            host: host.to_ascii_lowercase(),
            key: random_key(),
        }))
    }

    /// The same, also for those of who signs in to the services whom the rules permit it. Then nobody gets in who does not sign in.
    pub(crate) fn signing_in(self, sign_in: Option<SignIn>) -> Self {
        Self(Arc::new(Rules {
            sign_in,
            ..Rules::clone(&self.0)
        }))
    }

    /// The same, where the listener speaks TLS.
    pub(crate) fn over_tls(self, is_tls: bool) -> Self {
        Self(Arc::new(Rules {
            is_tls,
            ..Rules::clone(&self.0)
        }))
    }

    /// What an operator should know of it.
    pub(crate) fn warning(&self) -> Option<String> {
        let beyond = self.0.listener.filter(|own| !own.ip().is_loopback())?;
        if self.0.is_tls && !self.is_open() {
            return None;
        }
        let mut warning = format!("the administration listens beyond this machine, at {beyond}");
        let _ = if self.is_open() {
            let variable = variable("admin_tokens");
            write!(
                warning,
                ", for reading alone: {variable} says who may do more"
            )
        } else {
            write!(
                warning,
                ", without TLS: set {} and {}, or put a proxy with TLS before it, else tokens can be read on the way",
                variable("tls_cert"),
                variable("tls_key")
            )
        };
        Some(warning)
    }

    /// Lets the sender of a request in, where it is their own.
    ///
    /// # Errors
    ///
    /// [`ProblemKind::Unauthenticated`], [`ProblemKind::Forbidden`].
    pub(crate) async fn admit(&self, parts: &Parts) -> Result<Principal, Problem> {
        // A page of another site learns nothing of who is signed in.
        if !parts.method.is_safe() {
            is_own(&parts.headers)?;
        }
        self.principal(parts).await
    }

    /// Who sends a request.
    async fn principal(&self, parts: &Parts) -> Result<Principal, Problem> {
        if self.is_open() {
            return self.local(parts);
        }
        let token = match parts.headers.get(header::AUTHORIZATION) {
            Some(value) => bearer(value).and_then(|secret| self.0.tokens.of_secret(secret)),
            None => cookie(&parts.headers)
                .and_then(|value| session::whose(value, &self.0.tokens, SystemTime::now())),
        };
        match (token, &self.0.sign_in) {
            (Some(token), _) => Ok(Principal::of(token)),
            (None, Some(sign_in)) => self.signed_in(sign_in, &parts.headers).await,
            (None, None) => Err(unauthenticated()),
        }
    }

    /// Whether nobody signs in.
    fn is_open(&self) -> bool {
        self.0.tokens.is_empty() && self.0.sign_in.is_none()
    }

    /// Who is signed in to the services, as far as the rules permit the administration.
    async fn signed_in(&self, sign_in: &SignIn, headers: &HeaderMap) -> Result<Principal, Problem> {
        let caller = sign_in.caller(headers).await;
        let caller = caller.map_err(|refused| {
            count_refused(refused, "admin");
            match refused {
                Refused::Missing => unauthenticated(),
                other => other.into(),
            }
        })?;
        let permission = match caller.may(&Operation::AdminOperate) {
            Ok(()) => Permission::Operate,
            Err(_) => {
                caller.may(&Operation::AdminRead)?;
                Permission::Read
            }
        };
        let name = format!("{ISSUED}{}", caller.principal().unwrap_or_default());
        Ok(Principal::new(&name, permission, self.0.key))
    }

    /// Whoever reaches the listener, where nobody signs in.
    fn local(&self, parts: &Parts) -> Result<Principal, Problem> {
        let Some(listener) = self.0.listener else {
            return Ok(Principal::new(LOCAL, Permission::Operate, self.0.key));
        };
        let asked = parts.headers.get_all(header::HOST).iter();
        let mut asked = asked.map(|value| value.to_str().unwrap_or_default());
        if let Some(foreign) = asked.find(|host| !self.is_own_host(host)) {
            let foreign: String = foreign.chars().take(MAX_QUOTED_CHARS).collect();
            let detail = format!(
                "This listener is not called {foreign:?}. Use its address, or localhost; or set {}, then any name will do.",
                variable("admin_tokens")
            );
            return Err(Problem::new(ProblemKind::Forbidden, detail));
        }
        let permission = if listener.ip().is_loopback() {
            Permission::Operate
        } else {
            Permission::Read
        };
        Ok(Principal::new(LOCAL, permission, self.0.key))
    }

    /// Whether this `Host` can only mean this listener.
    fn is_own_host(&self, host: &str) -> bool {
        is_own_host(host, &self.0.host)
    }

    /// Signs in whoever has this secret: who it is, and the cookie that says so from now on.
    #[cfg(feature = "pages")]
    pub(crate) fn sign_in(&self, secret: &str) -> Option<(Principal, HeaderValue)> {
        let token = self.0.tokens.of_secret(secret)?;
        let value = session::begin(token, SystemTime::now());
        let cookie = format!(
            "{COOKIE}={value}; Path=/admin; Max-Age={}; HttpOnly; SameSite=Strict{}",
            session::LIFETIME.as_secs(),
            if self.0.is_tls { "; Secure" } else { "" }
        );
        Some((Principal::of(token), HeaderValue::from_str(&cookie).ok()?))
    }

    /// Whether there is anything to sign in with.
    #[cfg(feature = "pages")]
    pub(crate) fn has_sign_in(&self) -> bool {
        !self.0.tokens.is_empty()
    }
}

/// A key of this process alone.
fn random_key() -> [u8; 32] {
    let mut key = [0; 32];
    let (first, second) = key.split_at_mut(16);
    first.copy_from_slice(Uuid::new_v4().as_bytes());
    second.copy_from_slice(Uuid::new_v4().as_bytes());
    key
}

/// The cookie that ends a session in the browser that has it.
#[cfg(feature = "pages")]
pub(crate) const NO_COOKIE: HeaderValue =
    HeaderValue::from_static("tidelog_admin=; Path=/admin; Max-Age=0; HttpOnly; SameSite=Strict");

/// Lets through the requests of those who may ask something, and says who they are.
pub(super) async fn guard(
    State(access): State<Access>,
    mut request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    match access.admit(&parts).await {
        Ok(principal) => {
            request = Request::from_parts(parts, body);
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(problem) => {
            refused(&parts, &problem);
            problem.into_response()
        }
    }
}

/// Says in the program's log that somebody was turned away. Not in the record: else anybody could fill it.
pub(crate) fn refused(parts: &Parts, problem: &Problem) {
    tracing::warn!(
        method = %parts.method,
        path = parts.uri.path(),
        why = problem.kind().name(),
        "a request to the administration was turned away"
    );
}

/// Whether a request that changes something was sent by a page of this listener, or by no page at all. Every browser says where a
/// POST comes from.
///
/// # Errors
///
/// [`ProblemKind::Forbidden`].
pub(crate) fn is_own(headers: &HeaderMap) -> Result<(), Problem> {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    let same_site = sites.all(|site| site == "same-origin");
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let same_origin = origins.all(|origin| {
        let origin = origin.as_bytes();
        let own = origin
            .strip_prefix(b"http://")
            .or_else(|| origin.strip_prefix(b"https://"));
        matches!((own, host), (Some(own), Some(host)) if own.eq_ignore_ascii_case(host))
    });
    if same_site && same_origin {
        return Ok(());
    }
    let detail = "The request was sent by a page of another site. Nothing was done.";
    Err(Problem::new(ProblemKind::Forbidden, detail))
}

/// What `principal` hears that may not do this.
pub(crate) fn not_permitted(principal: &Principal, action: &Action) -> Problem {
    let name = principal.name();
    let advice = if name == LOCAL {
        let variable = variable("admin_tokens");
        format!(
            "beyond its own machine a process lets only those do it whom {variable} gives the permission"
        )
    } else {
        format!("{name} has the permission to read alone")
    };
    let (what, needs) = (action.name, action.needs.name());
    let detail = format!("{what} needs the permission {needs}: {advice}. Nothing was done.");
    Problem::new(ProblemKind::Forbidden, detail)
}

fn unauthenticated() -> Problem {
    let detail = "Sign in with one of the tokens that the setting admin_tokens has: with the header Authorization: Bearer, or at \
                  /admin/sign-in. A token of the services' issuer will do in the header where a rule for admin/read or admin/operate says so.";
    Problem::new(ProblemKind::Unauthenticated, detail)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// The secret in `Authorization: Bearer …`.
fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, secret) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

/// The session's cookie.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::COOKIE).iter();
    let mut pairs = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs.find_map(|(name, value)| (name == COOKIE).then_some(value))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use futures_util::FutureExt;

    use super::*;
    use crate::admin::actions;

    const TOKENS: &str = "ann:operate:0123456789abcdef,wall:read:fedcba9876543210";

    fn access(tokens: &str, listener: &str) -> Access {
        let tokens = AdminTokens::parse(tokens).unwrap_or_default();
        Access::new(
            tokens,
            "admin.internal:5050",
            Some(listener.parse().unwrap()),
        )
    }

    fn admit(access: &Access, method: &str, headers: &[(&str, &str)]) -> Result<Principal, u16> {
        let mut request = Request::builder().method(method).uri("/api/views");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let admitted = access.admit(&parts).now_or_never().expect("no fetch");
        admitted.map_err(|problem| problem.status().as_u16())
    }

    fn may_operate(admitted: &Result<Principal, u16>) -> bool {
        admitted.as_ref().unwrap().may(&actions::PAUSE)
    }

    #[test]
    fn only_what_is_said_in_the_clear_is_warned_of() {
        let warning =
            |tokens, listener, is_tls| access(tokens, listener).over_tls(is_tls).warning();
        assert_eq!(warning(TOKENS, "127.0.0.1:5050", false), None);
        assert!(
            warning(TOKENS, "0.0.0.0:5050", false)
                .unwrap()
                .contains("without TLS")
        );
        assert_eq!(warning(TOKENS, "0.0.0.0:5050", true), None);
        let nobody = warning("", "0.0.0.0:5050", true).unwrap();
        assert!(nobody.contains("for reading alone"), "{nobody}");
    }

    #[cfg(feature = "pages")]
    #[test]
    fn a_session_that_began_over_tls_is_shown_over_tls_alone() {
        for (is_tls, is_secure) in [(false, false), (true, true)] {
            let access = access(TOKENS, "127.0.0.1:5050").over_tls(is_tls);
            let (_, cookie) = access.sign_in("fedcba9876543210").unwrap();
            let cookie = cookie.to_str().unwrap();
            assert_eq!(cookie.ends_with("; Secure"), is_secure, "{cookie}");
        }
    }

    #[test]
    fn whoever_reaches_a_listener_without_tokens_may_act_on_loopback_alone() {
        for (listener, may) in [
            ("127.0.0.1:5050", true),
            ("[::1]:5050", true),
            ("0.0.0.0:5050", false),
            ("10.0.0.7:5050", false),
        ] {
            let admitted = admit(&access("", listener), "POST", &[("host", "127.0.0.1:5050")]);
            assert_eq!(may_operate(&admitted), may, "{listener}");
        }
        let mounted = Access::new(AdminTokens::default(), "127.0.0.1:5050", None);
        assert!(may_operate(&admit(
            &mounted,
            "POST",
            &[("host", "own.example")]
        )));
    }

    #[test]
    fn a_name_that_is_not_the_listeners_is_refused_where_nobody_signs_in() {
        let (open, signed) = (
            access("", "127.0.0.1:5050"),
            access(TOKENS, "127.0.0.1:5050"),
        );
        for host in [
            "localhost:5050",
            "LocalHost",
            "127.0.0.1:5050",
            "[::1]:5050",
            "10.1.2.3",
            "admin.internal:8080",
        ] {
            assert!(admit(&open, "GET", &[("host", host)]).is_ok(), "{host}");
        }
        for host in [
            "evil.example:5050",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            "127.0.0.1:5050@evil.example",
        ] {
            let admitted = admit(&open, "GET", &[("host", host)]);
            assert_eq!(admitted.err(), Some(403), "{host}");
        }
        let bearer = [
            ("host", "behind.a.proxy"),
            ("authorization", "Bearer 0123456789abcdef"),
        ];
        assert!(may_operate(&admit(&signed, "POST", &bearer)));
    }

    #[test]
    fn with_tokens_only_those_who_have_one_get_in() {
        let access = access(TOKENS, "127.0.0.1:5050");
        let with = |value| {
            admit(
                &access,
                "GET",
                &[("host", "localhost"), ("authorization", value)],
            )
        };
        assert!(may_operate(&with("bearer 0123456789abcdef")));
        assert!(!may_operate(&with("Bearer fedcba9876543210")));
        for value in [
            "Bearer 0123456789abcdeF",
            "Basic 0123456789abcdef",
            "Bearer",
            "",
        ] {
            assert_eq!(with(value).err(), Some(401), "{value}");
        }
        assert_eq!(
            admit(&access, "GET", &[("host", "localhost")]).err(),
            Some(401)
        );
    }

    #[cfg(feature = "pages")]
    #[test]
    fn a_session_is_as_good_as_its_token() {
        let access = access(TOKENS, "127.0.0.1:5050");
        assert!(access.sign_in("fedcba987654321").is_none());
        let (who, cookie) = access.sign_in("fedcba9876543210").unwrap();
        let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
        let cookies = format!("theme=dark; {cookie}");
        let admitted = admit(
            &access,
            "GET",
            &[("host", "localhost"), ("cookie", &cookies)],
        );
        let admitted = admitted.ok().unwrap();
        assert_eq!(
            (admitted.name(), admitted.may(&actions::SKIP)),
            ("wall", false)
        );
        assert!(admitted.is_form_token(&who.form_token()));
        assert!(!admitted.is_form_token(""));
        let forged = cookies.replace("wall", "ann");
        let forged = admit(
            &access,
            "GET",
            &[("host", "localhost"), ("cookie", &forged)],
        );
        assert_eq!(forged.err(), Some(401));
    }

    #[test]
    fn what_another_sites_page_sends_is_refused() {
        let access = access("", "127.0.0.1:5050");
        let send = |headers: &[(&str, &str)]| {
            let mut all = vec![("host", "127.0.0.1:5050")];
            all.extend(headers);
            admit(&access, "POST", &all).err()
        };
        assert_eq!(send(&[]), None);
        assert_eq!(send(&[("sec-fetch-site", "same-origin")]), None);
        assert_eq!(send(&[("origin", "http://127.0.0.1:5050")]), None);
        assert_eq!(send(&[("sec-fetch-site", "none")]), Some(403));
        for site in ["cross-site", "same-site"] {
            assert_eq!(send(&[("sec-fetch-site", site)]), Some(403), "{site}");
        }
        for origin in [
            "null",
            "http://evil.example",
            "http://127.0.0.1:5051",
            "127.0.0.1:5050",
        ] {
            assert_eq!(send(&[("origin", origin)]), Some(403), "{origin}");
        }
        // Reading is no action.
        let read = admit(
            &access,
            "GET",
            &[("host", "127.0.0.1:5050"), ("sec-fetch-site", "cross-site")],
        );
        assert!(read.is_ok());
    }
}
