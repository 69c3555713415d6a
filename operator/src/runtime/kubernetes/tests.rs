//! Objects on an API of wood: what is sent, and what is not. And on a real one, where a test is given a cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube_client::{Client, client::Body};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{FINALIZER, cache::Cache, metrics::Metrics, objects::KubernetesObjects, requests::Requests, watch::Watches};
use crate::{
    difference,
    effect::{
        EffectError, SecretData, SecretReader, conformance,
        fence::Fence,
        kubernetes::{self, ObjectKey, Objects as _},
    },
    plan::{KubernetesStep, SecretContent, SecretRef},
};

type Sent = Arc<Mutex<Vec<(String, Value)>>>;

/// An API server that answers everything alike, and writes down what it was asked.
fn api(status: u16, answer: Value) -> (Client, Sent) {
    api_of(&[(status, answer)])
}

/// An API server that answers one after the other, and the last answer for good.
fn api_of(answers: &[(u16, Value)]) -> (Client, Sent) {
    let sent = Sent::default();
    let (log, answers) = (Arc::clone(&sent), Arc::new(answers.to_vec()));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (log, answers) = (Arc::clone(&log), Arc::clone(&answers));
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let mut log = log.lock().unwrap();
            let (status, answer) = answers[log.len().min(answers.len() - 1)].clone();
            log.push((format!("{} {}", parts.method, parts.uri), body));
            Ok::<_, Infallible>(Response::builder().status(status).body(Body::from(answer.to_string().into_bytes())).unwrap())
        }
    });
    (Client::new(service, "default"), sent)
}

fn list_of(object: &Value) -> Value {
    json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": [object]})
}

fn objects(client: Client, cache: &Arc<Cache>, fence: Fence) -> KubernetesObjects {
    KubernetesObjects::new(
        Requests::new(client, Metrics::default()),
        Arc::clone(cache),
        Arc::new(fence),
        "acb-system",
        no_issuer(),
    )
}

fn no_issuer() -> tokio::sync::watch::Receiver<Option<crate::observed::ObservedIssuer>> {
    tokio::sync::watch::channel(None).1
}

fn open() -> Fence {
    Fence::until(Instant::now() + Duration::from_secs(60))
}

fn service(version: u64) -> Value {
    difference::marked(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "hub", "namespace": "acbhub-acme", "uid": "u-1", "resourceVersion": version.to_string()},
        "spec": {"type": "ClusterIP"},
    }))
}

/// As a plan has it: what a server fills in is not there.
fn planned(object: &Value) -> Value {
    let mut object = object.clone();
    let metadata = object["metadata"].as_object_mut().unwrap();
    metadata.retain(|name, _| name != "uid" && name != "resourceVersion");
    object
}

fn forbidden() -> Value {
    let message =
        "things is forbidden: User \"x\" cannot list resource \"things\" in API group \"\" in the namespace \"acbhub-acme\"";
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden", "message": message})
}

fn failure(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason})
}

#[tokio::test]
async fn what_is_as_it_should_be_costs_nothing() {
    let (client, sent) = api(500, Value::Null);
    let cache = Arc::new(Cache::default());
    let mut found = service(7);
    found["spec"]["clusterIP"] = json!("10.0.0.1");
    cache.put(found);
    objects(client, &cache, open()).apply(&service(7)).await.unwrap();
    assert!(sent.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_change_says_which_version_it_is_about_and_is_seen_at_once() {
    let mut answer = service(8);
    answer["spec"]["type"] = json!("LoadBalancer");
    let wanted = planned(&answer);
    let (client, sent) = api(200, answer);
    let cache = Arc::new(Cache::default());
    cache.put(service(7));
    let objects = objects(client, &cache, open());
    objects.apply(&wanted).await.unwrap();
    assert_eq!(sent.lock().unwrap().len(), 1);
    let (line, body) = sent.lock().unwrap()[0].clone();
    assert!(line.starts_with("PATCH /api/v1/namespaces/acbhub-acme/services/hub?"), "{line}");
    assert!(line.contains("fieldManager=acb-operator") && line.contains("force=true"), "{line}");
    assert_eq!(body.pointer("/metadata/resourceVersion").unwrap(), "7");
    let key = ObjectKey::of(&wanted).unwrap();
    assert_eq!(objects.get(&key).await.unwrap().unwrap().pointer("/metadata/resourceVersion").unwrap(), "8");
}

#[tokio::test]
async fn what_an_apply_leaves_in_a_list_is_written_over() {
    let mut kept = service(8);
    kept["spec"]["ports"] = json!([{"port": 8443}, {"port": 22}]);
    let (client, sent) = api(200, kept.clone());
    let cache = Arc::new(Cache::default());
    cache.put(kept);
    let mut wanted = planned(&service(8));
    wanted["spec"]["ports"] = json!([{"port": 8443}]);
    objects(client, &cache, open()).apply(&wanted).await.unwrap();
    let sent = sent.lock().unwrap().clone();
    assert_eq!(sent.len(), 2, "applied, and then written whole");
    assert!(!sent[1].0.contains("force"), "{}", sent[1].0);
    assert_eq!(sent[1].1.pointer("/spec/ports").unwrap(), &json!([{"port": 8443}]));
}

#[tokio::test]
async fn who_is_late_is_told_to_look_again() {
    let (client, _) = api(409, failure(409, "Conflict"));
    let cache = Arc::new(Cache::default());
    cache.put(service(7));
    let mut wanted = service(7);
    wanted["spec"]["type"] = json!("LoadBalancer");
    let error = objects(client, &cache, open()).apply(&wanted).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_write_that_met_anothers_is_made_again_of_what_is_there() {
    let conflict = (409, failure(409, "Conflict"));
    let of_type = |version: u64, kind: &str| {
        let mut object = planned(&service(7));
        object["spec"]["type"] = json!(kind);
        object = difference::marked(object);
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        object["metadata"]["uid"] = json!("u-1");
        object
    };
    let wanted = planned(&of_type(7, "LoadBalancer"));
    // What was planned is the same: only the version moved on.
    let moved = |version: u64| {
        let mut object = service(7);
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        object
    };
    let mut told = moved(9);
    told["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}});
    let (client, sent) = api_of(&[conflict.clone(), (200, list_of(&told)), (200, of_type(10, "LoadBalancer"))]);
    let cache = Arc::new(Cache::default());
    cache.put(service(7));
    objects(client, &cache, open()).apply(&wanted).await.unwrap();
    let log = sent.lock().unwrap().clone();
    assert_eq!(log.len(), 3, "{log:?}");
    assert!(log[1].0.contains("fieldSelector=metadata.name%3Dhub"), "{}", log[1].0);
    assert_eq!(log[2].1.pointer("/metadata/resourceVersion").unwrap(), "9");
    // The other has done it.
    let (client, sent) = api_of(&[conflict.clone(), (200, list_of(&of_type(9, "LoadBalancer")))]);
    let cache = Arc::new(Cache::default());
    cache.put(service(7));
    objects(client, &cache, open()).apply(&wanted).await.unwrap();
    assert_eq!(sent.lock().unwrap().len(), 2);
    // What another planned is not written over by a plan that does not know of it.
    let (client, sent) = api_of(&[conflict.clone(), (200, list_of(&of_type(9, "NodePort")))]);
    let cache = Arc::new(Cache::default());
    cache.put(service(7));
    let error = objects(client, &cache, open()).apply(&wanted).await.unwrap_err();
    assert!(error.is_transient() && sent.lock().unwrap().len() == 2, "{error}: {:?}", sent.lock().unwrap());
    // Who writes each time in between is waited for by and by.
    let again = |version| (200, list_of(&moved(version)));
    let (client, sent) =
        api_of(&[conflict.clone(), again(8), conflict.clone(), again(9), conflict.clone(), again(10), conflict.clone()]);
    let cache = Arc::new(Cache::default());
    cache.put(service(7));
    let error = objects(client, &cache, open()).apply(&wanted).await.unwrap_err();
    assert!(error.is_transient() && sent.lock().unwrap().len() == 7, "{error}: {:?}", sent.lock().unwrap());
    // A status, and a finalizer.
    for is_status in [true, false] {
        let (client, sent) = api_of(&[conflict.clone(), (200, list_of(&service(9))), (200, service(10))]);
        let cache = Arc::new(Cache::default());
        cache.put(service(7));
        let (objects, key) = (objects(client, &cache, open()), ObjectKey::of(&service(7)).unwrap());
        if is_status {
            objects.set_status(&key, "u-1", json!({"agents": 2})).await.unwrap();
        } else {
            objects.set_finalizer(&key, "u-1", FINALIZER, true).await.unwrap();
        }
        assert_eq!(sent.lock().unwrap()[2].1.pointer("/metadata/resourceVersion").unwrap(), "9");
    }
    // One that was made anew under the name has no part in it.
    let mut another = service(9);
    another["metadata"]["uid"] = json!("u-2");
    let (client, sent) = api_of(&[conflict, (200, list_of(&another))]);
    let cache = Arc::new(Cache::default());
    cache.put(service(7));
    objects(client, &cache, open()).set_status(&ObjectKey::of(&service(7)).unwrap(), "u-1", json!({"agents": 2})).await.unwrap();
    assert_eq!(sent.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn replicas_that_an_autoscaler_set_meanwhile_stay() {
    let deployment = |version: u64, replicas: u64| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "hub", "namespace": "acbhub-acme", "resourceVersion": version.to_string(), "uid": "u-1"},
            "spec": {"replicas": replicas, "paused": false},
        })
    };
    let mut wanted = planned(&deployment(7, 2));
    wanted["spec"]["paused"] = json!(true);
    let answers =
        [(409, failure(409, "Conflict")), (200, list_of(&deployment(9, 5))), (200, json!({"metadata": {"name": "hub"}}))];
    let (client, sent) = api_of(&answers);
    let cache = Arc::new(Cache::default());
    cache.put(deployment(7, 2));
    objects(client, &cache, open()).apply(&wanted).await.unwrap();
    let log = sent.lock().unwrap().clone();
    assert_eq!((&log[2].1["spec"]["replicas"], &log[2].1["spec"]["paused"]), (&json!(5), &json!(true)));
}

#[tokio::test]
async fn without_the_lease_nothing_is_sent() {
    let (client, sent) = api(200, service(8));
    let cache = Arc::new(Cache::default());
    cache.put(service(7));
    let fence = open();
    fence.end();
    let objects = objects(client, &cache, fence);
    let mut wanted = service(7);
    wanted["spec"]["type"] = json!("LoadBalancer");
    let key = ObjectKey::of(&wanted).unwrap();
    let secret = SecretRef { namespace: "acbhub-acme".into(), name: "hub-tls".into(), generation: 1 };
    for result in [
        objects.apply(&wanted).await,
        objects.delete(&key).await,
        objects.create_secret(&secret, SecretData::new(), None).await,
        objects.set_status(&key, "u-1", json!({"agents": 1})).await,
        objects.set_finalizer(&key, "u-1", FINALIZER, true).await,
    ] {
        assert!(result.unwrap_err().to_string().contains("lease"));
    }
    assert!(sent.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_secret_that_someone_else_made_is_in_the_way_by_name() {
    let found = json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "hub-keys-1", "namespace": "acbhub-acme", "uid": "u-2"},
    });
    let (client, sent) = api(200, found);
    let objects = objects(client, &Arc::new(Cache::default()), open());
    let secret = SecretRef { namespace: "acbhub-acme".into(), name: "hub-keys".into(), generation: 1 };
    let step = KubernetesStep::EnsureSecret { secret: secret.clone(), content: SecretContent::HubKeys, asked: None };
    let error = kubernetes::apply(&objects, &step).await.unwrap_err();
    assert!(matches!(&error, EffectError::ForeignSecret(named) if *named == secret), "{error}");
    assert!(sent.lock().unwrap().iter().all(|(line, _)| line.starts_with("GET ")), "nothing is written");
}

#[tokio::test]
async fn a_deletion_names_the_one_that_was_seen() {
    let (client, sent) = api(200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}));
    let cache = Arc::new(Cache::default());
    cache.put(service(7));
    let objects = objects(client, &cache, open());
    objects.delete(&ObjectKey::of(&service(7)).unwrap()).await.unwrap();
    objects.delete(&ObjectKey::new("v1", "Service", "acbhub-acme", "other")).await.unwrap();
    let sent = sent.lock().unwrap().clone();
    assert_eq!(sent.len(), 1, "what is not there is not asked for");
    assert_eq!(sent[0].1.pointer("/preconditions/uid").unwrap(), "u-1");
}

#[tokio::test]
async fn a_namespace_that_came_meanwhile_is_not_taken() {
    let namespace = |uid: &str| {
        difference::marked(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "acb-acme", "labels": {"acb.dev/tenant": "acme", "acb.dev/tenant-uid": uid}},
        }))
    };
    let mut there = namespace("new");
    there["metadata"]["resourceVersion"] = json!("9");
    let (client, sent) = api_of(&[(409, failure(409, "AlreadyExists")), (200, list_of(&there))]);
    let cache = Arc::new(Cache::default());
    let objects_now = objects(client, &cache, open());
    let error = objects_now.apply(&namespace("old")).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let lines: Vec<String> = sent.lock().unwrap().iter().map(|(line, _)| line.clone()).collect();
    assert!(lines[0].starts_with("POST /api/v1/namespaces?") && lines[1].starts_with("GET ") && lines.len() == 2, "{lines:?}");
    let known = cache.get(&ObjectKey::of(&there).unwrap()).unwrap();
    assert_eq!(known["metadata"]["labels"]["acb.dev/tenant-uid"], "new", "what is decided next is decided about that one");
    // Where there is none it is made, and known.
    let (client, sent) = api(201, there.clone());
    let cache = Arc::new(Cache::default());
    objects(client, &cache, open()).apply(&namespace("new")).await.unwrap();
    assert_eq!(sent.lock().unwrap().len(), 1);
    assert!(cache.get(&ObjectKey::of(&there).unwrap()).is_some());
}

#[tokio::test]
async fn a_finalizer_leaves_those_of_others() {
    let (client, sent) = api(200, service(8));
    let cache = Arc::new(Cache::default());
    let mut found = service(7);
    found["metadata"]["finalizers"] = json!(["else.where/x", FINALIZER]);
    cache.put(found);
    let objects = objects(client, &cache, open());
    let key = ObjectKey::of(&service(7)).unwrap();
    objects.set_finalizer(&key, "u-1", FINALIZER, true).await.unwrap();
    assert!(sent.lock().unwrap().is_empty(), "it is there");
    objects.set_finalizer(&key, "u-1", FINALIZER, false).await.unwrap();
    let body = sent.lock().unwrap()[0].1.clone();
    assert_eq!(body.pointer("/metadata/finalizers").unwrap(), &json!(["else.where/x"]));
    assert_eq!(body.pointer("/metadata/resourceVersion").unwrap(), "7");
}

#[tokio::test]
async fn what_is_gone_is_not_held_and_what_has_its_name_is_another() {
    let key = ObjectKey::of(&service(7)).unwrap();
    let cache = Arc::new(Cache::default());
    let (client, sent) = api(200, service(8));
    // The watch has said that it is gone, or that there is another.
    objects(client.clone(), &cache, open()).set_finalizer(&key, "u-1", FINALIZER, true).await.unwrap_err();
    let mut held = service(7);
    held["metadata"]["finalizers"] = json!([FINALIZER]);
    cache.put(held);
    let objects_now = objects(client, &cache, open());
    objects_now.set_finalizer(&key, "u-0", FINALIZER, true).await.unwrap_err();
    objects_now.set_finalizer(&key, "u-0", FINALIZER, false).await.unwrap();
    assert!(sent.lock().unwrap().is_empty(), "nothing is said to the other one");
    // The watch is behind.
    let cache = Arc::new(Cache::default());
    cache.put(service(7));
    let (client, _) = api(404, failure(404, "NotFound"));
    let error = objects(client, &cache, open()).set_finalizer(&key, "u-1", FINALIZER, true).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let (client, _) = api(404, failure(404, "NotFound"));
    let mut held = service(8);
    held["metadata"]["finalizers"] = json!([FINALIZER]);
    cache.put(held);
    objects(client, &cache, open()).set_finalizer(&key, "u-1", FINALIZER, false).await.unwrap();
}

#[tokio::test]
async fn a_status_is_written_where_it_differs() {
    let (client, sent) = api(200, service(8));
    let cache = Arc::new(Cache::default());
    let mut found = service(7);
    found["status"] = json!({"agents": 1});
    cache.put(found);
    let objects = objects(client, &cache, open());
    let key = ObjectKey::of(&service(7)).unwrap();
    objects.set_status(&key, "u-1", json!({"agents": 1})).await.unwrap();
    assert!(sent.lock().unwrap().is_empty());
    objects.set_status(&key, "u-1", json!({"agents": 2})).await.unwrap();
    let (line, body) = sent.lock().unwrap()[0].clone();
    assert!(line.contains("/services/hub/status?"), "{line}");
    assert_eq!((&body["status"], body.get("spec")), (&json!({"agents": 2}), None));
}

#[tokio::test]
async fn what_is_said_of_one_is_not_said_of_another_of_its_name() {
    let (client, sent) = api(200, service(9));
    let cache = Arc::new(Cache::default());
    let (objects, key) = (objects(client, &cache, open()), ObjectKey::of(&service(7)).unwrap());
    // It was deleted and made again after it was looked at.
    let mut another = service(8);
    another["metadata"]["uid"] = json!("u-2");
    cache.put(another);
    objects.set_status(&key, "u-1", json!({"agents": 2})).await.unwrap();
    assert!(sent.lock().unwrap().is_empty(), "{:?}", sent.lock().unwrap());
    objects.set_status(&key, "u-2", json!({"agents": 2})).await.unwrap();
    assert_eq!(sent.lock().unwrap()[0].1.pointer("/metadata/uid").unwrap(), "u-2");
}

#[tokio::test]
async fn a_right_that_a_binding_gives_may_still_come() {
    let (client, _) = api(403, forbidden());
    let cache = Arc::new(Cache::default());
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "acbhub-acme", "resourceVersion": "1"}});
    cache.put(namespace);
    let objects = objects(client, &cache, open());
    let closed = |error: &EffectError| matches!(error, EffectError::Closed { namespace, .. } if namespace == "acbhub-acme");
    assert!(closed(&objects.list("acbhub-acme").await.unwrap_err()));
    assert!(closed(&objects.apply(&service(7)).await.unwrap_err()));
    assert!(objects.list("acb-acme").await.unwrap().is_empty(), "a namespace that is not there has no Secrets");
    let cluster_scoped = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "acb-acme"}});
    assert!(!objects.apply(&cluster_scoped).await.unwrap_err().is_transient(), "a ClusterRole that lacks a rule");
}

#[tokio::test]
async fn a_namespace_on_its_way_out_is_not_waited_for() {
    let (client, _) = api(403, forbidden());
    let cache = Arc::new(Cache::default());
    let mut namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "acb-acme", "resourceVersion": "1"}});
    cache.put(namespace.clone());
    let objects = objects(client, &cache, open());
    objects.list("acb-acme").await.unwrap_err();
    namespace["metadata"]["resourceVersion"] = json!("2");
    namespace["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    cache.put(namespace);
    assert!(objects.list("acb-acme").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_hub_that_is_gone_is_made_again_at_once() {
    let deployment = difference::marked(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "hub", "namespace": "acbhub-acme"},
        "spec": {"replicas": 2},
    }));
    let mut theirs = deployment.clone();
    theirs["spec"]["replicas"] = json!(0);
    // A version of nothing: what the API of wood answers is not kept.
    let (client, sent) = api(200, json!({"metadata": {"name": "hub", "namespace": "acbhub-acme"}}));
    let cache = Arc::new(Cache::default());
    let objects = objects(client, &cache, open());
    for version in 1..=9 {
        theirs["metadata"]["resourceVersion"] = json!((version * 10).to_string());
        cache.put(theirs.clone());
        objects.apply(&deployment).await.unwrap();
    }
    let before = sent.lock().unwrap().len();
    objects.apply(&deployment).await.unwrap();
    assert_eq!(sent.lock().unwrap().len(), before, "it rests");
    theirs["metadata"]["resourceVersion"] = json!("1000");
    cache.remove(&theirs);
    objects.apply(&deployment).await.unwrap();
    assert!(sent.lock().unwrap().len() > before, "nobody's hub is rolled by that");
}

#[tokio::test]
async fn secrets_of_a_namespace_that_is_gone_are_not_kept() {
    let secret = SecretRef { namespace: "acbhub-acme".into(), name: "hub-keys".into(), generation: 1 };
    let metadata = json!({"name": "hub-keys-1", "namespace": "acbhub-acme", "uid": "u-2"});
    // Both a list and a Secret.
    let (client, sent) = api(
        200,
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"pepper": "YQ=="},
            "items": [{"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata}],
        }),
    );
    let cache = Arc::new(Cache::default());
    let mut namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "acbhub-acme", "resourceVersion": "1"}});
    cache.put(namespace.clone());
    let objects = objects(client, &cache, open());
    assert!(!objects.list("acbhub-acme").await.unwrap().is_empty());
    for _ in 0..2 {
        SecretReader::read(&objects, &secret).await.unwrap();
    }
    assert_eq!(sent.lock().unwrap().len(), 2, "it is known");
    namespace["metadata"]["resourceVersion"] = json!("2");
    cache.remove(&namespace);
    assert!(objects.list("acbhub-acme").await.unwrap().is_empty());
    SecretReader::read(&objects, &secret).await.unwrap();
    assert_eq!(sent.lock().unwrap().len(), 3, "nothing of it was kept");
}

#[tokio::test]
async fn a_kind_that_is_not_watched_is_refused() {
    let (client, sent) = api(200, Value::Null);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "n"}});
    let error = objects(client, &Arc::new(Cache::default()), open()).apply(&pod).await.unwrap_err();
    assert!(error.to_string().contains("Pod") && sent.lock().unwrap().is_empty(), "{error}");
}

/// Run by the e2e, which has a cluster: `KUBECONFIG=… cargo test -p acb-operator --lib conforms_on_a_cluster -- --ignored`.
/// Lists what it is given, and tells of no change.
fn silent(tenants: Arc<Mutex<Vec<Value>>>) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let tenants = Arc::clone(&tenants);
        async move {
            let uri = request.uri().to_string();
            if uri.contains("watch=true") {
                return std::future::pending().await;
            }
            let items = if uri.contains("/tenants") { tenants.lock().unwrap().clone() } else { Vec::new() };
            let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}, "items": items});
            Ok::<_, Infallible>(Response::builder().status(200).body(Body::from(list.to_string().into_bytes())).unwrap())
        }
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn a_new_leader_knows_what_there_is_also_where_its_watches_are_behind() {
    let tenant = |name: &str, suspend: bool, version: u64| {
        json!({"apiVersion": acb_crds::API_VERSION, "kind": "Tenant", "metadata": {"name": name, "resourceVersion": version.to_string()},
               "spec": {"tier": "Free", "suspend": suspend}})
    };
    let there = Arc::new(Mutex::new(vec![tenant("acme", false, 1), tenant("globex", false, 2)]));
    let requests = Requests::new(silent(Arc::clone(&there)), Metrics::default());
    let (watches, stop) = (Arc::new(Watches::new()), CancellationToken::new());
    watches.start(&requests, &stop);
    let within = Duration::from_secs(30);
    let mut missing = watches.missing.subscribe();
    tokio::time::timeout(within, missing.wait_for(Vec::is_empty)).await.expect("every kind is listed").unwrap();
    let known = || {
        let tenants = watches.cache.tenancy("").tenants;
        tenants.iter().map(|tenant| (tenant.metadata.name.clone().unwrap(), tenant.spec.suspend)).collect::<Vec<_>>()
    };
    let before = vec![("acme".to_owned(), Some(false)), ("globex".to_owned(), Some(false))];
    *there.lock().unwrap() = vec![tenant("acme", true, 3), tenant("initech", false, 4)];
    assert_eq!(known(), before, "no watch told of it");
    for _ in 0..2 {
        tokio::time::timeout(within, watches.list_anew()).await.expect("what decides is listed");
        assert_eq!(known(), [("acme".to_owned(), Some(true)), ("initech".to_owned(), Some(false))]);
    }
    stop.cancel();
}

#[tokio::test]
#[ignore = "needs a cluster in KUBECONFIG, with the CRDs installed"]
async fn conforms_on_a_cluster() {
    let config = kube_client::Config::infer().await.expect("KUBECONFIG names a cluster");
    let requests = Requests::new(Client::try_from(config).unwrap(), Metrics::default());
    let (watches, stop) = (Arc::new(Watches::new()), CancellationToken::new());
    watches.start(&requests, &stop);
    let mut missing = watches.missing.subscribe();
    tokio::time::timeout(Duration::from_secs(30), missing.wait_for(Vec::is_empty)).await.expect("every kind is listed").unwrap();
    let cache = Arc::clone(&watches.cache);
    let objects = KubernetesObjects::new(requests, Arc::clone(&cache), Arc::new(open()), "acb-system", no_issuer());
    let name = format!("acb-conformance-{}", uuid::Uuid::new_v4().simple());
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    objects.apply(&namespace).await.unwrap();
    let config_map = ObjectKey::new("v1", "ConfigMap", &name, "a");
    let settled = || async {
        let deadline = Instant::now() + Duration::from_secs(10);
        while cache.get(&config_map).is_some() {
            assert!(Instant::now() < deadline, "the watch did not tell of the deletion");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    conformance::objects(&objects, &name, settled).await;
    objects.delete(&ObjectKey::of(&namespace).unwrap()).await.unwrap();
    stop.cancel();
}
