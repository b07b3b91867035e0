//! New network namespaces, and a few that are kept ready.
//!
//! Making one takes from a third of a millisecond to several, under locks of the kernel's own, so a
//! thread keeps some in stock. Nothing is bind-mounted: a namespace in stock is a descriptor, and
//! dies with the daemon.
//!
//! `unshare` moves the calling thread, so it is done on threads that serve nothing else.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::sched::CloneFlags;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::netlink::{Family, Socket};
use super::{Error, HOLD_BACK, link};

/// How many namespaces are kept ready.
const STOCK: usize = 4;
/// Index of the loopback interface in every network namespace (LOOPBACK_IFINDEX).
const LOOPBACK: u32 = 1;
const OWN: &str = "/proc/thread-self/ns/net";

/// Switches of a new namespace, as docker sets them: ports below 1024 and ping need no capability
/// inside, and interfaces other than the loopback have no IPv6, which the bridge does not carry.
const SWITCHES: [(&str, &str); 3] = [
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
    ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
];

/// A network namespace with its loopback up.
#[derive(Debug)]
pub(super) struct Netns {
    pub(super) descriptor: OwnedFd,
    /// Opened inside; it keeps the namespace alive like the descriptor does.
    pub(super) socket: Socket,
    /// What the next interface inside will be numbered: the kernel counts on from the last one
    /// (`dev_new_index`), which is the loopback or a tunnel that some kernels put beside it.
    pub(super) next_index: u32,
}

/// Namespaces in stock.
#[derive(Debug)]
pub(super) struct Stock {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    shelf: Mutex<Shelf>,
    changed: Condvar,
}

#[derive(Debug)]
struct Shelf {
    ready: Vec<Netns>,
    closed: bool,
}

impl Stock {
    /// Starts the thread that fills the stock, in the caller's network namespace.
    pub(super) fn open() -> Result<Self, Error> {
        let shelf = Mutex::new(Shelf { ready: Vec::with_capacity(STOCK), closed: false });
        let shared = Arc::new(Shared { shelf, changed: Condvar::new() });
        let thread_shared = Arc::clone(&shared);
        thread::Builder::new()
            .name("netns-stock".to_owned())
            .spawn(move || fill(&thread_shared))
            .map_err(failed("start the thread of"))?;
        Ok(Self { shared })
    }

    /// Takes a namespace from the stock, or makes one when it is empty.
    pub(super) fn take(&self) -> Result<Netns, Error> {
        let taken = self.shared.lock().ready.pop();
        match taken {
            Some(netns) => Ok(netns),
            None => make_aside(),
        }
    }

    /// Lets the stock be filled again. Not done by [`Self::take`]: on a machine of few cores it would
    /// run in front of what the namespace is needed for.
    pub(super) fn refill(&self) {
        self.shared.changed.notify_one();
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        let mut shelf = self.shared.lock();
        shelf.closed = true;
        shelf.ready.clear();
        drop(shelf);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// A panic while the lock is held leaves a whole shelf: it only pops and pushes.
    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stock's thread: fills the shelf and waits until something is taken. It ends when a namespace
/// can't be made; takers then make their own and see the error.
fn fill(shared: &Shared) {
    let made = home().and_then(|home| {
        loop {
            let mut shelf = shared.lock();
            let full = shelf.ready.len() >= STOCK;
            while !shelf.closed && shelf.ready.len() >= STOCK {
                shelf = shared.changed.wait(shelf).unwrap_or_else(PoisonError::into_inner);
            }
            if shelf.closed {
                return Ok(());
            }
            drop(shelf);
            if full {
                thread::sleep(HOLD_BACK);
            }
            let netns = make(&home)?;
            let mut shelf = shared.lock();
            if !shelf.closed {
                shelf.ready.push(netns);
            }
        }
    });
    if let Err(error) = made {
        tracing::warn!(error = &error as &dyn std::error::Error, "no network namespaces in stock");
    }
}

/// Does something in the namespace that is bound at a path, on a thread that ends afterwards.
pub(crate) fn in_namespace<T: Send>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let namespace = File::open(path)?;
    let enter = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, enter)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes a namespace on a thread that ends afterwards.
fn make_aside() -> Result<Netns, Error> {
    let maker = thread::Builder::new().name("netns".to_owned()).spawn(|| make(&home()?));
    let maker = maker.map_err(failed("start a thread for"))?;
    maker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The network namespace of the calling thread.
fn home() -> Result<File, Error> {
    File::open(OWN).map_err(failed("open the daemon's own"))
}

/// Makes a namespace and comes back to `home`: a thread that stayed would keep the namespace alive
/// after its container.
fn make(home: &File) -> Result<Netns, Error> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|errno| failed("make")(io::Error::from(errno)))?;
    let made = prepare();
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|errno| failed("come back from")(io::Error::from(errno)))?;
    made
}

/// In the new namespace.
fn prepare() -> Result<Netns, Error> {
    let descriptor = OwnedFd::from(File::open(OWN).map_err(failed("open"))?);
    for (path, value) in SWITCHES {
        match fs::write(path, value) {
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            written => written.map_err(|source| Error::File {
                step: "write",
                path: path.into(),
                source,
            })?,
        }
    }
    let rejected = |rejected| failed("switch on the loopback of")(io::Error::from(rejected));
    let mut socket = Socket::open(Family::Route).map_err(rejected)?;
    link::set_up(&mut socket, LOOPBACK).map_err(rejected)?;
    let links = link::list(&mut socket).map_err(rejected)?;
    let last = links.iter().map(|link| link.index).max().unwrap_or(LOOPBACK);
    Ok(Netns { descriptor, socket, next_index: last + 1 })
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Kernel { step, object: "network namespace".to_owned(), source }
}
