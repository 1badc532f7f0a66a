//! How many requests each client may send in a time.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::Extensions;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use metrics::Counter;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tidelog_domain::Tenant;

use super::places::Seat;
use super::refusals::Refusals;
use crate::caller::Caller;
use crate::problem::{Problem, ProblemKind};
use crate::rejected::rejected;
use crate::server::Peer;
use crate::sign_in::NotSignedIn;

/// The most clients that are remembered. Beyond, the one that asked longest ago is forgotten: it may begin anew.
const MAX_CLIENTS: u64 = 100_000;

/// How many requests a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    requests: NonZeroU32,
    period: Duration,
    burst: NonZeroU32,
}

impl RateLimit {
    /// Reads `100/s`, `6000/m`, or `100/s:200`, where 200 may come at once; without that, as many as the number before says. `None` for what
    /// is none, and for zero.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (rate, burst) = match text.split_once(':') {
            Some((rate, burst)) => (rate, Some(burst)),
            None => (text, None),
        };
        let (requests, unit) = rate.split_once('/')?;
        let requests = requests.parse().ok()?;
        Some(Self {
            requests,
            period: match unit {
                "s" => Duration::from_secs(1),
                "m" => Duration::from_mins(1),
                _ => return None,
            },
            burst: match burst {
                Some(burst) => burst.parse().ok()?,
                None => requests,
            },
        })
    }

    /// How long it takes until one more request may come.
    fn interval(&self) -> Duration {
        // A period in nanoseconds is far more than any number of requests.
        (self.period / self.requests.get()).max(Duration::from_nanos(1))
    }

    fn limiter(&self) -> DefaultDirectRateLimiter {
        let quota = Quota::with_period(self.interval());
        // An interval of nothing has no quota; there is none.
        let quota = quota.unwrap_or_else(|| Quota::per_second(self.requests));
        RateLimiter::direct(quota.allow_burst(self.burst))
    }

    /// After how long a client that asked nothing may do all it could at first.
    fn forgotten_after(&self) -> Duration {
        let all = self.interval().saturating_mul(self.burst.get());
        all.max(Duration::from_secs(1))
    }
}

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// A tenant, whoever asks for it.
    Tenant(Tenant),
    /// Who signed in, where there are no tenants.
    Principal(Arc<str>),
    /// One address; of IPv6 a network of 64 bits, which is one subscriber's.
    Address(IpAddr),
}

/// What the clients of a service may send, and what each of them has sent. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct Rates {
    limit: RateLimit,
    clients: Cache<Client, Arc<DefaultDirectRateLimiter>>,
    too_often: Counter,
    refusals: Refusals,
}

/// Turns down, with [`ProblemKind::RateLimited`], what a client sends to `router` beyond its rate.
///
/// A client is a tenant, else who signed in, else an address ([`Peer`], or axum's `ConnectInfo`): so the sign-in goes around this. Requests
/// without an address, which come from the process itself, are not limited.
pub fn rated(router: Router, rates: &Rates) -> Router {
    router.layer(from_fn_with_state(rates.clone(), count))
}

/// Counts, for the address that they come from, the requests of those whom `router` does not sign in, and turns down what is beyond its rate.
///
/// Who is signed in is not harmed by others with the same address, such as that of a proxy: so it is only known afterwards that a request is
/// too much. What it costs to look at wrong tokens is bounded by the pace at which those answers leave.
pub fn rated_refusals(router: Router, rates: &Rates) -> Router {
    router.layer(from_fn_with_state(rates.clone(), count_refused))
}

impl Rates {
    /// Lets each client of `service` send as much as `limit` says.
    #[must_use]
    pub fn new(service: &'static str, limit: RateLimit) -> Self {
        Self {
            limit,
            clients: Cache::builder()
                .max_capacity(MAX_CLIENTS)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_idle(limit.forgotten_after())
                .build(),
            too_often: rejected(service, "rate"),
            refusals: Refusals::new(),
        }
    }

    /// Counts a request of `client`.
    ///
    /// # Errors
    ///
    /// How long the client has to wait.
    fn count(&self, client: Client) -> Result<(), Duration> {
        let new = || Arc::new(self.limit.limiter());
        let limiter = self.clients.get_with(client, new);
        limiter
            .check()
            .map_err(|early| early.wait_time_from(DefaultClock::default().now()))
    }
}

async fn count(State(rates): State<Rates>, request: Request, next: Next) -> Response {
    let counted = client(request.extensions()).map_or(Ok(()), |client| rates.count(client));
    match counted {
        Ok(()) => next.run(request).await,
        Err(wait) => {
            let seat = request.extensions().get().cloned();
            rates.turn_down(wait, seat).await
        }
    }
}

async fn count_refused(State(rates): State<Rates>, request: Request, next: Next) -> Response {
    let address = address(request.extensions());
    let seat = request.extensions().get().cloned();
    let response = next.run(request).await;
    let is_refused = response.extensions().get::<NotSignedIn>().is_some();
    let counted = match address.filter(|_| is_refused) {
        Some(address) => rates.count(Client::of(address)),
        None => Ok(()),
    };
    match counted {
        Ok(()) => response,
        Err(wait) => rates.turn_down(wait, seat).await,
    }
}

impl Rates {
    /// Says to a client that it has to wait; until that is said its request needs no place.
    async fn turn_down(&self, wait: Duration, seat: Option<Seat>) -> Response {
        self.too_often.increment(1);
        if let Some(seat) = seat {
            seat.leave();
        }
        self.refusals.turn().await;
        too_often(wait)
    }
}

/// Who sent a request; `None` for the process itself.
fn client(extensions: &Extensions) -> Option<Client> {
    let address = address(extensions)?;
    let known = extensions.get::<Caller>().and_then(Client::known);
    Some(known.unwrap_or_else(|| Client::of(address)))
}

/// Where a request came from; `None` for the process itself.
fn address(extensions: &Extensions) -> Option<IpAddr> {
    let peer = extensions.get::<Peer>().map(|peer| peer.0);
    let connected = || extensions.get::<ConnectInfo<SocketAddr>>();
    let address = peer.or_else(|| connected().map(|connected| connected.0))?;
    Some(address.ip())
}

impl Client {
    /// Whoever has signed in; `None` where nobody does.
    pub(crate) fn known(caller: &Caller) -> Option<Self> {
        match (caller.tenant(), caller.principal()) {
            (Some(tenant), _) => Some(Self::Tenant(tenant.clone())),
            (None, Some(principal)) => Some(Self::Principal(principal.into())),
            (None, None) => None,
        }
    }

    /// Whoever comes from `address`.
    fn of(address: IpAddr) -> Self {
        Self::Address(subscriber(address))
    }
}

/// What stands for all addresses of one subscriber.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            Ipv6Addr::from_bits(network).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn too_often(wait: Duration) -> Response {
    let wait = Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
    let detail = "You sent more requests than you may. Send it again when the header Retry-After says so, and fewer.";
    Problem::new(ProblemKind::RateLimited, detail)
        .retry_after(wait)
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::header;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::body::tests::problem;
    use crate::limits::{LoadLimits, limited};
    use crate::roles::Rules;
    use crate::sign_in::{Expected, KeysFrom, Secret, SignIn, signed_in};

    async fn ask(router: &Router, address: Option<&str>) -> Response {
        let mut request = Request::get("/").body(Body::empty()).unwrap();
        if let Some(address) = address {
            let peer = Peer(SocketAddr::new(address.parse().unwrap(), 1));
            request.extensions_mut().insert(peer);
        }
        router.clone().oneshot(request).await.unwrap()
    }

    fn rates(limit: &str) -> Rates {
        Rates::new("test", RateLimit::parse(limit).unwrap())
    }

    fn service(limit: &str) -> Router {
        let router = Router::new().route("/", get("fine"));
        rated(router, &rates(limit))
    }

    #[test]
    fn a_rate_is_a_number_in_a_second_or_minute_and_maybe_a_burst() {
        let read = |text| {
            let limit = RateLimit::parse(text)?;
            Some((limit.interval().as_millis(), limit.burst.get()))
        };
        assert_eq!(read("100/s"), Some((10, 100)));
        assert_eq!(read("6000/m"), Some((10, 6000)));
        assert_eq!(read("100/s:200"), Some((10, 200)));
        for text in [
            "",
            "100",
            "0/s",
            "100/h",
            "100/s:",
            "100/s:0",
            "-1/s",
            "1/s:1:1",
            "100 /s",
            "4294967296/s",
        ] {
            assert_eq!(RateLimit::parse(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn a_client_that_asks_too_often_is_told_when_to_come_back() {
        let service = service("2/m");
        for _ in 0..2 {
            assert_eq!(ask(&service, Some("192.0.2.1")).await.status(), 200);
        }
        let refused = ask(&service, Some("192.0.2.1")).await;
        let after = &refused.headers()[header::RETRY_AFTER];
        let after: u64 = after.to_str().unwrap().parse().unwrap();
        assert!((1..=30).contains(&after), "{after}");
        let (status, document) = problem(refused).await;
        let kind = document["type"].as_str().unwrap();
        assert_eq!((status, kind), (429, "urn:tidelog:problem:rate-limited"));
    }

    #[tokio::test]
    async fn one_clients_requests_are_not_anothers() {
        let service = service("1/m");
        for (address, status) in [
            (Some("192.0.2.1"), 200),
            (Some("192.0.2.1"), 429),
            (Some("::ffff:192.0.2.1"), 429),
            (Some("192.0.2.2"), 200),
            (Some("2001:db8::1"), 200),
            (Some("2001:db8::2"), 429),
            (Some("2001:db8:0:1::1"), 200),
            (None, 200),
            (None, 200),
        ] {
            assert_eq!(ask(&service, address).await.status(), status, "{address:?}");
        }
    }

    #[tokio::test]
    async fn a_tenant_is_one_client_whoever_asks_from_wherever() {
        let service = service("1/m");
        let ask = async |caller: Caller, address: &str| {
            let address: SocketAddr = format!("{address}:1").parse().unwrap();
            let request = Request::builder().uri("/").extension(caller);
            let request = request.extension(Peer(address)).body(Body::empty());
            let response = service.clone().oneshot(request.unwrap()).await;
            response.unwrap().status().as_u16()
        };
        let of = |tenant: Option<&str>, who| {
            let tenant = tenant.map(|name| Tenant::new(name).unwrap());
            Caller::in_process(tenant, Some(who))
        };
        assert_eq!(ask(of(Some("acme"), "ann"), "192.0.2.1").await, 200);
        assert_eq!(ask(of(Some("acme"), "bob"), "192.0.2.2").await, 429);
        assert_eq!(ask(of(Some("beta"), "ann"), "192.0.2.1").await, 200);
        assert_eq!(ask(of(None, "ann"), "192.0.2.1").await, 200);
        assert_eq!(ask(of(None, "ann"), "192.0.2.3").await, 429);
        assert_eq!(ask(Caller::anybody(), "192.0.2.1").await, 200);
    }

    #[tokio::test]
    async fn those_who_are_not_signed_in_are_counted_by_address_and_harm_nobody_who_is() {
        let secret = KeysFrom::Secret(Secret::new([7; 32]));
        let expected = Expected {
            issuer: "https://issuer.example".to_owned(),
            audience: "tidelog".to_owned(),
            roles_claim: "roles".to_owned(),
            tenant_claim: None,
        };
        let sign_in = SignIn::new(&secret, expected, Rules::default()).unwrap();
        let rates = rates("2/m");
        let router = Router::new().route("/", get("fine"));
        let guarded = signed_in(rated(router, &rates), &sign_in, "test");
        let open = rated(Router::new().route("/open", get("fine")), &rates);
        let service = rated_refusals(guarded, &rates).merge(open);
        let ask = async |path: &str, caller: Option<&str>, address: &str| {
            let address: SocketAddr = format!("{address}:1").parse().unwrap();
            let request = Request::builder().uri(path).extension(Peer(address));
            let mut request = request.body(Body::empty()).unwrap();
            if let Some(caller) = caller {
                let caller = Caller::in_process(None, Some(caller));
                request.extensions_mut().insert(caller);
            }
            let response = service.clone().oneshot(request).await;
            response.unwrap().status().as_u16()
        };
        for (path, caller, address, status) in [
            ("/", None, "192.0.2.1", 401),
            ("/open", None, "192.0.2.1", 200),
            ("/", None, "192.0.2.1", 429),
            ("/open", None, "192.0.2.1", 429),
            ("/", Some("ann"), "192.0.2.1", 200),
            ("/", Some("ann"), "192.0.2.1", 200),
            ("/", Some("ann"), "192.0.2.2", 429),
            ("/", None, "192.0.2.2", 401),
        ] {
            let answered = ask(path, caller, address).await;
            assert_eq!(answered, status, "{path} {caller:?} {address}");
        }
    }

    #[tokio::test]
    async fn who_waits_to_be_turned_down_holds_no_place() {
        let limits = LoadLimits {
            max_requests: 8,
            ..LoadLimits::default()
        };
        let service = limited("test", service("1/m"), limits);
        assert_eq!(ask(&service, Some("192.0.2.1")).await.status(), 200);
        let many = (0..64).map(|_| ask(&service, Some("192.0.2.1")));
        let statuses = futures_util::future::join_all(many).await;
        assert!(statuses.iter().all(|answer| answer.status() == 429));
    }

    #[tokio::test]
    async fn who_waited_may_ask_again() {
        let service = service("50/s:1");
        assert_eq!(ask(&service, Some("192.0.2.1")).await.status(), 200);
        while ask(&service, Some("192.0.2.1")).await.status() == 429 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
