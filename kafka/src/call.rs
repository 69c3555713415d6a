//! The requests that are used, each with its number and its answer. (`kafka-protocol` says the same only together with a broker's half.)

use kafka_protocol::{
    messages::ApiKey,
    protocol::{Decodable, Encodable, HeaderVersion},
};

/// A request that [`send`](crate::Connection::send) takes.
pub trait Call: Encodable + HeaderVersion {
    /// Its number in the protocol.
    const KEY: i16;
    /// What answers it.
    type Response: Decodable + HeaderVersion;
}

macro_rules! calls {
    ($($key:ident: $request:ident -> $response:ident),* $(,)?) => {
        $(impl Call for kafka_protocol::messages::$request {
            const KEY: i16 = ApiKey::$key as i16;
            type Response = kafka_protocol::messages::$response;
        })*
    };
}

calls! {
    SaslHandshake: SaslHandshakeRequest -> SaslHandshakeResponse,
    SaslAuthenticate: SaslAuthenticateRequest -> SaslAuthenticateResponse,
    Metadata: MetadataRequest -> MetadataResponse,
    Produce: ProduceRequest -> ProduceResponse,
    CreateTopics: CreateTopicsRequest -> CreateTopicsResponse,
    DeleteTopics: DeleteTopicsRequest -> DeleteTopicsResponse,
    DeleteRecords: DeleteRecordsRequest -> DeleteRecordsResponse,
    CreatePartitions: CreatePartitionsRequest -> CreatePartitionsResponse,
    DescribeConfigs: DescribeConfigsRequest -> DescribeConfigsResponse,
    IncrementalAlterConfigs: IncrementalAlterConfigsRequest -> IncrementalAlterConfigsResponse,
    DescribeAcls: DescribeAclsRequest -> DescribeAclsResponse,
    CreateAcls: CreateAclsRequest -> CreateAclsResponse,
    DeleteAcls: DeleteAclsRequest -> DeleteAclsResponse,
    DescribeUserScramCredentials: DescribeUserScramCredentialsRequest -> DescribeUserScramCredentialsResponse,
    AlterUserScramCredentials: AlterUserScramCredentialsRequest -> AlterUserScramCredentialsResponse,
    DescribeClientQuotas: DescribeClientQuotasRequest -> DescribeClientQuotasResponse,
    AlterClientQuotas: AlterClientQuotasRequest -> AlterClientQuotasResponse,
    InitProducerId: InitProducerIdRequest -> InitProducerIdResponse,
    FindCoordinator: FindCoordinatorRequest -> FindCoordinatorResponse,
    JoinGroup: JoinGroupRequest -> JoinGroupResponse,
    ListGroups: ListGroupsRequest -> ListGroupsResponse,
    DescribeGroups: DescribeGroupsRequest -> DescribeGroupsResponse,
    DeleteGroups: DeleteGroupsRequest -> DeleteGroupsResponse,
    OffsetCommit: OffsetCommitRequest -> OffsetCommitResponse,
    OffsetFetch: OffsetFetchRequest -> OffsetFetchResponse,
    ListOffsets: ListOffsetsRequest -> ListOffsetsResponse,
    DescribeCluster: DescribeClusterRequest -> DescribeClusterResponse,
}
