//! `POST /{name}`: a command over several aggregates.

use axum::extract::Request;
use axum::http::{Method, header};
use axum::response::Response;
use serde_json::Value;
use tidelog_domain::{Endpoint, Refusal};
use tidelog_http::{Operation, Problem, ProblemKind, no_query, read_json, require_json_answer};
use uuid::Uuid;

use crate::handling::{CommandError, MultiStreamRequest};

use super::preconditions::Preconditions;
use super::problems::Subject;
use super::{Commands, From, accepted_types, answer, command_body, idempotency, route};

impl Commands {
    /// Handles a request to the command over several aggregates that is called `name`.
    pub(super) async fn handle_multi_stream(
        &self,
        name: &str,
        from: &From,
        request: Request,
    ) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        if parts.method != Method::POST {
            let reads_at = self.settings.query_url.as_deref();
            return Err(route::not_allowed(&parts.method, "POST", reads_at));
        }
        from.caller.may(&Operation::Several(name))?;
        no_query(&parts.uri)?;
        require_json_answer(&parts.headers)?;
        // It has no one version that they could be about.
        for name in [header::IF_MATCH, header::IF_NONE_MATCH] {
            if parts.headers.contains_key(&name) {
                return Err(Problem::new(
                    ProblemKind::MalformedRequest,
                    format!(
                        "{name} is not understood on a command to several aggregates. Leave it out."
                    ),
                ));
            }
        }
        let key = idempotency::read(&parts.headers)?;
        let accepted = accepted_types(Endpoint::Post);
        let body = read_json(&parts.headers, body, accepted, self.settings.body).await?;
        let key = key.map(|key| {
            key.of_request(&[
                parts.method.as_str().as_bytes(),
                parts.uri.path().as_bytes(),
                &body.bytes,
            ])
        });
        let has_key = key.is_some();
        let body: Value = command_body(body, Endpoint::Post)?;
        let done = self.service.execute_multi_stream(MultiStreamRequest {
            name: name.to_owned(),
            body,
            metadata: from.metadata(),
            command_id: Uuid::now_v7(),
            key,
        });
        match done.await {
            Ok(done) => Ok(answer::all_done(done)),
            Err(error) => Err(problem(name, has_key, &error)),
        }
    }
}

/// The problem document of `error`: about the aggregate that is not as it must be, if it is about one.
fn problem(name: &str, has_key: bool, error: &CommandError) -> Problem {
    let aggregate = match error {
        CommandError::Refused {
            stream,
            refusal: Refusal::NotFound | Refusal::Deleted,
        } => Some(stream),
        _ => None,
    };
    Subject {
        category: aggregate.map_or(name, |stream| stream.category()),
        id: aggregate.map(|stream| stream.id()),
        command: name,
        preconditions: &Preconditions::default(),
        several: true,
        has_key,
    }
    .problem(error)
}
