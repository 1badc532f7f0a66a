//! The post as an aggregate in Rust.

use serde::Deserialize;
use serde_json::json;
use tidelog_domain::{
    Aggregate, Command, CommandInput, CommandSpec, Context, Decision, DecodeError, Endpoint, Event,
    FieldError, Lifecycle, Named, Payload, Rejection,
};

use crate::post::{Changed, Created, Import, NoTitle, Post, PostCommand, PostEvent};

const CREATED: &str = "post.created";
const CHANGED: &str = "post.changed";

impl Named for Post {
    const NAME: &'static str = super::CATEGORY;
}

impl Aggregate for Post {
    type Command = PostCommand;
    type Event = PostEvent;
    type Rejection = NoTitle;

    fn decide(&self, command: PostCommand, _: &Context) -> Decision<Self> {
        self.decide(command)
    }

    fn evolve(&mut self, event: &PostEvent) {
        self.apply(event);
    }
}

impl Command for PostCommand {
    fn specs() -> Vec<CommandSpec> {
        let spec = |name: &str, endpoint, lifecycle| CommandSpec {
            name: name.to_owned(),
            endpoint,
            lifecycle,
            schema: json!(true),
        };
        vec![
            spec("create", Endpoint::Post, Lifecycle::Missing),
            spec("patch", Endpoint::Patch, Lifecycle::Live),
            spec("import", Endpoint::Named, Lifecycle::Live),
        ]
    }

    fn decode(input: &CommandInput) -> Result<Self, Vec<FieldError>> {
        let body = &input.body;
        let decoded = match input.name.as_str() {
            "create" => Created::deserialize(body).map(Self::Create),
            "patch" => Changed::deserialize(body).map(Self::Change),
            _ => Import::deserialize(body).map(Self::Import),
        };
        decoded.map_err(|error| {
            vec![FieldError {
                field: String::new(),
                message: error.to_string(),
            }]
        })
    }
}

impl Event for PostEvent {
    const TYPES: &'static [&'static str] = &[CREATED, CHANGED];

    fn event_type(&self) -> &'static str {
        match self {
            Self::Created(_) => CREATED,
            Self::Changed(_) => CHANGED,
        }
    }

    fn encode(&self) -> Result<Payload, serde_json::Error> {
        match self {
            Self::Created(post) => Payload::of(post),
            Self::Changed(change) => Payload::of(change),
        }
    }

    fn decode(event_type: &str, version: u32, payload: &Payload) -> Result<Self, DecodeError> {
        let decoded = match event_type {
            CREATED => payload.decode().map(Self::Created),
            CHANGED => payload.decode().map(Self::Changed),
            _ => return Err(DecodeError::unknown(event_type)),
        };
        decoded.map_err(|source| DecodeError::payload(event_type, version, source))
    }
}

impl Rejection for NoTitle {
    fn code(&self) -> String {
        "no-title".to_owned()
    }

    fn detail(&self) -> String {
        self.to_string()
    }
}
