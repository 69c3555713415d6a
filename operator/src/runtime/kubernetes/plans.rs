//! Answers what a reconcile would do if some documents were applied. It reads as the leader reads, and can change nothing: the objects are
//! read-only here, Kafka is behind a fence that has ended, and of PostgreSQL there is the reader alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use acb_crds::schema::{self, Kind, ObjectRef, Resource};
use async_trait::async_trait;
use futures::future::try_join_all;
use http::StatusCode;
use serde_json::Value;
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore, SemaphorePermit, watch},
    task::yield_now,
};
use tracing::info;

use super::{
    callers::{Caller, Callers},
    cluster::{self, Cluster},
    requests::Requests,
};
use crate::{
    condition::{Problem, Reason},
    effect::{
        EffectError, SecretData, SecretReader,
        fence::Fence,
        kubernetes::{ObjectKey, Objects},
    },
    observed::ObservedIssuer,
    orphans::OrphanReport,
    plan::SecretRef,
    preview::{
        Against, Found, Planned, Report, overlay,
        question::{MAX_ANSWER_BYTES, MAX_OBJECTS, Question, VERB},
        tenancy::{Decided, decide},
    },
    reconcile::runtime::Runtime as _,
    tenancy,
    tenant::fetch::Sources,
};

/// So many reviews are asked for at a time.
const REVIEWS: usize = 8;
/// So many plans are made at a time: each takes its share of the operator's memory.
const AT_A_TIME: usize = 2;
/// So many problems of documents are told in one answer; then only the first of each document.
const PROBLEMS: usize = 1_000;
/// So many objects are named in a refusal.
const NAMED: usize = 10;

/// Who leads, where that is this process.
pub(super) type Leading = watch::Receiver<Option<Arc<Cluster>>>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// Not a question, or too large a one.
    #[error("{0}")]
    Malformed(String),
    /// Nobody that is known.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// Someone who may not ask this.
    #[error("{0}")]
    Forbidden(String),
    /// Not here, or not now.
    #[error("{0}")]
    Unavailable(String),
    /// This operator lacks a right, or is told something that is refused.
    #[error("{0}")]
    Refused(String),
}

impl Refusal {
    /// As an API server says it.
    pub(super) fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "BadRequest"),
            Self::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "Forbidden"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            Self::Refused(_) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        }
    }
}

impl From<EffectError> for Refusal {
    fn from(error: EffectError) -> Self {
        if error.is_transient() { Self::Unavailable(error.to_string()) } else { Self::Refused(error.to_string()) }
    }
}

/// Answers questions.
pub(super) struct Plans {
    leading: Leading,
    callers: Callers,
    /// One plan at a time for a tenancy: who comes meanwhile waits.
    busy: Mutex<BTreeMap<String, Arc<AsyncMutex<()>>>>,
    room: Semaphore,
}

/// Someone who is known, and the leader that they ask.
pub(super) struct Asker {
    cluster: Arc<Cluster>,
    caller: Caller,
}

/// A document that was asked about.
struct Asked {
    object: ObjectRef,
    /// What is wrong with it, or what is laid over the cluster's.
    checked: Result<Resource, Vec<Problem>>,
}

impl Plans {
    pub(super) fn new(requests: Requests, leading: Leading) -> Self {
        Self { leading, callers: Callers::new(requests), busy: Mutex::default(), room: Semaphore::new(AT_A_TIME) }
    }

    /// Lets someone ask.
    ///
    /// # Errors
    /// Why they may not, or not here.
    pub(super) async fn admit(&self, token: &str) -> Result<Asker, Refusal> {
        let leader = self.leading.borrow().clone();
        let cluster =
            leader.ok_or_else(|| Refusal::Unavailable("this replica of the operator does not lead: ask the leader".into()))?;
        let unknown = "the token is not one that this cluster knows, or it ran out";
        let caller = self.callers.identify(token).await?.ok_or(Refusal::Unauthenticated(unknown))?;
        Ok(Asker { cluster, caller })
    }

    /// Waits until there is room for one more question in memory.
    ///
    /// # Errors
    /// Never, as long as this process runs.
    pub(super) async fn room(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.room.acquire().await.map_err(|_| Refusal::Unavailable("this replica of the operator is ending: ask again".into()))
    }

    /// What the last sweep left. It names what the stores hold: for those who may list Tenants.
    ///
    /// # Errors
    /// Why it is not told.
    pub(super) async fn orphans(&self, asker: &Asker) -> Result<OrphanReport, Refusal> {
        let all = ObjectRef { kind: Kind::Tenant, namespace: String::new(), name: String::new() };
        if !self.callers.may(&asker.caller, "list", &all).await? {
            let why = format!("{} may not list tenants.acb.dev, and so not see what belongs to none", asker.caller.username);
            return Err(Refusal::Forbidden(why));
        }
        Ok(asker.cluster.orphans.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Answers one question.
    ///
    /// # Errors
    /// Why it is not answered.
    pub(super) async fn answer(&self, asker: &Asker, question: &Question) -> Result<Report, Refusal> {
        let Asker { cluster, caller } = asker;
        tokio::select! {
            biased;
            // A leader that ends waits for nobody's plan.
            () = cluster.closing.cancelled() => Err(Refusal::Unavailable("this replica of the operator is ending: ask again".into())),
            report = self.plan(cluster, caller, question) => report,
        }
    }

    async fn plan(&self, cluster: &Cluster, caller: &Caller, question: &Question) -> Result<Report, Refusal> {
        let objects = named(&question.objects)?;
        self.authorize(cluster, caller, &objects).await?;
        let (mut asked, mut told) = (Vec::new(), 0);
        for (object, document) in objects.into_iter().zip(&question.objects) {
            yield_now().await;
            let mut one = check(cluster, object, document);
            if let Err(problems) = &mut one.checked {
                if told + problems.len() > PROBLEMS {
                    problems.truncate(1);
                }
                told += problems.len();
            }
            asked.push(one);
        }
        let given: Vec<Resource> = asked.iter().filter_map(|asked| asked.checked.as_ref().ok()).cloned().collect();
        let mut report = Report { against: Against::Cluster, ..Report::default() };
        let asked_about: BTreeSet<ObjectRef> = given.iter().map(Resource::object).collect();
        let (mut also, mut size) = (Vec::new(), Size(0));
        for namespace in given.iter().filter_map(namespace).collect::<BTreeSet<String>>() {
            for decided in self.decide(cluster, &namespace, &given).await? {
                if !asked_about.contains(&decided.object) && !is_news(&decided) {
                    continue;
                }
                yield_now().await;
                let found = Found::from(&decided.decision);
                size.add(&found)?;
                if asked_about.contains(&decided.object) {
                    report.objects.push(Planned { object: decided.object, also: false, found });
                } else {
                    also.push(Planned { object: decided.object, also: true, found });
                }
            }
        }
        for Asked { object, checked } in asked {
            if let Err(problems) = checked {
                report.objects.push(Planned { object, also: false, found: Found::from(&Err(problems.into())) });
            }
        }
        report.objects.extend(self.veil(caller, also).await?);
        info!(caller = caller.username, objects = question.objects.len(), changes = report.has_changes(), "planned");
        Ok(report)
    }

    /// Who may not apply an object may not ask what applying it would do, unless the platform lets them plan it.
    async fn authorize(&self, cluster: &Cluster, caller: &Caller, objects: &[ObjectRef]) -> Result<(), Refusal> {
        let mut denied: Vec<&ObjectRef> = Vec::new();
        for some in objects.chunks(REVIEWS) {
            let may = try_join_all(some.iter().map(|object| self.may_ask(cluster, caller, object))).await?;
            denied.extend(some.iter().zip(may).filter(|(_, may)| !may).map(|(object, _)| object));
        }
        if denied.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = denied.iter().take(NAMED).map(ToString::to_string).collect();
        let more = if denied.len() > NAMED { format!(" and {} more", denied.len() - NAMED) } else { String::new() };
        Err(Refusal::Forbidden(format!(
            "{} may neither plan nor apply {}{more}: bind ClusterRole acb-planner, or one that may edit them",
            caller.username,
            names.join(", ")
        )))
    }

    async fn may_ask(&self, cluster: &Cluster, caller: &Caller, object: &ObjectRef) -> Result<bool, EffectError> {
        let write = if cluster.cache.get(&cluster::key(object)).is_some() { "patch" } else { "create" };
        Ok(self.callers.may(caller, VERB, object).await? || self.callers.may(caller, write, object).await?)
    }

    async fn decide(&self, cluster: &Cluster, namespace: &str, given: &[Resource]) -> Result<Vec<Decided>, EffectError> {
        let turn = {
            let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            // What nobody holds any more nobody waits for.
            busy.retain(|_, held| Arc::strong_count(held) > 1);
            Arc::clone(busy.entry(namespace.to_owned()).or_default())
        };
        let _turn = turn.lock().await;
        read(cluster, namespace, given).await
    }

    /// Hides the plans of objects that the caller may not see.
    async fn veil(&self, caller: &Caller, planned: Vec<Planned>) -> Result<Vec<Planned>, EffectError> {
        let mut known: BTreeMap<(Kind, String), bool> = BTreeMap::new();
        let mut veiled = Vec::new();
        for mut planned in planned {
            let ObjectRef { kind, namespace, .. } = planned.object.clone();
            let all = ObjectRef { kind, namespace: namespace.clone(), name: String::new() };
            let may = match known.get(&(kind, namespace.clone())) {
                Some(may) => *may,
                None => {
                    let may = self.callers.may(caller, "get", &all).await?;
                    known.insert((kind, namespace), may);
                    may
                }
            };
            if !may {
                planned.found = planned.found.hidden();
            }
            veiled.push(planned);
        }
        Ok(veiled)
    }
}

/// How many bytes an answer has so far.
struct Size(usize);

impl Size {
    /// # Errors
    /// Where it has too many.
    fn add(&mut self, found: &Found) -> Result<(), Refusal> {
        let too_much = |_| {
            let message = format!("the answer has more than {MAX_ANSWER_BYTES} bytes: plan fewer objects at a time");
            Refusal::Malformed(message)
        };
        serde_json::to_writer(self, found).map_err(too_much)
    }
}

impl io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        if self.0 > MAX_ANSWER_BYTES { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Which objects the documents are about.
fn named(documents: &[Value]) -> Result<Vec<ObjectRef>, Refusal> {
    if documents.len() > MAX_OBJECTS {
        let message = format!("{} objects, and a plan is made for at most {MAX_OBJECTS}: plan fewer at a time", documents.len());
        return Err(Refusal::Malformed(message));
    }
    let mut objects = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        let object = schema::identify(document)
            .ok_or_else(|| Refusal::Malformed(format!("document {} is no Tenant, Agent or Quota with a name", index + 1)))?;
        if (object.kind == Kind::Tenant) != object.namespace.is_empty() {
            let rule = "an Agent and a Quota have a namespace, and a Tenant has none";
            return Err(Refusal::Malformed(format!("{object}: {rule}")));
        }
        if objects.contains(&object) {
            return Err(Refusal::Malformed(format!("{object} is there twice")));
        }
        objects.push(object);
    }
    Ok(objects)
}

fn check(cluster: &Cluster, object: ObjectRef, document: &Value) -> Asked {
    let old = cluster.cache.get(&cluster::key(&object));
    let checked = schema::check(document, old.as_deref()).map_err(|violations| {
        let problem = |violation: schema::Violation| Problem::new(Reason::InvalidSpec, violation.path, violation.message);
        violations.into_iter().map(problem).collect()
    });
    Asked { object, checked }
}

/// Of the tenancy that it belongs to.
fn namespace(resource: &Resource) -> Option<String> {
    match resource {
        Resource::Tenant(tenant) => tenancy::namespace(tenant),
        other => Some(other.object().namespace),
    }
}

/// Whether it says anything about an object that nobody asked about.
fn is_news(decided: &Decided) -> bool {
    match &decided.decision {
        Ok(plan) => !plan.steps.is_empty(),
        Err(refused) => !decided.was_stalled || !refused.restraint.steps.is_empty(),
    }
}

async fn read(cluster: &Cluster, namespace: &str, given: &[Resource]) -> Result<Vec<Decided>, EffectError> {
    let mut tenancy = cluster.tenancy(namespace)?;
    overlay::lay(&mut tenancy, namespace, given);
    let database = cluster.database().await?;
    let ended = Arc::new(Fence::until(Instant::now()));
    ended.end();
    let kafka = cluster.kafka()?.map(|kafka| kafka.fenced(ended, Duration::ZERO));
    let objects = ReadOnly(cluster.objects());
    let sources =
        Sources { objects: &objects, postgres: Ok(&database.reader), kafka: Ok(kafka.as_ref()), hubs: cluster, proved: None };
    decide(namespace, tenancy, Some(&sources), cluster.platform()).await
}

/// Objects that can't be changed.
struct ReadOnly<'a>(&'a dyn Objects);

fn refused() -> EffectError {
    EffectError::refused("the operator", "a plan changes nothing")
}

#[async_trait]
impl SecretReader for ReadOnly<'_> {
    async fn read(&self, secret: &SecretRef) -> Result<SecretData, EffectError> {
        self.0.read(secret).await
    }
}

#[async_trait]
impl Objects for ReadOnly<'_> {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Value>, EffectError> {
        self.0.get(key).await
    }

    async fn list(&self, namespace: &str) -> Result<BTreeMap<ObjectKey, Value>, EffectError> {
        self.0.list(namespace).await
    }

    async fn generations(&self, namespace: &str, names: &[&str]) -> Result<BTreeMap<ObjectKey, Value>, EffectError> {
        self.0.generations(namespace, names).await
    }

    fn issuer(&self) -> Option<ObservedIssuer> {
        self.0.issuer()
    }

    async fn apply(&self, _: &Value) -> Result<(), EffectError> {
        Err(refused())
    }

    async fn delete(&self, _: &ObjectKey) -> Result<(), EffectError> {
        Err(refused())
    }

    async fn create_secret(&self, _: &SecretRef, _: SecretData, _: Option<&str>) -> Result<(), EffectError> {
        Err(refused())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn an_answer_has_a_bound() {
        let (mut size, found) = (Size(0), Found::Plan { steps: Vec::new(), text: vec!["x".repeat(MAX_ANSWER_BYTES / 4)] });
        for _ in 0..3 {
            size.add(&found).unwrap();
        }
        let refusal = size.add(&found).unwrap_err();
        assert!(matches!(&refusal, Refusal::Malformed(why) if why.contains("fewer objects")), "{refusal:?}");
    }
}
