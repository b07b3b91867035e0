//! A CNI runtime: it attaches containers to networks by running plugins, as libcni does.
//!
//! ```no_run
//! # async fn example() -> bosun_cni::Result<()> {
//! use bosun_cni::{Arguments, Capabilities, Cni, Container, Settings, Status};
//!
//! let cni = Cni::new(Settings::default());
//! if let Status::NotReady(reason) = cni.status().await {
//!     println!("NetworkReady=false: {}", reason.chain());
//! }
//! let container = Container {
//!     id: "4f2a".into(),
//!     netns: Some("/run/netns/bosun-4f2a".into()),
//!     arguments: Arguments::kubernetes("default", "web-0", "4f2a", "uid")?,
//!     capabilities: Capabilities::default(),
//! };
//! for attached in cni.attach(container.clone()).await? {
//!     println!("{}: {:?}", attached.interface, attached.result.container_ips().next());
//! }
//! // Also by another process, later, and when the namespace is gone:
//! for passed_over in cni.detach(container).await? {
//!     eprintln!("{passed_over}");
//! }
//! // At the start and now and then, with the ids of all sandboxes there are:
//! let collected = cni.collect(async { ["4f2b".to_owned()].into() }).await;
//! # drop(collected);
//! # Ok(())
//! # }
//! ```
//!
//! | module | what |
//! |---|---|
//! | `config` | the directory of network configurations |
//! | `attachment` | a container, CNI_ARGS, capability arguments |
//! | `runtime` | what is called: attach, detach, check, collect, status |
//! | `operations` | attach, detach, check |
//! | `status` | whether the network is ready |
//! | `garbage` | what belongs to nobody |
//! | `cache` | what was attached, on disk |
//! | `lock` | one operation at a time for each container |
//! | `plugins`, `process` | finding and running a plugin |
//! | `result` | what an attachment is, in every version |
//!
//! An ADD is written down before its first plugin runs. So whatever happens to this process, what was begun
//! is found again, and DEL or GC undoes it. That GC is called at the start is for the user of this crate.
//!
//! Not here: the loopback interface (whoever makes the namespace brings it up), and plugins themselves.

#![forbid(unsafe_code)]

mod attachment;
mod cache;
mod config;
mod error;
mod garbage;
mod lock;
mod name;
mod operations;
mod plugins;
mod process;
mod result;
mod runtime;
mod status;
mod version;

pub use attachment::{
    Arguments, Bandwidth, Capabilities, Container, DnsSettings, IpRange, PortMapping, Protocol,
};
pub use config::{Network, Networks, Plugin};
pub use error::{Command, Error, Failure, InvalidFile, Result};
pub use garbage::{Collected, Removed};
pub use result::{BadCidr, Cidr, Dns, Interface, IpConfig, NetworkResult, Route};
pub use runtime::{Attached, Checked, Cni, Settings};
pub use status::Status;
pub use version::{UnknownVersion, Version};
