//! `CredentialService`.

use acb_hub_core::door::{
    credential::{Credential, CredentialKind},
    credentials::Credentials,
};
use acb_proto::v1::{
    self, ListCredentialsRequest, ListCredentialsResponse, credential::Kind, credential_service_server::CredentialService,
};
use tonic::{Request, Response, Status};

use crate::{
    answer_room::Answers,
    grpc::{
        caller::{caller, trail},
        timestamp::timestamp,
    },
    status::to_status,
};

/// What agents prove themselves with.
#[derive(Clone, Debug)]
pub struct CredentialGate {
    credentials: Credentials,
}

impl CredentialGate {
    /// Over this service of core.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials }
    }
}

#[tonic::async_trait]
impl CredentialService for CredentialGate {
    async fn list_credentials(
        &self,
        request: Request<ListCredentialsRequest>,
    ) -> Result<Response<ListCredentialsResponse>, Status> {
        let (caller, trail, answers) = (caller(&request)?, trail(&request), Answers::of(&request));
        let ListCredentialsRequest { agent, page_size, page_token } = request.into_inner();
        let page = async {
            let page = self.credentials.list(&caller, &agent, page_size, &page_token).await.map_err(to_status)?;
            trail.object("credentials", page.credentials.len());
            Ok(ListCredentialsResponse {
                credentials: page.credentials.into_iter().map(wire).collect(),
                next_page_token: page.next_page_token,
            })
        };
        answers.page(page).await
    }
}

fn wire(credential: Credential) -> v1::Credential {
    let kind = match credential.kind {
        CredentialKind::ApiKey => Kind::ApiKey,
        CredentialKind::ServiceAccount => Kind::ServiceAccount,
    };
    v1::Credential {
        agent: credential.agent,
        agent_id: credential.agent_id.to_string(),
        kind: kind.into(),
        name: credential.name,
        created_at: Some(timestamp(credential.created_at)),
        expires_at: credential.expires_at.map(timestamp),
        last_used_at: credential.last_used_at.map(timestamp),
    }
}
