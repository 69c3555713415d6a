//! How librdkafka is set up: connections, bounds, and what it says.

use std::{
    ffi::{CStr, CString},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use acb_hub_core::log::bus::BusError;
use rdkafka::{
    ClientConfig, ClientContext, TopicPartitionList, client::Client, config::RDKafkaLogLevel, consumer::ConsumerContext,
    error::KafkaError, types::RDKafkaErrorCode,
};
use time::OffsetDateTime;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use super::KafkaSettings;

/// The same at the topics: see the operator's Kafka effect.
const MAX_MESSAGE_BYTES: &str = "2097152";

/// The password of now. Its number rises with each that takes another's place.
struct Login {
    serial: u64,
    password: Zeroizing<String>,
}

/// Makes the settings of each client.
#[derive(Clone)]
pub(super) struct Clients {
    base: ClientConfig,
    username: String,
    login: Arc<RwLock<Login>>,
    place: String,
}

impl Clients {
    pub(super) fn new(settings: &KafkaSettings) -> Self {
        let mut base = ClientConfig::new();
        base.set("bootstrap.servers", &settings.bootstrap_servers)
            .set("client.id", "acb-hub")
            .set("sasl.mechanism", "SCRAM-SHA-512")
            .set("sasl.username", &settings.username)
            .set("security.protocol", if settings.authorities.is_some() { "sasl_ssl" } else { "sasl_plaintext" })
            .set("allow.auto.create.topics", "false")
            .set("message.max.bytes", MAX_MESSAGE_BYTES)
            .set("socket.nagle.disable", "true")
            .set("socket.keepalive.enable", "true")
            .set("socket.timeout.ms", "15000")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("retry.backoff.ms", "50")
            .set_log_level(RDKafkaLogLevel::Warning);
        if let Some(authorities) = &settings.authorities {
            base.set("ssl.ca.pem", authorities);
        }
        let login = Arc::new(RwLock::new(Login { serial: 0, password: settings.password.clone() }));
        Self { base, username: settings.username.clone(), login, place: settings.bootstrap_servers.clone() }
    }

    /// Connections that are made from now on log in with this password.
    pub(super) fn log_in_with(&self, password: &str) {
        let mut login = self.login.write().unwrap_or_else(PoisonError::into_inner);
        *login = Login { serial: login.serial + 1, password: Zeroizing::new(password.to_owned()) };
    }

    fn with_login(&self) -> ClientConfig {
        let mut config = self.base.clone();
        config.set("sasl.password", self.login.read().unwrap_or_else(PoisonError::into_inner).password.as_str());
        config
    }

    /// Gives a client that was made with an earlier password that of now: what it has open stays open. `serial` is the number of the
    /// password that it has.
    pub(super) fn renew<C: ClientContext>(&self, client: &Client<C>, serial: &mut u64) -> Result<(), BusError> {
        let login = self.login.read().unwrap_or_else(PoisonError::into_inner);
        if login.serial == *serial {
            return Ok(());
        }
        let refused =
            |why: String| BusError::Unavailable(format!("Kafka at {}: a new password was not taken: {why}", self.place));
        let username = CString::new(self.username.as_str()).map_err(|error| refused(error.to_string()))?;
        let mut password = Zeroizing::new(Vec::with_capacity(login.password.len() + 1));
        password.extend_from_slice(login.password.as_bytes());
        password.push(0);
        let password = CStr::from_bytes_with_nul(&password).map_err(|_| refused("it holds a zero".to_owned()))?;
        set_credentials(client, &username, password).map_err(refused)?;
        *serial = login.serial;
        Ok(())
    }

    /// The number of the password that clients which are made now have.
    pub(super) fn serial(&self) -> u64 {
        self.login.read().unwrap_or_else(PoisonError::into_inner).serial
    }

    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.with_login();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("message.timeout.ms", "30000")
            // Less than the message's: a request that is lost is sent again.
            .set("request.timeout.ms", "10000")
            // The queues have bounds of their own, of each topic; these are only behind them.
            .set("queue.buffering.max.messages", "1000000")
            .set("queue.buffering.max.kbytes", "1048576");
        config
    }

    /// For following topics: the broker answers as soon as there is a record, however long it may wait for one. A topic that is followed from
    /// now on is asked for only after that.
    pub(super) fn follower(&self) -> ClientConfig {
        let mut config = self.consumer();
        config.set("fetch.wait.max.ms", "250");
        config
    }

    /// For looking things up: what was asked before must not hold up what is asked next.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut config = self.consumer();
        config.set("fetch.wait.max.ms", "5").set("enable.partition.eof", "true");
        config
    }

    fn consumer(&self) -> ClientConfig {
        let mut config = self.with_login();
        config
            // No group: nothing is ever committed.
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            // Of each queue. One that was full is looked at again so soon after.
            .set("queued.max.messages.kbytes", "4096")
            .set("fetch.queue.backoff.ms", "20")
            .set("fetch.min.bytes", "1")
            .set("fetch.error.backoff.ms", "20")
            .set("fetch.max.bytes", "4194304")
            .set("fetch.message.max.bytes", MAX_MESSAGE_BYTES);
        config
    }

    /// The message that a caller of the bus sees.
    pub(super) fn unavailable(&self, what: &str, error: &KafkaError) -> BusError {
        BusError::Unavailable(format!("Kafka at {} did not {what}: {error}", self.place))
    }
}

/// rdkafka has no safe call for this.
#[allow(unsafe_code)]
fn set_credentials<C: ClientContext>(client: &Client<C>, username: &CStr, password: &CStr) -> Result<(), String> {
    use rdkafka::bindings::{rd_kafka_error_destroy, rd_kafka_error_string, rd_kafka_sasl_set_credentials};
    // SAFETY: the client is alive for as long as it is borrowed, and both texts are copied before the call returns.
    let error = unsafe { rd_kafka_sasl_set_credentials(client.native_ptr(), username.as_ptr(), password.as_ptr()) };
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the error is ours until it is destroyed, which is done once, after its text was copied.
    let text = unsafe { CStr::from_ptr(rd_kafka_error_string(error)).to_string_lossy().into_owned() };
    // SAFETY: as above.
    unsafe { rd_kafka_error_destroy(error) };
    Err(text)
}

/// For each partition of the list, at a time or at an end, the offset that is there. Waits for the brokers' answers. rdkafka has the call
/// for consumers only.
#[allow(unsafe_code)]
pub(super) fn offsets_for_times<C: ClientContext>(
    client: &Client<C>,
    list: &TopicPartitionList,
    patience: Duration,
) -> Result<(), KafkaError> {
    let patience = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: client and list are alive, and nobody else uses the list meanwhile.
    let error = unsafe { rdkafka::bindings::rd_kafka_offsets_for_times(client.native_ptr(), list.ptr(), patience) };
    match RDKafkaErrorCode::from(error) {
        RDKafkaErrorCode::NoError => Ok(()),
        code => Err(KafkaError::MetadataFetch(code)),
    }
}

/// What librdkafka says goes to the log. It names users and brokers, never passwords.
#[derive(Clone, Copy)]
pub(super) struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "acb::kafka", %error, "{reason}");
    }
}

impl ConsumerContext for Context {}

pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    // It tries again by itself: who waits for an answer says what came of it.
    if level as i32 <= RDKafkaLogLevel::Warning as i32 {
        tracing::warn!(target: "acb::kafka", facility, "{message}");
    } else {
        tracing::debug!(target: "acb::kafka", facility, "{message}");
    }
}

/// Something of librdkafka's whose end may take a while: that must not hold up the runtime.
pub(super) struct Closing<C: Send + 'static>(Option<C>);

impl<C: Send + 'static> Closing<C> {
    pub(super) fn new(client: C) -> Self {
        Self(Some(client))
    }

    /// The client. There is one until this is dropped.
    pub(super) fn get(&self) -> Option<&C> {
        self.0.as_ref()
    }
}

impl<C: Send + 'static> Drop for Closing<C> {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            match Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(move || drop(client))),
                Err(_) => drop(client),
            }
        }
    }
}

pub(super) fn log_time(millis: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Whether a client asked by what it knew of a partition's leader before that changed: it hears of the change by itself.
pub(super) fn is_outdated(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let outdated = |code| {
        matches!(
            code,
            Code::NotLeaderForPartition | Code::LeaderNotAvailable | Code::FencedLeaderEpoch | Code::UnknownLeaderEpoch
        )
    };
    error.rdkafka_error_code().is_some_and(outdated)
}

/// What reading goes on after, because librdkafka mends it by itself.
pub(super) fn passes(error: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    !matches!(
        error,
        Code::AutoOffsetReset
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopicId
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::Fatal
    )
}
