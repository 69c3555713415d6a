//! `UsageService`.

use acb_hub_core::messages::{service::Messages, usage::LimitUsage};
use acb_proto::v1::{GetUsageRequest, GetUsageResponse, Usage, usage_service_server::UsageService};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use crate::{
    grpc::{caller::caller, timestamp::timestamp},
    status::to_status,
};

/// What agents may use, and have used.
#[derive(Clone, Debug)]
pub struct UsageGate {
    messages: Messages,
}

impl UsageGate {
    /// Over this service of core.
    #[must_use]
    pub fn new(messages: Messages) -> Self {
        Self { messages }
    }
}

#[tonic::async_trait]
impl UsageService for UsageGate {
    async fn get_usage(&self, request: Request<GetUsageRequest>) -> Result<Response<GetUsageResponse>, Status> {
        let caller = caller(&request)?;
        let used = self.messages.usage(&caller.agent, &request.into_inner().agent).map_err(to_status)?;
        let now = OffsetDateTime::now_utc();
        let wire = |LimitUsage { subject, limit, most, used, resets_in }| Usage {
            subject,
            limit: limit.to_owned(),
            most,
            used,
            resets_at: Some(timestamp(now.saturating_add(resets_in.try_into().unwrap_or_default()))),
        };
        Ok(Response::new(GetUsageResponse { usage: used.into_iter().map(wire).collect() }))
    }
}
