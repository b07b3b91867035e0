//! Compiles the messages without protoc. What calls them is ttrpc, and none of gRPC's clients or servers.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(["nri.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        // Maps in order: what is told twice is the same both times.
        .btree_map(".")
        .compile_fds(descriptors)?;
    println!("cargo::rerun-if-changed=proto");
    Ok(())
}
