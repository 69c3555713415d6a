//! The JSON Schema that payloads of a context type must meet.
//!
//! A schema never makes the hub ask anybody: a `$ref` to elsewhere is an error. Its patterns run in linear time, so that no payload can make
//! one run for ever.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use jsonschema::Validator;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::context::MAX_INLINE_BYTES;
use crate::{
    directory::{
        schema::{PayloadSchema, SchemaRef, at, compile},
        snapshot::Snapshot,
    },
    fault::{Code, Fault},
};

/// Violations that one answer names.
const MAX_VIOLATIONS: usize = 5;
/// Payloads that are checked at the same time: parsed, one takes a multiple of its size.
const MAX_CHECKS: usize = 2;

/// By type, with what it was compiled from.
type Compiled = HashMap<String, (Arc<PayloadSchema>, Arc<Validator>)>;

/// Checks payloads. A schema is compiled once, for as long as the type has it: there are no more of them than types.
#[derive(Debug)]
pub(crate) struct SchemaChecks {
    compiled: Mutex<Compiled>,
    checks: Semaphore,
}

impl Default for SchemaChecks {
    fn default() -> Self {
        Self { compiled: Mutex::default(), checks: Semaphore::new(MAX_CHECKS) }
    }
}

impl SchemaChecks {
    /// Whether a payload of this type meets the type's schema, where it has one: which one that is.
    pub(crate) async fn check(&self, snapshot: &Snapshot, kind: &str, payload: &Bytes) -> Result<Option<SchemaRef>, Fault> {
        let Some(schema) = schema_of(snapshot, kind) else { return Ok(None) };
        let validator = self.validator(snapshot, kind, schema)?;
        let stopping = |_| Fault::unavailable("HUB_STOPPING", "this replica stops: try again on another one");
        let _permit = self.checks.acquire().await.map_err(|_| stopping(()))?;
        let met = SchemaRef { id: schema.id.clone(), version: schema.version.clone() };
        let (payload, schema) = (payload.clone(), schema.clone());
        let checked = tokio::task::spawn_blocking(move || violations(&validator, &schema, &payload));
        checked.await.map_err(|_| stopping(()))??;
        Ok(Some(met))
    }

    fn validator(&self, snapshot: &Snapshot, kind: &str, schema: &Arc<PayloadSchema>) -> Result<Arc<Validator>, Fault> {
        let mut compiled = self.lock();
        if let Some((known, validator)) = compiled.get_mut(kind)
            && (Arc::ptr_eq(known, schema) || known == schema)
        {
            // Of this snapshot, so that the next look compares no more than a pointer.
            known.clone_from(schema);
            return Ok(validator.clone());
        }
        let validator = compile(&schema.schema).map_err(|why| {
            let what = format!("JSON Schema {schema} of context type {kind:?} can't be used ({why})");
            let message = format!("{what}: correct it in the Tenant's contextTypes");
            Fault::new(Code::FailedPrecondition, "CONTEXT_TYPE_SCHEMA_INVALID", message)
        })?;
        let validator = Arc::new(validator);
        compiled.retain(|kind, _| schema_of(snapshot, kind).is_some());
        compiled.insert(kind.to_owned(), (schema.clone(), validator.clone()));
        Ok(validator)
    }

    fn lock(&self) -> MutexGuard<'_, Compiled> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a payload of so many bytes can be checked at all: a type with a schema takes no larger one than fits inline.
pub(crate) fn check_size(snapshot: &Snapshot, kind: &str, size: u64) -> Result<(), Fault> {
    match schema_of(snapshot, kind) {
        Some(schema) if size > MAX_INLINE_BYTES as u64 => Err(Fault::invalid(
            "PAYLOAD_NOT_CHECKABLE",
            format!(
                "payloads of type {kind:?} must meet JSON Schema {schema}, which is checked up to {MAX_INLINE_BYTES} bytes, and this one has {size}: split it, or use a type without a schema"
            ),
        )),
        _ => Ok(()),
    }
}

fn schema_of<'a>(snapshot: &'a Snapshot, kind: &str) -> Option<&'a Arc<PayloadSchema>> {
    snapshot.context_types.get(kind)?.schema.as_ref()
}

fn violations(validator: &Validator, schema: &PayloadSchema, payload: &[u8]) -> Result<(), Fault> {
    let value: Value = serde_json::from_slice(payload).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Fault::invalid(
            "PAYLOAD_NOT_JSON",
            format!("the payload must meet JSON Schema {schema}, and is not JSON ({place}): send one UTF-8 JSON text"),
        )
    })?;
    // Masked: what is in a payload is for its readers, not for logs.
    let mut errors = validator.iter_errors(&value);
    let mut named: Vec<String> = errors
        .by_ref()
        .take(MAX_VIOLATIONS)
        .map(|error| at(&error.instance_path().to_string(), &error.masked().to_string()))
        .collect();
    if named.is_empty() {
        return Ok(());
    }
    if errors.next().is_some() {
        named.push("and more".to_owned());
    }
    Err(Fault::invalid(
        "PAYLOAD_VIOLATES_SCHEMA",
        format!("the payload does not meet JSON Schema {schema}: {}", named.join("; ")),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::directory::snapshot::ContextType;

    fn snapshot(schema: Value) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let schema = PayloadSchema { id: "note".to_owned(), version: "3".to_owned(), schema };
        let with = ContextType { max_bytes: 1024, schema: Some(Arc::new(schema)) };
        snapshot.context_types.insert("notes".to_owned(), with);
        snapshot.context_types.insert("free".to_owned(), ContextType { max_bytes: 1024, schema: None });
        snapshot
    }

    async fn outcome(schemas: &SchemaChecks, snapshot: &Snapshot, kind: &str, payload: &str) -> String {
        let checked = schemas.check(snapshot, kind, &Bytes::copy_from_slice(payload.as_bytes())).await;
        checked.map_or_else(
            |fault| fault.to_string(),
            |met| met.map_or("free".to_owned(), |met| format!("{} {}", met.id, met.version)),
        )
    }

    #[tokio::test]
    async fn a_payload_meets_the_schema_of_its_type_or_hears_why_not() {
        let schemas = SchemaChecks::default();
        let note = snapshot(json!({
            "type": "object", "required": ["title"], "additionalProperties": false,
            "properties": {"title": {"type": "string", "pattern": "^[a-z]+$"}, "tags": {"type": "array", "items": {"type": "integer"}}},
        }));
        assert_eq!(outcome(&schemas, &note, "notes", r#"{"title": "a", "tags": [1]}"#).await, "note 3");
        assert_eq!(outcome(&schemas, &note, "free", "anything").await, "free");
        let wrong = outcome(&schemas, &note, "notes", r#"{"title": "A secret", "tags": [1, "x"]}"#).await;
        assert!(
            wrong.starts_with("PAYLOAD_VIOLATES_SCHEMA: the payload does not meet JSON Schema note version 3: at /t"),
            "{wrong}"
        );
        assert!(wrong.contains("at /title: ") && wrong.contains("at /tags/1: ") && !wrong.contains("secret"), "{wrong}");
        let many = format!(r#"{{"title": "a", "tags": [{}"x"]}}"#, r#""x","#.repeat(1000));
        let wrong = outcome(&schemas, &note, "notes", &many).await;
        assert!(wrong.ends_with("; and more") && wrong.len() < 3000, "{wrong}");
        assert!(outcome(&schemas, &note, "notes", "{").await.starts_with("PAYLOAD_NOT_JSON"));
        assert!(outcome(&schemas, &note, "notes", &"[".repeat(100_000)).await.starts_with("PAYLOAD_NOT_JSON"), "deep");
        assert!(outcome(&schemas, &note, "notes", "").await.starts_with("PAYLOAD_NOT_JSON"));

        // A new version of the schema holds from its snapshot on, and what is gone is forgotten.
        let any = snapshot(json!({}));
        assert_eq!(outcome(&schemas, &any, "notes", "{}").await, "note 3");
        assert_eq!(schemas.lock().len(), 1);
    }

    #[tokio::test]
    async fn a_schema_asks_nobody_and_takes_no_time() {
        let schemas = SchemaChecks::default();
        for bad in [
            json!({"$ref": "https://127.0.0.1:1/schema.json"}),
            json!({"$ref": "file:///etc/passwd"}),
            json!({"type": "nothing"}),
            json!({"pattern": "("}),
            json!({"pattern": "(?=a)b"}),
        ] {
            assert!(compile(&bad).is_err(), "{bad}");
            let why = outcome(&schemas, &snapshot(bad.clone()), "notes", "{}").await;
            assert!(why.starts_with("CONTEXT_TYPE_SCHEMA_INVALID"), "{bad}: {why}");
        }
        // Backtracking would take for ever.
        let slow = snapshot(json!({"pattern": "^(a+)+$"}));
        let payload = format!("\"{}!\"", "a".repeat(100_000));
        assert!(outcome(&schemas, &slow, "notes", &payload).await.starts_with("PAYLOAD_VIOLATES_SCHEMA"));
    }

    #[test]
    fn what_can_not_be_checked_is_refused() {
        let note = snapshot(json!({}));
        let size = MAX_INLINE_BYTES as u64;
        assert_eq!(check_size(&note, "notes", size), Ok(()));
        assert_eq!(check_size(&note, "notes", size + 1).map_err(|fault| fault.reason), Err("PAYLOAD_NOT_CHECKABLE"));
        assert_eq!(check_size(&note, "free", size + 1), Ok(()));
    }
}
