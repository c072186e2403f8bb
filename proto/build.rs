//! Compiles the protobuf definitions; protox needs no `protoc`.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/talka.proto");
    let descriptors = protox::compile(["proto/talka.proto"], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let encoded = prost::Message::encode_to_vec(&descriptors);
    std::fs::write(out.join("talka.descriptors"), encoded)?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
