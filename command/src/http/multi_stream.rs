//! `POST /{name}`: a command over several aggregates.

use axum::extract::Request;
use axum::http::{Method, header};
use axum::response::Response;
use serde_json::Value;
use tidelog_domain::{Endpoint, Refusal};
use tidelog_http::{Operation, Problem, ProblemKind, no_query, read_json, require_json_answer};

use crate::gateway::Passing;
use crate::handling::{CommandError, MultiStreamOutcome, MultiStreamRequest};

use super::preconditions::Preconditions;
use super::problems::Subject;
use super::{
    Commands, Executor, From, Identity, accepted_types, answer, command_body, idempotency,
    of_request, route,
};

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
        let key = idempotency::idempotency_key(&parts.headers)?;
        let accepted = accepted_types(Endpoint::Post);
        let body = read_json(&parts.headers, body, accepted, self.settings.body).await?;
        let has_key = key.is_some();
        let bytes = body.bytes.clone();
        let body: Value = command_body(body, Endpoint::Post)?;
        let preconditions = Preconditions::default();
        let subject = Subject {
            category: name,
            id: None,
            command: name,
            preconditions: &preconditions,
            several: true,
            has_key,
        };
        let service = match &self.executor {
            Executor::Here(service) => service,
            Executor::Workers(workers) => {
                self.check_multi_stream(name, &body)
                    .map_err(|error| subject.problem(&error))?;
                let answer = workers.run(Passing::of(name, &parts, &bytes, from)).await;
                return answer.map_err(|why| subject.unanswered(&why));
            }
        };
        let key = key.map(|key| of_request(key, &parts, &bytes, &[]));
        let identity = Identity::of(&parts, key);
        let done = service.execute_multi_stream(MultiStreamRequest {
            name: name.to_owned(),
            body,
            metadata: from.metadata(),
            command_id: identity.command_id,
            key: identity.key,
        });
        let done = done.await.map_err(|error| problem(&subject, &error))?;
        Ok(answer::all_done(MultiStreamOutcome {
            replayed: done.replayed && has_key,
            ..done
        }))
    }

    /// Checks what can be checked of a command without its aggregates.
    fn check_multi_stream(&self, name: &str, body: &Value) -> Result<(), CommandError> {
        let unknown = || CommandError::UnknownAggregate {
            category: name.to_owned(),
        };
        let command = self.definitions.multi_stream(name).ok_or_else(unknown)?;
        let streams = command.streams(body);
        streams
            .map(drop)
            .map_err(|refusal| CommandError::RefusedForAll { refusal })
    }
}

/// The problem document of `error`: about the aggregate that is not as it must be, if it is about one.
fn problem(subject: &Subject<'_>, error: &CommandError) -> Problem {
    let aggregate = match error {
        CommandError::Refused {
            stream,
            refusal: Refusal::NotFound | Refusal::Deleted,
        } => Some(stream),
        _ => None,
    };
    Subject {
        category: aggregate.map_or(subject.category, |stream| stream.category()),
        id: aggregate.map(|stream| stream.id()),
        ..*subject
    }
    .problem(error)
}
