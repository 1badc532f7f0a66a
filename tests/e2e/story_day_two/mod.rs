//! The second day: a view cannot handle an event, and the person on call sees it, deploys the fix and puts it right, while customers
//! go on. Once by the command line, and once by the pages; three processes of one program, on real servers.

mod by_command_line;
mod by_pages;
mod customers;
pub(crate) mod program;

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};
use tidelog_test_support::{OtlpReceiver, ReceivedSpan, Signal};

use crate::client::must;
use crate::log::{Row, assert_dense, read};
use crate::services::{Backends, Role, Service};
use crate::view::View;
use crate::waiting::eventually;
use customers::{Customers, Shop};
use program::program;

/// The basket whose voucher is worth more than what is in it.
const ODD: &str = "odd";

/// What a process of the release with the bug is told.
const BUG: (&str, &str) = ("BUG", "1");

/// The span of the client that sends the voucher.
const CLIENT: &str = "00f067aa0ba902b7";

/// The trace of that request, as all three processes tell of it: tries that ended the same are one line.
const TRACE: &str = "\
request (command)
  command (command)
    append (command)
      project (eventbus) failed
      relay (command)
      retry (eventbus) failed
      retry (eventbus)
request (query)
";

/// The shop, its customers, and what is told of it all.
struct Story {
    backends: Backends,
    collector: OtlpReceiver,
    /// What all processes are told beside the backends.
    settings: Vec<(&'static str, String)>,
    command: Service,
    eventbus: Service,
    query: Service,
    customers: Customers,
    /// The trace of the request whose event cannot be handled, and the token that its writer got.
    trace: String,
    token: String,
}

impl Story {
    /// Deploys the release with the bug, and lets customers in.
    async fn begin(more: &[(&'static str, &str)]) -> Self {
        let backends = Backends::fresh().await;
        let collector = OtlpReceiver::start().await;
        let mut settings = vec![
            ("TIDELOG_OTLP_ENDPOINT", collector.endpoint().to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
            // A slow machine takes in-flight requests to their end, too.
            ("TIDELOG_SHUTDOWN_GRACE", "90s".to_owned()),
        ];
        settings.extend(
            more.iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        let start = async |role| start(role, &backends, &settings, &[BUG]).await;
        let (command, eventbus, query) = (
            start(Role::Command).await,
            start(Role::EventBus).await,
            start(Role::Query).await,
        );
        let customers = Customers::begin(Shop {
            commands: command.commands(),
            queries: query.queries(),
        });
        Self {
            backends,
            collector,
            settings,
            command,
            eventbus,
            query,
            customers,
            trace: uuid::Uuid::new_v4().simple().to_string(),
            token: String::new(),
        }
    }

    /// A voucher is redeemed that is worth more than what is in the basket: the view cannot handle that. The customer goes on.
    async fn breaks(&mut self) {
        self.customers.buy(100).await;
        self.customers.fill(ODD, 500).await;
        let path = format!("/basket/{ODD}/redeem");
        let request = self.command.commands().request(Method::POST, &path);
        let request = request.header("traceparent", format!("00-{}-{CLIENT}-01", self.trace));
        let request = request.header("x-correlation-id", "a-voucher");
        let redeemed = must(request.json(&json!({"cents": 700}))).await;
        self.customers.redeemed(&redeemed, ODD, 700);
        redeemed.token().clone_into(&mut self.token);
        self.customers.add(ODD, 300).await;
        self.customers.buy(100).await;
    }

    /// Puts processes without the bug in the place of the others, one after the other, in the order of `docs/operations/upgrade.md`.
    /// Whoever is there takes what it has begun to its end.
    async fn deploy_the_fix(&mut self) {
        for role in [Role::EventBus, Role::Query, Role::Command] {
            let new = start(role, &self.backends, &self.settings, &[]).await;
            let place = match role {
                Role::EventBus => &mut self.eventbus,
                Role::Query => &mut self.query,
                _ => &mut self.command,
            };
            let mut old = std::mem::replace(place, new);
            let shop = Shop {
                commands: self.command.commands(),
                queries: self.query.queries(),
            };
            self.customers.go_to(shop).await;
            let status = old.stop(Signal::Term).await;
            assert_eq!(status, Some(0), "{}", old.process().output());
            self.customers.buy(20).await;
        }
    }

    /// Whether the view of the basket is what it would be if there had been no bug.
    async fn is_mended(&self) {
        let path = format!("/total/{ODD}");
        let request = self.query.queries().request(Method::GET, &path);
        let request = request.header("traceparent", format!("00-{}-{CLIENT}-01", self.trace));
        let request = request.header("consistency-token", &self.token);
        let total = must(request.header("prefer", "wait=30")).await.data(200);
        assert_eq!(total["cents"], 300, "{total}");
    }

    /// The customers leave. Each write that was acknowledged is in the log, and the view is the fold of that; the trace is complete.
    async fn ends_well(mut self) {
        self.customers.buy(100).await;
        let acknowledged = self.customers.end().await;
        let rows = read(&self.backends.database_url).await;
        assert_dense(&rows);
        let baskets = rows.iter().filter(|row| row.stream.starts_with("basket/"));
        let baskets: Vec<_> = baskets.collect();
        let in_log = baskets.iter().map(|row| {
            let cents = row.payload["cents"].as_u64().unwrap_or_default();
            let key = (row.id().to_owned(), row.version);
            (key, (row.event_type.as_str(), cents))
        });
        assert_eq!(in_log.collect::<BTreeMap<_, _>>(), acknowledged);

        let expected = fold(&baskets);
        let view = View::on(&self.backends).await;
        eventually("the view to equal the fold of the log", async || {
            let documents = view.documents("total").await.into_iter();
            let found = documents.map(|(id, document)| (id, Value::Object(document.state)));
            let found: BTreeMap<_, _> = found.collect();
            (found == expected)
                .then_some(())
                .ok_or_else(|| format!("{found:?} instead of {expected:?}"))
        })
        .await;
        self.assert_traced().await;
    }

    async fn assert_traced(&self) {
        eventually("the trace to be complete", async || {
            let tree = self.collector.tree(&self.trace);
            // The relay of the role `eventbus`, which is there in case that there is no other, may publish it once more.
            let mut lines: Vec<_> = tree.lines().collect();
            lines.retain(|line| !line.ends_with("relay (eventbus)"));
            lines.dedup();
            let told = lines.iter().map(|line| format!("{line}\n"));
            (told.collect::<String>() == TRACE)
                .then_some(())
                .ok_or(tree)
        })
        .await;
        let spans = self.collector.spans_of(&self.trace);
        let by = |is_it: &dyn Fn(&ReceivedSpan) -> bool| {
            let span = spans.iter().find(|span| is_it(span)).unwrap();
            span.resource["service.instance.id"].clone()
        };
        let first = by(&|span| span.name == "project");
        let last = by(&|span| span.name == "retry" && span.attribute("outcome") == "handled");
        assert_ne!(first, last, "the fix is in another process than the bug");
    }
}

/// Starts a process, and waits until it is ready.
async fn start(
    role: Role,
    backends: &Backends,
    settings: &[(&str, String)],
    more: &[(&str, &str)],
) -> Service {
    let settings = settings.iter().map(|(name, value)| (*name, value.as_str()));
    let mut all: Vec<_> = settings.chain(backends.settings()).collect();
    all.extend(more);
    let mut service = Service::launch_of(program, role, &all);
    service.ready().await;
    service
}

/// The view, made from nothing but the rows.
fn fold(rows: &[&Row]) -> BTreeMap<String, Value> {
    let mut totals: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for row in rows {
        let (total, entries) = totals.entry(row.id().to_owned()).or_default();
        let cents = row.payload["cents"].as_u64().unwrap_or_default();
        *total = match row.event_type.as_str() {
            "basket.redeemed" => total.saturating_sub(cents),
            _ => *total + cents,
        };
        *entries += 1;
    }
    let documents = totals.into_iter();
    let documents =
        documents.map(|(id, (cents, entries))| (id, json!({"cents": cents, "entries": entries})));
    documents.collect()
}
