//! The wire contract: gRPC package `acb.v1`, generated from the files in `proto/`.

pub mod codec;

/// Messages, clients and servers of package `acb.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("acb.v1");
}

/// The encoded `FileDescriptorSet` of [`v1`], for reflection and for tests that walk every method.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
