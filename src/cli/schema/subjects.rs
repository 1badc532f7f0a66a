//! The subjects that a program knows, and the schemas of what goes over them: those of commands, of declared routes, and those that it declares.

use serde_json::{Map, Value, json};
use tidelog_command::gateway::{self, CommandCall, CommandReply};
use tidelog_domain::__private::sent_schema;
use tidelog_eventbus::messaging::Channel;
use tidelog_http::embedded_schema;

use super::place;
use crate::App;
use crate::routes::RouteRequest;
use crate::subjects::plain;

/// The schema of what every message comes in. No aggregate's schema begins with a capital.
pub(super) const MESSAGE: &str = "Message";

/// The schema of what every reply comes in.
pub(super) const REPLY: &str = "Reply";

/// The schema of an error as a reply: its data.
pub(super) const ERROR: &str = "Error";

/// The schema of a command on its way.
const CALL: &str = "CommandCall";

/// The schema of the answer to one.
const ANSWER: &str = "CommandReply";

/// The subjects of a program.
pub(super) struct Subjects {
    pub(super) all: Vec<Subject>,
    /// The schemas of their messages and replies, and all that these lead to.
    pub(super) schemas: Map<String, Value>,
}

/// A subject, or a shard of one.
pub(super) struct Subject {
    /// What it is called: `order.placed/eu-1`.
    pub(super) channel: Channel,
    /// The same among schemas and files.
    pub(super) name: String,
    pub(super) has_reply: bool,
    /// What the program sends on it; nothing where it does not.
    pub(super) sends: Vec<String>,
    /// What it emits there, which has no reply, also where what is sent has one.
    pub(super) emits: Vec<String>,
    /// What it does with messages of it; nothing where it does not take any.
    pub(super) handles: Vec<String>,
    /// What the ids of its messages are, where not just any will do.
    pub(super) id: Option<Value>,
}

/// What a program does on a subject.
#[derive(Clone, Copy)]
enum Does {
    Sends,
    Emits,
    Handles,
}

impl Subject {
    fn new(channel: &Channel) -> Self {
        Self {
            channel: channel.clone(),
            name: plain(channel.as_str()),
            has_reply: false,
            sends: Vec::new(),
            emits: Vec::new(),
            handles: Vec::new(),
            id: None,
        }
    }

    /// The schema of its messages' data.
    pub(super) fn message(&self) -> String {
        format!("{MESSAGE}.{}", self.name)
    }

    /// The schema of its replies' data.
    pub(super) fn reply(&self) -> String {
        format!("{REPLY}.{}", self.name)
    }
}

/// The subjects of `app`, whose commands have their schemas among `commands`.
pub(super) fn of(app: &App, commands: Map<String, Value>) -> Subjects {
    let mut subjects = Subjects {
        all: Vec::new(),
        schemas: commands,
    };
    let envelopes = [
        (MESSAGE, message()),
        (REPLY, reply()),
        (ERROR, error()),
        (CALL, sent_schema::<CommandCall>()),
        (ANSWER, sent_schema::<CommandReply>()),
    ];
    for (name, schema) in envelopes {
        let schema = embedded_schema(name, &schema);
        subjects.schemas.insert(name.to_owned(), schema);
    }
    for decider in app.deciders() {
        let category = decider.category();
        let bodies = decider.commands().iter();
        let bodies = bodies.map(|command| format!("{category}.{}", command.name));
        subjects.add_commands(category, bodies.collect());
    }
    for command in app.multi_stream_commands() {
        subjects.add_commands(command.name(), vec![command.name().to_owned()]);
    }
    for declared in app.subjects() {
        let what = match declared.is_handled {
            true => "The program handles what is sent here.",
            false => "The program sends this.",
        };
        let reply = declared.has_reply().then_some(&declared.reply);
        let does = match declared.is_handled {
            true => Does::Handles,
            false => Does::Sends,
        };
        let does = (does, what.to_owned());
        subjects.add(&declared.channel, (&declared.message, reply), does);
    }
    let request = sent_schema::<RouteRequest>();
    for route in app.message_routes() {
        let Some(channel) = route.channel() else {
            continue;
        };
        let (method, path, _) = route.place();
        let (does, becomes) = match route.is_sent() {
            true => (Does::Sends, "and its reply the answer"),
            false => (Does::Emits, "which is handled later"),
        };
        let any = json!({"description": "Any JSON: the program says nothing of it."});
        let reply = route.is_sent().then_some(&any);
        let what = format!(
            "A request to {method} {path} becomes a message, {becomes}; its body is any JSON, which nobody has checked."
        );
        subjects.add(&channel, (&request, reply), (does, what));
    }
    subjects
}

impl Subjects {
    /// Adds what the program does on `channel`. What was said first of its messages, and of its replies, counts.
    fn add(
        &mut self,
        channel: &Channel,
        (message, reply): (&Value, Option<&Value>),
        (does, what): (Does, String),
    ) {
        if !self.all.iter().any(|known| known.channel == *channel) {
            self.all.push(Subject::new(channel));
        }
        let mut all = self.all.iter_mut();
        let Some(subject) = all.find(|known| known.channel == *channel) else {
            return;
        };
        subject.has_reply |= reply.is_some();
        match does {
            Does::Sends => subject.sends.push(what),
            Does::Emits => subject.emits.push(what),
            Does::Handles => subject.handles.push(what),
        }
        let reply = reply.map(|schema| (subject.reply(), schema));
        for (name, schema) in [(subject.message(), message)].into_iter().chain(reply) {
            let own = embedded_schema(&name, schema);
            self.schemas.entry(name).or_insert(own);
        }
    }

    /// The commands of `name`, an aggregate or a command over several, as gateways send them to workers. `bodies` are the schemas that their
    /// bodies may have.
    fn add_commands(&mut self, name: &str, bodies: Vec<String>) {
        let Ok(subject) = gateway::subject(name) else {
            return;
        };
        let to = |schema: &str| json!({"$ref": place(schema)});
        let known = bodies
            .iter()
            .filter(|body| self.schemas.contains_key(*body));
        let mut forms: Vec<Value> = known.map(|body| to(body)).collect();
        // What no body says, an empty one may say too.
        forms.push(json!({"type": ["object", "null"], "maxProperties": 0}));
        let call = json!({"allOf": [to(CALL), {"properties": {
            "path": {
                "pattern": "^/",
                "description": format!("Its first segment is {name}, percent-encoded as it came."),
            },
            "body": {"anyOf": forms},
        }}]});
        let answer = json!({"allOf": [to(ANSWER), {"properties": {
            "body": {"anyOf": [to(&format!("{name}.outcome")), to("Problem")]},
        }}]});
        let subject = Subject {
            has_reply: true,
            sends: vec![format!("A gateway sends the commands of {name}.")],
            handles: vec![format!("A worker with --aggregates {name} runs them.")],
            id: Some(json!({
                "pattern": "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-7[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$",
                "description": "A UUID of version 7; the command's id, the same where it is sent again.",
            })),
            ..Subject::new(&subject.channel())
        };
        self.schemas.insert(subject.message(), call);
        self.schemas.insert(subject.reply(), answer);
        self.all.push(subject);
    }
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

/// A message as `tidelog::messaging` writes it.
fn message() -> Value {
    json!({
        "type": "object",
        "description": "A CloudEvent 1.0 in JSON, which is a message.",
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {
                "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$",
                "description": "Its sender's choice; the same where it is sent again.",
            },
            "source": text("Who sends it, /<app>."),
            "type": text("The subject, without the shard."),
            "correlationid": text("The conversation."),
            "causationid": {"type": "string", "format": "uuid", "description": "What caused it."},
            "actor": text("Who asked."),
            "tenant": text("For whom."),
            "traceparent": text("The W3C trace context."),
            "replyto": text("Of a request: where its replies go."),
            "timeoutms": {
                "type": "integer", "minimum": 0, "maximum": u32::MAX,
                "description": "Of a request: how long its caller waits.",
            },
            "data": {"description": "The payload, any JSON; none is null."},
        },
        "required": ["specversion", "id", "source", "type"],
    })
}

/// A reply as `tidelog::messaging` writes it.
fn reply() -> Value {
    json!({
        "type": "object",
        "description": "A CloudEvent 1.0 in JSON, which is a reply to a request, or one of several.",
        "properties": {
            "specversion": {"const": "1.0"},
            "id": text("<requestid>:<sequence>"),
            "source": text("Who replies, /<app>."),
            "type": {"enum": ["tidelog.reply", "tidelog.error"]},
            "requestid": text("The id of the request."),
            "sequence": {
                "type": "integer", "minimum": 1, "default": 1,
                "description": "Which of the replies it is, without gaps.",
            },
            "last": {
                "type": "boolean", "default": true,
                "description": "Whether it is the last one. Without data it is the mark that several have ended.",
            },
            "data": {"description": "The value, or the error."},
        },
        "required": ["type", "requestid"],
    })
}

fn error() -> Value {
    json!({
        "type": "object",
        "description": "Why a request was not done.",
        "properties": {
            "code": text("What programs go by: failed, malformed, unavailable, too-large, or the handler's own."),
            "detail": text("What people read."),
        },
        "required": ["code"],
    })
}
