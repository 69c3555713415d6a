//! Questions to an operator whose API server is of wood, and whose PostgreSQL is real.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use acb_crds::{
    names::TenantId,
    schema::{Kind, ObjectRef},
};
use acb_testbed::{Postgres, Version};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube_client::{Client, client::Body};
use kube_runtime::events::{Recorder, Reporter};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Notify, watch},
};
use tokio_util::sync::CancellationToken;

use super::{
    FINALIZER,
    cache::Cache,
    callers::Callers,
    cluster::Cluster,
    config::Config,
    database::Claim,
    events,
    metrics::Metrics,
    objects::KubernetesObjects,
    plan_server,
    plans::{Plans, Refusal},
    requests::Requests,
    sessions, sweep,
};
use crate::{
    effect::{SecretReader as _, fence::Fence, kubernetes::Objects as _, postgres_inventory},
    orphans::{OrphanReport, System},
    plan::SecretRef,
    preview::{
        Found, Report,
        question::{AUDIENCE, MAX_OBJECTS, Question},
    },
    reconcile::{deletion::Ending, runtime::Runtime as _},
};

type Sent = Arc<Mutex<Vec<String>>>;
/// The Tenants that the API server has; `None`: it does not say.
type Listed = Arc<Mutex<Option<Vec<Value>>>>;

/// What a user may do. `tina` is the admin of a tenant, `petra` plans and applies nothing, `ed` edits everything.
fn allows(user: &str, verb: &str, namespace: &str) -> bool {
    match user {
        "ed" => matches!(verb, "get" | "list" | "patch" | "create"),
        "petra" => matches!(verb, "plan" | "get"),
        "tina" => matches!(verb, "get" | "patch" | "create") && namespace == "acb-acme",
        _ => false,
    }
}

fn reviewed(path: &str, body: &Value) -> Value {
    if path.ends_with("/tokenreviews") {
        // A token is called as its owner; one that is bound to plans has a mark.
        let token = body.pointer("/spec/token").unwrap().as_str().unwrap();
        let asked = body.pointer("/spec/audiences").cloned().unwrap_or(json!([]));
        let bound = token.ends_with("@plan");
        let good = token != "nobody" && bound == (asked == json!([AUDIENCE]));
        let user = json!({"username": token.trim_end_matches("@plan"), "uid": "1", "groups": ["g"], "extra": {"k": ["v"]}});
        let audiences = if bound { asked } else { json!(["https://kubernetes.default.svc"]) };
        return json!({"status": if good { json!({"authenticated": true, "audiences": audiences, "user": user}) } else { json!({}) }});
    }
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    assert_eq!((text("/spec/uid"), body.pointer("/spec/extra/k/0").unwrap()), ("1", &json!("v")));
    assert_eq!(text("/spec/resourceAttributes/group"), "acb.dev");
    let allowed = allows(text("/spec/user"), text("/spec/resourceAttributes/verb"), text("/spec/resourceAttributes/namespace"));
    json!({"status": {"allowed": allowed}})
}

/// The Secrets of a tenant that leaves, by namespace, without the generation.
fn leaving_secrets() -> [(&'static str, String); 3] {
    let authority = TenantId::from_uid("uid-of-leaving").authority_secret();
    [("acb-leaving", "worker-api-key".to_owned()), ("acbhub-leaving", "hub-keys".to_owned()), ("acb-system", authority)]
}

/// What is answered about Secrets: a list of a namespace, or one by its name.
fn secrets(path: &str) -> Value {
    let of = |(namespace, name): (&str, String)| json!({"name": format!("{name}-1"), "namespace": namespace, "uid": name});
    let found: Vec<Value> =
        leaving_secrets().into_iter().filter(|(namespace, _)| path.contains(&format!("/{namespace}/"))).map(of).collect();
    if path.ends_with("/secrets") {
        let item = |metadata| json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
        let items: Vec<Value> = found.into_iter().map(item).collect();
        return json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": items});
    }
    json!({"kind": "Secret", "apiVersion": "v1", "metadata": found.first(), "data": {"key": "YQ=="}})
}

fn api() -> (Client, Sent, Listed) {
    let (sent, listed) = (Sent::default(), Listed::new(Mutex::new(Some(Vec::new()))));
    let (log, tenants) = (Arc::clone(&sent), Arc::clone(&listed));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (log, tenants) = (Arc::clone(&log), Arc::clone(&tenants));
        async move {
            let (parts, body) = request.into_parts();
            let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default();
            let path = parts.uri.path().to_owned();
            log.lock().unwrap().push(format!("{} {path}", parts.method));
            let answer = match path.as_str() {
                reviews if reviews.ends_with("reviews") => reviewed(reviews, &body),
                tenants_path if tenants_path.ends_with("/tenants") => match tenants.lock().unwrap().clone() {
                    Some(items) => {
                        json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": items})
                    }
                    None => {
                        let status =
                            json!({"kind": "Status", "status": "Failure", "code": 503, "reason": "x", "message": "etcd"});
                        let body = Body::from(status.to_string().into_bytes());
                        return Ok(Response::builder().status(503).body(body).unwrap());
                    }
                },
                path if path.contains("/secrets") => secrets(path),
                _ => json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": []}),
            };
            Ok::<_, Infallible>(Response::new(Body::from(answer.to_string().into_bytes())))
        }
    });
    (Client::new(service, "default"), sent, listed)
}

/// An operator that leads.
struct World {
    listed: Listed,
    plans: Plans,
    cache: Arc<Cache>,
    sent: Sent,
    closing: CancellationToken,
    leading: watch::Sender<Option<Arc<Cluster>>>,
    _folder: tempfile::TempDir,
}

const PASSWORD: &str = "of-the-operator";

impl World {
    fn new(port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "bus: {{kind: postgres}}\npostgres: {{host: 127.0.0.1, port: {port}, database: acb, sslMode: prefer}}\nhubImage: hub:1\n"
        );
        fs::write(folder.path().join("config.yaml"), text).unwrap();
        fs::create_dir(folder.path().join("postgres")).unwrap();
        fs::write(folder.path().join("postgres/username"), "acb_operator").unwrap();
        fs::write(folder.path().join("postgres/password"), PASSWORD).unwrap();
        let config = Arc::new(Config::load(&folder.path().join("config.yaml"), "acb-system").unwrap());
        let (client, sent, listed) = api();
        let requests = Requests::new(client.clone(), Metrics::default());
        let (cache, closing) = (Arc::new(Cache::default()), CancellationToken::new());
        let fence = Arc::new(Fence::until(Instant::now() + Duration::from_secs(600)));
        let objects = Arc::new(KubernetesObjects::new(
            requests.clone(),
            Arc::clone(&cache),
            Arc::clone(&fence),
            "acb-system",
            watch::channel(None).1,
        ));
        let claim = Claim::new(Arc::clone(&config), "test", Arc::clone(&objects) as _).unwrap();
        let recorder = Recorder::new(client, Reporter { controller: "test".into(), instance: None });
        let cluster = Cluster {
            woken: Arc::default(),
            config,
            cache: Arc::clone(&cache),
            objects,
            claim,
            fence,
            kafka: Arc::default(),
            events: events::publish(recorder),
            closing: closing.clone(),
            left_behind: Notify::new(),
            orphans: Mutex::default(),
            isolation: Mutex::default(),
        };
        let (leading, leader) = watch::channel(Some(Arc::new(cluster)));
        Self { listed, plans: Plans::new(requests, leader), cache, sent, closing, leading, _folder: folder }
    }

    async fn with_postgres() -> (Self, Postgres) {
        let postgres = Postgres::start(Version::Installed).await;
        (Self::on(&postgres).await, postgres)
    }

    /// From now on the testbed's own operator is another's.
    async fn on(postgres: &Postgres) -> Self {
        let sql = format!("ALTER ROLE acb_operator PASSWORD '{PASSWORD}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut postgres.superuser().await).await.unwrap();
        Self::new(postgres.server().port())
    }

    async fn ask(&self, token: &str, objects: &[Value]) -> Result<Report, Refusal> {
        self.plans.answer(&self.plans.admit(token).await?, &Question { objects: objects.to_vec() }).await
    }

    /// Puts an object into the cluster.
    fn put(&self, object: &Value) {
        let mut object = object.clone();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        object["metadata"]["uid"] = json!(format!("uid-of-{name}"));
        object["metadata"]["resourceVersion"] = json!("5");
        object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        self.cache.put(object);
    }

    fn wrote(&self) -> Vec<String> {
        let sent = self.sent.lock().unwrap();
        sent.iter().filter(|line| !line.starts_with("GET ") && !line.ends_with("reviews")).cloned().collect()
    }
}

fn tenant(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": acb_crds::API_VERSION, "kind": "Tenant", "metadata": {"name": name}, "spec": spec})
}

fn agent(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": acb_crds::API_VERSION, "kind": "Agent", "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

fn found<'a>(report: &'a Report, object: &str) -> &'a Found {
    let planned = report.objects.iter().find(|planned| planned.object.to_string() == object);
    &planned.unwrap_or_else(|| panic!("{object} is not in {report}")).found
}

fn text(found: &Found) -> String {
    match found {
        Found::Plan { text, .. } => text.join("\n"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_speaks_for_its_owner_however_it_is_bound() {
    let (client, ..) = api();
    let callers = Callers::new(Requests::new(client, Metrics::default()));
    for token in ["ed", "ed@plan"] {
        assert_eq!(callers.identify(token).await.unwrap().unwrap().username, "ed", "{token}");
    }
    assert!(callers.identify("nobody").await.unwrap().is_none());
}

#[tokio::test]
async fn who_may_not_apply_may_not_plan() {
    let world = World::new(1);
    let acme = tenant("acme", &json!({"tier": "Free"}));
    let worker = agent("acb-acme", "worker", &json!({"role": "Observer"}));
    let other = agent("acb-globex", "worker", &json!({"role": "Observer"}));
    for (token, objects, named, not_named) in [
        ("stranger", vec![worker.clone(), acme.clone()], vec!["Agent acb-acme/worker", "Tenant acme", "acb-planner"], "x"),
        ("tina", vec![worker.clone(), acme], vec!["Tenant acme"], "Agent"),
        ("tina", vec![worker.clone(), other], vec!["Agent acb-globex/worker"], "acb-acme"),
    ] {
        let refusal = world.ask(token, &objects).await.unwrap_err();
        let Refusal::Forbidden(message) = &refusal else { panic!("{refusal:?}") };
        assert!(named.iter().all(|named| message.contains(named)) && !message.contains(not_named), "{message}");
    }
    assert!(matches!(world.ask("nobody", &[worker]).await, Err(Refusal::Unauthenticated(_))));
    assert!(world.wrote().is_empty());
}

#[tokio::test]
async fn only_a_question_within_its_bounds_is_answered() {
    let world = World::new(1);
    let worker = agent("acb-acme", "worker", &json!({"role": "Observer"}));
    let many: Vec<Value> = (0..=MAX_OBJECTS).map(|n| agent("acb-acme", &format!("a{n}"), &json!({}))).collect();
    let lost = json!({"apiVersion": acb_crds::API_VERSION, "kind": "Agent", "metadata": {"name": "a"}, "spec": {}});
    for (objects, says) in [
        (many, "at most 500"),
        (vec![json!({"kind": "Pod", "metadata": {"name": "a"}})], "document 1 is no Tenant"),
        (vec![worker.clone(), worker], "is there twice"),
        (vec![lost], "have a namespace"),
    ] {
        let refusal = world.ask("ed", &objects).await.unwrap_err();
        assert!(matches!(&refusal, Refusal::Malformed(why) if why.contains(says)), "{refusal:?}");
    }
}

#[tokio::test]
async fn who_does_not_lead_or_is_ending_says_so() {
    let world = World::new(1);
    world.closing.cancel();
    let ending = world.ask("ed", &[tenant("acme", &json!({"tier": "Free"}))]).await.unwrap_err();
    assert!(matches!(&ending, Refusal::Unavailable(why) if why.contains("ending")), "{ending:?}");
    let (client, sent, _) = api();
    let (_leading, leader) = watch::channel(None);
    let plans = Plans::new(Requests::new(client, Metrics::default()), leader);
    let standby = plans.admit("ed").await.err().unwrap();
    assert!(matches!(&standby, Refusal::Unavailable(why) if why.contains("does not lead")), "{standby:?}");
    assert!(sent.lock().unwrap().is_empty(), "nobody's token goes further than it must");
}

#[tokio::test]
async fn a_new_tenant_is_planned_as_it_would_be_made_and_nothing_is() {
    let (world, postgres) = World::with_postgres().await;
    let objects = [tenant("acme", &json!({"tier": "Free"})), agent("acb-acme", "worker", &json!({"role": "Observer"}))];
    for token in ["petra", "petra@plan", "ed"] {
        let report = world.ask(token, &objects).await.unwrap();
        let acme = text(found(&report, "Tenant acme"));
        assert!(acme.contains("+ Namespace acb-acme") && acme.contains("+ Deployment acbhub-acme/hub"), "{acme}");
        assert!(acme.contains("+ postgres tenant acme"), "{acme}");
        let worker = text(found(&report, "Agent acb-acme/worker"));
        assert!(worker.contains("+ Secret acb-acme/worker-api-key-1"), "{worker}");
        assert!(report.has_changes() && !report.has_refusals() && !report.to_string().contains(PASSWORD));
    }
    assert!(world.wrote().is_empty(), "{:?}", world.wrote());
    let mut superuser = postgres.superuser().await;
    let tenants: i64 = sqlx::query_scalar("SELECT count(*) FROM acb.tenant").fetch_one(&mut superuser).await.unwrap();
    assert_eq!(tenants, 0);
}

#[tokio::test]
async fn what_changes_along_is_said_and_shown_to_who_may_see_it() {
    let (world, _postgres) = World::with_postgres().await;
    world.put(&tenant("acme", &json!({"tier": "Free"})));
    world.put(&agent("acb-acme", "older", &json!({"role": "Observer"})));
    let quota = json!({
        "apiVersion": acb_crds::API_VERSION, "kind": "Quota", "metadata": {"name": "few", "namespace": "acb-acme"},
        "spec": {"limits": {"maxAgents": 0}},
    });
    let report = world.ask("tina", &[quota]).await.unwrap();
    assert!(matches!(found(&report, "Tenant acme"), Found::Hidden { hidden_steps } if *hidden_steps > 0), "{report}");
    let Found::Refused { problems, .. } = found(&report, "Agent acb-acme/older") else { panic!("{report}") };
    assert!(problems[0].message.contains("allows 0 agents"), "{problems:?}");
    assert!(report.objects.iter().all(|planned| planned.also == (planned.object.name != "few")));
}

#[tokio::test]
async fn a_change_that_the_api_server_would_refuse_is_refused() {
    let (world, _postgres) = World::with_postgres().await;
    let types = |partitions: u32| json!({"tier": "Free", "contextTypes": [{"name": "notes", "partitions": partitions}]});
    world.put(&tenant("acme", &types(4)));
    let report = world.ask("ed", &[tenant("acme", &types(2)), tenant("globex", &json!({"tier": "Free"}))]).await.unwrap();
    let Found::Refused { problems, .. } = found(&report, "Tenant acme") else { panic!("{report}") };
    assert!(problems[0].message.contains("only grow"), "{problems:?}");
    assert!(text(found(&report, "Tenant globex")).contains("acbhub-globex"));
    assert!(report.has_refusals() && report.has_changes());
}

#[tokio::test]
async fn nothing_is_read_of_who_is_not_known() {
    let world = World::new(1);
    let listener = plan_server::listen(0).await.unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    tokio::spawn(plan_server::serve(listener, Arc::new(world.plans), CancellationToken::new()));
    let head = "POST /plan HTTP/1.1\r\nhost: a\r\nauthorization: Bearer nobody\r\ncontent-length: 1000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    let read = stream.read_exact(&mut answer);
    tokio::time::timeout(Duration::from_secs(20), read).await.expect("it does not wait for the question").unwrap();
    assert_eq!(answer, b"HTTP/1.1 401");
}

/// The answer to a question that is sent over HTTP.
async fn posted(world: World, body: &str) -> String {
    let listener = plan_server::listen(0).await.unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    tokio::spawn(plan_server::serve(listener, Arc::new(world.plans), CancellationToken::new()));
    let head = format!("POST /plan HTTP/1.1\r\nhost: a\r\nauthorization: Bearer ed\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(60), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn a_question_that_is_small_in_text_alone_is_refused() {
    let body = format!("{{\"objects\": [{}]}}", vec![r#"{"":0}"#; 200_000].join(","));
    let answer = posted(World::new(1), &body).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("at most 50000 lists"), "{answer}");
}

#[tokio::test]
async fn the_problems_of_a_question_have_a_bound() {
    let world = World::new(1);
    let wrong = json!({"role": "Observer", "capabilities": vec![1; 300]});
    let objects: Vec<Value> = (0..40).map(|number| agent("acb-acme", &format!("a{number}"), &wrong)).collect();
    let report = world.ask("ed", &objects).await.unwrap();
    let problems: Vec<usize> = report
        .objects
        .iter()
        .map(|planned| match &planned.found {
            Found::Refused { problems, .. } => problems.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(problems.len(), 40);
    assert!(problems.iter().all(|problems| *problems > 0) && problems.iter().sum::<usize>() <= 1_040, "{problems:?}");
}

#[tokio::test]
async fn a_sweep_shuts_what_belongs_to_nobody_and_nothing_else() {
    let postgres = Postgres::start(Version::Installed).await;
    let (gone, stays) = (postgres.tenant("gone").await, postgres.tenant("stays").await);
    let world = World::on(&postgres).await;
    let mut kept = tenant("stays", &json!({"tier": "Free"}));
    kept["metadata"]["annotations"] = json!({"acb.dev/adopt": stays.id_hex()});
    world.put(&kept);
    for (name, uid, id) in [("gone", "of-nobody", gone.id_hex()), ("stays", "uid-of-stays", stays.id_hex())] {
        let (space, labels) = (format!("acbhub-{name}"), json!({"acb.dev/tenant": name, "acb.dev/tenant-uid": uid}));
        let metadata = json!({"name": space, "labels": labels, "annotations": {"acb.dev/tenant-id": id}});
        world.put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}));
        world.put(&json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "hub", "namespace": space}}));
    }
    let (cluster, metrics) = (world.leading.borrow().clone().unwrap(), Metrics::default());
    // The API server has it, and the watch has not told yet; or nobody knows what it has.
    let behind = json!({"metadata": {"name": "gone", "uid": "of-nobody"}});
    for (listed, is_done) in [(Some(vec![behind]), true), (None, false)] {
        *world.listed.lock().unwrap() = listed;
        assert_eq!(sweep::once(&cluster, &metrics, &mut BTreeMap::new()).await, is_done);
        assert_eq!(world.wrote(), Vec::<String>::new());
    }
    *world.listed.lock().unwrap() = Some(Vec::new());
    assert!(sweep::once(&cluster, &metrics, &mut BTreeMap::new()).await, "all was looked at, and taken away");
    assert_eq!(world.wrote(), ["DELETE /apis/apps/v1/namespaces/acbhub-gone/deployments/hub"]);
    let pool = acb_hub_pool::Pool::new(postgres.operator_options().password(PASSWORD), acb_hub_pool::Limits::default());
    let found = postgres_inventory::inventory(&pool).await.unwrap();
    let is_let_in = |id: &str| found.logins[&TenantId::from_hex(id).unwrap()];
    assert_eq!((is_let_in(gone.id_hex()), is_let_in(stays.id_hex())), (false, true));
    assert_eq!(found.rows.len(), 2, "data is never removed");
    let text = metrics.text().unwrap();
    for line in ["acb_operator_orphans{system=\"postgres\"} 0", "acb_operator_orphans_finished_total{system=\"postgres\"} 1"] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn who_leads_ends_sessions_that_hold_others_off_and_says_whose() {
    let postgres = Postgres::start(Version::Installed).await;
    let acme = postgres.tenant("acme").await;
    let world = World::on(&postgres).await;
    world.put(&tenant("acme", &json!({"tier": "Free"})));
    let (cluster, metrics) = (world.leading.borrow().clone().unwrap(), Metrics::default());
    let mut session = acme.connect().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE acb.presence IN SHARE ROW EXCLUSIVE MODE").execute(&mut session).await.unwrap();
    let ending = tokio::spawn(sessions::end_overlong(cluster, metrics.clone()));
    let deadline = Instant::now() + Duration::from_secs(60);
    let is_counted = || metrics.text().unwrap().contains("acb_operator_overlong_sessions_ended_total 1");
    let is_told = || world.wrote().contains(&"POST /apis/events.k8s.io/v1/namespaces/default/events".to_owned());
    while !is_counted() || !is_told() {
        assert!(Instant::now() < deadline && !ending.is_finished(), "{:?}\n{}", world.wrote(), metrics.text().unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(sqlx::raw_sql("SELECT 1").execute(&mut session).await.is_err(), "the session goes on");
    world.closing.cancel();
    tokio::time::timeout(Duration::from_secs(10), ending).await.expect("it ends with the term").unwrap();
}

#[tokio::test]
async fn secrets_of_a_tenant_that_is_let_go_are_not_kept() {
    let world = World::new(1);
    let cluster = world.leading.borrow().clone().unwrap();
    let mut leaving = tenant("leaving", &json!({"tier": "Free"}));
    leaving["metadata"]["finalizers"] = json!([FINALIZER]);
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
    world.put(&leaving);
    // They stay, with its data.
    for space in ["acb-leaving", "acbhub-leaving"] {
        world.put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}}));
    }
    let read_all = async || {
        for (namespace, name) in leaving_secrets() {
            assert!(!cluster.objects.list(namespace).await.unwrap().is_empty(), "{namespace}");
            let secret = SecretRef { namespace: namespace.to_owned(), name, generation: 1 };
            cluster.objects.read(&secret).await.unwrap();
        }
        world.sent.lock().unwrap().iter().filter(|line| line.contains("/secrets/")).count()
    };
    assert_eq!((read_all().await, read_all().await), (3, 3), "they are known");
    let object = ObjectRef { kind: Kind::Tenant, namespace: String::new(), name: "leaving".to_owned() };
    cluster.let_go(&object, "uid-of-leaving", &Ending::Retained).await.unwrap();
    assert_eq!(read_all().await, 6, "none of them was kept");
}

#[tokio::test]
async fn what_a_sweep_left_is_told_to_those_who_may_list_tenants() {
    // PostgreSQL does not answer, and so nothing is said of it.
    let world = World::new(1);
    world.put(&tenant("acme", &json!({"tier": "Free"})));
    let before = world.plans.orphans(&world.plans.admit("ed").await.unwrap()).await.unwrap();
    assert_eq!(before, OrphanReport::default());
    let cluster = world.leading.borrow().clone().unwrap();
    assert!(!sweep::once(&cluster, &Metrics::default(), &mut BTreeMap::new()).await);
    let told = world.plans.orphans(&world.plans.admit("ed").await.unwrap()).await.unwrap();
    assert!(told.looked_at.is_some() && told.away == [System::Postgres] && told.orphans.is_empty(), "{told:?}");
    for token in ["tina", "stranger"] {
        let refusal = world.plans.orphans(&world.plans.admit(token).await.unwrap()).await.unwrap_err();
        assert!(matches!(&refusal, Refusal::Forbidden(why) if why.contains("tenants.acb.dev")), "{refusal:?}");
    }
}

#[tokio::test]
async fn an_operator_without_a_tenant_leaves_the_stores_to_who_has_them() {
    // Nobody listens there: what is asked would fail.
    let world = World::new(1);
    let cluster = world.leading.borrow().clone().unwrap();
    assert!(cluster.database_in_use().await.unwrap().is_none());
    assert!(sweep::once(&cluster, &Metrics::default(), &mut BTreeMap::new()).await, "there is nothing to look at");
    world.put(&tenant("acme", &json!({"tier": "Free"})));
    cluster.database_in_use().await.unwrap_err();
}

#[tokio::test]
async fn a_database_that_was_claimed_is_used_without_a_tenant() {
    let (world, _postgres) = World::with_postgres().await;
    let cluster = world.leading.borrow().clone().unwrap();
    assert!(cluster.database_in_use().await.unwrap().is_none());
    cluster.claim.database().await.unwrap();
    assert!(cluster.database_in_use().await.unwrap().is_some());
}
