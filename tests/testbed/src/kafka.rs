//! A private Kafka: one broker in KRaft mode with SCRAM-SHA-512, ACLs that deny by default, and no topics made by naming them.

use std::{
    fs,
    io::Write,
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

/// Nobody logs in as this user, and it is never removed. Kafka (4.3.1, `ScramDelta.apply`) forgets the credentials of all users when a
/// broker reads its metadata from the log alone, and the first user in the order of a Java `HashMap` is one that was removed. The hash of
/// this name puts it before every other.
const FIRST_USER: &str = "aA";

/// How clients reach the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaListener {
    /// `SASL_PLAINTEXT`.
    Plain,
    /// `SASL_SSL`, with a certificate of [`Kafka::ca_pem`] for the broker's address.
    Tls,
}

/// A broker, which ends with this value, or with the process.
pub struct Kafka {
    dir: tempfile::TempDir,
    listener: KafkaListener,
    address: IpAddr,
    port: u16,
    /// The cluster's id, and the port of its only controller.
    cluster: String,
    controller: u16,
    password: String,
    ca: Option<String>,
    /// Its standard input holds the broker's life.
    keeper: Option<Child>,
}

impl Kafka {
    /// The superuser's name.
    pub const ADMIN: &str = "admin";

    /// A fresh broker on loopback, ready for requests.
    pub async fn start(listener: KafkaListener) -> Self {
        Self::start_on(listener, Ipv4Addr::LOCALHOST.into()).await
    }

    /// A fresh broker on loopback, with further settings, which come after its own.
    pub async fn start_with(listener: KafkaListener, settings: &[(&str, &str)]) -> Self {
        Self::prepare(listener, Ipv4Addr::LOCALHOST.into(), settings).await
    }

    /// A fresh broker on an address of this machine, such as one that its pods can reach.
    pub async fn start_on(listener: KafkaListener, address: IpAddr) -> Self {
        Self::prepare(listener, address, &[]).await
    }

    async fn prepare(listener: KafkaListener, address: IpAddr, settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::Builder::new().prefix("acb-kafka-").tempdir().unwrap();
        let [port, controller] = free_ports([address, Ipv4Addr::LOCALHOST.into()]);
        let password = hex::encode(random::<16>());
        let ca = (listener == KafkaListener::Tls).then(|| certify(dir.path(), address));
        let cluster = base64_id(random::<16>());
        let mut kafka = Self { dir, listener, address, port, cluster, controller, password, ca, keeper: None };
        let further: String = settings.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        fs::write(kafka.properties(), kafka.configuration() + &further).unwrap();
        kafka.format().await;
        kafka.launch().await;
        kafka
    }

    /// A second broker of the same cluster, number 2, which controls nothing. Only without TLS.
    pub async fn join(&self) -> Self {
        assert!(self.ca.is_none(), "its certificate would need the first one's authority");
        let dir = tempfile::Builder::new().prefix("acb-kafka-").tempdir().unwrap();
        let [port] = free_ports([self.address]);
        let (listener, address, controller) = (self.listener, self.address, self.controller);
        let (cluster, password) = (self.cluster.clone(), self.password.clone());
        let mut kafka = Self { dir, listener, address, port, cluster, controller, password, ca: None, keeper: None };
        let only_broker = kafka
            .configuration()
            .replace("process.roles=broker,controller", "process.roles=broker")
            .replace("node.id=1", "node.id=2")
            .replace(&format!(",CONTROLLER://127.0.0.1:{controller}"), "");
        fs::write(kafka.properties(), only_broker).unwrap();
        // The users are in the cluster's log.
        kafka.format_with(&[]).await;
        kafka.launch().await;
        kafka
    }

    /// An empty broker of a cluster of its own.
    async fn format(&self) {
        let scram = |name: &str, password: &str| format!("SCRAM-SHA-512=[name={name},password={password}]");
        let users = [scram(Self::ADMIN, &self.password), scram(FIRST_USER, &hex::encode(random::<16>()))];
        self.format_with(&users).await;
    }

    async fn format_with(&self, users: &[String]) {
        let (cluster, users) = (self.cluster.clone(), users.to_vec());
        let properties = self.properties();
        let format = tokio::task::spawn_blocking(move || {
            java()
                .args(["kafka.tools.StorageTool", "format", "-t", &cluster])
                .args(users.iter().flat_map(|user| ["--add-scram", user]))
                .arg("-c")
                .arg(properties)
                .output()
        });
        let format = format.await.unwrap().expect("java starts: apt-get install default-jre-headless");
        assert!(format.status.success(), "formatting failed: {}", String::from_utf8_lossy(&format.stderr));
    }

    /// `<address>:<port>`.
    pub fn bootstrap_servers(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// The port of [`bootstrap_servers`](Self::bootstrap_servers).
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's password.
    pub fn admin_password(&self) -> &str {
        &self.password
    }

    /// How clients reach the broker.
    pub fn listener(&self) -> KafkaListener {
        self.listener
    }

    /// What signed the broker's certificate, where it has one.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// What it says, in all of its lives.
    pub fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Ends the broker as a crash would (SIGKILL), and starts it again on the same port and data.
    pub async fn crash_and_restart(&mut self) {
        self.kill();
        self.launch().await;
    }

    /// Ends the broker, removes everything that it held, and starts an empty one at the same address, with the same superuser.
    pub async fn lose(&mut self) {
        self.kill();
        fs::remove_dir_all(self.dir.path().join("data")).unwrap();
        self.format().await;
        self.launch().await;
    }

    /// Ends the broker as a crash would (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            keeper.wait().expect("the broker's keeper ends");
        }
    }

    /// Starts it again after [`kill`](Self::kill).
    pub async fn launch(&mut self) {
        let path = self.log();
        let before = fs::read(&path).map_or(0, |log| log.len());
        let log = fs::File::options().create(true).append(true).open(&path).unwrap();
        // Ends the broker when this process ends, however it ends: then the pipe closes.
        let script = r#""$@" & echo $! > pid; cat; kill -KILL $!; wait $! 2>/dev/null; exit 0"#;
        let java = java();
        let mut keeper = Command::new("sh");
        keeper
            .args(["-c", script, "kafka"])
            .arg(java.get_program())
            .args(java.get_args())
            .arg("kafka.Kafka")
            .arg(self.properties());
        keeper.current_dir(self.dir.path()).stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        self.keeper = Some(keeper.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let log = fs::read(&path).unwrap_or_default();
            let log = String::from_utf8_lossy(log.get(before..).unwrap_or_default());
            if log.contains("Kafka Server started") {
                return;
            }
            assert!(Instant::now() < deadline && !log.contains("Exiting Kafka"), "the broker did not start:\n{log}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops the broker's process without ending it, as an overloaded machine does. When this returns, none of its threads runs.
    pub fn pause(&self) {
        let pid = self.pid();
        kill_process(pid, Signal::STOP).expect("the broker runs");
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !stopped(pid) {
            assert!(std::time::Instant::now() < deadline, "the broker does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets it go on.
    pub fn resume(&self) {
        kill_process(self.pid(), Signal::CONT).expect("the broker is there");
    }

    fn pid(&self) -> Pid {
        let text = fs::read_to_string(self.dir.path().join("pid")).unwrap();
        Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    }

    fn properties(&self) -> PathBuf {
        self.dir.path().join("server.properties")
    }

    fn configuration(&self) -> String {
        let (address, port, controller, password) = (self.address, self.port, self.controller, &self.password);
        let dir = self.dir.path().display();
        let protocol = if self.ca.is_some() { "SASL_SSL" } else { "SASL_PLAINTEXT" };
        let tls = if self.ca.is_some() {
            format!(
                "ssl.keystore.type=PEM\nssl.keystore.location={dir}/broker.pem\n\
                 ssl.truststore.type=PEM\nssl.truststore.location={dir}/ca.crt\nssl.enabled.protocols=TLSv1.3\n"
            )
        } else {
            String::new()
        };
        // The controller's listener can't use SCRAM: its credentials are in the log that it leads.
        format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=CLIENT://{address}:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=CLIENT://{address}:{port}
listener.security.protocol.map=CLIENT:{protocol},CONTROLLER:SASL_PLAINTEXT
inter.broker.listener.name=CLIENT
controller.listener.names=CONTROLLER
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
sasl.mechanism.controller.protocol=PLAIN
listener.name.client.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.controller.sasl.enabled.mechanisms=PLAIN
listener.name.client.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"admin\" password=\"{password}\";
listener.name.controller.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username=\"controller\" password=\"{password}\" user_controller=\"{password}\";
{tls}authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:admin;User:controller
auto.create.topics.enable=false
unclean.leader.election.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
group.initial.rebalance.delay.ms=0
log.dirs={dir}/data
"
        )
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether every thread of a process is stopped.
fn stopped(pid: Pid) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).expect("the broker is there");
    tasks.flatten().all(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
    })
}

/// `java` with Kafka's classes.
fn java() -> Command {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/testbed/kafka/lib");
    assert!(lib.join(".4.3.1").exists(), "Kafka's jars are missing: run tests/testbed/kafka/fetch.sh (it needs maven and java)");
    let mut java = Command::new("java");
    java.args(["-Xmx512m", "-XX:+UseSerialGC", "-cp"]).arg(lib.join("*"));
    java
}

/// Makes `ca.crt` and the broker's `broker.pem` in `dir`, and returns the former.
fn certify(dir: &Path, address: IpAddr) -> String {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "acb testbed kafka");
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf =
        rcgen::CertificateParams::new(vec![address.to_string(), "localhost".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    let mut broker = fs::File::create(dir.join("broker.pem")).unwrap();
    broker.write_all(format!("{}{}{}", key.serialize_pem(), leaf.pem(), ca.pem()).as_bytes()).unwrap();
    fs::write(dir.join("ca.crt"), ca.pem()).unwrap();
    ca.pem()
}

/// Free when they were looked for, and all different.
fn free_ports<const N: usize>(addresses: [IpAddr; N]) -> [u16; N] {
    let held = addresses.map(|address| TcpListener::bind((address, 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// Kafka writes cluster ids in base64url, and takes none that begins with a dash.
fn base64_id(mut bytes: [u8; 16]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    bytes[0] &= 0x7f;
    let number = u128::from_be_bytes(bytes);
    (0..22)
        .map(|place| {
            let shift = 122_i32 - 6 * place;
            let six = if shift >= 0 { (number >> shift) & 63 } else { (number << -shift) & 63 };
            char::from(DIGITS[six as usize])
        })
        .collect()
}
