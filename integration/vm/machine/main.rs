//! What only a machine of one's own can show: bosund as a service of systemd, cgroup v2 alone,
//! AppArmor, and what containerd asks of systemd. `make test-vm` runs this inside its virtual machine; anywhere else every test here is
//! ignored, for they restart the machine's own bosund.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that meets a missing value has failed")]

mod apparmor;
mod cgroups;
mod clock;
mod containerd;
mod kernel;
mod kubelet;
mod power;
mod service;
mod support;
