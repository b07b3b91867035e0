//! What the runtime is and whether it is ready.

use std::collections::HashMap;

use super::{CgroupDriver, Cri, wire};

/// The conditions that every kubelet asks for.
const RUNTIME_READY: &str = "RuntimeReady";
pub(super) const NETWORK_READY: &str = "NetworkReady";

impl Cri {
    pub(super) fn version(&self) -> wire::VersionResponse {
        wire::VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: "bosun".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        }
    }

    pub(super) async fn status(&self, verbose: bool) -> wire::StatusResponse {
        let conditions = vec![
            wire::RuntimeCondition {
                r#type: RUNTIME_READY.to_owned(),
                status: true,
                ..wire::RuntimeCondition::default()
            },
            self.network_condition().await,
        ];
        wire::StatusResponse {
            status: Some(wire::RuntimeStatus { conditions }),
            info: if verbose { self.status_info() } else { HashMap::new() },
            runtime_handlers: self.handlers().await,
            features: Some(wire::RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: false,
                mount_options: false,
            }),
        }
    }

    fn status_info(&self) -> HashMap<String, String> {
        let config = &self.core().config;
        let info = serde_json::json!({
            "root": config.root,
            "state": config.state,
            "cgroupPrefix": config.cgroup_prefix,
            "bridge": config.bridge,
        });
        HashMap::from([("config".to_owned(), info.to_string())])
    }

    pub(super) fn runtime_config(&self) -> wire::RuntimeConfigResponse {
        let driver = match self.settings().cgroup_driver {
            CgroupDriver::Cgroupfs => wire::CgroupDriver::Cgroupfs,
            CgroupDriver::Systemd => wire::CgroupDriver::Systemd,
        };
        wire::RuntimeConfigResponse {
            linux: Some(wire::LinuxRuntimeConfiguration { cgroup_driver: driver.into() }),
        }
    }
}
