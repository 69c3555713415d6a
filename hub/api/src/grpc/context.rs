//! `ContextService`.

use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use acb_hub_core::{
    contexts::{
        audience::{self, Access},
        catalog::{ContextUpdate, Contexts, Listing, NewContext},
        change::Change,
        chunk::{CHUNK_BYTES, Layout},
        context::{self, ContextId, Description, Payload},
        subscription::{Notice, StartPosition},
    },
    fault::Fault,
    log::position::LogPosition,
};
use acb_proto::v1::{
    self, Context, ContextEvent, CreateContextRequest, DeleteContextRequest, DeleteContextResponse, GetContextRequest,
    ListContextsRequest, ListContextsResponse, PayloadRef, SetContextAccessRequest, SubscribeRequest, UpdateContextRequest,
    context_event::Kind,
    context_service_server::ContextService,
    subscribe_request::{From, Positions},
};
use futures::{Stream, stream};
use prost::Message as _;
use tonic::{Request, Response, Status};

use crate::{
    answer_room::{AnswerRoom, Answers},
    grpc::{
        caller::{caller, trail},
        timestamp::{length, time, timestamp},
    },
    status::to_status,
};

/// What a record calls the object.
pub(crate) const CONTEXT: &str = "context";

/// Contexts.
#[derive(Clone)]
pub struct ContextGate {
    contexts: Arc<Contexts>,
}

impl ContextGate {
    /// Over this service of core.
    #[must_use]
    pub fn new(contexts: Arc<Contexts>) -> Self {
        Self { contexts }
    }
}

#[tonic::async_trait]
impl ContextService for ContextGate {
    async fn create_context(&self, request: Request<CreateContextRequest>) -> Result<Response<Context>, Status> {
        let (caller, trail) = (caller(&request)?, trail(&request));
        let request = request.into_inner();
        trail.bytes(request.payload.len() as u64);
        let new = NewContext {
            description: description(request.r#type, request.metadata, request.content_type, request.ttl, request.access)
                .map_err(to_status)?,
            payload: request.payload,
            idempotency_key: request.idempotency_key,
        };
        let context = self.contexts.create(&caller.agent, new).await.map_err(to_status)?;
        trail.object(CONTEXT, context.id);
        trail.version(context.version);
        Ok(Response::new(without_payload(context)))
    }

    async fn get_context(&self, request: Request<GetContextRequest>) -> Result<Response<Context>, Status> {
        let (caller, trail) = (caller(&request)?, trail(&request));
        let id = ContextId::parse(&request.into_inner().id).map_err(to_status)?;
        trail.object(CONTEXT, id);
        let (context, room) = self.contexts.get(&caller.agent, id).await.map_err(to_status)?;
        trail.version(context.version);
        let mut response = Response::new(wire(context));
        trail.bytes(response.get_ref().payload.len() as u64);
        if let Some(room) = room {
            response.extensions_mut().insert(AnswerRoom::new(vec![room]));
        }
        Ok(response)
    }

    async fn update_context(&self, request: Request<UpdateContextRequest>) -> Result<Response<Context>, Status> {
        let (caller, trail) = (caller(&request)?, trail(&request));
        let request = request.into_inner();
        let id = ContextId::parse(&request.id).map_err(to_status)?;
        trail.object(CONTEXT, id);
        trail.bytes(request.payload.len() as u64);
        let update = ContextUpdate {
            id,
            version: request.version,
            payload: request.payload,
            metadata: request.metadata.into_iter().collect(),
            content_type: request.content_type,
            ttl: ttl(request.ttl).map_err(to_status)?,
        };
        let context = self.contexts.update(&caller.agent, update).await.map_err(to_status)?;
        trail.version(context.version);
        Ok(Response::new(without_payload(context)))
    }

    async fn set_context_access(&self, request: Request<SetContextAccessRequest>) -> Result<Response<Context>, Status> {
        let (caller, trail) = (caller(&request)?, trail(&request));
        let SetContextAccessRequest { id, version, access } = request.into_inner();
        let id = ContextId::parse(&id).map_err(to_status)?;
        trail.object(CONTEXT, id);
        // Left out it would be read as public.
        let access = access.ok_or_else(|| Fault::invalid("ACCESS_INVALID", "say who may read it")).and_then(core_access);
        let version = (version > 0).then_some(version);
        let context =
            self.contexts.set_access(&caller.agent, id, version, access.map_err(to_status)?).await.map_err(to_status)?;
        trail.version(context.version);
        Ok(Response::new(without_payload(context)))
    }

    async fn delete_context(&self, request: Request<DeleteContextRequest>) -> Result<Response<DeleteContextResponse>, Status> {
        let (caller, trail) = (caller(&request)?, trail(&request));
        let id = ContextId::parse(&request.into_inner().id).map_err(to_status)?;
        trail.object(CONTEXT, id);
        self.contexts.delete(&caller.agent, id).await.map_err(to_status)?;
        Ok(Response::new(DeleteContextResponse {}))
    }

    async fn list_contexts(&self, request: Request<ListContextsRequest>) -> Result<Response<ListContextsResponse>, Status> {
        let (caller, answers) = (caller(&request)?, Answers::of(&request));
        let ListContextsRequest { r#type, page_size, page_token, filter } = request.into_inner();
        let page = async {
            let which = Listing { kind: &r#type, filter: &filter, page_size, page_token: &page_token };
            let page = self.contexts.list(&caller.agent, which).await.map_err(to_status)?;
            Ok(ListContextsResponse {
                contexts: page.contexts.into_iter().map(wire).collect(),
                next_page_token: page.next_page_token,
            })
        };
        answers.page(page).await
    }

    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<ContextEvent, Status>> + Send>>;

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        let (caller, trail, parts) = (caller(&request)?, trail(&request), Answers::of(&request).parts());
        let SubscribeRequest { r#type, from, filter } = request.into_inner();
        let from = beginning(from).map_err(to_status)?;
        let subscription = self.contexts.subscribe(&caller.agent, &r#type, &filter, &from).await.map_err(to_status)?;
        trail.object("type", &r#type);
        // Events are made as the peer takes them: what it does not take stays in the log.
        let events = stream::unfold(Some((subscription, parts)), |state| async {
            let (mut subscription, mut parts) = state?;
            parts.taken();
            match subscription.next().await {
                Ok(notice) => {
                    let event = event(notice);
                    match parts.hold_made(event.encoded_len()).await {
                        Ok(()) => Some((Ok(event), Some((subscription, parts)))),
                        // The subscriber goes on behind what it was told.
                        Err(status) => Some((Err(status), None)),
                    }
                }
                Err(fault) => Some((Err(to_status(fault)), None)),
            }
        });
        Ok(Response::new(Box::pin(events)))
    }
}

fn beginning(from: Option<From>) -> Result<StartPosition, Fault> {
    Ok(match from {
        Some(From::Start(true)) => StartPosition::Start,
        Some(From::After(Positions { positions })) => StartPosition::After(positions.iter().map(position).collect()),
        Some(From::Time(at)) => {
            StartPosition::At(time(at).ok_or_else(|| {
                Fault::invalid("TIME_INVALID", "the time to subscribe from is none between the years 1 and 9999")
            })?)
        }
        Some(From::Now(_) | From::Start(false)) | None => StartPosition::Now,
    })
}

fn position(position: &v1::Position) -> LogPosition {
    LogPosition { epoch: position.epoch, partition: position.partition, offset: position.offset }
}

fn wire_position(position: LogPosition) -> v1::Position {
    v1::Position { epoch: position.epoch, partition: position.partition, offset: position.offset }
}

fn event(notice: Notice) -> ContextEvent {
    let stands = |kind: Kind, after: Vec<LogPosition>| ContextEvent {
        kind: kind.into(),
        context: None,
        position: None,
        positions: after.into_iter().map(wire_position).collect(),
    };
    match notice {
        Notice::Subscribed { after } => stands(Kind::Subscribed, after),
        Notice::Bookmark { after } => stands(Kind::Bookmark, after),
        Notice::Change { position, event } => {
            let context::Context { id, version, .. } = event.context;
            match event.change {
                Change::Created => change(Kind::Created, position, wire(event.context)),
                Change::Updated => change(Kind::Updated, position, wire(event.context)),
                Change::Deleted => change(Kind::Deleted, position, gone(id, event.context.kind, version)),
            }
        }
        Notice::Left { position, context, kind, version } => change(Kind::Left, position, gone(context, kind, version)),
    }
}

fn change(kind: Kind, position: LogPosition, context: Context) -> ContextEvent {
    let position = Some(wire_position(position));
    ContextEvent { kind: kind.into(), context: Some(context), position, positions: Vec::new() }
}

/// A context of which nothing more is told.
fn gone(id: ContextId, kind: String, version: u64) -> Context {
    Context { id: id.to_string(), r#type: kind, version, ..Context::default() }
}

/// What the sender of a payload need not get back.
fn without_payload(context: context::Context) -> Context {
    Context { payload: bytes::Bytes::new(), ..wire(context) }
}

pub(crate) fn wire(context: context::Context) -> Context {
    let (schema_id, schema_version) = context.schema.map(|schema| (schema.id, schema.version)).unwrap_or_default();
    let (payload, payload_ref) = match context.payload {
        Payload::Inline(payload) => (payload, None),
        Payload::Chunks(upload) => {
            let layout = Layout { size: context.size, chunk_size: CHUNK_BYTES };
            let payload_ref = PayloadRef {
                backend: "chunks".into(),
                key: upload.to_string(),
                size: context.size,
                chunk_count: layout.count(),
                chunk_size: layout.chunk_size,
            };
            (bytes::Bytes::new(), Some(payload_ref))
        }
        Payload::Unread => (bytes::Bytes::new(), None),
    };
    Context {
        id: context.id.to_string(),
        r#type: context.kind,
        creator: context.creator_name,
        payload,
        payload_ref,
        metadata: context.metadata.into_iter().collect(),
        version: context.version,
        content_type: context.content_type,
        schema_id,
        schema_version,
        created_at: Some(timestamp(context.created_at)),
        updated_at: Some(timestamp(context.updated_at)),
        expires_at: context.expires_at.map(timestamp),
        checksum: bytes::Bytes::copy_from_slice(&context.sha256),
        access: Some(v1::Access {
            scope: match context.access.scope {
                audience::Scope::Public => v1::Scope::Public,
                audience::Scope::Private => v1::Scope::Private,
                audience::Scope::Group => v1::Scope::Group,
                audience::Scope::Shared => v1::Scope::Shared,
            }
            .into(),
            groups: context.access.groups,
            agents: context.access.agents,
        }),
        size: context.size,
    }
}

pub(crate) fn description(
    kind: String,
    metadata: HashMap<String, String>,
    content_type: String,
    time_to_live: Option<prost_types::Duration>,
    access: Option<v1::Access>,
) -> Result<Description, Fault> {
    Ok(Description {
        kind,
        metadata: metadata.into_iter().collect(),
        content_type,
        ttl: ttl(time_to_live)?,
        access: core_access(access.unwrap_or_default())?,
    })
}

fn core_access(access: v1::Access) -> Result<Access, Fault> {
    let scope = match v1::Scope::try_from(access.scope) {
        Ok(v1::Scope::Unspecified | v1::Scope::Public) => audience::Scope::Public,
        Ok(v1::Scope::Private) => audience::Scope::Private,
        Ok(v1::Scope::Group) => audience::Scope::Group,
        Ok(v1::Scope::Shared) => audience::Scope::Shared,
        // Read as public, an unknown scope of a newer client would show what it meant to hide.
        Err(_) => return Err(Fault::invalid("ACCESS_INVALID", format!("unknown scope {}", access.scope))),
    };
    Ok(Access { scope, groups: access.groups, agents: access.agents })
}

fn ttl(ttl: Option<prost_types::Duration>) -> Result<Option<Duration>, Fault> {
    ttl.map(|ttl| length(ttl).ok_or_else(|| Fault::invalid("TTL_INVALID", "a time to live is more than nothing"))).transpose()
}
