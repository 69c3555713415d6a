//! What the operator sends, as Kubernetes takes it: lists and watches, server-side apply and merge patches, the status by itself.

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    time::{Duration, Instant, timeout_at},
};

use super::{
    path::Path,
    store::{CONFLICT, MISSING, Refused, Store, merge},
};

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Answers until the runtime ends.
pub(in crate::operator) async fn serve(listener: TcpListener, store: Arc<Store>) {
    while let Ok((stream, _)) = listener.accept().await {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&store)));
            // An operator that ends in the middle is none of ours.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn whole(code: u16, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    answer
}

fn refusal(Refused(code, reason): Refused) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason,
    });
    whole(code, &status)
}

fn query(text: &str) -> HashMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect()
}

/// Of what is written with percent signs.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn has_label(labels: &Value, selector: &str) -> bool {
    selector.split_once('=').is_none_or(|(key, value)| labels[key] == value)
}

async fn answer(request: Request<Incoming>, store: Arc<Store>) -> Result<Answer, Infallible> {
    let (parts, body) = request.into_parts();
    let query = query(parts.uri.query().unwrap_or_default());
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some(path) = Path::parse(parts.uri.path()) else { return Ok(refusal(MISSING)) };
    // Its CRDs are not installed.
    if path.kind.plural == "tlsroutes" {
        return Ok(refusal(MISSING));
    }
    let only_metadata = header(http::header::ACCEPT).contains("PartialObjectMetadata");
    if parts.method == Method::GET && path.name.is_none() {
        return Ok(if query.contains_key("watch") {
            watch(store, path, query)
        } else {
            list(&store, &path, &query, only_metadata)
        });
    }
    let is_apply = header(http::header::CONTENT_TYPE).contains("apply-patch");
    let sent = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let sent: Value = serde_json::from_slice(&sent).unwrap_or_default();
    let done = change(&parts.method, &store, &path, sent, is_apply);
    Ok(match done {
        Ok(object) if only_metadata => whole(200, &metadata_of(&object)),
        Ok(object) => whole(if parts.method == Method::POST { 201 } else { 200 }, &object),
        Err(refused) => refusal(refused),
    })
}

fn metadata_of(object: &Value) -> Value {
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]})
}

fn list(store: &Store, path: &Path, query: &HashMap<String, String>, only_metadata: bool) -> Answer {
    let (mut objects, version) = store.list(&path.kind, &path.namespace);
    if let Some(selector) = query.get("labelSelector") {
        objects.retain(|object| has_label(&object["metadata"]["labels"], selector));
    }
    if let Some(name) = query.get("fieldSelector").and_then(|fields| fields.strip_prefix("metadata.name=")) {
        objects.retain(|object| object["metadata"]["name"] == name);
    }
    // In pages, as clients ask for them: an answer with everything would take memory that no client of Kubernetes needs.
    let number = |name: &str| query.get(name).and_then(|number| number.parse::<usize>().ok());
    let (from, most) = (number("continue").unwrap_or_default(), number("limit").unwrap_or(usize::MAX));
    let left = objects.len().saturating_sub(from.saturating_add(most));
    let next = if left > 0 { json!((from + most).to_string()) } else { Value::Null };
    objects = objects.into_iter().skip(from).take(most).collect();
    let items: Vec<Value> =
        objects.iter().map(|object| if only_metadata { metadata_of(object) } else { Value::clone(object) }).collect();
    let (api_version, kind) =
        if only_metadata { ("meta.k8s.io/v1", "PartialObjectMetadataList") } else { (path.kind.api_version.as_str(), "List") };
    let list = json!({
        "apiVersion": api_version, "kind": kind, "metadata": {"resourceVersion": version.to_string(), "continue": next}, "items": items,
    });
    whole(200, &list)
}

/// Events until the time is up, or until the client is too far behind.
fn watch(store: Arc<Store>, path: Path, query: HashMap<String, String>) -> Answer {
    let seconds = query.get("timeoutSeconds").and_then(|seconds| seconds.parse().ok()).unwrap_or(290);
    let until = Instant::now() + Duration::from_secs(seconds);
    let after: u64 = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or_default();
    let selector = query.get("labelSelector").cloned().unwrap_or_default();
    let changes = store.changes();
    let lines = stream::unfold(Some((after, changes)), move |state| {
        let (store, path, selector) = (Arc::clone(&store), path.clone(), selector.clone());
        async move {
            let (mut after, mut changes) = state?;
            loop {
                changes.borrow_and_update();
                match store.events(&path.kind, after) {
                    Err(Refused(code, reason)) => {
                        let status =
                            json!({"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": reason});
                        let line = Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": status})));
                        return Some((vec![line], None));
                    }
                    Ok((events, now)) => {
                        after = now;
                        let events = events.into_iter().filter(|event| has_label(&event.labels, &selector));
                        let lines: Vec<Bytes> = events.map(|event| event.line).collect();
                        if !lines.is_empty() {
                            return Some((lines, Some((after, changes))));
                        }
                    }
                }
                timeout_at(until, changes.changed()).await.ok()?.ok()?;
            }
        }
    });
    let frames = lines.flat_map(|lines| stream::iter(lines.into_iter().map(|line| Ok::<_, Infallible>(Frame::data(line)))));
    Response::new(StreamBody::new(frames).boxed_unsync())
}

fn change(method: &Method, store: &Store, path: &Path, mut sent: Value, is_apply: bool) -> Result<Arc<Value>, Refused> {
    let (kind, name) = (&path.kind, path.name.as_deref().unwrap_or_default());
    let at = (path.namespace.as_str(), name);
    match *method {
        Method::GET => store.get(kind, &path.namespace, name).ok_or(MISSING),
        // Nobody reads them.
        Method::POST if kind.plural == "events" => Ok(Arc::new(sent)),
        Method::POST => {
            sent["metadata"]["namespace"] = json!(path.namespace);
            store.create(kind, sent)
        }
        Method::DELETE => store.delete(kind, &path.namespace, name),
        Method::PUT => store.change(kind, at, |object| {
            is_of(object, &sent)?;
            let uid = object["metadata"]["uid"].take();
            *object = sent;
            object["metadata"]["uid"] = uid;
            Ok(())
        }),
        Method::PATCH if is_apply && path.part.is_none() && store.get(kind, &path.namespace, name).is_none() => {
            if sent.pointer("/metadata/resourceVersion").is_some() { Err(CONFLICT) } else { store.create(kind, sent) }
        }
        Method::PATCH => store.change(kind, at, |object| {
            is_of(object, &sent)?;
            match (is_apply, path.part.as_deref()) {
                (true, Some("status")) => object["status"] = sent["status"].take(),
                (true, _) => apply(object, &sent),
                (false, _) => merge(object, &sent),
            }
            Ok(())
        }),
        _ => Err(Refused(405, "MethodNotAllowed")),
    }
}

/// One writer has every field that it applies: what it does not send any more goes with them.
fn apply(object: &mut Value, sent: &Value) {
    for (name, value) in sent.as_object().into_iter().flatten() {
        if name == "metadata" {
            merge(&mut object["metadata"], value);
        } else {
            object[name] = value.clone();
        }
    }
}

/// Whether a write is about the version that there is.
fn is_of(object: &Value, sent: &Value) -> Result<(), Refused> {
    let same = |pointer: &str| sent.pointer(pointer).is_none_or(|sent| sent.is_null() || Some(sent) == object.pointer(pointer));
    if same("/metadata/resourceVersion") && same("/metadata/uid") { Ok(()) } else { Err(CONFLICT) }
}
