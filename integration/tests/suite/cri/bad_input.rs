//! What can't be is refused by name, and nothing is left of it.

use bosun_proto::cri;
use integration::kubelet::{Kubelet, node};
use tonic::Code;

#[test]
fn a_bad_pod_is_refused() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let said = |change: &dyn Fn(&mut cri::PodSandboxConfig)| {
        let mut config = kubelet.pod_config("bad");
        change(&mut config);
        let refused = kubelet.try_run_pod(&config).unwrap_err();
        (refused.code(), refused.message().to_owned())
    };
    let (code, message) = said(&|config| config.metadata = None);
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("config.metadata"), "{message}");
    for directory in ["relative", "/var/../etc", "/var/log\nx"] {
        let (code, message) = said(&|config| config.log_directory = directory.to_owned());
        assert_eq!(code, Code::InvalidArgument, "{directory:?}: {message}");
    }
    let dns = |servers: &[&str], searches: &[&str]| {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        let (servers, searches) = (words(servers), words(searches));
        said(&|config| {
            config.dns_config = Some(cri::DnsConfig {
                servers: Vec::clone(&servers),
                searches: Vec::clone(&searches),
                ..cri::DnsConfig::default()
            });
        })
    };
    assert_eq!(dns(&["1.1.1.1\nnameserver 2.2.2.2"], &[]).0, Code::InvalidArgument);
    assert_eq!(dns(&[], &["a\nnameserver 2.2.2.2"]).0, Code::InvalidArgument);
    assert_eq!(said(&|config| config.hostname = "a\nb".to_owned()).0, Code::InvalidArgument);
    for sysctl in ["kernel.panic", "vm.swappiness", "net.ipv4.nowhere", "net.ipv4/../../x"] {
        let (_, message) = said(&|config| {
            let sysctls = [(sysctl.to_owned(), "1".to_owned())];
            config.linux.as_mut().unwrap().sysctls = sysctls.into();
        });
        assert!(
            message.contains(sysctl) || message.contains(&sysctl.replace('.', "/")),
            "{message}"
        );
    }
    let request = cri::RunPodSandboxRequest {
        config: Some(kubelet.pod_config("bad")),
        runtime_handler: "kata".to_owned(),
    };
    let refused = kubelet.call(|mut client| async move { client.run_pod_sandbox(request).await });
    assert!(refused.unwrap_err().message().contains("kata"));
    assert!(kubelet.pods(cri::PodSandboxFilter::default()).is_empty());
}

#[test]
fn a_bad_container_is_refused() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let sandbox = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&sandbox);
    let said = |change: &dyn Fn(&mut cri::ContainerConfig)| {
        let mut config = kubelet.container_config("bad", "true");
        change(&mut config);
        let refused = kubelet.try_create(&pod, &config, &sandbox).unwrap_err();
        (refused.code(), refused.message().to_owned())
    };
    let (code, message) = said(&|config| config.image.as_mut().unwrap().image = "nowhere:1".into());
    assert!(code == Code::NotFound && message.contains("nowhere:1"), "{message}");
    for path in ["../escape.log", "/absolute.log", "a/../../b", "new\nline"] {
        let (code, message) = said(&|config| config.log_path = path.to_owned());
        assert_eq!(code, Code::InvalidArgument, "{path:?}: {message}");
    }
    let context = |change: &dyn Fn(&mut cri::LinuxContainerSecurityContext)| {
        said(&|config| change(config.linux.as_mut().unwrap().security_context.as_mut().unwrap()))
    };
    let (code, message) =
        context(&|context| context.run_as_group = Some(cri::Int64Value { value: 5 }));
    assert!(code == Code::InvalidArgument && message.contains("run_as_group"), "{message}");
    for user in [-1, i64::from(u32::MAX)] {
        let (code, _) =
            context(&|context| context.run_as_user = Some(cri::Int64Value { value: user }));
        assert_eq!(code, Code::InvalidArgument);
    }
    let (code, message) = context(&|context| {
        context.capabilities = Some(cri::Capability {
            add_capabilities: vec!["FLY".to_owned()],
            ..cri::Capability::default()
        });
    });
    assert!(code == Code::InvalidArgument && message.contains("FLY"), "{message}");
    let (code, message) = context(&|context| context.privileged = true);
    assert!(code == Code::InvalidArgument && message.contains("the pod is not"), "{message}");
    let (code, message) = context(&|context| {
        context.apparmor = Some(cri::SecurityProfile {
            profile_type: cri::security_profile::ProfileType::Localhost.into(),
            localhost_ref: "no-such-profile".to_owned(),
        });
    });
    assert!(code == Code::InvalidArgument && message.contains("no-such-profile"), "{message}");
    let (code, message) = said(&|config| {
        config.mounts = vec![cri::Mount { container_path: "/x".to_owned(), ..Default::default() }];
    });
    assert_eq!(code, Code::InvalidArgument, "{message}");
    let (code, message) = said(&|config| config.stop_signal = 99);
    assert!(code == Code::InvalidArgument && message.contains("99"), "{message}");
    let config = kubelet.container_config("orphan", "true");
    let refused = kubelet.try_create("0123456789ab", &config, &sandbox).unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(kubelet.containers(cri::ContainerFilter::default()).is_empty());
    kubelet.stop_pod(&pod).unwrap();
    let refused = kubelet.try_create(&pod, &config, &sandbox).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
}
