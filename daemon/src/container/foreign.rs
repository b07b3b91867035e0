//! What a container that a stock shim runs needs beside what every container needs: a bundle, and
//! users as numbers.

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxNamespaceType;
use shim_rootfs::user::{self, Identity, Wanted};
use shim_rootfs::{Root, overlay};
use shim_wire::files::RunDir;
use shim_wire::plan::Foreign;
use shim_wire::task::Mount;

use super::record::Record;
use super::run::{make_directory, write_file};
use crate::blocking::off_the_loop;
use crate::error::{Error, Result};
use crate::runtimes::Stock;
use crate::snapshots::{self, Layers};
use crate::spec::{self, ContainerOptions, Joined, NetworkMode};

/// Writes the bundle; what the shim is to be told.
///
/// # Errors
/// There is no such user in the rootfs; a file can't be written.
pub(super) async fn prepare(
    record: &Record,
    stock: &Stock,
    run_dir: &RunDir,
    layers: &Layers,
    spec: &str,
    mut joined: Joined,
) -> Result<Foreign> {
    let bundle = run_dir.bundle();
    let (seen, wanted) = (layers.clone(), record.options.user.clone());
    let mut identity = off_the_loop(move || identity(&view(&seen)?, &wanted)).await?;
    groups(&mut identity, &record.options);
    match record.options.network {
        NetworkMode::Bridge | NetworkMode::Container(_) => {
            joined.namespaces.push((LinuxNamespaceType::Network, bundle.network_namespace()));
        }
        NetworkMode::Host | NetworkMode::None => {}
    }
    let config = spec::bundle_config(spec, &identity, &joined)?;
    make_directory(bundle.path())?;
    write_file(&bundle.config(), &config, 0o600)?;
    Ok(Foreign {
        shim: stock.shim.to_string_lossy().into_owned(),
        options: stock.options(&bundle),
        rootfs: vec![rootfs(layers, record.options.auto_remove)],
    })
}

/// The groups that a container's processes have, as our own runtime makes them of the same parts.
pub(super) fn groups(identity: &mut Identity, options: &ContainerOptions) {
    if options.security.strict_groups {
        identity.groups.clear();
    }
    identity.groups.extend(options.further_groups().into_iter().chain([identity.gid]));
    identity.groups.sort_unstable();
    identity.groups.dedup();
}

/// The tree as the container will see it, mounted nowhere.
fn view(layers: &Layers) -> Result<Root> {
    let Layers { lower, upper } = layers;
    let is_empty = |path: &Path| path.read_dir().is_ok_and(|mut all| all.next().is_none());
    match upper {
        // Put on top as it will be: what was written lies inside of `--rootfs /`, which the kernel
        // takes only for an upper directory.
        Some((upper, work)) if !is_empty(upper) => snapshots::writable(lower, upper, work),
        Some(_) | None => snapshots::merged(lower),
    }
}

/// As containerd's snapshotter describes it.
fn rootfs(layers: &Layers, volatile: bool) -> Mount {
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let lower: Vec<String> = layers.lower.iter().map(text).collect();
    let writable = layers.upper.as_ref().map(|(upper, work)| (text(upper), text(work)));
    let upper =
        writable.as_ref().map(|(directory, work)| overlay::Upper { directory, work, volatile });
    let options = overlay::options(&overlay::Layers { lower: &lower, upper, options: &[] });
    let name = "overlay".to_owned();
    Mount { r#type: name.clone(), source: name, target: String::new(), options }
}

/// Who `USER[:GROUP]` is in a rootfs.
///
/// # Errors
/// There is no such user, or the rootfs' files can't be read.
pub(crate) fn identity(root: &Root, wanted: &str) -> Result<Identity> {
    let who = match wanted {
        "" => Wanted::Numbers { uid: 0, gid: 0 },
        named => Wanted::Named(named),
    };
    let found = user::resolve(root, who).map_err(|source| Error::InvalidArgument {
        what: "user",
        problem: format!("{wanted:?}: {source}"),
    })?;
    found.map_err(|problem| Error::InvalidArgument {
        what: "user",
        problem: format!("{wanted:?}: {problem}"),
    })
}
