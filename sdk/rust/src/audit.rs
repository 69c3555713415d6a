//! The audit trail of the tenant.

use std::{collections::VecDeque, time::SystemTime};

use acb_proto::v1::{
    AuditConsistency, AuditInclusion, AuditRecord, FollowAuditRecordsRequest, FollowAuditRecordsResponse,
    GetAuditCheckpointRequest, GetAuditCheckpointResponse, GetAuditProofRequest, ListAuditRecordsRequest, LoggedAuditRecord,
    get_audit_proof_request::Claim,
};
use futures::Stream;
use prost::Message as _;
use tonic::Code;

use crate::{
    Client, Error,
    client::{Line, Retry},
    page,
    reopened::Reopened,
    wire,
};

/// Records to a call.
const PAGE: u32 = 1000;

/// Which audit records; what is not said is not asked for.
///
/// ```
/// use acb_sdk::AuditQuery;
///
/// let reads = AuditQuery::all().agent("planner").operation("GetContext").from_number(1200);
/// # let _ = reads;
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a query finds nothing by itself"]
pub struct AuditQuery(ListAuditRecordsRequest);

impl AuditQuery {
    /// All of the tenant.
    pub fn all() -> Self {
        Self(ListAuditRecordsRequest { page_size: PAGE, ..ListAuditRecordsRequest::default() })
    }

    /// Only those of this time or later.
    pub fn since(mut self, at: SystemTime) -> Self {
        self.0.since = Some(wire::timestamp(at));
        self
    }

    /// Only those of before this time.
    pub fn until(mut self, at: SystemTime) -> Self {
        self.0.until = Some(wire::timestamp(at));
        self
    }

    /// Only those of this agent.
    pub fn agent(mut self, name: impl Into<String>) -> Self {
        self.0.agent = name.into();
        self
    }

    /// Only those of this operation, such as `GetContext`.
    pub fn operation(mut self, name: impl Into<String>) -> Self {
        self.0.operation = name.into();
        self
    }

    /// Only those with this number or a higher one.
    pub fn from_number(mut self, number: u64) -> Self {
        self.0.first = number;
        self
    }
}

/// What can be proved of the tree over the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditClaim {
    /// A record is in the tree of this size.
    Inclusion {
        /// The record's number.
        number: u64,
        /// The tree's size.
        size: u64,
    },
    /// A tree is the beginning of a larger one.
    Consistency {
        /// The smaller size.
        first: u64,
        /// The larger size.
        second: u64,
    },
    /// The hashes of the subtrees of the first so many records.
    Prefix {
        /// How many.
        size: u64,
    },
}

/// Audit records as they are logged. Where the connection breaks it goes on after the last one, with any replica.
#[derive(Debug)]
pub struct AuditFollower {
    request: FollowAuditRecordsRequest,
    /// What came and was not asked for yet, and where to go on after it.
    waiting: VecDeque<LoggedAuditRecord>,
    next: u64,
    stream: Reopened<FollowAuditRecordsResponse>,
}

impl AuditFollower {
    /// The next record that matches, once there is one. After an error the follower is over.
    pub async fn next(&mut self) -> Result<LoggedAuditRecord, Error> {
        loop {
            if let Some(record) = self.waiting.pop_front() {
                return Ok(record);
            }
            // Only now: what was not handed out would be left out after a break.
            self.request.first = Some(self.next);
            let page = if self.stream.is_open() { self.stream.next().await? } else { Some(self.open().await?) };
            if let Some(page) = page {
                self.next = page.next;
                self.waiting.extend(page.records);
            }
        }
    }

    /// The number to go on from, with [`Client::follow_audit`], after the record that came last.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.waiting.front().map_or(self.next, |record| record.number)
    }

    async fn open(&mut self) -> Result<FollowAuditRecordsResponse, Error> {
        let request = self.request.clone();
        let follow = |line: Line| {
            let request = request.clone();
            async move { line.audit().follow_audit_records(request).await }
        };
        self.stream.open(follow).await
    }
}

/// What the bytes of a record say. `None` where a newer hub wrote them, or nobody that is one.
#[must_use]
pub fn audit_record(bytes: &[u8]) -> Option<AuditRecord> {
    AuditRecord::decode(bytes).ok().filter(|record| record.version == 1)
}

impl Client {
    /// The audit records that match, by number; page after page as they are taken. Takes the role `auditor` or `admin`.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// use acb_sdk::{AuditQuery, audit_record};
    /// use futures::{TryStreamExt as _, pin_mut};
    ///
    /// let records = client.audit_records(AuditQuery::all().agent("planner"));
    /// pin_mut!(records);
    /// while let Some(logged) = records.try_next().await? {
    ///     println!("{} {:?}", logged.number, audit_record(&logged.record).map(|record| record.operation));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn audit_records(&self, query: AuditQuery) -> impl Stream<Item = Result<LoggedAuditRecord, Error>> + Send + use<> {
        let client = self.clone();
        page::all(move |page_token| {
            let (client, request) = (client.clone(), ListAuditRecordsRequest { page_token, ..query.0.clone() });
            async move {
                let page = client
                    .call("list audit records", Retry::Always, Self::ATTEMPT, |line| {
                        let request = request.clone();
                        async move { line.audit().list_audit_records(request).await }
                    })
                    .await?;
                Ok((page.records, page.next_page_token))
            }
        })
    }

    /// Follows the audit trail: from number `first` on, and without it from now on. Of the query only the agent and the operation count. Resolves once
    /// nothing more is missed. Takes the role `auditor` or `admin`.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// let mut trail = client.follow_audit(acb_sdk::AuditQuery::all(), None).await?;
    /// loop {
    ///     println!("{}", trail.next().await?.number);
    /// }
    /// # }
    /// ```
    pub async fn follow_audit(&self, query: AuditQuery, first: Option<u64>) -> Result<AuditFollower, Error> {
        let ListAuditRecordsRequest { agent, operation, .. } = query.0;
        let mut follower = AuditFollower {
            request: FollowAuditRecordsRequest { agent, operation, first },
            waiting: VecDeque::new(),
            next: 0,
            stream: Reopened::new(self, "follow audit records".to_owned()),
        };
        follower.next = follower.open().await?.next;
        Ok(follower)
    }

    /// The latest checkpoint of the audit trail, and the keys that signed one. Takes the role `auditor` or `admin`.
    pub async fn audit_checkpoint(&self) -> Result<GetAuditCheckpointResponse, Error> {
        self.call("get audit checkpoint", Retry::Always, Self::ATTEMPT, |line| async move {
            line.audit().get_audit_checkpoint(GetAuditCheckpointRequest {}).await
        })
        .await
    }

    /// The hashes that prove it. Takes the role `auditor` or `admin`.
    pub async fn audit_proof(&self, claim: AuditClaim) -> Result<Vec<[u8; 32]>, Error> {
        let claim = match claim {
            AuditClaim::Inclusion { number, size } => Claim::Inclusion(AuditInclusion { number, size }),
            AuditClaim::Consistency { first, second } => Claim::Consistency(AuditConsistency { first, second }),
            AuditClaim::Prefix { size } => Claim::Prefix(size),
        };
        let request = GetAuditProofRequest { claim: Some(claim) };
        let answer =
            self.call("get audit proof", Retry::Always, Self::ATTEMPT, |line| async move {
                line.audit().get_audit_proof(request).await
            })
            .await?;
        let hash = |hash: &bytes::Bytes| hash.as_ref().try_into();
        answer
            .hashes
            .iter()
            .map(hash)
            .collect::<Result<_, _>>()
            .map_err(|_| Error::refused(Code::Internal, "", "get audit proof: the hub answered with what are no hashes"))
    }
}
