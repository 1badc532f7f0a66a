//! Commands through a gateway: the answers of the command service, from workers that may die.

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Client, send};
use crate::services::{Backends, Role, Service};
use crate::waiting::eventually;

/// Makes two tests of each function, which takes backends: with a part of the shared Redis as the bus, and with a NATS of its own, which has no
/// parts that would keep apart programs of one name.
macro_rules! on_each_bus {
    ($($case:ident),+ $(,)?) => {
        mod with_redis {
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case(&crate::services::Backends::for_a_gateway().await).await;
                }
            )+
        }

        mod faults {
            mod with_nats {
                use crate::services::Backends;

                $(
                    #[tokio::test]
                    async fn $case() {
                        let nats = tidelog_test_support::Engine::Nats;
                        let (_nats, backends) = Backends::with_a_bus_of_its_own(nats).await;
                        super::super::$case(&backends).await;
                    }
                )+
            }
        }
    };
}

mod answers;
mod described;
mod faults;
pub(crate) mod routes;
mod starting;

/// A gateway to the workers on the bus of `backends`, which knows nothing else of them.
async fn gateway(backends: &Backends, more: &[(&str, &str)]) -> Service {
    let mut settings = vec![("TIDELOG_BUS_URL", backends.bus_url.as_str())];
    settings.extend(more);
    Service::start_with(Role::Gateway, &settings).await
}

/// A worker that takes the commands of `aggregates`.
async fn worker(backends: &Backends, aggregates: &str) -> Service {
    let mut settings = backends.settings().to_vec();
    settings.push(("TIDELOG_AGGREGATES", aggregates));
    Service::start_with(Role::Command, &settings).await
}

fn post(id: &str) -> Value {
    json!({"id": id, "title": "A title", "content": "", "author_name": "Ann"})
}

/// Creates a post, with a key or without, by a task of its own.
fn creating(commands: &Client, body: &Value, key: Option<&str>) -> tokio::task::JoinHandle<Answer> {
    let mut request = commands.request(Method::POST, "/post").json(body);
    if let Some(key) = key {
        request = request.header("idempotency-key", format!("\"{key}\""));
    }
    tokio::spawn(async move { send(request).await.expect("an answer") })
}

/// Has it created by a worker that is ready, and joins its group in its own time.
async fn created(commands: &Client, path: &str, command: &Value) {
    eventually("a worker to be there", async || {
        match commands.post(path, command).await {
            answer if answer.status == 201 => Ok(()),
            answer => Err(format!("{answer:?}")),
        }
    })
    .await;
}
