//! The API over HTTP as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.0), made of the protos. A test makes it and holds docs/openapi.json
//! against it; the hub serves that file.

use std::collections::{BTreeMap, BTreeSet};

use acb_hub_core::door::rules::{Requirement, of_grpc};
use prost_reflect::{EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::binding::Binding;
use crate::json::{call::TextIs, cursor::Cursor};

/// How deep the fields of messages are said in a query.
const DEEPEST: usize = 3;

pub(super) fn document(bindings: &[Binding]) -> Value {
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    for binding in bindings {
        let operation = operation(binding, &mut schemas);
        let path = paths.entry(binding.path()).or_insert_with(|| json!({}));
        path[binding.verb.as_str().to_lowercase()] = operation;
    }
    let mut made = Map::new();
    while let Some(next) = schemas.wanted.pop_first() {
        let (name, schema) = match next {
            (name, Wanted::Message(message)) => (name, schemas.message(&message)),
            (name, Wanted::Enum(kind)) => (name, enumeration(&kind)),
        };
        schemas.made.insert(name.clone());
        made.insert(name, schema);
    }
    made.insert("Error".to_owned(), error());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ACB hub",
            "version": "v1",
            "description": "Messages, contexts and agents of one tenant. The same API is there by gRPC, package acb.v1. See docs/http.md.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": {
            "schemas": made,
            "responses": { "Error": {
                "description": "What went wrong (https://google.aip.dev/193). `reason` is stable.",
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
            } },
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer", "description": "`accessToken` of a login." } },
        },
    })
}

fn operation(binding: &Binding, schemas: &mut Schemas) -> Value {
    let (method, input) = (&binding.method, binding.method.input());
    let comment = comment(&method.parent_file(), method.path());
    let variables: BTreeSet<String> = binding.variables().into_iter().map(str::to_owned).collect();
    let mut parameters = Vec::new();
    for field in input.fields().filter(|field| variables.contains(field.name())) {
        parameters.push(parameter("path", field.name(), true, &field, schemas));
    }
    if binding.text_is == TextIs::Nothing {
        for field in input.fields().filter(|field| !variables.contains(field.name())) {
            query(&field, "", DEEPEST, &mut parameters, schemas);
        }
    }
    let names_its_key = |message: &MessageDescriptor| message.get_field_by_name("idempotency_key").is_some();
    let message = input.get_field_by_name("message").and_then(|field| field.kind().as_message().cloned());
    if names_its_key(&input) || message.as_ref().is_some_and(names_its_key) {
        parameters.push(header("Idempotency-Key", "Repeated with the same key, the request is the first one."));
    }
    if Cursor::is_of(&input) {
        parameters.push(header("Last-Event-ID", "The `id` of the last event that is there: the stream goes on behind it."));
    }
    let mut operation = json!({
        "operationId": method.name(),
        "tags": [method.parent_service().name()],
        "description": comment,
        "responses": { "200": answer(binding, schemas), "default": { "$ref": "#/components/responses/Error" } },
    });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    let text = match &binding.text_is {
        TextIs::Nothing => None,
        TextIs::Request => Some(input),
        TextIs::Field(name) => input.get_field_by_name(name).and_then(|field| field.kind().as_message().cloned()),
    };
    if let Some(text) = text {
        operation["requestBody"] = json!({ "content": { "application/json": { "schema": schemas.of(&text) } } });
    }
    if of_grpc(&binding.grpc_path()).is_some_and(|rule| rule.access == Requirement::Public) {
        operation["security"] = json!([]);
    }
    operation
}

fn answer(binding: &Binding, schemas: &mut Schemas) -> Value {
    let output = binding.method.output();
    let schema = schemas.of(&output);
    if binding.method.is_server_streaming() {
        let what = format!("Events, whose data are each a {}.", output.name());
        // What an event's data is can't be said in OpenAPI 3.1; the schema is there to be found.
        let content = json!({ "text/event-stream": { "schema": { "type": "string", "contentMediaType": "application/json", "contentSchema": schema } } });
        return json!({ "description": what, "content": content });
    }
    json!({ "description": output.name(), "content": { "application/json": { "schema": schema } } })
}

fn header(name: &str, description: &str) -> Value {
    json!({ "in": "header", "name": name, "description": description, "schema": { "type": "string" } })
}

fn parameter(place: &str, name: &str, required: bool, field: &FieldDescriptor, schemas: &mut Schemas) -> Value {
    let mut parameter = json!({ "in": place, "name": name, "schema": schemas.field(field) });
    let comment = comment(&field.parent_file(), field.path());
    if !comment.is_empty() {
        parameter["description"] = comment.into();
    }
    if required {
        parameter["required"] = true.into();
    }
    parameter
}

/// The parameters of a query that set a field.
fn query(field: &FieldDescriptor, before: &str, deepest: usize, parameters: &mut Vec<Value>, schemas: &mut Schemas) {
    let name = format!("{before}{}", field.json_name());
    match field.kind() {
        _ if field.is_map() => {}
        Kind::Message(message) if text_of(&message).is_none() => {
            if deepest > 1 && !field.is_list() {
                for field in message.fields() {
                    query(&field, &format!("{name}."), deepest - 1, parameters, schemas);
                }
            }
        }
        _ => parameters.push(parameter("query", &name, false, field, schemas)),
    }
}

/// A message that is a text in JSON.
fn text_of(message: &MessageDescriptor) -> Option<Value> {
    match message.full_name() {
        "google.protobuf.Timestamp" => Some(json!({ "type": "string", "format": "date-time" })),
        "google.protobuf.Duration" => Some(json!({ "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]{1,9})?s$" })),
        _ => None,
    }
}

enum Wanted {
    Message(MessageDescriptor),
    Enum(EnumDescriptor),
}

/// The schemas that others refer to.
#[derive(Default)]
struct Schemas {
    wanted: BTreeMap<String, Wanted>,
    made: BTreeSet<String>,
}

impl Schemas {
    fn want(&mut self, full_name: &str, package: &str, wanted: Wanted) -> Value {
        let name = full_name.strip_prefix(package).unwrap_or(full_name).trim_start_matches('.').to_owned();
        let reference = json!({ "$ref": format!("#/components/schemas/{name}") });
        if !self.made.contains(&name) {
            self.wanted.insert(name, wanted);
        }
        reference
    }

    fn of(&mut self, message: &MessageDescriptor) -> Value {
        let package = message.package_name().to_owned();
        text_of(message).unwrap_or_else(|| self.want(message.full_name(), &package, Wanted::Message(message.clone())))
    }

    fn message(&mut self, message: &MessageDescriptor) -> Value {
        let mut properties = Map::new();
        for field in message.fields() {
            let mut schema = self.field(&field);
            let comment = comment(&field.parent_file(), field.path());
            if !comment.is_empty() {
                schema["description"] = comment.into();
            }
            properties.insert(field.json_name().to_owned(), schema);
        }
        let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
        let comment = comment(&message.parent_file(), message.path());
        if !comment.is_empty() {
            schema["description"] = comment.into();
        }
        schema
    }

    fn field(&mut self, field: &FieldDescriptor) -> Value {
        let kind = field.kind();
        if let (true, Some(entry)) = (field.is_map(), kind.as_message()) {
            return json!({ "type": "object", "additionalProperties": self.one(&entry.map_entry_value_field().kind()) });
        }
        let one = self.one(&kind);
        if field.is_list() { json!({ "type": "array", "items": one }) } else { one }
    }

    fn one(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::String => json!({ "type": "string" }),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
            Kind::Double | Kind::Float => json!({ "type": "number" }),
            Kind::Uint32 | Kind::Fixed32 => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({ "type": "integer", "format": "int32" }),
            Kind::Uint64 | Kind::Fixed64 => json!({ "type": "string", "format": "uint64", "pattern": "^[0-9]+$" }),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({ "type": "string", "format": "int64", "pattern": "^-?[0-9]+$" })
            }
            Kind::Message(message) => self.of(message),
            Kind::Enum(kind) => {
                let package = kind.package_name().to_owned();
                self.want(kind.full_name(), &package, Wanted::Enum(kind.clone()))
            }
        }
    }
}

fn enumeration(kind: &EnumDescriptor) -> Value {
    let names: Vec<_> = kind.values().map(|value| value.name().to_owned()).collect();
    json!({ "type": "string", "enum": names })
}

fn error() -> Value {
    json!({ "type": "object", "required": ["error"], "properties": { "error": {
        "type": "object",
        "required": ["code", "status", "message", "details"],
        "properties": {
            "code": { "type": "integer", "description": "The HTTP status." },
            "status": { "type": "string", "description": "The gRPC code, such as NOT_FOUND." },
            "message": { "type": "string", "description": "For people." },
            "details": { "type": "array", "items": { "type": "object", "properties": {
                "@type": { "type": "string" },
                "reason": { "type": "string", "description": "Of an ErrorInfo: stable, such as RECIPIENT_NOT_FOUND." },
            } } },
        },
    } } })
}

/// What the proto says of this element.
fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let Some(info) = &file.file_descriptor_proto().source_code_info else { return String::new() };
    let location = info.location.iter().find(|location| location.path == path);
    let comment = location.and_then(|location| location.leading_comments.as_deref()).unwrap_or_default();
    comment.lines().map(str::trim).collect::<Vec<_>>().join("\n").trim().to_owned()
}
