//! Slices that begin as zeros and cost the host nothing until they are written.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Types for which all bytes zero is a value.
///
/// # Safety
/// All bytes zero is a value, and dropping one does nothing.
pub(crate) unsafe trait ZeroIsValue {}
// SAFETY: integers.
unsafe impl ZeroIsValue for AtomicU32 {}
// SAFETY: integers.
unsafe impl ZeroIsValue for AtomicU64 {}

/// A slice of zeros, of which the host gives pages only when they are written.
pub(crate) struct Zeroed<T: ZeroIsValue> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: owns its elements, as a `Box<[T]>` does.
unsafe impl<T: ZeroIsValue + Send> Send for Zeroed<T> {}
// SAFETY: as above.
unsafe impl<T: ZeroIsValue + Sync> Sync for Zeroed<T> {}

impl<T: ZeroIsValue> Zeroed<T> {
    /// `None` when the host has not enough memory.
    pub fn new(len: usize) -> Option<Self> {
        let layout = Layout::array::<T>(len).ok()?;
        if layout.size() == 0 {
            return Some(Self { start: NonNull::dangling(), len: 0 });
        }
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        Some(Self { start: NonNull::new(start.cast())?, len })
    }

    /// The first element.
    pub fn as_ptr(&self) -> *mut T {
        self.start.as_ptr()
    }
}

impl<T: ZeroIsValue> Deref for Zeroed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `start` points to `len` elements, all bytes of which were set at first (or none), and we own them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: ZeroIsValue> Drop for Zeroed<T> {
    fn drop(&mut self) {
        if let Ok(layout) = Layout::array::<T>(self.len)
            && layout.size() > 0
        {
            // SAFETY: allocated in `new` with this layout.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) };
        }
    }
}
