//! `AuditService`.

use std::pin::Pin;

use acb_hub_core::{
    audit::{
        following::Followed,
        ports::{AuditFilter, KeptRecord},
        reading::{AuditTrail, Statement},
    },
    fault::Fault,
};
use acb_proto::v1::{
    AuditConsistency, AuditInclusion, FollowAuditRecordsRequest, FollowAuditRecordsResponse, GetAuditCheckpointRequest,
    GetAuditCheckpointResponse, GetAuditProofRequest, GetAuditProofResponse, ListAuditRecordsRequest, ListAuditRecordsResponse,
    LoggedAuditRecord, audit_service_server::AuditService, get_audit_proof_request,
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use prost::Message as _;
use tonic::{Request, Response, Status};

use crate::{
    answer_room::Answers,
    grpc::{caller::trail, message::instant, timestamp::timestamp},
    status::to_status,
};

/// The audit trail.
#[derive(Clone, Debug)]
pub struct AuditGate {
    records: AuditTrail,
}

impl AuditGate {
    /// Over this trail of core.
    #[must_use]
    pub fn new(records: AuditTrail) -> Self {
        Self { records }
    }
}

#[tonic::async_trait]
impl AuditService for AuditGate {
    async fn list_audit_records(
        &self,
        request: Request<ListAuditRecordsRequest>,
    ) -> Result<Response<ListAuditRecordsResponse>, Status> {
        let (trail, answers) = (trail(&request), Answers::of(&request));
        let ListAuditRecordsRequest { since, until, agent, operation, first, page_size, page_token } = request.into_inner();
        let time = |at: Option<_>| at.map(|at| instant(at).map_err(|_| invalid("a time is out of range"))).transpose();
        let filter = AuditFilter {
            since: time(since).map_err(to_status)?,
            until: time(until).map_err(to_status)?,
            ..by(agent, operation).map_err(to_status)?
        };
        let page = async {
            let page = self.records.list(&filter, first, page_size, &page_token).await.map_err(to_status)?;
            if let (Some(first), Some(last)) = (page.records.first(), page.records.last()) {
                trail.object("audit records", format_args!("{} to {}", first.number, last.number));
            }
            Ok(ListAuditRecordsResponse {
                records: page.records.into_iter().map(wire).collect(),
                next_page_token: page.next_page_token,
            })
        };
        answers.page(page).await
    }

    type FollowAuditRecordsStream = Pin<Box<dyn Stream<Item = Result<FollowAuditRecordsResponse, Status>> + Send>>;

    async fn follow_audit_records(
        &self,
        request: Request<FollowAuditRecordsRequest>,
    ) -> Result<Response<Self::FollowAuditRecordsStream>, Status> {
        let (trail, parts) = (trail(&request), Answers::of(&request).parts());
        let FollowAuditRecordsRequest { agent, operation, first } = request.into_inner();
        let filter = by(agent, operation).map_err(to_status)?;
        let following = self.records.follow(filter, first).await.map_err(to_status)?;
        let first = FollowAuditRecordsResponse { records: Vec::new(), next: following.next_number() };
        trail.object("audit records", format_args!("from {} on", first.next));
        // Pages are made as the peer takes them: what it does not take stays where it is.
        let pages = stream::unfold(Some((following, parts)), |state| async {
            let (mut following, mut parts) = state?;
            parts.taken();
            match following.next().await {
                Ok(Followed { records, next }) => {
                    let page = FollowAuditRecordsResponse { records: records.into_iter().map(wire).collect(), next };
                    match parts.hold_made(page.encoded_len()).await {
                        Ok(()) => Some((Ok(page), Some((following, parts)))),
                        Err(status) => Some((Err(status), None)),
                    }
                }
                Err(fault) => Some((Err(to_status(fault)), None)),
            }
        });
        Ok(Response::new(Box::pin(stream::once(async { Ok(first) }).chain(pages))))
    }

    async fn get_audit_checkpoint(
        &self,
        _: Request<GetAuditCheckpointRequest>,
    ) -> Result<Response<GetAuditCheckpointResponse>, Status> {
        let (checkpoint, verifiers) = self.records.checkpoint().await.map_err(to_status)?;
        Ok(Response::new(GetAuditCheckpointResponse {
            note: checkpoint.note,
            size: checkpoint.size,
            signed_at: Some(timestamp(checkpoint.at)),
            verifiers,
        }))
    }

    async fn get_audit_proof(&self, request: Request<GetAuditProofRequest>) -> Result<Response<GetAuditProofResponse>, Status> {
        let claim = match request.into_inner().claim {
            Some(get_audit_proof_request::Claim::Inclusion(AuditInclusion { number, size })) => {
                Statement::Inclusion { number, size }
            }
            Some(get_audit_proof_request::Claim::Consistency(AuditConsistency { first, second })) => {
                Statement::Consistency { first, second }
            }
            Some(get_audit_proof_request::Claim::Prefix(size)) => Statement::Prefix { size },
            None => {
                let why = "say what is to be proved: inclusion, consistency or prefix";
                return Err(to_status(Fault::invalid("AUDIT_PROOF_INVALID", why)));
            }
        };
        let hashes = self.records.prove(claim).await.map_err(to_status)?;
        let hashes = hashes.iter().map(|hash| Bytes::copy_from_slice(hash)).collect();
        Ok(Response::new(GetAuditProofResponse { hashes }))
    }
}

/// By who did it and what it was.
fn by(agent: String, operation: String) -> Result<AuditFilter, Fault> {
    if agent.contains('\0') || operation.contains('\0') {
        return Err(invalid("a name has no NUL"));
    }
    let said = |name: String| Some(name).filter(|name| !name.is_empty());
    Ok(AuditFilter { agent: said(agent), operation: said(operation), ..AuditFilter::default() })
}

fn invalid(why: &str) -> Fault {
    Fault::invalid("FILTER_INVALID", why)
}

fn wire(kept: KeptRecord) -> LoggedAuditRecord {
    let leaf_hash = kept.leaf.map(|hash| Bytes::copy_from_slice(&hash)).unwrap_or_default();
    LoggedAuditRecord { number: kept.number, record: kept.record, leaf_hash }
}
