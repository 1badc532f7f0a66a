use tidelog_domain::EntitySchema;

use super::*;

const NOTE: &str = r##"{
    "type": "object",
    "$defs": {"tag": {"type": "string", "minLength": 1}},
    "properties": {"text": {"type": "string"}, "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}}},
    "required": ["text"]
}"##;

fn app() -> App {
    App::new("wall").entity_schema(EntitySchema::parse("note", NOTE).unwrap())
}

fn all() -> BTreeMap<String, Value> {
    files(&app(), None).unwrap()
}

#[test]
fn each_event_command_and_view_has_a_file() {
    let files = all();
    let paths: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "asyncapi.json",
            "json-schema/commands/note.create.json",
            "json-schema/commands/note.patch.json",
            "json-schema/envelopes/cloudevent.json",
            "json-schema/events/note.created.v1.json",
            "json-schema/events/note.deleted.v1.json",
            "json-schema/events/note.updated.v1.json",
            "json-schema/views/note.json",
            "openapi.commands.json",
            "openapi.queries.json",
        ]
    );
    let only = |format| files_of(format).len();
    assert_eq!(
        [
            only(Format::JsonSchema),
            only(Format::AsyncApi),
            only(Format::OpenApi)
        ],
        [7, 1, 2]
    );
}

fn files_of(format: Format) -> BTreeMap<String, Value> {
    files(&app(), Some(format)).unwrap()
}

#[test]
fn the_schema_of_a_body_needs_no_other_file() {
    let files = all();
    let create = &files["json-schema/commands/note.create.json"];
    assert_eq!(create["$id"], "urn:tidelog:wall:command:note.create");
    assert_eq!(create["$ref"], "#/$defs/note.create");
    let mut references = Vec::new();
    collect(create, &mut references);
    assert!(references.len() > 1, "the tags too");
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(create.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect(schema: &Value, references: &mut Vec<String>) {
    match schema {
        Value::Object(keywords) => keywords.iter().for_each(|(keyword, value)| match value {
            Value::String(to) if keyword == "$ref" => references.push(to.clone()),
            other => collect(other, references),
        }),
        Value::Array(schemas) => schemas.iter().for_each(|one| collect(one, references)),
        _ => {}
    }
}

#[test]
fn names_are_such_as_files_can_have() {
    assert_eq!(event_name("post", "post.created", 2), "post.created.v2");
    assert_eq!(event_name("post", "posted", 1), "post.posted.v1");
    assert_eq!(
        event_name("post", "post/../x y", 1),
        "post.post_u2f_.._u2f_x_u20_y.v1"
    );
}
