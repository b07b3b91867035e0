//! The public gRPC API of bosun, generated from the `.proto` files beside this crate, and nothing
//! else: no conversions, no logic. What the calls mean is said in those files.
#![forbid(unsafe_code)]

/// `bosun.v1`: the API of administrators and agents.
#[expect(clippy::all, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("bosun.v1");
}

/// `runtime.v1`: what a kubelet asks of a container runtime (CRI).
#[expect(clippy::all, reason = "generated code")]
pub mod cri {
    tonic::include_proto!("runtime.v1");
}

/// Every .proto file as an encoded `FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The metadata key of the namespace of a call.
pub const NAMESPACE_KEY: &str = "bosun-namespace";

/// The metadata key of the lease that is to hold what a call makes.
pub const LEASE_KEY: &str = "bosun-lease";

/// The metadata key of an error's reason, for clients that tell errors apart.
pub const REASON_KEY: &str = "bosun-reason";
