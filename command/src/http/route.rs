//! From a method and a path to a command.

use axum::http::{HeaderValue, Method, header};
use tidelog_domain::{CommandSpec, Decider, Endpoint, Lifecycle};
use tidelog_http::{Problem, ProblemKind};

use crate::handling::Definitions;

/// The most characters of a path's segment that are repeated to a client.
const MAX_QUOTED: usize = 64;

/// The command that a request calls, and the id that its path names.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) category: &'a str,
    pub(super) spec: &'a CommandSpec,
    pub(super) id: Option<&'a str>,
}

/// The command that `method` calls at `path`, the segments of which are an aggregate and up to two more. `reads_at` is where
/// the query service is, if that is known.
///
/// # Errors
///
/// [`ProblemKind::NotFound`], and [`ProblemKind::MethodNotAllowed`] with the methods that are.
pub(super) fn resolve<'a>(
    definitions: &'a Definitions,
    method: &Method,
    path: &[&'a str],
    reads_at: Option<&str>,
) -> Result<Call<'a>, Problem> {
    let (category, rest) = path.split_first().unwrap_or((&"", &[]));
    let decider = definitions
        .decider(category)
        .ok_or_else(|| unknown_aggregate(category))?;
    let served = served(decider.as_ref(), rest);
    match served.iter().find(|(one, ..)| one == method) {
        Some((_, spec, id)) => Ok(Call {
            category,
            spec,
            id: *id,
        }),
        None if served.is_empty() => Err(unknown_command(decider.as_ref())),
        None => {
            let methods: Vec<&str> = served.iter().map(|(one, ..)| one.as_str()).collect();
            Err(not_allowed(method, &methods.join(", "), reads_at))
        }
    }
}

/// A command, the method that calls it, and the id in its path.
type Served<'a> = (Method, &'a CommandSpec, Option<&'a str>);

/// What is served at the path `rest` below an aggregate.
fn served<'a>(decider: &'a dyn Decider, rest: &[&'a str]) -> Vec<Served<'a>> {
    let served_here = |spec: &'a CommandSpec| {
        let creates = spec.lifecycle == Lifecycle::Missing;
        match (spec.endpoint, rest) {
            (Endpoint::Post, []) => Some((Method::POST, spec, None)),
            (Endpoint::Patch, [id]) => Some((Method::PATCH, spec, Some(*id))),
            (Endpoint::Delete, [id]) => Some((Method::DELETE, spec, Some(*id))),
            (Endpoint::Named, [name]) if creates && *name == spec.name => {
                Some((Method::POST, spec, None))
            }
            (Endpoint::Named, [id, name]) if !creates && *name == spec.name => {
                Some((Method::POST, spec, Some(*id)))
            }
            _ => None,
        }
    };
    decider.commands().iter().filter_map(served_here).collect()
}

fn unknown_aggregate(name: &str) -> Problem {
    let name: String = name.chars().take(MAX_QUOTED).collect();
    Problem::new(
        ProblemKind::NotFound,
        format!("There is no aggregate called {name:?}. Check the path."),
    )
}

fn unknown_command(decider: &dyn Decider) -> Problem {
    let names: Vec<&str> = decider
        .commands()
        .iter()
        .map(|spec| spec.name.as_str())
        .collect();
    Problem::new(
        ProblemKind::NotFound,
        format!(
            "{} has no such command here. Its commands are {}; check the path.",
            decider.category(),
            names.join(", ")
        ),
    )
}

/// `method` is none of `methods`, a list as `Allow` has it.
pub(super) fn not_allowed(method: &Method, methods: &str, reads_at: Option<&str>) -> Problem {
    let hint = match (method, reads_at) {
        (&Method::GET | &Method::HEAD, Some(url)) => {
            format!(" Reads are answered by the query service, at {url}.")
        }
        (&Method::GET | &Method::HEAD, None) => {
            " Reads are answered by the query service.".to_owned()
        }
        _ => String::new(),
    };
    let problem = Problem::new(
        ProblemKind::MethodNotAllowed,
        format!("{method} is not possible here; {methods} is.{hint}"),
    );
    match HeaderValue::from_str(methods) {
        Ok(allow) => problem.with_header(header::ALLOW, allow),
        Err(_) => problem,
    }
}
