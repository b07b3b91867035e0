//! Giving memory back to the kernel.

/// Returns what the allocator keeps of freed memory (malloc_trim(3)). Does nothing on a C library
/// without that call.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
