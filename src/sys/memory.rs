//! Large tables on large pages: less of a random access is spent on finding out where it goes.

use std::ops::Range;

/// What a page of x86-64 and of most ARM kernels is, where it is large.
const LARGE_BYTES: usize = 2 << 20;

/// Asks for large pages under memory that is in use already; see madvise(2), MADV_HUGEPAGE and
/// MADV_COLLAPSE (Linux 6.1; before that the kernel gets there by itself, in its time).
///
/// Only whole large pages within the range are concerned. That the kernel has none, or wants to
/// give none, costs speed and nothing else.
pub fn prefer_large_pages(range: Range<*const u8>) {
    let start = range.start.addr().next_multiple_of(LARGE_BYTES);
    let end = range.end.addr() / LARGE_BYTES * LARGE_BYTES;
    let Some(length) = end.checked_sub(start).filter(|length| *length > 0) else { return };
    let start = range.start.with_addr(start).cast_mut().cast::<libc::c_void>();
    for advice in [libc::MADV_HUGEPAGE, libc::MADV_COLLAPSE] {
        // SAFETY: both kinds of advice change how memory is mapped and never what it holds; what is
        // not mapped is an error.
        let _declined = unsafe { libc::madvise(start, length, advice) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, what a table holds is lost when it moves, or a small table is asked about
    // memory that is not its own.
    #[test]
    fn memory_keeps_what_it_holds() {
        for bytes in [0, 1, 4096, LARGE_BYTES - 1, 3 * LARGE_BYTES + 5] {
            let pattern = || (0..=250_u8).cycle().take(bytes);
            let memory: Vec<u8> = pattern().collect();
            prefer_large_pages(memory.as_ptr_range());
            assert!(memory.iter().copied().eq(pattern()));
        }
    }
}
