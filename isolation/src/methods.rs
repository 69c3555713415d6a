//! Every method of the wire contract, called with an empty request.

use acb_proto::{FILE_DESCRIPTOR_SET, codec::SmallCodec};
use futures::stream;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::{Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, metadata::MetadataValue, transport::Channel};

/// Without a token: whoever calls them has none yet.
const PUBLIC: [&str; 5] = ["ExchangeToken", "ExchangeSubjectToken", "RefreshToken", "RevokeToken", "GetJwks"];
/// Those that are called with more than an empty request.
const BY_HAND: [&str; 7] = ["ListAgents", "SendMessage", "Session", "GetContext", "Subscribe", "ReceiveContext", "WaitForUnread"];

/// Names the call to whoever reads of it: in an audit trail, in a log.
pub(crate) fn mark<T>(request: &mut Request<T>) {
    request.metadata_mut().insert("x-correlation-id", MetadataValue::from_static(crate::CORRELATION));
}

/// One method that takes a token.
#[derive(Clone, Debug)]
pub(crate) struct Method {
    pub(crate) name: String,
    path: String,
}

/// All of them, in the order of the protos.
pub(crate) fn all() -> Vec<Method> {
    // It is written by the build.
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap_or_default().file;
    let mut methods = Vec::new();
    for (file, service) in files.iter().flat_map(|file| file.service.iter().map(move |service| (file, service))) {
        methods.extend(service.method.iter().filter(|method| !PUBLIC.contains(&method.name())).map(|method| Method {
            name: method.name().to_owned(),
            path: format!("/{}.{}/{}", file.package(), service.name(), method.name()),
        }));
    }
    methods
}

impl Method {
    /// Whether another attack calls it, with names and ids in its request.
    pub(crate) fn is_tried_by_hand(&self) -> bool {
        BY_HAND.contains(&self.name.as_str())
    }

    /// Its name in the name of an attack.
    pub(crate) fn kebab(&self) -> String {
        let mut name = String::new();
        for letter in self.name.chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }

    /// Calls it. That an answer begins is enough: who is refused is told before.
    pub(crate) async fn call(&self, hub: Channel, token: &str) -> Result<(), Status> {
        let path: PathAndQuery = self.path.parse().map_err(|_| Status::unknown("the method has no path"))?;
        let mut client = Grpc::new(hub);
        client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
        // Of one request and of any number the wire is the same.
        let mut request = Request::new(stream::iter([()]));
        if let Ok(value) = format!("Bearer {token}").parse() {
            request.metadata_mut().insert("authorization", value);
        }
        mark(&mut request);
        let mut answers = client.streaming(request, path, SmallCodec::<(), ()>::default()).await?.into_inner();
        answers.message().await.map(drop)
    }
}
