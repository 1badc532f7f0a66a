//! What gateways and workers need in order to start, and what is said where no worker is there.

use super::{created, gateway, post, worker};
use crate::services::{Backends, CommandLine};

on_each_bus!(a_command_that_no_worker_takes_is_told_which_to_start);

async fn a_command_that_no_worker_takes_is_told_which_to_start(backends: &Backends) {
    let posts = worker(backends, "post").await;
    let gateway = gateway(backends, &[]).await;
    let commands = gateway.commands();
    created(&commands, "/post", &post("1")).await;
    let customer =
        serde_json::json!({"name": "Ann", "email": "ann@example.org", "status": "active"});
    let unanswered = commands.post("/customer", &customer).await;
    let problem = unanswered.problem(503, "unavailable");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains("--aggregates customer"), "{detail}");
    unanswered.header("retry-after");
    // What is wrong with a command is said without a worker.
    let wrong = commands
        .post("/customer", &serde_json::json!({"x": 1}))
        .await;
    wrong.problem(422, "invalid");
    let customers = worker(backends, "customer").await;
    created(&commands, "/customer", &customer).await;
    commands.post("/post", &post("2")).await.data(201);
    // Each has run its own.
    for (worker, aggregate, other) in [(posts, "post", "customer"), (customers, "customer", "post")]
    {
        let metrics = worker.admin().get("/metrics").await.body;
        let of = |name| format!("tidelog_commands_total{{aggregate=\"{name}\"");
        assert!(
            metrics.contains(&of(aggregate)) && !metrics.contains(&of(other)),
            "{metrics}"
        );
        let handled = format!(
            "tidelog_messages_total{{subject=\"tidelog.command.{aggregate}\",group=\"tidelog.commands\",outcome=\"handled\"}}"
        );
        assert!(metrics.contains(&handled), "{metrics}");
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_with_what_to_do() {
    let backends = Backends::fresh().await;
    let servers = backends.settings();
    let nats = [("TIDELOG_BUS_URL", "ftp://localhost")];
    let serve = ["serve", "--role", "gateway"];
    for (arguments, settings, parts) in [
        (
            &serve[..],
            &[][..],
            ["TIDELOG_BUS_URL", "gateways and workers share"],
        ),
        (&serve, &nats, ["TIDELOG_BUS_URL", "redis://"]),
        (
            &["serve", "--aggregates", "post,stone"],
            &servers,
            ["\"stone\"", "post, customer"],
        ),
        (
            &["serve", "--role", "query", "--aggregates", "*"],
            &servers,
            ["role query", "--aggregates"],
        ),
    ] {
        let ended = CommandLine::new(arguments)
            .with(settings.iter().copied())
            .run()
            .await;
        assert_eq!(ended.code, Some(2), "{}", ended.output);
        for part in parts {
            assert!(ended.output.contains(part), "{part}: {}", ended.output);
        }
    }
    let ended = CommandLine::new(&["dev", "--aggregates", "*"]).run().await;
    assert_eq!(ended.code, Some(2), "{}", ended.output);
    assert!(ended.output.contains("bus_url"), "{}", ended.output);
}
