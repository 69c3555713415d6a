//! `AuthService`.

use acb_hub_core::{
    directory::trail::Trail,
    door::{
        api_key::key_prefix,
        authority::{Authority, Grant},
    },
    fault::Fault,
};
use acb_proto::v1::{
    ExchangeSubjectTokenRequest, ExchangeTokenRequest, GetJwksRequest, GetJwksResponse, RefreshTokenRequest, RevokeTokenRequest,
    RevokeTokenResponse, TokenResponse, auth_service_server::AuthService, exchange_token_request::Credential,
};
use tonic::{Request, Response, Status};

use crate::{
    grpc::{
        caller::{source, trail},
        timestamp::timestamp,
    },
    status::to_status,
};

/// Exchanges credentials for tokens.
#[derive(Clone, Debug)]
pub struct Auth {
    authority: Authority,
}

impl Auth {
    /// Over this authority.
    #[must_use]
    pub fn new(authority: Authority) -> Self {
        Self { authority }
    }

    fn response(&self, trail: &Trail, grant: Grant) -> Response<TokenResponse> {
        trail.agent(grant.agent, &grant.agent_name);
        trail.source(&grant.source);
        let refresh_token = grant.refresh_token().to_owned();
        let refresh_token_expires_at = grant.refresh.as_ref().map(|refresh| timestamp(refresh.expires_at));
        Response::new(TokenResponse {
            access_token: grant.access_token,
            access_token_expires_at: Some(timestamp(grant.access_expires_at)),
            refresh_token,
            refresh_token_expires_at,
            tenant: self.authority.tenant().to_owned(),
            agent: grant.agent_name,
            agent_id: grant.agent.to_string(),
        })
    }
}

#[tonic::async_trait]
impl AuthService for Auth {
    async fn exchange_token(&self, request: Request<ExchangeTokenRequest>) -> Result<Response<TokenResponse>, Status> {
        let (trail, source) = (trail(&request), source(&request));
        match request.into_inner().credential {
            Some(Credential::ApiKey(key)) => {
                if let Some(prefix) = key_prefix(&key) {
                    trail.key(prefix);
                }
                Ok(self.response(&trail, self.authority.exchange(&key, source).await.map_err(to_status)?))
            }
            None => Err(to_status(Fault::invalid("CREDENTIAL_MISSING", "the request has no credential: set api_key"))),
        }
    }

    async fn exchange_subject_token(
        &self,
        request: Request<ExchangeSubjectTokenRequest>,
    ) -> Result<Response<TokenResponse>, Status> {
        let (trail, source) = (trail(&request), source(&request));
        let ExchangeSubjectTokenRequest { subject_token, subject_token_type } = request.into_inner();
        let exchanged = self.authority.exchange_subject((&subject_token, &subject_token_type), source, &trail).await;
        Ok(self.response(&trail, exchanged.map_err(to_status)?))
    }

    async fn refresh_token(&self, request: Request<RefreshTokenRequest>) -> Result<Response<TokenResponse>, Status> {
        let (trail, source) = (trail(&request), source(&request));
        let refreshed = self.authority.refresh(&request.into_inner().refresh_token, source, &trail).await;
        Ok(self.response(&trail, refreshed.map_err(to_status)?))
    }

    async fn revoke_token(&self, request: Request<RevokeTokenRequest>) -> Result<Response<RevokeTokenResponse>, Status> {
        let (trail, source) = (trail(&request), source(&request));
        self.authority.revoke(&request.into_inner().refresh_token, source, &trail).await.map_err(to_status)?;
        Ok(Response::new(RevokeTokenResponse {}))
    }

    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<GetJwksResponse>, Status> {
        Ok(Response::new(GetJwksResponse { jwks_json: self.authority.jwks() }))
    }
}
