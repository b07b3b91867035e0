//! Unpacks layers side by side, as the daemon does, and says how long it took.
//!
//! ```text
//! cargo run --release -p bosun-layer --example unpack -- DIRECTORY LAYER…
//! ```
//!
//! Each layer gets `DIRECTORY/NUMBER/fs`, lowest first. `--one-by-one` waits for each.

use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bosun_layer::{Applied, Below, Limits, Settled, apply, empty, settle};
use shim_rootfs::Root;
use shim_rootfs::overlay::{Layers, detached};

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let one_by_one = arguments.first().is_some_and(|argument| argument == "--one-by-one");
    if one_by_one {
        arguments.remove(0);
    }
    let [directory, layers @ ..] = arguments.as_slice() else {
        return Err("usage: unpack [--one-by-one] DIRECTORY LAYER…".into());
    };
    let trees: Vec<PathBuf> =
        (0..layers.len()).map(|number| Path::new(directory).join(format!("{number}/fs"))).collect();
    trees.iter().try_for_each(std::fs::create_dir_all)?;
    let start = Instant::now();
    let first = |number: usize| {
        let below = if number == 0 { Below::Nothing } else { Below::Pending };
        unpack(&layers[number], &trees[number], below)
    };
    let applied: Vec<Applied> = if one_by_one {
        (0..layers.len()).map(first).collect::<Result<_, _>>()?
    } else {
        std::thread::scope(|scope| {
            let first = &first;
            let threads: Vec<_> =
                (0..layers.len()).map(|number| scope.spawn(move || first(number))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("panic".into())))
                .collect::<Result<_, _>>()
        })?
    };
    let written = start.elapsed();
    for (number, applied) in applied.iter().enumerate().skip(1) {
        let below: Vec<String> =
            trees[..number].iter().rev().map(|tree| tree.display().to_string()).collect();
        let root = Root::new(detached(&Layers { lower: &below, upper: None, options: &[] })?);
        let tree = File::open(&trees[number])?;
        if let Settled::Again { entry } = settle(tree.as_fd(), &applied.deferred, Some(&root))? {
            println!("layer {number} again, for {entry}");
            empty(tree.as_fd())?;
            unpack(&layers[number], &trees[number], Below::Tree(&root))?;
        }
    }
    let total: u64 = applied.iter().map(|applied| applied.size).sum();
    println!("{total} bytes: written in {written:?}, settled in {:?}", start.elapsed() - written);
    Ok(())
}

fn unpack(
    layer: &str,
    tree: &Path,
    below: Below<'_>,
) -> Result<Applied, Box<dyn Error + Send + Sync>> {
    let start = Instant::now();
    let applied = apply(File::open(layer)?, File::open(tree)?.as_fd(), below, &Limits::default())?;
    println!("{layer}: {} {} bytes, {:?}", applied.diff_id, applied.size, start.elapsed());
    Ok(applied)
}
