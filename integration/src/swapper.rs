//! Two names of a directory that change places as fast as the kernel can: what a container does in
//! a volume that it shares, while another one is built over it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use rustix::fs::{RenameFlags, renameat_with};

/// Swaps until it goes out of scope.
#[derive(Debug)]
pub struct Swapper {
    stop: Arc<AtomicBool>,
    swaps: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Swapper {
    /// Exchanges `one` and `other` in `directory` (RENAME_EXCHANGE of renameat2(2)).
    ///
    /// # Panics
    /// When the directory can't be opened, or one of the two is not there.
    #[must_use]
    pub fn start(directory: &Path, one: &str, other: &str) -> Self {
        let file = File::open(directory).expect("a directory");
        let (one, other) = (one.to_owned(), other.to_owned());
        let swap = move || {
            renameat_with(&file, one.as_str(), &file, other.as_str(), RenameFlags::EXCHANGE)
        };
        swap().expect("both are there");
        let stop = Arc::new(AtomicBool::new(false));
        let swaps = Arc::new(AtomicU64::new(1));
        let thread = {
            let (stop, swaps) = (stop.clone(), swaps.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) && swap().is_ok() {
                    swaps.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        Self { stop, swaps, thread: Some(thread) }
    }

    /// How often they have changed places.
    #[must_use]
    pub fn swaps(&self) -> u64 {
        self.swaps.load(Ordering::Relaxed)
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It can't panic.
            let _ = thread.join();
        }
    }
}
