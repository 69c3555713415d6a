//! A hub's credentials are replaced while agents talk: nobody is dropped, nothing is lost, and the old ones open nothing any more.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use acb_operator::{
    effect::{
        SecretReader as _,
        kafka_access::{KafkaAccess, KafkaOptions},
        postgres_observe::{LoginState, login_state},
    },
    plan::SecretRef,
    platform::{PlatformBus, PlatformPostgres},
    runtime::standalone::{deployments::read_running, objects::ObjectStore, state::StateDir},
};
use acb_sdk::{Client, Message};
use acb_testbed::{
    kafka::{Kafka, KafkaListener},
    standalone::{Home, Standalone},
};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{Instant, sleep},
};

const LONG: Duration = Duration::from_secs(120);

fn tenant(rotate: &str) -> String {
    format!(
        "apiVersion: acb.dev/v1alpha1\nkind: Tenant\nmetadata: {{name: acme, annotations: {{acb.dev/rotate: {rotate:?}}}}}\n\
         spec: {{tier: Professional, hub: {{replicas: 2}}}}\n"
    )
}

fn agent(name: &str, rotate: &str) -> String {
    format!(
        "apiVersion: acb.dev/v1alpha1\nkind: Agent\n\
         metadata: {{name: {name}, namespace: acb-acme, annotations: {{acb.dev/rotate: {rotate:?}}}}}\n\
         spec: {{type: worker, role: AgentFull}}\n"
    )
}

/// What a Service is on a cluster: one address, behind which replicas come and go.
async fn service(state: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let state = StateDir::existing(state).unwrap();
    tokio::spawn(async move {
        let turn = AtomicUsize::new(0);
        while let Ok((mut client, _)) = listener.accept().await {
            let running = read_running(&state).unwrap_or_default();
            let backends = running.endpoints.of("acbhub-acme", "hub", "grpc").to_vec();
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let Some(backend) = backends.get(turn % backends.len().max(1)) else { return };
                if let Ok(mut hub) = TcpStream::connect(backend).await {
                    // How it ends is the two ends' affair.
                    let _ = copy_bidirectional(&mut client, &mut hub).await;
                }
            });
        }
    });
    format!("https://{address}")
}

async fn connect(dev: &Standalone, service: &str, agent: &str) -> Client {
    let acme = dev.tenant("acme").unwrap();
    let builder = Client::builder().endpoints([service]).ca_pem(acme.ca_pem.clone());
    builder.api_key(acme.api_key(agent).unwrap().parse().unwrap()).connect().await.unwrap()
}

/// Agents that talk until they are told to stop.
struct Talk {
    stop: Arc<AtomicBool>,
    sent: JoinHandle<u64>,
    received: JoinHandle<BTreeMap<u64, usize>>,
    calls: JoinHandle<usize>,
}

impl Talk {
    async fn start(dev: &Standalone, service: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, receiver, caller) =
            tokio::join!(connect(dev, service, "sender"), connect(dev, service, "receiver"), connect(dev, service, "caller"));
        let mut receiving = receiver.session().open().await.unwrap();
        let sending = sender.session().receive(false).open().await.unwrap();
        let told = Arc::clone(&stop);
        let sent = tokio::spawn(async move {
            let mut number = 0;
            while !told.load(Ordering::Relaxed) {
                number += 1;
                let message = Message::to_agent("receiver").topic("number").text(number.to_string());
                sending.send(message).await.unwrap_or_else(|error| panic!("message {number}: {error}"));
                sleep(Duration::from_millis(5)).await;
            }
            sending.send(Message::to_agent("receiver").topic("end").text("0")).await.unwrap();
            sending.close().await;
            number
        });
        let received = tokio::spawn(async move {
            // Of each number, when it came first.
            let mut received = BTreeMap::new();
            loop {
                let message = receiving.next().await.unwrap_or_else(|error| panic!("after {} messages: {error}", received.len()));
                let number: u64 = String::from_utf8_lossy(&message.message().payload).parse().unwrap();
                message.ack();
                if number == 0 {
                    receiving.close().await;
                    return received;
                }
                let count = received.len();
                received.entry(number).or_insert(count);
            }
        });
        let told = Arc::clone(&stop);
        let calls = tokio::spawn(async move {
            // Each needs PostgreSQL, and the log.
            let mut calls = 0;
            while !told.load(Ordering::Relaxed) {
                let message = Message::to_agent("sender").topic("call").text(calls.to_string());
                caller.send(message).await.unwrap_or_else(|error| panic!("call {calls}: {error}"));
                caller.heartbeat().await.unwrap_or_else(|error| panic!("heartbeat {calls}: {error}"));
                calls += 1;
                sleep(Duration::from_millis(20)).await;
            }
            calls
        });
        Self { stop, sent, received, calls }
    }

    /// Every message that was acknowledged came, and they came in their order.
    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (sent, calls) = (self.sent.await.unwrap(), self.calls.await.unwrap());
        let received = tokio::time::timeout(LONG, self.received).await.expect("everything comes").unwrap();
        assert!(sent > 20 && calls > 5, "{sent} messages and {calls} calls are no load");
        assert_eq!(received.keys().copied().collect::<Vec<_>>(), (1..=sent).collect::<Vec<_>>());
        let order: Vec<usize> = received.values().copied().collect();
        assert!(order.is_sorted(), "{order:?}");
    }
}

struct World {
    dev: Standalone,
    home: Home,
    store: ObjectStore,
    kafka: Option<Kafka>,
}

impl World {
    async fn start(kafka: Option<Kafka>) -> Self {
        let home = Home::new().unwrap();
        let folder = home.path().join("resources");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("acme.yaml"), tenant("first")).unwrap();
        for name in ["sender", "receiver", "caller"] {
            fs::write(folder.join(format!("{name}.yaml")), agent(name, "first")).unwrap();
        }
        let dev = Standalone::start(&home, &folder, kafka.as_ref(), &home.path().join("dev.log")).await.unwrap();
        let store = ObjectStore::open(&StateDir::existing(dev.state()).unwrap()).unwrap();
        Self { dev, home, store, kafka }
    }

    async fn secret(&self, name: &str, generation: u64) -> Option<String> {
        let (namespace, key) = if name.ends_with("api-key") { ("acb-acme", "api-key") } else { ("acbhub-acme", "password") };
        let secret = SecretRef { namespace: namespace.into(), name: name.into(), generation };
        let data = self.store.read(&secret).await.ok()?;
        Some(data.text(&secret, key).unwrap().to_owned())
    }

    async fn status(&self) -> Value {
        let tenant: Value = self.dev.acb_json(&["get", "tenant", "acme", "-o", "json"]).await.unwrap();
        tenant["status"].clone()
    }

    /// Every credential of the hub is of this generation, the one before is gone, and the hub is ready.
    async fn until_rotated(&self, generation: u64) {
        let deadline = Instant::now() + LONG;
        let names = ["hub-tls", "hub-keys", "hub-postgres", "hub-kafka"];
        let names = &names[..if self.kafka.is_some() { 4 } else { 3 }];
        let wanted: Vec<String> = names.iter().map(|name| format!("{name}-{generation}")).collect();
        loop {
            let status = self.status().await;
            let credentials = status["credentials"].as_array().cloned().unwrap_or_default();
            let named: Vec<&str> = credentials.iter().filter_map(|credential| credential["secret"].as_str()).collect();
            let is_ready = status["conditions"].as_array().is_some_and(|conditions| conditions[0]["status"] == "True");
            let is_gone = self.secret("hub-postgres", generation - 1).await.is_none();
            if named == wanted && is_ready && is_gone {
                assert!(credentials.iter().all(|credential| credential["since"].as_str().unwrap().ends_with('Z')), "{status}");
                return;
            }
            assert!(Instant::now() < deadline, "not rotated: {status}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn postgres(&self, password: &str) -> PgConnectOptions {
        let text = fs::read(self.dev.state().join("platform.json")).unwrap();
        let (postgres, _): (PlatformPostgres, PlatformBus) = serde_json::from_slice(&text).unwrap();
        let user = format!("acb_t_{}", self.status().await["tenantId"].as_str().unwrap());
        let options =
            PgConnectOptions::new_without_pgpass().host(&postgres.host).port(postgres.port).database(&postgres.database);
        options.username(&user).password(password)
    }

    async fn kafka_login(&self, password: &str) -> LoginState {
        let kafka = self.kafka.as_ref().unwrap();
        let password_file = self.home.path().join("kafka-admin-password");
        let options = KafkaOptions {
            bootstrap_servers: kafka.bootstrap_servers(),
            username: Kafka::ADMIN.into(),
            password_file,
            ca_file: kafka.ca_pem().map(|_| self.home.path().join("kafka-ca.crt")),
            replication_factor: -1,
        };
        let user = format!("acb_t_{}", self.status().await["tenantId"].as_str().unwrap());
        KafkaAccess::new(options).unwrap().effect().unwrap().login_state(&user, password).await
    }
}

async fn rotates(kafka: Option<Kafka>) {
    let world = World::start(kafka).await;
    let service = service(world.dev.state()).await;
    let old = world.secret("hub-postgres", 1).await.unwrap();
    let old_kafka = world.secret("hub-kafka", 1).await;
    let before = world.dev.pods("acme").unwrap();
    let talk = Talk::start(&world.dev, &service).await;
    fs::write(world.dev.resources().join("acme.yaml"), tenant("second")).unwrap();
    world.until_rotated(2).await;

    // What it replaced opens nothing.
    let new = world.secret("hub-postgres", 2).await.unwrap();
    assert_eq!(login_state(&world.postgres(&old).await).await, LoginState::Refused);
    assert_eq!(login_state(&world.postgres(&new).await).await, LoginState::Works);
    if let Some(old) = old_kafka {
        assert_eq!(world.kafka_login(&old).await, LoginState::Refused);
        assert_eq!(world.kafka_login(&world.secret("hub-kafka", 2).await.unwrap()).await, LoginState::Works);
    }
    // Rolled once, and none of them started over.
    let pods = world.dev.pods("acme").unwrap();
    assert!(pods.len() == 2 && pods.iter().all(|(name, pod)| !before.contains_key(name) && pod.restarts == 0), "{pods:?}");

    // With every session of the hub in PostgreSQL gone, it comes back by the new password.
    let mut session = PgConnection::connect_with(&world.postgres(&new).await).await.unwrap();
    let ended: Vec<bool> = sqlx::query_scalar(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = session_user AND pid <> pg_backend_pid()",
    )
    .fetch_all(&mut session)
    .await
    .unwrap();
    assert!(!ended.is_empty());
    sleep(Duration::from_secs(2)).await;
    talk.end().await;
    let pods = world.dev.pods("acme").unwrap();
    assert!(pods.values().all(|pod| pod.ready && pod.restarts == 0), "{pods:?}");
    world.dev.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hubs_credentials_are_replaced_while_agents_talk() {
    rotates(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hubs_credentials_are_replaced_while_agents_talk_over_kafka() {
    rotates(Some(Kafka::start(KafkaListener::Tls).await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agents_key_is_replaced_and_the_one_before_works_until_its_secret_goes() {
    let world = World::start(None).await;
    let old = world.secret("caller-api-key", 1).await.unwrap();
    fs::write(world.dev.resources().join("caller.yaml"), agent("caller", "second")).unwrap();
    let deadline = Instant::now() + LONG;
    let new = loop {
        if let Some(new) = world.secret("caller-api-key", 2).await {
            break new;
        }
        assert!(Instant::now() < deadline, "no new key");
        sleep(Duration::from_millis(50)).await;
    };
    assert_ne!(old, new);
    let acme = world.dev.tenant("acme").unwrap().clone();
    let connect = async |key: &str| {
        let builder = Client::builder().endpoints(acme.endpoints.clone()).ca_pem(acme.ca_pem.clone());
        builder.api_key(key.parse().unwrap()).retry_for(Duration::from_secs(5)).connect().await.map(drop)
    };
    // A hub learns of it within seconds.
    while connect(&new).await.is_err() {
        assert!(Instant::now() < deadline, "the new key is not taken");
    }
    connect(&old).await.expect("the one before works for its overlap");
    // Somebody ends that.
    let gone = SecretRef { namespace: "acb-acme".into(), name: "caller-api-key".into(), generation: 1 };
    fs::remove_file(world.store.path(&acb_operator::effect::kubernetes::ObjectKey::secret(&gone))).unwrap();
    fs::write(world.dev.resources().join("caller.yaml"), agent("caller", "second").replace("type: worker", "type: other"))
        .unwrap();
    while connect(&old).await.is_ok() {
        assert!(Instant::now() < deadline, "the old key is still taken");
        sleep(Duration::from_millis(50)).await;
    }
    connect(&new).await.unwrap();
    world.dev.stop().await.unwrap();
}
