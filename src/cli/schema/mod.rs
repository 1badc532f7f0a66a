//! `schema export`: what the program says of itself, as files for programs in other languages.
//!
//! All of it is made of what the services publish (`/openapi.json`), of what events are stored as and of what messages are, so that nothing is
//! said here that the services do not do. No server is asked, and the same program writes the same bytes.

mod asyncapi;
mod flat;
mod json_schema;
mod subjects;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command};
use serde_json::{Map, Value};
use tidelog_command::command_document;
use tidelog_http::embedded_schema;
use tidelog_query::{Catalog, QuerySettings, query_document};

use super::commands::{Outcome, say};
use super::exit::{Exit, ended};
use crate::App;
use crate::app::InvalidApp;
use crate::routes;
use crate::subjects::plain;

/// Where the files go, when nobody says.
const OUT: &str = "schemas";

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exporting {
    /// The directory that it goes to.
    out: PathBuf,
    /// In which form; in each, where none is named.
    format: Option<Format>,
}

/// A form in which a program says what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// A JSON Schema (draft 2020-12) for each event, command, view and subject.
    JsonSchema,
    /// AsyncAPI 3.0: the events and the subjects.
    AsyncApi,
    /// OpenAPI 3.1: both services.
    OpenApi,
}

const FORMATS: [(&str, Format); 3] = [
    ("json-schema", Format::JsonSchema),
    ("asyncapi", Format::AsyncApi),
    ("openapi", Format::OpenApi),
];

impl Exporting {
    /// What the words after `schema` ask for.
    pub(super) fn read(matches: &ArgMatches) -> Self {
        let format = matches.get_one::<String>("format");
        let format = format.and_then(|name| FORMATS.iter().find(|(own, _)| own == name));
        Self {
            out: matches
                .get_one("out")
                .cloned()
                .unwrap_or_else(|| OUT.into()),
            format: format.map(|(_, format)| *format),
        }
    }

    /// `schema`, and what may follow.
    pub(super) fn command(settings: &[Arg]) -> Command {
        let out = Arg::new("out")
            .long("out")
            .value_name("DIR")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!(
                "The directory that the files go to; it is made [default: {OUT}]"
            ));
        let format = Arg::new("format")
            .long("format")
            .value_parser(FORMATS.map(|(name, _)| name))
            .help("Only these files [default: all]");
        let export = Command::new("export")
            .about("Write JSON Schema, AsyncAPI 3.0 and OpenAPI 3.1 of this program; no server is needed")
            .args([out, format])
            .args(settings);
        Command::new("schema")
            .about("Say what events, commands, views and messages look like, for programs in other languages")
            .subcommand_required(true)
            .subcommand(export)
    }
}

/// Writes the files, and says which.
pub(super) fn export(app: &App, asked: &Exporting) -> Outcome {
    app.check()?;
    for (path, document) in files(app, asked.format)? {
        let path = asked.out.join(path);
        write(&path, &document).map_err(|error| {
            let text = format!("{} cannot be written: {error}", path.display());
            ended(Exit::Failed, text)
        })?;
        say(&path.display().to_string());
    }
    Ok(())
}

fn write(path: &Path, document: &Value) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, format!("{document:#}\n"))
}

/// The files, by their paths.
fn files(app: &App, format: Option<Format>) -> Result<BTreeMap<String, Value>, InvalidApp> {
    let catalog = Catalog::new(app.views().to_vec());
    let catalog = catalog.map_err(|taken| InvalidApp::View(taken.name))?;
    let mut commands = command_document(app.name(), app.deciders(), app.multi_stream_commands());
    routes::describe(&mut commands, app);
    let commands = commands.finish();
    let queries = query_document(app.name(), &catalog, &QuerySettings::default());
    let (events, subjects) = (events(app), subjects::of(app, components(&commands)));
    let wanted = |one| format.is_none_or(|only| only == one);
    let mut files = BTreeMap::new();
    if wanted(Format::JsonSchema) {
        files.extend(json_schema::files(
            app, &events, &subjects, &commands, &queries,
        ));
    }
    if wanted(Format::AsyncApi) {
        let document = asyncapi::document(app, &events, &subjects);
        files.insert("asyncapi.json".to_owned(), document);
    }
    if wanted(Format::OpenApi) {
        files.insert("openapi.commands.json".to_owned(), commands);
        files.insert("openapi.queries.json".to_owned(), queries);
    }
    Ok(files)
}

/// An event as it is stored today.
struct Event<'a> {
    /// What it is called among schemas and files: `post.created.v1`.
    name: String,
    aggregate: &'a str,
    event_type: String,
    version: u32,
    /// Its payload, as a component called `name`.
    schema: Value,
}

/// All events of the program, in its order.
fn events(app: &App) -> Vec<Event<'_>> {
    let deciders = app.deciders().iter();
    let events = deciders.flat_map(|decider| {
        let aggregate = decider.category();
        decider.events().into_iter().map(move |shape| {
            let name = event_name(aggregate, &shape.event_type, shape.schema_version);
            let unknown = serde_json::json!({"description": "What it has is not known: the program says nothing of it."});
            let schema = shape.schema.unwrap_or(unknown);
            Event {
                schema: flat::flattened(embedded_schema(&name, &schema), &place(&name)),
                name,
                aggregate,
                event_type: shape.event_type.to_string(),
                version: shape.schema_version,
            }
        })
    });
    events.collect()
}

/// The event's stored name and version; of an event that is not called after its aggregate, that too. Whatever a file cannot be called is
/// written by its number.
fn event_name(aggregate: &str, event_type: &str, version: u32) -> String {
    let own = event_type.strip_prefix(aggregate);
    plain(&match own.is_some_and(|rest| rest.starts_with('.')) {
        true => format!("{event_type}.v{version}"),
        false => format!("{aggregate}.{event_type}.v{version}"),
    })
}

/// Where the schemas of a document are.
const COMPONENTS: &str = "#/components/schemas/";

fn place(name: &str) -> String {
    format!("{COMPONENTS}{name}")
}

/// The schemas that a document of ours has among its components.
fn components(document: &Value) -> Map<String, Value> {
    let schemas = document.pointer("/components/schemas");
    schemas
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}

/// Those of `schemas` that `schema` leads to, and those that these lead to.
fn led_to<'a>(schemas: &'a Map<String, Value>, schema: &Value) -> BTreeMap<&'a str, &'a Value> {
    let mut names = BTreeSet::new();
    note(schema, &mut names);
    let mut found = BTreeMap::new();
    while let Some(name) = names.pop_first() {
        if let Some((name, schema)) = schemas.get_key_value(&name)
            && found.insert(name.as_str(), schema).is_none()
        {
            note(schema, &mut names);
        }
    }
    found
}

/// Notes the names of the components that `schema` leads to.
fn note(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(keywords) => {
            let to = keywords.get("$ref").and_then(Value::as_str);
            let to = to.and_then(|to| to.strip_prefix(COMPONENTS)?.split('/').next());
            names.extend(to.map(str::to_owned));
            keywords.values().for_each(|inner| note(inner, names));
        }
        Value::Array(schemas) => schemas.iter().for_each(|inner| note(inner, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
