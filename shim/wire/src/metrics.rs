//! Statistics of a task's control group, as containerd has them: one message for v1 and hybrid
//! machines, another for v2.
//!
//! Field numbers follow containerd/cgroups' `cgroup1/stats/metrics.proto` and
//! `cgroup2/stats/metrics.proto`. Absent is what no group counts: the traffic of interfaces, and the
//! states of threads, which v1 tells by netlink alone.

pub mod v1;
pub mod v2;
