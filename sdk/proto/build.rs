//! Generates the wire types from the protos, without protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let files = [
        "auth",
        "credential",
        "encryption",
        "agent",
        "message",
        "mailbox",
        "dead_letter",
        "schedule",
        "context",
        "stream",
        "usage",
        "audit",
        "trace",
    ]
    .map(|name| format!("acb/v1/{name}.proto"));
    println!("cargo::rerun-if-changed=proto");

    let descriptors = protox::compile(&files, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    tonic_prost_build::configure().bytes(".").codec_path("crate::codec::SmallCodec").compile_fds(descriptors)?;
    Ok(())
}
