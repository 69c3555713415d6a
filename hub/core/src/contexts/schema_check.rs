//! The JSON Schema that payloads of a context type must meet.
//!
//! A few are checked at a time, and a few wait for that.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::context::MAX_INLINE_BYTES;
use crate::{
    directory::{
        schema::{PayloadSchema, SchemaRef},
        snapshot::Snapshot,
    },
    fault::{Code, Fault},
    kit::json_schema::{Checked, JsonSchema, MAX_LOOKS},
};

/// Payloads that are checked at the same time: parsed, one takes a multiple of its size.
const MAX_CHECKS: usize = 2;
/// Payloads that are checked or wait for it. Each is held in memory for as long.
const MAX_PENDING: usize = 16;

/// By type, with what it was compiled from.
type Compiled = HashMap<String, (Arc<PayloadSchema>, Arc<JsonSchema>)>;

/// Checks payloads. A schema is compiled once, for as long as the type has it: there are no more of them than types.
#[derive(Debug)]
pub(crate) struct SchemaChecks {
    compiled: Mutex<Compiled>,
    pending: Arc<Semaphore>,
    checks: Arc<Semaphore>,
}

impl Default for SchemaChecks {
    fn default() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { compiled: Mutex::default(), pending: places(MAX_PENDING), checks: places(MAX_CHECKS) }
    }
}

impl SchemaChecks {
    /// Whether a payload of this type meets the type's schema, where it has one: which one that is.
    pub(crate) async fn check(&self, snapshot: &Snapshot, kind: &str, payload: &Bytes) -> Result<Option<SchemaRef>, Fault> {
        let Some(schema) = schema_of(snapshot, kind) else { return Ok(None) };
        let compiled = self.compiled(snapshot, kind, schema)?;
        let stopping = |_| Fault::unavailable("HUB_STOPPING", "this replica stops: try again on another one");
        let pending = Arc::clone(&self.pending).try_acquire_owned().map_err(|_| {
            let message = format!("{MAX_PENDING} payloads are being checked against their schemas: try again later");
            Fault::new(Code::ResourceExhausted, "PAYLOAD_CHECKS_BUSY", message)
        })?;
        let permit = Arc::clone(&self.checks).acquire_owned().await.map_err(|_| stopping(()))?;
        let met = SchemaRef { id: schema.id.clone(), version: schema.version.clone() };
        let (payload, schema) = (payload.clone(), schema.clone());
        // A check on a thread of its own goes on when nobody waits for it any more, unless it is told.
        let stop = Stop::default();
        let stopped = Arc::clone(&stop.0);
        let checked = tokio::task::spawn_blocking(move || {
            // The thread has the payload until it ends, so it has its places until then: given back by who waits for it, a caller that gives up
            // again and again would have any number of payloads checked at one time.
            let _places = (pending, permit);
            check(&compiled, &schema, &payload, &stopped)
        });
        checked.await.map_err(|_| stopping(()))??;
        Ok(Some(met))
    }

    fn compiled(&self, snapshot: &Snapshot, kind: &str, schema: &Arc<PayloadSchema>) -> Result<Arc<JsonSchema>, Fault> {
        let mut compiled = self.lock();
        if let Some((known, usable)) = compiled.get_mut(kind)
            && (Arc::ptr_eq(known, schema) || known == schema)
        {
            // Of this snapshot, so that the next look compares no more than a pointer.
            known.clone_from(schema);
            return Ok(usable.clone());
        }
        let usable = JsonSchema::compile(&schema.schema).map_err(|why| {
            let what = format!("JSON Schema {schema} of context type {kind:?} can't be used ({why})");
            let message = format!("{what}: correct it in the Tenant's contextTypes");
            Fault::new(Code::FailedPrecondition, "CONTEXT_TYPE_SCHEMA_INVALID", message)
        })?;
        let usable = Arc::new(usable);
        compiled.retain(|kind, _| schema_of(snapshot, kind).is_some());
        compiled.insert(kind.to_owned(), (schema.clone(), usable.clone()));
        Ok(usable)
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

/// Stops a check when it is dropped.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn check(compiled: &JsonSchema, schema: &PayloadSchema, payload: &[u8], stopped: &Arc<AtomicBool>) -> Result<(), Fault> {
    let value: Value = serde_json::from_slice(payload).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Fault::invalid(
            "PAYLOAD_NOT_JSON",
            format!("the payload must meet JSON Schema {schema}, and is not JSON ({place}): send one UTF-8 JSON text"),
        )
    })?;
    match compiled.check(&value, stopped) {
        Checked::Meets => Ok(()),
        Checked::Violates(mut named, is_more) => {
            named.extend(is_more.then(|| "and more".to_owned()));
            let message = format!("the payload does not meet JSON Schema {schema}: {}", named.join("; "));
            Err(Fault::invalid("PAYLOAD_VIOLATES_SCHEMA", message))
        }
        Checked::TooCostly => {
            let message = format!(
                "to check this payload against JSON Schema {schema} takes more than {MAX_LOOKS} looks at its values: send less in one payload, or have fewer alternatives (anyOf, oneOf, $ref) in the schema"
            );
            Err(Fault::new(Code::FailedPrecondition, "PAYLOAD_CHECK_TOO_COSTLY", message))
        }
    }
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
            assert!(JsonSchema::compile(&bad).is_err(), "{bad}");
            let why = outcome(&schemas, &snapshot(bad.clone()), "notes", "{}").await;
            assert!(why.starts_with("CONTEXT_TYPE_SCHEMA_INVALID"), "{bad}: {why}");
        }
        // Backtracking would take for ever.
        let slow = snapshot(json!({"pattern": "^(a+)+$"}));
        let payload = format!("\"{}!\"", "a".repeat(100_000));
        assert!(outcome(&schemas, &slow, "notes", &payload).await.starts_with("PAYLOAD_VIOLATES_SCHEMA"));
    }

    #[tokio::test]
    async fn only_so_many_wait_for_a_check() {
        let (schemas, note) = (SchemaChecks::default(), snapshot(json!({})));
        let held = schemas.checks.acquire_many(MAX_CHECKS as u32).await.unwrap();
        let mut waiting: Vec<_> = (0..MAX_PENDING).map(|_| Box::pin(outcome(&schemas, &note, "notes", "1"))).collect();
        for check in &mut waiting {
            assert!(futures::poll!(check).is_pending());
        }
        assert!(outcome(&schemas, &note, "notes", "1").await.starts_with("PAYLOAD_CHECKS_BUSY"));
        assert_eq!(outcome(&schemas, &note, "free", "1").await, "free");
        drop((waiting, held));
        assert_eq!(outcome(&schemas, &note, "notes", "1").await, "note 3");
    }

    #[tokio::test]
    async fn a_check_that_nobody_waits_for_any_more_leaves_its_place() {
        let schemas = SchemaChecks::default();
        let slow = snapshot(json!({
            "$ref": "#/$defs/0",
            "$defs": (0..30).map(|level| (level.to_string(), json!({"anyOf": vec![json!({"$ref": format!("#/$defs/{}", level + 1)}); 2]})))
                .chain([("30".to_owned(), json!({"type": "string"}))]).collect::<serde_json::Map<_, _>>(),
        }));
        for _ in 0..2 * MAX_PENDING {
            let mut check = Box::pin(outcome(&schemas, &slow, "notes", "1"));
            assert!(futures::poll!(&mut check).is_pending());
            drop(check);
            // As soon as its thread has heard of it.
            let all = schemas.pending.acquire_many(MAX_PENDING as u32);
            drop(tokio::time::timeout(std::time::Duration::from_secs(20), all).await.expect("it ends in time").unwrap());
        }
        assert!(outcome(&schemas, &slow, "notes", "1").await.starts_with("PAYLOAD_CHECK_TOO_COSTLY"));
    }

    #[test]
    fn a_check_has_its_places_until_its_thread_ends() {
        let one_thread = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        one_thread.block_on(async {
            let (schemas, note) = (SchemaChecks::default(), snapshot(json!({})));
            let (go_on, wait) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || wait.recv());
            let mut check = Box::pin(outcome(&schemas, &note, "notes", "1"));
            assert!(futures::poll!(&mut check).is_pending());
            drop(check);
            let free = || (schemas.pending.available_permits(), schemas.checks.available_permits());
            assert_eq!(free(), (MAX_PENDING - 1, MAX_CHECKS - 1), "its thread has not even begun");
            go_on.send(()).unwrap();
            busy.await.unwrap().unwrap();
            // Behind it on the same thread.
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            assert_eq!(free(), (MAX_PENDING, MAX_CHECKS));
        });
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
