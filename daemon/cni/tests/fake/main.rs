//! The runtime against plugins that were made for the test: scripts that write down how they are called,
//! and behave as badly as plugins do.
#![expect(clippy::unwrap_used, reason = "what surprises a test ends it")]

mod attaching;
mod failing;
mod garbage;
mod world;
