//! NRI, the Node Resource Interface, version 1: plugins are told of pods and containers as they come and go,
//! and change them.
//!
//! ```no_run
//! # async fn example(runtime: std::sync::Arc<dyn bosun_nri::Runtime>) -> bosun_nri::Result<()> {
//! use bosun_nri::{Nri, Settings, wire};
//!
//! let nri = Nri::start(Settings::default(), runtime).await?;
//! let (pod, container) = (wire::PodSandbox::default(), wire::Container::default());
//! let settling = nri.settle().await;
//! let creation = nri.create_container(pod.clone(), container.clone()).await?;
//! // Made with what `creation.adjust` says, and seen by everybody: now others may be synchronized.
//! drop(settling);
//! nri.post_create_container(pod, container).await;
//! nri.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! | module | what |
//! |---|---|
//! | `nri` | all plugins: how they come in, how they are asked, how they go |
//! | `plugin` | one: registration, configuration, synchronization, calls |
//! | `launch`, `name` | those that are installed; their names |
//! | `call` | methods and events, and older plugins |
//! | `merge`, `owners` | what several want of one container; who has set what |
//! | `connection`, [`mux`] | calls in both directions over one socket |
//! | `runtime` | what a runtime is to its plugins |
//! | [`wire`] | the messages, from `proto/nri.proto` |
//!
//! A plugin that does not answer in time, or talks nonsense, is closed, and things go on without it; one that
//! answers with an error fails what it was asked about. One that validates what others change has to answer.
//!
//! Not here: what an adjustment means to a container (the runtime's), plugins in WebAssembly, the validator that
//! other runtimes bring along.

#![forbid(unsafe_code)]

mod call;
mod connection;
mod error;
mod launch;
mod merge;
pub mod mux;
mod name;
mod nri;
mod owners;
mod plugin;
mod runtime;

/// The messages.
#[expect(clippy::all, reason = "generated code")]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/nri.pkg.api.v1alpha1.rs"));
}

pub use error::{Error, Result};
pub use merge::{Creation, Update};
pub use nri::{Nri, Settling};
pub use runtime::{Answer, Inventory, Runtime, Settings};
