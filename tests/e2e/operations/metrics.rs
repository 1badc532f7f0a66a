//! `/metrics`, as Prometheus reads it.

use super::{Site, write};
use crate::client::Client;
use crate::services::{Role, Service};
use crate::waiting::eventually;

/// The value of one sample, whose name and labels are these.
pub(super) fn sample(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let is_it = |line: &&str| {
        line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label))
    };
    page.lines().find(is_it)?.rsplit(' ').next()?.parse().ok()
}

pub(super) async fn page(admin: &Client) -> String {
    let answer = admin.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    answer.body
}

/// Checks each line against the format: a metric has its help and type, and each sample a value.
fn assert_well_formed(page: &str) {
    let mut known = Vec::new();
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(
                name.starts_with("tidelog_") && help.ends_with('.'),
                "{line}"
            );
            assert!(!known.contains(&name), "{name} comes twice");
            known.push(name);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(Some(&name), known.last(), "{line}");
            assert!(["gauge", "counter", "histogram"].contains(&kind), "{line}");
        } else {
            // A histogram's samples have endings.
            assert!(line.starts_with(known.last().unwrap()), "{line}");
            let (_, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}

#[tokio::test]
async fn each_role_tells_what_it_does() {
    let site = Site::new().await;
    let eventbus = site.start(Role::EventBus).await;
    let query = site.start(Role::Query).await;
    for (service, role) in [
        (&site.command, "command"),
        (&eventbus, "eventbus"),
        (&query, "query"),
    ] {
        let page = page(&service.admin()).await;
        assert_well_formed(&page);
        let role = format!("role=\"{role}\"");
        assert_eq!(
            sample(&page, "tidelog_build_info", &[&role]),
            Some(1.0),
            "{page}"
        );
    }
    let page = page(&site.command.admin()).await;
    assert_eq!(
        sample(&page, "tidelog_relay_lag_events", &["partition=\"0\""]),
        Some(0.0)
    );
    assert!(!page.contains("tidelog_subscription_"), "{page}");
}

#[tokio::test]
async fn a_subscription_tells_how_far_it_is_and_who_works_on_it() {
    let service = Service::start_with(Role::Dev, &[]).await;
    for number in 0..10 {
        write(&service.commands(), &format!("p{number}")).await;
    }
    let admin = service.admin();
    let page = eventually("all partitions to be live", async || {
        let page = page(&admin).await;
        let live = |partition: u16| {
            let partition = format!("partition=\"{partition}\"");
            let labels = [
                "subscription=\"post\"",
                "kind=\"view\"",
                &partition,
                "state=\"live\"",
            ];
            sample(&page, "tidelog_subscription_state", &labels) == Some(1.0)
        };
        let is_even = |partition: u16| {
            let partition = format!("partition=\"{partition}\"");
            let of = |name| sample(&page, name, &["subscription=\"post\"", &partition]);
            of("tidelog_subscription_head_position")
                == of("tidelog_subscription_checkpoint_position")
                && of("tidelog_subscription_owned") == Some(1.0)
        };
        let done = (0..16).all(|own| live(own) && is_even(own));
        done.then_some(page.clone()).ok_or(page)
    })
    .await;
    assert_well_formed(&page);
    let heads = page.lines().filter(|line| {
        line.starts_with("tidelog_subscription_head_position{subscription=\"post\"")
    });
    let events: f64 = heads
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert_eq!(events, 10.0);
    for name in ["lag_events", "lag_seconds", "parked_sequences", "stalled"] {
        let name = format!("tidelog_subscription_{name}");
        assert_eq!(
            sample(&page, &name, &["subscription=\"post\""]),
            Some(0.0),
            "{name}"
        );
    }
    let following = ["view=\"post\"", "state=\"following\""];
    assert_eq!(sample(&page, "tidelog_view_state", &following), Some(1.0));
    let heartbeat = sample(&page, "tidelog_subscription_heartbeat_seconds", &[]);
    assert!(heartbeat.is_some_and(|seconds| seconds >= 0.0), "{page}");
}
