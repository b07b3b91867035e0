//! Compiles the .proto files without protoc, and keeps their descriptors for reflection.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const FILES: [&str; 16] = [
    "bosun/v1/containers.proto",
    "bosun/v1/sandboxes.proto",
    "bosun/v1/io.proto",
    "bosun/v1/snapshots.proto",
    "bosun/v1/content.proto",
    "bosun/v1/leases.proto",
    "bosun/v1/images.proto",
    "bosun/v1/files.proto",
    "bosun/v1/events.proto",
    "bosun/v1/system.proto",
    "runtime/v1/common.proto",
    "runtime/v1/pod.proto",
    "runtime/v1/container.proto",
    "runtime/v1/stats.proto",
    "runtime/v1/image.proto",
    "runtime/v1/runtime.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    println!("cargo::rerun-if-changed=bosun");
    println!("cargo::rerun-if-changed=runtime");
    Ok(())
}
