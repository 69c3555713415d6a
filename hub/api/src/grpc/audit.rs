//! `AuditService`.

use acb_hub_core::{
    audit::{
        ports::{AuditFilter, KeptRecord},
        reading::{AuditTrail, Claim},
    },
    fault::Fault,
};
use acb_proto::v1::{
    AuditConsistency, AuditInclusion, GetAuditCheckpointRequest, GetAuditCheckpointResponse, GetAuditProofRequest,
    GetAuditProofResponse, ListAuditRecordsRequest, ListAuditRecordsResponse, LoggedAuditRecord,
    audit_service_server::AuditService, get_audit_proof_request,
};
use bytes::Bytes;
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
        if agent.contains('\0') || operation.contains('\0') {
            return Err(to_status(invalid("a name has no NUL")));
        }
        let filter = AuditFilter {
            since: time(since).map_err(to_status)?,
            until: time(until).map_err(to_status)?,
            agent: Some(agent).filter(|agent| !agent.is_empty()),
            operation: Some(operation).filter(|operation| !operation.is_empty()),
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
            Some(get_audit_proof_request::Claim::Inclusion(AuditInclusion { number, size })) => Claim::Inclusion { number, size },
            Some(get_audit_proof_request::Claim::Consistency(AuditConsistency { first, second })) => {
                Claim::Consistency { first, second }
            }
            Some(get_audit_proof_request::Claim::Prefix(size)) => Claim::Prefix { size },
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

fn invalid(why: &str) -> Fault {
    Fault::invalid("FILTER_INVALID", why)
}

fn wire(kept: KeptRecord) -> LoggedAuditRecord {
    let leaf_hash = kept.leaf.map(|hash| Bytes::copy_from_slice(&hash)).unwrap_or_default();
    LoggedAuditRecord { number: kept.number, record: kept.record, leaf_hash }
}
