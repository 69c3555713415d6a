//! One call whose messages are JSON.

use std::{collections::BTreeSet, sync::Arc};

use acb_hub_core::{
    fault::{Code, Fault},
    kit::quoted::quoted,
};
use bytes::Bytes;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, ReflectMessage as _, Value};

use super::{
    cursor::{self, Cursor},
    doubled, fields,
};

/// Which field of the request the JSON text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TextIs {
    /// Nothing of it: all is in the URL.
    Nothing,
    /// The request itself.
    Request,
    /// This field.
    Field(String),
}

/// What is said of a request beside its JSON text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// Fields by their paths, from the URL.
    pub(crate) fields: Vec<(String, String)>,
    /// `Idempotency-Key`.
    pub(crate) idempotency_key: Option<String>,
    /// `Last-Event-ID`.
    pub(crate) last_event_id: Option<String>,
}

/// A call whose messages are JSON. It comes with the request as an extension; clones are of the same call.
#[derive(Clone, Debug)]
pub(crate) struct JsonCall(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    method: MethodDescriptor,
    text_is: TextIs,
    said: Said,
}

impl JsonCall {
    pub(crate) fn new(method: MethodDescriptor, text_is: TextIs, said: Said) -> Self {
        Self(Arc::new(Shared { method, text_is, said }))
    }

    /// Whether the request has a JSON text.
    pub(crate) fn has_text(&self) -> bool {
        self.0.text_is != TextIs::Nothing
    }

    /// Whether it is answered by a stream of events.
    pub(crate) fn answers_many(&self) -> bool {
        self.0.method.is_server_streaming()
    }

    pub(super) fn answers(&self) -> MessageDescriptor {
        self.0.method.output()
    }

    /// Where an event stream begins.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor::behind(self.0.said.last_event_id.as_deref())
    }

    /// The request's message, from its JSON text.
    pub(crate) fn request(&self, text: &[u8]) -> Result<DynamicMessage, Fault> {
        let Shared { method, text_is, said } = &*self.0;
        let mut request = match text_is {
            TextIs::Nothing => DynamicMessage::new(method.input()),
            TextIs::Request => read(method.input(), text)?,
            TextIs::Field(name) => {
                let mut request = DynamicMessage::new(method.input());
                let field = request.descriptor().get_field_by_name(name);
                let kind = field.as_ref().and_then(|field| field.kind().as_message().cloned());
                let (Some(field), Some(kind)) = (field, kind) else {
                    return Err(Fault::new(Code::Internal, "BINDING_INVALID", "this method's binding names no message"));
                };
                let value = read(kind, text)?;
                request.set_field(&field, Value::Message(value));
                request
            }
        };
        let mut paths = BTreeSet::new();
        for (path, text) in &said.fields {
            // One value would be checked by who stands before the hub, and another one taken.
            let is_first = paths.insert(path) || fields::is_list(&request, path);
            if !is_first
                || (self.has_text() && fields::text(&request, path).is_some_and(|there| !there.is_empty() && there != *text))
            {
                return Err(Fault::invalid("FIELD_TWICE", format!("the request says twice what {} is", quoted(path))));
            }
            fields::set(&mut request, path, text)?;
        }
        if let Some(key) = &said.idempotency_key {
            set_idempotency_key(&mut request, key)?;
        }
        if let Some(last) = &said.last_event_id {
            cursor::go_on(&mut request, last)?;
        }
        Ok(request)
    }

    /// The JSON text of an answer's message.
    pub(super) fn answer(&self, message: Bytes) -> Result<Vec<u8>, Fault> {
        let broken = |why: &dyn std::fmt::Display| {
            tracing::error!(method = self.0.method.full_name(), %why, "an answer can't be said in JSON");
            Fault::new(Code::Internal, "ANSWER_UNTOLD", "the answer can't be said in JSON: this is a bug of the hub")
        };
        let message = DynamicMessage::decode(self.answers(), message).map_err(|why| broken(&why))?;
        serde_json::to_vec(&message).map_err(|why| broken(&why))
    }
}

fn read(kind: MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, Fault> {
    // No text at all is a message with nothing in it: `curl --request POST` sends none.
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(DynamicMessage::new(kind));
    }
    let invalid =
        |why: serde_json::Error| Fault::invalid("JSON_INVALID", format!("the body is not the JSON of this request: {why}"));
    doubled::look(&kind, text).map_err(invalid)?;
    let mut reader = serde_json::Deserializer::from_slice(text);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(kind, &mut reader, &options).map_err(invalid)
}

/// `Idempotency-Key` is the field of that name, of the request or of its message.
fn set_idempotency_key(request: &mut DynamicMessage, key: &str) -> Result<(), Fault> {
    for path in ["idempotency_key", "message.idempotency_key"] {
        let Some(said) = fields::text(request, path) else { continue };
        if !said.is_empty() && said != key {
            return Err(Fault::invalid(
                "IDEMPOTENCY_KEY_TWICE",
                format!("the body says another idempotency key than the header's {}: say it once", quoted(key)),
            ));
        }
        return fields::set(request, path, key);
    }
    Err(Fault::invalid("IDEMPOTENCY_KEY_UNSUPPORTED", "this method takes no Idempotency-Key: leave it out"))
}
