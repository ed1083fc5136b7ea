//! Huge pages.

/// Asks the system to put pages of 2 MiB behind large memory that nobody has touched yet. Weights are read once a step from end
/// to end: with pages of 4 KiB, an address to translate for every 64 lines. Where the system has none, pages stay small.
pub(crate) fn ask_for_huge<T>(memory: &mut [T]) {
    #[cfg(target_os = "linux")]
    {
        const HUGE: usize = 2 << 20;
        let range = memory.as_mut_ptr_range();
        let (start, end) = (range.start as usize, range.end as usize);
        let (first, last) = (start.next_multiple_of(HUGE), end - end % HUGE);
        if first < last {
            // SAFETY: whole pages within memory that is ours alone; the advice does not change what is in them.
            unsafe { libc::madvise(first as *mut libc::c_void, last - first, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}
