//! `UsageService`.

use std::{fmt, sync::Arc};

use acb_hub_core::{
    contexts::catalog::Contexts,
    directory::{
        limits::{LimitUsage, Whose},
        snapshot::Directory,
    },
    door::{meter::Meter, request_counts::RequestLimits},
    fault::Fault,
    messages::{
        service::Messages,
        usage_store::{self, Period},
        usage_sums::{UsageQuery, UsageSums},
    },
};
use acb_proto::v1::{
    GetUsageRequest, GetUsageResponse, ListUsageRequest, ListUsageResponse, Usage, UsageGap, UsagePeriod, UsageSum,
    usage_service_server::UsageService,
};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use crate::{
    answer_room::Answers,
    grpc::{
        caller::{caller, trail},
        message::instant,
        timestamp::timestamp,
    },
    status::to_status,
};

/// What agents may use, and have used.
#[derive(Clone)]
pub struct UsageGate {
    messages: Messages,
    contexts: Arc<Contexts>,
    meter: Meter,
    directory: Directory,
    tenant: String,
    sums: UsageSums,
}

impl fmt::Debug for UsageGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageGate").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl UsageGate {
    /// Over these services of core, of this tenant.
    #[must_use]
    pub fn new(tenant: &str, messages: Messages, contexts: Arc<Contexts>, meter: Meter, directory: Directory) -> Self {
        Self { sums: messages.usage_sums(), messages, contexts, meter, directory, tenant: tenant.to_owned() }
    }
}

#[tonic::async_trait]
impl UsageService for UsageGate {
    async fn get_usage(&self, request: Request<GetUsageRequest>) -> Result<Response<GetUsageResponse>, Status> {
        let caller = caller(&request)?;
        let account = self.messages.account(&caller.agent, &request.into_inner().agent).map_err(to_status)?;
        let mut used = self.messages.usage(&account);
        let snapshot = self.directory.snapshot();
        let limits = RequestLimits { tenant: (&self.tenant, snapshot.limits), operations: &snapshot.operation_limits };
        used.extend(self.meter.usage(&account, limits));
        used.extend(self.contexts.storage_usage(&account).await.map_err(to_status)?);
        // Its own first, as each of them has it.
        used.sort_by_key(|usage| usage.subject != Whose::Agent(&account.name).subject());
        let now = OffsetDateTime::now_utc();
        let wire = |LimitUsage { subject, limit, most, used, resets_in }| Usage {
            subject,
            limit: limit.to_owned(),
            most,
            used,
            resets_at: resets_in.map(|rest| timestamp(now.saturating_add(rest.try_into().unwrap_or_default()))),
        };
        Ok(Response::new(GetUsageResponse { usage: used.into_iter().map(wire).collect() }))
    }

    async fn list_usage(&self, request: Request<ListUsageRequest>) -> Result<Response<ListUsageResponse>, Status> {
        let caller = caller(&request)?;
        let (trail, answers) = (trail(&request), Answers::of(&request));
        let request = request.into_inner();
        let by = match request.by() {
            UsagePeriod::Unspecified | UsagePeriod::Hour => Period::Hour,
            UsagePeriod::Day => Period::Day,
            UsagePeriod::Month => Period::Month,
        };
        let time = |at: Option<_>| {
            at.map(|at| instant(at).map_err(|_| to_status(Fault::invalid("FILTER_INVALID", "a time is out of range"))))
                .transpose()
        };
        let (from, to) = (time(request.from)?, time(request.to)?);
        let ListUsageRequest { agent, page_size, page_token, .. } = request;
        let query = UsageQuery { agent, by, from, to, page_size, page_token };
        let page = async {
            let page = self.sums.list(&caller.agent, &query).await.map_err(to_status)?;
            let of = if query.agent.is_empty() { "everybody it may see" } else { &query.agent };
            trail.object("usage of", format_args!("{of}"));
            Ok(ListUsageResponse {
                sums: page.sums.into_iter().map(sum).collect(),
                next_page_token: page.next_page_token,
                gaps: page.gaps.into_iter().map(gap).collect(),
            })
        };
        answers.page(page).await
    }
}

fn sum(sum: usage_store::UsageSum) -> UsageSum {
    UsageSum {
        starts_at: Some(timestamp(sum.starts_at)),
        agent_id: sum.agent.to_string(),
        agent: sum.name,
        messages: sum.sent.messages,
        bytes: sum.sent.bytes,
    }
}

fn gap(gap: usage_store::UsageGap) -> UsageGap {
    UsageGap { found_at: Some(timestamp(gap.found_at)), what: gap.what, records: gap.records }
}
