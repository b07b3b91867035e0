//! What a container may not do, by class: a test for each way out that runtimes once had, with the
//! advisory's number and what it was seen failing without ("fails when …").
//!
//! | module | class |
//! |---|---|
//! | [`paths`] | links and swaps in trees that others own |
//! | [`procfs`] | what stands at `/proc` and `/sys`, and writes to it |
//! | [`masks`] | what is masked, read-only, filtered or no device |
//! | [`descriptors`] | what a process is born with, and who can look at it before it is itself |
//! | [`program`] | the runtime's own program |
//! | [`identity`] | users, groups, capabilities |
//! | [`sockets`] | sockets, and the modes of directories |
//! | [`spec`] | what only a specification can ask for |
//! | [`text`] | names and settings that become files, paths or commands |
//! | [`exhaustion`] | memory, descriptors and threads |
//!
//! Other classes have modules of their own, beside this one: archives and layers (`hostile_layers`,
//! `archives`), registries (`bad_registry`, `credentials`), copies (`cp`), what an image says
//! (`image_config`).
//!
//! What each test was seen failing without, by programs in which single checks could be switched off;
//! advisories are CVE numbers where nothing else is said:
//!
//! | advisories | test | left out |
//! |---|---|---|
//! | 2015-3627 | `paths::streams_and_consoles_of_the_image_are_not_opened` | the image's streams and console were opened by their names |
//! | 2015-3629, 2024-5154, 2025-24965 | `paths::links_in_the_place_of_mount_targets_stay_inside` | lookups in a rootfs not confined to it |
//! | 2026-41579, 2026-47766 | `spec::devices_are_made_behind_no_link`, `paths::a_dev_that_is_a_link_stays_inside` | the same |
//! | 2021-30465, 2024-45310 | `paths::a_mount_target_that_is_swapped_stays_inside` | the same |
//! | 2018-15664, 2019-10152, 2022-4123, 2026-41568, 2026-42306 | `cp::a_swap_while_copying_leads_nowhere` | the same |
//! | 2022-23648 | `image_config::a_volume_leads_nowhere_else` | the same |
//! | 2022-4122, 2023-0778 | `paths::an_export_of_what_is_swapped_holds_nothing_of_the_host` | an archive followed links |
//! | 2019-18837, 2023-28642, 2025-54867 | `procfs::a_proc_or_sys_that_is_a_link_is_refused` | a link could stand at `/proc` and `/sys` |
//! | 2019-19921, 2023-27561 | `paths::a_proc_that_is_swapped_is_procfs_or_no_start` | the same |
//! | 2019-19921 | `spec::a_proc_that_is_bound_while_it_is_swapped_is_procfs_or_no_start` | the bind's source was looked at by its name |
//! | 2015-3631, 2019-16884 | `procfs::` and `spec::nothing_is_mounted_over_the_kernels_controls` | without the daemon's look at a mount; without the runtime's |
//! | 2025-52565 | `paths::a_terminal_is_of_the_containers_own` | pty of the host, console by a name |
//! | 2025-52881, 2025-62596 | `spec::what_is_written_to_procfs_goes_to_no_other` | written by `/proc` |
//! | 2022-0811 | `spec::a_kernel_parameter_is_the_containers_own_and_one_line` | any parameter taken, by both who look |
//! | 2015-3630, 2018-10892, GHSA-6fw5, GHSA-jq35 | `masks::the_golden_list_is_masked_or_read_only` | nothing masked; an empty list; nothing read-only |
//! | 2025-31133, 2025-62161 | `masks::a_null_device_of_the_containers_own_masks_nothing` | masked by the container's `/dev/null` |
//! | runc 5275, 5280 | `masks::all_masked_directories_are_one_file_system` | one for each |
//! | 2026-31431 | `masks::sockets_of_the_kernels_cryptography…`, `seccomp::` | each of: no filter, no rule for families, none for `socketcall`, a wider list |
//! | 2023-25809 (without a cgroup namespace) | `spec::control_groups_without_a_namespace…`, `masks::sys_and_cgroups_are_read_only` | mounted writable |
//! | – | `masks::devices_are_the_harmless_ones`, `hostile_layers::devices_and_setuid…` | no device rules |
//! | – | `masks::processes_of_the_host_are_out_of_sight`, `descriptors::the_shim_is_not_in_sight` | no pid namespace |
//! | 2024-21626, 2016-9962 | `descriptors::no_descriptor_but_three_reaches_a_container` | a descriptor leaked, and was not closed last |
//! | 2024-21626 | `descriptors::the_working_directory_can_not_be_a_leaked_descriptor` | entered by its path, with descriptors of the host open |
//! | 2024-21626 | `spec::a_descriptor_of_the_callers_is_no_way_out` | the caller's kept and not closed last; kept, with the directory entered by its path |
//! | 2016-9962 | `descriptors::who_joins_can_not_be_inspected_before_its_exec` | the runtime could be traced |
//! | 2019-5736 | `program::the_runtimes_own_program_can_not_be_written`, `program::an_inits_program…`, `spec::the_programs_file…` | run from where it lies |
//! | 2019-5736 | `program::a_container_that_is_the_runtime_ends_at_once` | a shim that is not static |
//! | 2022-24769, 2022-29162, 2022-27649 to 27652, 2022-3466, 2025-27612 | `identity::no_capability_is_ever_inheritable` | inheritable as the bounding set |
//! | 2016-8867 | `identity::another_user_has_no_capabilities` | ambient as the bounding set |
//! | 2016-3697, 2026-46680 | `identity::a_number_is_not_looked_up_as_a_name` | looked up as a name first |
//! | 2026-30892, 2024-40635 | `identity::an_exec_is_who_was_asked_for_or_nobody` | the user not passed on; numbers that wrap |
//! | 2024-40635, 2026-46680 | `image_config::a_user_out_of_range_is_never_root`, `spec::an_id_out_of_range…` | numbers that wrap |
//! | 2022-36109, 2023-25173, 2022-2989, 2990, 2995 | `identity::an_exec_has_all_groups_of_its_user`, `image_config::the_user_and_all_groups` | the first group alone |
//! | 2026-47262, 2025-4437, 2024-9676 | `image_config::a_passwd_file_that_is_none…` | read to its end, whatever it is |
//! | 2021-41103, 2021-41091, 2021-41089, 2024-25621 | `sockets::everything_is_closed_whatever_the_umask`, `containerd::a_start_is_answered…` | the umask left as it was |
//! | the same | `sockets::directories_that_were_open_are_closed_at_the_next_start` | modes for what is new alone |
//! | 2014-3499, 2014-0047 | `sockets::the_socket_is_born_closed` | the umask left as it was |
//! | 2020-15257 | `sockets::no_socket_is_in_reach_of_the_hosts_network` | an abstract socket; the directories not covered |
//! | – | `sockets::bosuns_own_directories_look_empty` | not covered |
//! | 2022-4318, 2026-15809 | `text::a_host_name_is_no_line_of_a_file`, `text::a_variable_is_no_line_of_a_file` | any host name; a line of users made of HOME |
//! | 2025-0750 | `text::a_name_is_no_path` | any id |
//! | 2021-43784 | `text::long_texts_arrive_whole…`, `spec::very_many_id_maps…` | lengths cut to 16 bits; maps cut |
//! | 2022-23471 | `exhaustion::sizes_of_a_terminal_cost_nothing` | 256 bytes kept of each |
//! | 2025-64329 | `exhaustion::clients_that_go_away_leave_nothing` | the connection kept |
//! | 2022-31030, 2022-1708 | `exhaustion::output_that_nobody_reads_is_held_nowhere` | a client's backlog without a limit |
//! | 2018-20699 | `exhaustion::a_huge_range_of_processors…` | counted through |
//! | 2014-6407, 9356, 9358 | `hostile_layers::paths_that_lead_out` | `..` taken |
//! | 2014-5282 | `archives::an_id_is_that_of_its_content` | the name of a configuration not compared with its content |
//! | 2021-32760, 2025-47290 | `hostile_layers::links_that_lead_out`, `hard_links_that_lead_out` | links followed |
//! | 2017-14992, 2025-58183 | `hostile_layers::bombs_…`, `sparse_files_that_lie` | kept in memory; a map not checked |
//! | 2021-21285, 2021-20291, 2014-8178, 8179 | `hostile_layers::layers_that_are_no_tars`, `bad_registry::a_blob_with_another_digest…` | digests not compared |
//! | 2014-9357, 2019-14271, 2022-1227, 2026-41567 | `hostile_layers::no_program_of_an_image_runs_on_the_host` | the container's `ps` run |
//! | 2014-6408, 2021-21334, 2026-53488 | `image_config::unknown_keys…`, `two_containers…`, `labels_come_along…` | privileges by the image; the first container's variables; labels as they are |
//! | 2023-25153, 2026-53489 | `archives::hostile_archives_are_refused` | documents of any size; links followed |
//! | 2024-8676, 2026-53492 | `checkpoint::what_does_not_fit…`, unit `checkpoint::restore` | mounts of the archive not compared; its hooks taken |
//! | 2026-53489 | `checkpoint::archives_that_mean_harm…` | links taken as images |
//! | 2021-41190, GHSA-5j5w | `bad_registry::a_document_that_is_index_and_manifest…` | taken as an index |
//! | 2020-15157 | `bad_registry::a_foreign_layer…`, `credentials::a_redirect_takes_no_credentials_along` | urls of a manifest asked; credentials sent along |
//!
//! Some stand behind two checks, and fail when both are left out: a descriptor is close-on-exec, and
//! closed before the exec; the caller's are closed at the beginning, and before the exec; `..` in a layer
//! is refused, and leads nowhere; a name of a namespace has a rule, and so has a path of a cgroup.
//!
//! Deliberately absent, for there is nothing to attack: builds (CVE-2024-1753, 9407, 9675, 9341,
//! 11218), plugins of authorization (CVE-2024-41110, CVE-2026-34040), rootless daemons
//! (CVE-2023-25809's own way), a daemon that maps users (CVE-2021-21284), checkpoints in images, and
//! images that are pulled for one (CVE-2026-50195), annotations that mean something to a runtime or to systemd
//! (CVE-2023-6476, CVE-2024-3154). Frames of SPDY (CVE-2026-35469) have a target of `bosun-fuzz`.
//! Security labels (CVE-2019-16884, CVE-2021-43816) need a kernel that has them: `make test-vm` has one
//! with AppArmor; with SELinux nothing was ever run.

mod descriptors;
mod exhaustion;
mod identity;
mod masks;
mod paths;
mod procfs;
mod program;
mod sockets;
mod spec;
mod text;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use integration::ctl::Output;
use integration::daemon::Daemon;
use integration::process::Process;

/// A daemon with container `one` that sleeps on the host's tree.
fn sleeper(flags: &str) -> (Daemon, Process) {
    let daemon = Daemon::start();
    daemon.ctl(&format!("run -d --name one {flags} --net none --rootfs / /bin/sleep 600")).ok();
    let process = daemon.process("one");
    (daemon, process)
}

fn inside(daemon: &Daemon, script: &str) -> Output {
    daemon.ctl(&format!("exec one /bin/sh -c '{script}'"))
}

/// A small tree to stand on, of the test's own, that is the host's to change at any time.
fn tree(daemon: &Daemon, name: &str) -> PathBuf {
    let tree = daemon.scratch().join(name);
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp", "usr"] {
        std::fs::create_dir_all(tree.join(directory)).unwrap();
    }
    integration::executable::copy("/bin/busybox", tree.join("bin/busybox"));
    for name in
        ["sh", "cat", "ls", "echo", "sleep", "stat", "true", "id", "env", "grep", "readlink"]
    {
        symlink("busybox", tree.join("bin").join(name)).unwrap();
    }
    tree
}

/// Puts a link where something else was.
fn replace_by_link(path: &Path, target: impl AsRef<Path>) {
    let _ = std::fs::remove_dir_all(path);
    let _ = std::fs::remove_file(path);
    symlink(target, path).unwrap();
}

/// Runs a script on a tree, to its end.
fn run_on(daemon: &Daemon, tree: &Path, flags: &str, script: &str) -> Output {
    daemon.ctl(&format!(
        "run --rm {flags} --net none --rootfs {} /bin/sh -c '{script}'",
        tree.display()
    ))
}
