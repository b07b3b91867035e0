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

/// Takes out of resident memory what a process does not need that is about to sleep for long: this
/// program's code, which is mapped from the page cache again where it is next executed, and what deeper
/// calls than this one have used of the calling thread's stack (madvise(2), MADV_DONTNEED).
#[inline(never)]
pub fn release() {
    // SAFETY: takes a number, and may be called at any time.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let Ok(page) = usize::try_from(page) else { return };
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    let here = (&raw const page).addr();
    let own = maps.lines().filter_map(range).find(|(start, end)| (*start..*end).contains(&here));
    // A static program has one such range.
    let code = maps.lines().find_map(code_range);
    drop(maps);
    // The page below this one is left to the frames of this call.
    let end = (here & !(page - 1)).saturating_sub(page);
    if let Some((start, _)) = own.filter(|(start, _)| *start < end) {
        // SAFETY: the range is a part of this thread's stack, at least a page below the frame of this
        // call. A stack grows downwards, so nothing there is anybody's; whoever comes there next writes
        // before it reads.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
    // Last, for whatever is executed after it is there again.
    if let Some((start, end)) = code {
        // SAFETY: the range is a private mapping of a file that can't be written to, so every page
        // of it is the file's own, and is there again with the same content when it is touched.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
}

/// The range of a line of `/proc/PID/maps` that is executable, not writable, and a file's.
fn code_range(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let is_code = fields.next() == Some("r-xp");
    let has_file = fields.nth(2).is_some_and(|inode| inode != "0");
    if is_code && has_file { range(line) } else { None }
}

/// The addresses that a line of `/proc/PID/maps` is about.
fn range(line: &str) -> Option<(usize, usize)> {
    let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some((address(start)?, address(end)?))
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

    /// In kilobytes, of the mapping that an address is in (proc_pid_smaps(5)).
    fn dirty(address: usize) -> u64 {
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = text.lines().skip_while(|line| {
            range(line).is_none_or(|(start, end)| !(start..end).contains(&address))
        });
        let value = lines.find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
        value.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[inline(never)]
    fn deep() -> u8 {
        let mut used = [1_u8; 256 << 10];
        std::hint::black_box(&mut used)[7]
    }

    #[test]
    fn what_deeper_calls_have_used_of_a_stack_is_released() {
        let kept = [deep(); 64];
        let here = kept.as_ptr().addr();
        let before = dirty(here);
        release();
        let after = dirty(here);
        assert!(before >= 256 && after + 200 <= before, "{before} kB, {after} kB");
        assert_eq!(std::hint::black_box(kept), [1; 64]);
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
        release();
        trim();
    }
}
