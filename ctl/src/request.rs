//! The flags of `run` and `create` made into the message that the daemon takes.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use bosun_proto::v1::container_options::Base;
use bosun_proto::v1::{ContainerOptions, Limits, LogOptions, StringList, WindowSize};

use crate::cli::create::ContainerArgs;
use crate::cli::limits::{BirthLimitArgs, LimitArgs};
use crate::flags::{AnyDevice, FlagError, absolute, environment, parse_mount, publish};

/// What the caller of `ctl` has that flags refer to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) variable: fn(&str) -> Option<OsString>,
    pub(crate) working_dir: fn() -> io::Result<PathBuf>,
}

/// The options of a container.
pub(crate) fn container_options(
    mut args: ContainerArgs,
    auto_remove: bool,
    window: Option<WindowSize>,
    caller: Caller,
) -> Result<ContainerOptions, FlagError> {
    if let Some(policy) = args.restart.as_deref()
        && !matches!(policy, "no" | "")
    {
        return Err(FlagError::Restart(policy.to_owned()));
    }
    let mut command = args.words.into_iter();
    let base = match args.rootfs {
        Some(directory) => Base::Rootfs(absolute(&directory, caller.working_dir)?),
        None => Base::Image(command.next().ok_or(FlagError::NoImage)?),
    };
    let command: Vec<String> = command.collect();
    let entrypoint = args.entrypoint.map(|program| StringList {
        values: if program.is_empty() { Vec::new() } else { vec![program] },
    });
    let has_program = entrypoint.as_ref().is_some_and(|list| !list.values.is_empty());
    if matches!(base, Base::Rootfs(_)) && command.is_empty() && !has_program {
        return Err(FlagError::NoCommand);
    }
    let (mut devices, mut cdi_devices) = (Vec::new(), Vec::new());
    for device in args.device {
        match device {
            AnyDevice::Node(node) => devices.push(node),
            AnyDevice::Cdi(name) => cdi_devices.push(name),
        }
    }
    let mounts = args.volume.iter().map(|spec| parse_mount(spec, caller.working_dir));
    Ok(ContainerOptions {
        name: args.name.unwrap_or_default(),
        base: Some(base),
        entrypoint,
        command,
        env: environment(&args.env_file, &args.env, caller.variable)?,
        working_dir: args.workdir.unwrap_or_default(),
        user: args.user.unwrap_or_default(),
        hostname: args.hostname.unwrap_or_default(),
        tty: args.tty,
        stdin: args.interactive,
        auto_remove,
        read_only: args.read_only,
        init: args.init,
        privileged: args.privileged,
        cap_add: args.cap_add,
        cap_drop: args.cap_drop,
        mounts: mounts.collect::<Result<_, _>>()?,
        ports: publish(&args.publish)?,
        network: args.network,
        limits: Some(limits(args.limits, args.birth_limits)),
        stop_signal: args.stop_signal.unwrap_or_default(),
        stop_timeout_seconds: args.stop_timeout,
        labels: args.label.into_iter().collect(),
        log: Some(LogOptions {
            driver: args.log_driver.unwrap_or_default(),
            options: args.log_opt.into_iter().collect(),
        }),
        window: if args.tty { window } else { None },
        restart_policy: args.restart.unwrap_or_default(),
        platform: args.platform,
        publish_all: args.publish_all,
        sandbox: args.pod.unwrap_or_default(),
        runtime: args.runtime.unwrap_or_default(),
        uid_mappings: args.uidmap,
        gid_mappings: args.gidmap,
        // As docker has it, the last one counts.
        apparmor: args.security_opt.pop().unwrap_or_default(),
        devices,
        cdi_devices,
    })
}

/// docker's 0 is no limit, and so is what it leaves unset.
fn limits(args: LimitArgs, birth: BirthLimitArgs) -> Limits {
    let pids = args.pids_limit.filter(|limit| *limit != 0);
    Limits {
        pids,
        memory_swappiness: birth.memory_swappiness,
        blkio_weight_devices: birth.blkio_weight_device,
        device_read_bps: birth.device_read_bps,
        device_write_bps: birth.device_write_bps,
        device_read_iops: birth.device_read_iops,
        device_write_iops: birth.device_write_iops,
        ..updated_limits(args)
    }
}

/// Limits to change; those that are left out stay as they are.
pub(crate) fn updated_limits(args: LimitArgs) -> Limits {
    let asked = |value: &i64| *value != 0;
    Limits {
        memory: args.memory.filter(asked),
        memory_swap: args.memory_swap.filter(asked),
        memory_reservation: args.memory_reservation.filter(asked),
        nano_cpus: args.cpus,
        cpu_shares: args.cpu_shares.filter(|shares| *shares > 0),
        cpu_quota: args.cpu_quota.filter(asked),
        cpu_period: args.cpu_period.filter(|period| *period > 0),
        cpu_rt_runtime: args.cpu_rt_runtime.filter(asked),
        cpu_rt_period: args.cpu_rt_period.filter(|period| *period > 0),
        cpuset_cpus: args.cpuset_cpus.unwrap_or_default(),
        cpuset_mems: args.cpuset_mems.unwrap_or_default(),
        pids: args.pids_limit,
        blkio_weight: args.blkio_weight.filter(|weight| *weight > 0),
        oom_kill_disable: args.oom_kill_disable,
        ..Limits::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::container::ContainerVerb;
    use crate::cli::{Cli, Verb};

    fn options(words: &str) -> Result<ContainerOptions, FlagError> {
        let words = ["ctl", "run"].into_iter().chain(words.split_whitespace());
        let Verb::OnContainers(ContainerVerb::Run(args)) =
            Cli::read(words.map(OsString::from)).unwrap().verb
        else {
            panic!("not a run");
        };
        let caller = Caller {
            variable: |name| (name == "HOME").then(|| "/root".into()),
            working_dir: || Ok(PathBuf::from("/home/me")),
        };
        let window = Some(WindowSize { width: 80, height: 24 });
        container_options(args.container, args.rm, window, caller)
    }

    #[test]
    fn the_main_example_is_understood() {
        let options =
            options("-d -p 8000:8000 -t --name web --rootfs / /usr/bin/python3 -m http.server")
                .unwrap();
        assert_eq!(options.name, "web");
        assert_eq!(options.base, Some(Base::Rootfs("/".to_owned())));
        assert_eq!(options.command, ["/usr/bin/python3", "-m", "http.server"]);
        assert_eq!((options.ports[0].host_port, options.ports[0].container_port), (8000, 8000));
        assert!(options.tty && !options.stdin && !options.auto_remove);
        assert_eq!(options.window.map(|window| window.width), Some(80));
    }

    #[test]
    fn flags_end_at_the_first_word() {
        let options = options("--rm -it --rootfs ./tree sh -c --rm -- -d").unwrap();
        assert_eq!(options.base, Some(Base::Rootfs("/home/me/tree".to_owned())));
        assert_eq!(options.command, ["sh", "-c", "--rm", "--", "-d"]);
        assert!(options.auto_remove && options.tty && options.stdin);
    }

    #[test]
    fn without_a_rootfs_the_first_word_is_an_image() {
        let options = options("alpine:3 -x echo").unwrap();
        assert_eq!(options.base, Some(Base::Image("alpine:3".to_owned())));
        assert_eq!(options.command, ["-x", "echo"]);
    }

    #[test]
    fn every_flag_arrives() {
        let options = options(
            "-e A=1 -e HOME -e GONE -w /tmp -u 1000:1000 -h box -v ./d:/d:ro --read-only --init \
             --net none -m 64m --memory-swap -1 --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0-1 \
             --pids-limit -1 --cap-add NET_ADMIN --cap-drop ALL --privileged --stop-signal INT \
             --stop-timeout 3 --restart no -l a=b -l c --log-driver none --log-opt max-file=2 \
             --platform linux/arm64 -P --entrypoint /bin/echo --memory-reservation 32m \
             --memory-swappiness 7 --oom-kill-disable --cpu-period 50000 --cpuset-mems 0 \
             --blkio-weight 300 --blkio-weight-device /dev/sda:200 --device-read-bps /dev/sda:1mb \
             --device-write-iops /dev/sda:9 --uidmap 0:100000:65536 --uidmap 70000:1 \
             --gidmap 0:5:1 --security-opt apparmor=a --security-opt apparmor=b --rootfs /",
        )
        .unwrap();
        assert_eq!(options.env, ["A=1", "HOME=/root"]);
        assert_eq!((options.working_dir.as_str(), options.user.as_str()), ("/tmp", "1000:1000"));
        assert_eq!(options.hostname, "box");
        assert_eq!(options.mounts[0].source, "/home/me/d");
        assert!(options.read_only && options.init && options.privileged);
        let limits = options.limits.unwrap();
        assert_eq!((limits.memory, limits.memory_swap), (Some(64 << 20), Some(-1)));
        assert_eq!((limits.nano_cpus, limits.pids), (Some(500_000_000), Some(-1)));
        assert_eq!((limits.cpu_shares, limits.cpuset_cpus.as_str()), (Some(512), "0-1"));
        assert_eq!(
            (limits.memory_reservation, limits.memory_swappiness),
            (Some(32 << 20), Some(7))
        );
        assert_eq!(limits.oom_kill_disable, Some(true));
        assert_eq!((limits.cpu_period, limits.cpuset_mems.as_str()), (Some(50_000), "0"));
        assert_eq!((limits.blkio_weight, limits.blkio_weight_devices[0].weight), (Some(300), 200));
        assert_eq!(limits.device_read_bps[0].rate, 1 << 20);
        assert_eq!(
            (limits.device_write_iops[0].path.as_str(), limits.device_write_iops[0].rate),
            ("/dev/sda", 9)
        );
        assert_eq!(
            (options.cap_add, options.cap_drop),
            (vec!["NET_ADMIN".into()], vec!["ALL".into()])
        );
        assert_eq!((options.stop_signal.as_str(), options.stop_timeout_seconds), ("INT", Some(3)));
        assert_eq!(options.labels.get("c").map(String::as_str), Some(""));
        assert_eq!(options.log.unwrap().options["max-file"], "2");
        assert_eq!(options.entrypoint.unwrap().values, ["/bin/echo"]);
        assert_eq!(options.window, None);
        let maps = [&options.uid_mappings, &options.gid_mappings];
        assert_eq!(
            maps.map(|list| list.last().map(|one| (one.host_id, one.size))),
            [Some((1, 1)), Some((5, 1))]
        );
        assert_eq!(options.apparmor, "b");
        assert_eq!((options.platform.as_str(), options.publish_all), ("linux/arm64", true));
    }

    #[test]
    fn what_does_not_exist_yet_is_said_by_name() {
        for (words, want) in [
            ("", FlagError::NoImage),
            ("--rootfs /", FlagError::NoCommand),
            ("--restart always --rootfs / true", FlagError::Restart("always".to_owned())),
        ] {
            assert_eq!(options(words), Err(want), "{words}");
        }
    }
}
