//! The context service: shares, updates, finds and deletes contexts, and tells their changes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{
    audience::{Access, may_follow, may_publish},
    change::{self, Change, TOO_LARGE},
    context::{Context, ContextId, Description, MAX_INLINE_BYTES, Payload, validate_labels, validate_ttl},
    expiry::ExpirySweep,
    filter::yield_after,
    parts::{ContextConfig, ContextStores, Parts, RETRIES, busy},
    ports::{Created, Kept, ListFilter, Listed},
    subscription::{Source, StartPosition, Subscriber, Subscription},
    tail::{ContextTail, WindowSize},
    visibility::Viewer,
};
use crate::{
    directory::{
        agent::{Agent, Permission},
        limits::LimitUsage,
        snapshot::{ContextType, Directory},
    },
    fault::{Code, Fault},
    kit::{
        budget::{Budget, Room},
        clock::now,
        labels, page,
        supervisor::Supervisor,
    },
    log::bus::{Bounds, Bus, BusError, TopicName},
    metrics::contexts::ContextMetrics,
};

/// How many contexts a list reads at a time.
const LIST_STEP: usize = 64;

/// The most contexts that one call tries a filter on, and how long it goes on.
const FILTERED: usize = 1024;
/// The most looks at [`LOOKED_AT`] contexts of one call that find less than there is room for: its caller sees few of them.
///
/// [`LOOKED_AT`]: super::ports::LOOKED_AT
const LOOKS: u32 = 8;
const LOOKS_FOR: Duration = Duration::from_millis(500);

/// How long the ends of a log are taken for current, where only its lag is asked for.
const ENDS_AGE: Duration = Duration::from_secs(10);

/// What a caller gives to share a context.
#[derive(Clone, Debug)]
pub struct NewContext {
    /// All but the payload.
    pub description: Description,
    /// The payload.
    pub payload: Bytes,
    /// A repeated create with the same key finds the first context. May be empty.
    pub idempotency_key: String,
}

/// What a caller gives to update one. It replaces what was there; the expiry stays where no time to live is given.
#[derive(Clone, Debug)]
pub struct ContextUpdate {
    /// Which one.
    pub id: ContextId,
    /// The version that the caller read.
    pub version: u64,
    /// The new payload.
    pub payload: Bytes,
    /// The new metadata.
    pub metadata: BTreeMap<String, String>,
    /// The new media type.
    pub content_type: String,
    /// From now on.
    pub ttl: Option<Duration>,
}

/// Which contexts to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listing<'a> {
    /// Of this type; of every type where it is empty.
    pub kind: &'a str,
    /// That match this filter; all where it is empty. See [`CONTEXT`](super::filter::CONTEXT).
    pub filter: &'a str,
    /// At most so many; 0 is the default.
    pub page_size: u32,
    /// From the page before.
    pub page_token: &'a str,
}

/// A page of contexts, without payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextPage {
    /// In the order of their ids, which is that of their making. With a filter a page may have none and others may follow.
    pub contexts: Vec<Context>,
    /// Empty on the last page.
    pub next_page_token: String,
}

/// What the partitions of a topic held, and when.
#[derive(Clone)]
struct Ends {
    at: Instant,
    bounds: Vec<Result<Bounds, BusError>>,
}

/// The contexts of one tenant, at one replica.
pub struct Contexts {
    parts: Arc<Parts>,
    bus: Arc<dyn Bus>,
    tenant: String,
    tails: Mutex<HashMap<String, Weak<ContextTail>>>,
    ends: Mutex<HashMap<TopicName, Ends>>,
    supervisor: Supervisor,
}

impl Contexts {
    /// What calls hold of contexts until they end.
    #[must_use]
    pub fn memory(&self) -> Budget {
        self.parts().memory()
    }

    /// Starts the service and its background work, which ends with the hub. Its changes wait in the outbox for the relay.
    #[must_use]
    pub fn start(
        bus: Arc<dyn Bus>,
        stores: ContextStores,
        directory: Directory,
        tenant: impl Into<String>,
        config: ContextConfig,
        metrics: ContextMetrics,
        supervisor: &Supervisor,
    ) -> Arc<Self> {
        let tenant = tenant.into();
        let contexts = Self::idle(bus, stores, directory, tenant, config, metrics.clone(), supervisor);
        let stop = supervisor.stop();
        let expiry = ExpirySweep::new(contexts.parts.clone(), metrics);
        supervisor.spawn("contexts.expiry", expiry.run(contexts.parts.config.upload_lifetime, stop.clone()));
        contexts
    }

    /// The service without its background work.
    #[must_use]
    pub fn idle(
        bus: Arc<dyn Bus>,
        stores: ContextStores,
        directory: Directory,
        tenant: impl Into<String>,
        config: ContextConfig,
        metrics: ContextMetrics,
        supervisor: &Supervisor,
    ) -> Arc<Self> {
        let tenant = tenant.into();
        Arc::new(Self {
            parts: Arc::new(Parts::new(tenant.clone(), stores, directory, config, metrics)),
            bus,
            tenant,
            tails: Mutex::default(),
            ends: Mutex::default(),
            supervisor: supervisor.clone(),
        })
    }

    pub(crate) fn parts(&self) -> &Arc<Parts> {
        &self.parts
    }

    /// Shares a context.
    pub async fn create(&self, creator: &Agent, new: NewContext) -> Result<Context, Fault> {
        let snapshot = self.parts.directory.snapshot();
        let kind = snapshot.context_types.get(&new.description.kind);
        new.description.validate(creator, kind.is_some())?;
        check_payload(&new.payload, kind)?;
        let key = Some(new.idempotency_key.as_str()).filter(|key| !key.is_empty());
        labels::check_name("IDEMPOTENCY_KEY_INVALID", "the idempotency key", &new.idempotency_key)?;
        // The payload itself counts as the body of its request; this is for the event, which has it again.
        let _room = self.parts.room(creator.id, new.payload.len()).await?;
        let schema = self.parts.schemas.check(&snapshot, &new.description.kind, &new.payload).await?;
        let size = new.payload.len() as u64;
        let sha256 = Sha256::digest(&new.payload).into();
        let context = new.description.context(creator, schema, Payload::Inline(new.payload), size, sha256);
        let context = Context { account: self.parts.account_of(creator.id), ..context };
        let event = change::encode(Change::Created, &context, None)?;
        if let Err(fault) = self.parts.keep(creator.id, Kept::one(size)).await {
            // What is there is not made a second time: who asks what became of it is told.
            let first = match key {
                Some(key) => self.parts.stores.contexts.with_key(creator.id, key).await?,
                None => None,
            };
            return first.filter(|first| !first.expired(now())).map_or(Err(fault), |first| same(first, &context));
        }
        for _ in 0..RETRIES {
            match (self.parts.stores.contexts.create(&context, key, event.clone()).await?, key) {
                (Created::New, _) => {
                    self.parts.stores.committed.tell();
                    return Ok(context);
                }
                (Created::Before(first), Some(key)) if first.expired(now()) => {
                    // It holds its key until it is deleted.
                    if let Some(expired) = self.parts.stores.contexts.expired_with_key(creator.id, key).await? {
                        self.parts.remove(&expired).await?;
                    }
                }
                (Created::Before(first), _) => return same(*first, &context),
            }
        }
        Err(busy(context.id))
    }

    /// The limits of what this account and the tenant keep in contexts, and what they do.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn storage_usage(&self, account: &Agent) -> Result<Vec<LimitUsage>, Fault> {
        self.parts.kept(account).await
    }

    /// A context that the caller may see, and the room that its payload takes, to be held for as long.
    pub async fn get(&self, caller: &Agent, id: ContextId) -> Result<(Context, Option<Room>), Fault> {
        self.parts.get_whole(caller, id).await
    }

    /// Makes a new version.
    pub async fn update(&self, caller: &Agent, update: ContextUpdate) -> Result<Context, Fault> {
        validate_ttl(update.ttl)?;
        validate_labels(&update.metadata, &update.content_type)?;
        let old = self.owned(caller, update.id).await?;
        let snapshot = self.parts.directory.snapshot();
        let kind = snapshot.context_types.get(&old.kind);
        may_publish(caller, &old.kind, kind.is_some())?;
        check_payload(&update.payload, kind)?;
        if old.version != update.version {
            return Err(conflict(update.id, update.version));
        }
        let _room = self.parts.room(caller.id, update.payload.len()).await?;
        let schema = self.parts.schemas.check(&snapshot, &old.kind, &update.payload).await?;
        let time = now();
        let expires_at = update.ttl.map(|ttl| time + ttl);
        let context = Context {
            version: old.version + 1,
            metadata: update.metadata,
            content_type: update.content_type,
            schema,
            size: update.payload.len() as u64,
            sha256: Sha256::digest(&update.payload).into(),
            payload: Payload::Inline(update.payload),
            updated_at: time,
            expires_at: expires_at.or(old.expires_at),
            ..old.clone()
        };
        let event = change::encode(Change::Updated, &context, Some(&old))?;
        // Whoever changes it: it is its creator's.
        let more = Kept { contexts: 0, bytes: context.size.saturating_sub(old.size) };
        self.parts.keep(old.account.unwrap_or(old.creator), more).await?;
        if !self.parts.stores.contexts.update(&context, expires_at, event).await? {
            return Err(conflict(update.id, update.version));
        }
        self.parts.stores.committed.tell();
        Ok(context)
    }

    /// Makes a new version with another access; the payload stays. `version`: the one that the caller read; `None`: whichever is current.
    pub async fn set_access(
        &self,
        caller: &Agent,
        id: ContextId,
        version: Option<u64>,
        access: Access,
    ) -> Result<Context, Fault> {
        access.validate()?;
        for _ in 0..RETRIES {
            let owned = self.owned(caller, id).await?;
            if let Some(read) = version.filter(|read| *read != owned.version) {
                return Err(conflict(id, read));
            }
            if owned.access == access {
                return Ok(owned);
            }
            // To give it to further readers is to publish; to take it back never needs more than that it is one's own.
            if !access.is_within(&owned.access) {
                let known_type = self.parts.directory.snapshot().context_types.contains_key(&owned.kind);
                may_publish(caller, &owned.kind, known_type)?;
            }
            let (old, _room) = self.parts.get_whole(caller, id).await?;
            if old.version != owned.version {
                continue;
            }
            let context = Context { version: old.version + 1, access: access.clone(), updated_at: now(), ..old.clone() };
            let event = match change::encode(Change::Updated, &context, Some(&old)) {
                // A longer list of names must not keep a withdrawal from being made: readers get the payload by the id.
                Err(fault) if fault.reason == TOO_LARGE => {
                    change::encode(Change::Updated, &Context { payload: Payload::Unread, ..context.clone() }, Some(&old))?
                }
                event => event?,
            };
            if self.parts.stores.contexts.set_access(&context, event).await? {
                self.parts.stores.committed.tell();
                return Ok(context);
            }
        }
        Err(busy(id))
    }

    /// Deletes one, with its chunks.
    pub async fn delete(&self, caller: &Agent, id: ContextId) -> Result<(), Fault> {
        for _ in 0..RETRIES {
            let context = self.owned(caller, id).await?;
            if self.parts.remove(&context).await? {
                return Ok(());
            }
        }
        Err(busy(id))
    }

    /// Contexts that the caller may see, and that match.
    ///
    /// A call looks at some thousands of contexts at most, at about a thousand with a filter, and for half a second: where the caller sees few of
    /// them, or few match, a page may have none, and the list goes on all the same after its token.
    pub async fn list(&self, caller: &Agent, which: Listing<'_>) -> Result<ContextPage, Fault> {
        let Listing { kind, filter, page_size, page_token } = which;
        let mut after = match page_token {
            "" => None,
            token => Some(ContextId::parse(token).map_err(|_| {
                Fault::invalid("PAGE_TOKEN_INVALID", "the page token is none of this list's: start again without one")
            })?),
        };
        if kind.contains('\0') {
            return Err(Fault::invalid("CONTEXT_TYPE_INVALID", "a context type's name has no NUL"));
        }
        let filter = self.parts.filter(filter)?;
        let viewer = Viewer::of(caller);
        let size = page::size(page_size);
        let kind = Some(kind).filter(|kind| !kind.is_empty());
        let begun = Instant::now();
        let (mut contexts, mut filtered, mut looks): (Vec<Context>, usize, u32) = (Vec::new(), 0, 0);
        // In steps: contexts may be large, and a page that ends by its bytes must not have read a thousand of them.
        let more = loop {
            let room = if filter.is_some() { LIST_STEP } else { (size + 1 - contexts.len()).min(LIST_STEP) };
            let limit = u32::try_from(room).unwrap_or(u32::MAX);
            let Listed { contexts: read, mut until } =
                self.parts.stores.contexts.list(&viewer, ListFilter { kind, after }, limit).await?;
            looks += u32::from(read.len() < room);
            for context in read {
                if filter.is_some() && filtered > 0 && begun.elapsed() >= LOOKS_FOR {
                    until = after;
                    break;
                }
                filtered += 1;
                after = Some(context.id);
                let evaluation = Instant::now();
                // The query has decided already; what slipped through it must not be seen all the same.
                if context.seen_by(&viewer) && filter.as_ref().is_none_or(|filter| filter.matches(&context)) {
                    contexts.push(context);
                }
                yield_after(evaluation).await;
            }
            if page::cut(&mut contexts, size, bytes) {
                after = contexts.last().map(|context| context.id);
                break true;
            }
            let Some(until) = until else { break false };
            after = Some(until);
            let has_tried_enough = filter.is_some() && filtered >= FILTERED;
            if has_tried_enough || looks >= LOOKS || begun.elapsed() >= LOOKS_FOR {
                break true;
            }
        };
        let next_page_token = after.filter(|_| more).map(|id| id.to_string()).unwrap_or_default();
        Ok(ContextPage { contexts, next_page_token })
    }

    /// Follows the changes of one type that match `filter`; all of them where it is empty.
    pub async fn subscribe(&self, caller: &Agent, kind: &str, filter: &str, from: &StartPosition) -> Result<Subscription, Fault> {
        may_follow(caller, kind, self.parts.directory.snapshot().context_types.contains_key(kind))?;
        let filter = self.parts.filter(filter)?;
        let tail = self.tail(kind).await?;
        let source = Source {
            bus: self.bus.clone(),
            tail,
            access: self.parts.stores.contexts.clone(),
            reads: self.parts.reads.clone(),
            bookmark_every: self.parts.config.bookmark_every,
            metrics: self.parts.metrics.clone(),
            cancellation: self.supervisor.stop().clone(),
        };
        Subscription::open(source, Subscriber::new(self.parts.directory.clone(), caller, kind), filter, from).await
    }

    /// How many types are followed now.
    #[must_use]
    pub fn tails(&self) -> usize {
        self.lock().values().filter(|tail| tail.strong_count() > 0).count()
    }

    /// The topic of each type that is followed, and how many of its records this replica has not read yet, as of a few seconds ago.
    ///
    /// # Errors
    /// Where the bus does not answer.
    pub async fn lags(&self) -> Result<Vec<(TopicName, u64)>, BusError> {
        let tails: Vec<_> = self.lock().values().filter_map(Weak::upgrade).filter(|tail| !tail.ended()).collect();
        let mut lags = Vec::with_capacity(tails.len());
        let mut ends = HashMap::with_capacity(tails.len());
        for tail in tails {
            let known = self.ends().get(&tail.topic).filter(|ends| ends.at.elapsed() < ENDS_AGE).cloned();
            let known = match known {
                Some(known) => known,
                None => match self.bus.bounds_each(&tail.topic).await {
                    Ok(bounds) => Ends { at: Instant::now(), bounds },
                    // Its tail is about to find out, too.
                    Err(BusError::NoSuchTopic(_)) => continue,
                    Err(error) => return Err(error),
                },
            };
            lags.push((tail.topic.clone(), Bounds::unread(&known.bounds, tail.read().into_iter())));
            ends.insert(tail.topic.clone(), known);
        }
        *self.ends() = ends;
        Ok(lags)
    }

    fn ends(&self) -> MutexGuard<'_, HashMap<TopicName, Ends>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one tail of a type, started for its first subscriber.
    async fn tail(&self, kind: &str) -> Result<Arc<ContextTail>, Fault> {
        if let Some(tail) = self.lock().get(kind).and_then(living) {
            return Ok(tail);
        }
        // Without the lock: a topic that does not answer must not hold up subscriptions to others.
        let size = WindowSize { events: self.parts.config.window_events, bytes: self.parts.config.window_bytes };
        let topic = TopicName::context(&self.tenant, kind);
        let tail = ContextTail::start(self.bus.clone(), topic, size, &self.supervisor).await.map_err(Fault::from)?;
        let mut tails = self.lock();
        tails.retain(|_, tail| tail.strong_count() > 0);
        // Another subscriber may have been quicker: then this one ends.
        if let Some(first) = tails.get(kind).and_then(living) {
            return Ok(first);
        }
        let tail = Arc::new(tail);
        tails.insert(kind.to_owned(), Arc::downgrade(&tail));
        Ok(tail)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Weak<ContextTail>>> {
        self.tails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A context that the caller may change. Not found where it may not even see it.
    async fn owned(&self, caller: &Agent, id: ContextId) -> Result<Context, Fault> {
        let context = self.parts.get(caller, id).await?;
        if context.creator != caller.id && !caller.role.allows(Permission::AllContexts) {
            return Err(Fault::new(
                Code::PermissionDenied,
                "CONTEXT_NOT_OWNED",
                format!("context {id} is {}'s: only its creator or an admin may change it", context.creator_name),
            ));
        }
        Ok(context)
    }
}

fn conflict(id: ContextId, version: u64) -> Fault {
    let why = format!("context {id} is not at version {version} any more: read it again, then change it");
    Fault::new(Code::Aborted, "CONTEXT_VERSION_CONFLICT", why)
}

fn living(tail: &Weak<ContextTail>) -> Option<Arc<ContextTail>> {
    tail.upgrade().filter(|tail| !tail.ended())
}

fn bytes(context: &Context) -> usize {
    let Access { groups, agents, .. } = &context.access;
    let lists = groups.iter().chain(agents).chain(context.metadata.keys()).chain(context.metadata.values());
    page::bytes(lists.chain([&context.kind, &context.creator_name, &context.content_type]))
}

fn check_payload(payload: &Bytes, kind: Option<&ContextType>) -> Result<(), Fault> {
    let limit = kind.map_or(MAX_INLINE_BYTES, |kind| kind.max_bytes.min(MAX_INLINE_BYTES));
    if payload.len() > limit {
        return Err(Fault::new(
            Code::ResourceExhausted,
            "CONTEXT_TOO_LARGE",
            format!("the payload has {} bytes, and at most {limit} are taken inline: stream it instead", payload.len()),
        ));
    }
    Ok(())
}

/// What a repeated create finds. A first version tells whether it was the same request; a later one no longer does.
fn same(first: Context, again: &Context) -> Result<Context, Fault> {
    let differs = first.kind != again.kind
        || (first.version == 1
            && (first.access != again.access
                || first.sha256 != again.sha256
                || first.metadata != again.metadata
                || first.content_type != again.content_type));
    if differs {
        return Err(Fault::new(
            Code::AlreadyExists,
            "IDEMPOTENCY_KEY_REUSED",
            format!("context {} was made with this idempotency key and another content: use a new key", first.id),
        ));
    }
    Ok(first)
}
