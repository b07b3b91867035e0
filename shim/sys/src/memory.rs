//! Giving memory back to the kernel, and looking through it fast.

/// Returns what the allocator keeps of freed memory (malloc_trim(3)). Does nothing on a C library
/// without that call.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Where `byte` first is in `bytes`, by libc's memchr(3), which uses what the processor has.
#[must_use]
pub fn position(bytes: &[u8], byte: u8) -> Option<usize> {
    // SAFETY: the pointer is valid for reads of the slice's length.
    let found = unsafe { libc::memchr(bytes.as_ptr().cast(), byte.into(), bytes.len()) };
    (!found.is_null()).then(|| found.addr() - bytes.as_ptr().addr())
}

/// Takes this program's code out of its resident memory; it is mapped from the page cache again where
/// it is next executed. For a process that is about to sleep for long (madvise(2), MADV_DONTNEED).
pub fn release_code() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for (start, end) in maps.lines().filter_map(code_range) {
        // SAFETY: the range is a private mapping of a file that can't be written to, so every page
        // of it is the file's own, and is there again with the same content when it is touched.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
}

/// The range of a line of `/proc/PID/maps` that is executable, not writable, and a file's.
fn code_range(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_code = fields.next() == Some("r-xp");
    let has_file = fields.nth(2).is_some_and(|inode| inode != "0");
    let address = |text| usize::from_str_radix(text, 16).ok();
    if is_code && has_file { Some((address(start)?, address(end)?)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_released() {
        for (line, expected) in [
            ("1000-3000 r-xp 00000000 fe:00 42 /bin/x", Some((0x1000, 0x3000))),
            ("1000-3000 rwxp 00000000 fe:00 42 /bin/x", None),
            ("1000-3000 r--p 00000000 fe:00 42 /bin/x", None),
            ("1000-3000 r-xp 00000000 00:00 0 [vdso]", None),
            ("", None),
        ] {
            assert_eq!(code_range(line), expected, "{line}");
        }
    }

    #[test]
    fn a_byte_is_found_where_it_is_first() {
        assert_eq!(position(b"", b'x'), None);
        assert_eq!(position(b"abc", b'x'), None);
        assert_eq!(position(b"xbx", b'x'), Some(0));
        assert_eq!(position(&[0; 100], 0), Some(0));
        assert_eq!(position(&[b"a".repeat(99), b"xx".to_vec()].concat(), b'x'), Some(99));
    }

    #[test]
    fn code_that_was_released_still_runs() {
        release_code();
        trim();
    }
}
