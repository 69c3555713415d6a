//! Generates the wire types from the protos, without protoc.

use std::{env, error::Error, fs, path::PathBuf};

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

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // As prost's types they would lack the options that prost does not know, and so the HTTP bindings.
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let descriptors = compiler.file_descriptor_set();
    tonic_prost_build::configure().bytes(".").codec_path("crate::codec::SmallCodec").compile_fds(descriptors)?;
    Ok(())
}
