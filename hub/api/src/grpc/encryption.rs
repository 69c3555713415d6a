//! `EncryptionKeyService`.

use acb_hub_core::directory::encryption_keys::{self, EncryptionKeys};
use acb_proto::v1::{
    AgentEncryptionKeys, EncryptionKey, ListEncryptionKeysRequest, ListEncryptionKeysResponse, PublishEncryptionKeyRequest,
    PublishEncryptionKeyResponse, WithdrawEncryptionKeyRequest, WithdrawEncryptionKeyResponse,
    encryption_key_service_server::EncryptionKeyService,
};
use bytes::Bytes;
use tonic::{Request, Response, Status};

use crate::{
    answer_room::Answers,
    grpc::{
        caller::{caller, trail},
        timestamp::timestamp,
    },
    status::to_status,
};

/// What a record calls the object.
const KEY: &str = "encryption key";

/// The public keys of agents.
#[derive(Clone, Debug)]
pub struct EncryptionKeyGate {
    keys: EncryptionKeys,
}

impl EncryptionKeyGate {
    /// Over this service of core.
    #[must_use]
    pub fn new(keys: EncryptionKeys) -> Self {
        Self { keys }
    }
}

#[tonic::async_trait]
impl EncryptionKeyService for EncryptionKeyGate {
    async fn publish_encryption_key(
        &self,
        request: Request<PublishEncryptionKeyRequest>,
    ) -> Result<Response<PublishEncryptionKeyResponse>, Status> {
        let (caller, trail) = (caller(&request)?, trail(&request));
        let PublishEncryptionKeyRequest { suite, public_key } = request.into_inner();
        let id = self.keys.publish(&caller.agent, &suite, &public_key).await.map_err(to_status)?;
        trail.object(KEY, hex::encode(id));
        Ok(Response::new(PublishEncryptionKeyResponse { key_id: Bytes::copy_from_slice(&id) }))
    }

    async fn withdraw_encryption_key(
        &self,
        request: Request<WithdrawEncryptionKeyRequest>,
    ) -> Result<Response<WithdrawEncryptionKeyResponse>, Status> {
        let (caller, trail) = (caller(&request)?, trail(&request));
        let id = self.keys.withdraw(&caller.agent, &request.into_inner().key_id).await.map_err(to_status)?;
        trail.object(KEY, hex::encode(id));
        Ok(Response::new(WithdrawEncryptionKeyResponse {}))
    }

    async fn list_encryption_keys(
        &self,
        request: Request<ListEncryptionKeysRequest>,
    ) -> Result<Response<ListEncryptionKeysResponse>, Status> {
        let answers = Answers::of(&request);
        let ListEncryptionKeysRequest { agents, group } = request.into_inner();
        let listed = async {
            let of_agents = self.keys.list(&agents, &group).await.map_err(to_status)?;
            let mut agents = Vec::with_capacity(of_agents.len());
            for (agent, keys) in of_agents {
                agents.push(AgentEncryptionKeys { agent: agent.name.clone(), keys: keys.into_iter().map(key).collect() });
            }
            Ok(ListEncryptionKeysResponse { agents })
        };
        answers.page(listed).await
    }
}

fn key(key: encryption_keys::EncryptionKey) -> EncryptionKey {
    EncryptionKey {
        key_id: Bytes::copy_from_slice(&key.id),
        suite: key.suite,
        public_key: key.public.into(),
        published_at: Some(timestamp(key.published_at)),
    }
}
