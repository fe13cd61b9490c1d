//! Memory shared with another process through an inherited memfd: the status block and the board.
//!
//! Used by `status` and `board` only. The mapped types consist of atomics, so that concurrent access from both sides is
//! defined; the file is sealed against resizing, so that a peer cannot turn a read into a bus error.
#![expect(
    unsafe_code,
    reason = "mapping a file descriptor yields a raw pointer; every block below argues its bounds and lifetime"
)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// A type that may live in memory shared with another process.
///
/// # Safety
/// The type is `repr(C)`, holds nothing but atomics (and arrays or `repr(C)` structs of atomics), has no padding that
/// anybody reads, needs no drop, and every bit pattern of it is a valid value.
pub(crate) unsafe trait SharedLayout: Sync + 'static {
    /// Name of the memory file, visible in `/proc/<pid>/fd`.
    const NAME: &'static str;
}

/// A mapping of one `T`, readable and writable, alive until it is dropped.
#[derive(Debug)]
pub(crate) struct SharedMap<T: SharedLayout> {
    address: NonNull<c_void>,
    _content: PhantomData<T>,
}

// SAFETY: the mapping is owned by this value alone and is not tied to a thread; `T` is `Sync` (a supertrait), so handing
// the owner to another thread or sharing `&T` between threads is as sound as for a `Box<T>`.
unsafe impl<T: SharedLayout> Send for SharedMap<T> {}
// SAFETY: as above; `&SharedMap<T>` gives out `&T` only.
unsafe impl<T: SharedLayout> Sync for SharedMap<T> {}

impl<T: SharedLayout> SharedMap<T> {
    /// Creates a zeroed memory file of the right size, close-on-exec and sealed, and maps it.
    pub(crate) fn create() -> io::Result<(Self, OwnedFd)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create(T::NAME, flags)?;
        rustix::fs::ftruncate(
            &fd,
            u64::try_from(size_of::<T>()).expect("a layout is small"),
        )?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let map = Self::map(&fd)?;
        Ok((map, fd))
    }

    /// Maps an inherited descriptor after checking that it is a sealed memory file of the right size.
    pub(crate) fn open(fd: OwnedFd) -> io::Result<Self> {
        let seals = rustix::fs::fcntl_get_seals(&fd)?;
        if !seals.contains(SealFlags::SHRINK) {
            let words = "the inherited descriptor is not a sealed memory file";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
        }
        let file = File::from(fd);
        if usize::try_from(file.metadata()?.len()) != Ok(size_of::<T>()) {
            let words = "the inherited memory file has another layout";
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        Self::map(&file)
    }

    fn map(fd: &impl AsFd) -> io::Result<Self> {
        // SAFETY: a null hint lets the kernel choose a free range, so no existing memory is replaced. The length is the
        // size of the file (checked or just set by the callers, and sealed), so every page of it is backed.
        let address = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                size_of::<T>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                0,
            )
        }?;
        let address = NonNull::new(address).expect("a successful mapping is not at address zero");
        Ok(Self {
            address,
            _content: PhantomData,
        })
    }
}

impl<T: SharedLayout> Deref for SharedMap<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mapping covers `size_of::<T>()` bytes, is page aligned (more than any `T` here needs), lives until
        // `drop`, and by the contract of `SharedLayout` any content is a valid `T` whose fields may change under us.
        unsafe { self.address.cast::<T>().as_ref() }
    }
}

impl<T: SharedLayout> Drop for SharedMap<T> {
    fn drop(&mut self) {
        // SAFETY: address and length are those of the mapping made in `map`; references to it borrow from `self`, so
        // none is left.
        let unmapped = unsafe { rustix::mm::munmap(self.address.as_ptr(), size_of::<T>()) };
        debug_assert!(unmapped.is_ok(), "unmapping an own mapping cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[repr(C)]
    struct Pair(AtomicU64, AtomicU64);
    // SAFETY: two atomics, `repr(C)`, no padding.
    unsafe impl SharedLayout for Pair {
        const NAME: &'static str = "mitosis-test";
    }
    #[repr(C)]
    struct Single(AtomicU64);
    // SAFETY: one atomic, `repr(C)`.
    unsafe impl SharedLayout for Single {
        const NAME: &'static str = "mitosis-test";
    }

    #[test]
    fn both_mappings_of_one_file_see_the_same_words() {
        let (ours, fd) = SharedMap::<Pair>::create().unwrap();
        assert_eq!(ours.0.load(Ordering::Relaxed), 0);
        let theirs = SharedMap::<Pair>::open(fd).unwrap();
        theirs.1.store(5, Ordering::Relaxed);
        assert_eq!(ours.1.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn a_file_of_another_layout_is_refused() {
        let (_ours, fd) = SharedMap::<Pair>::create().unwrap();
        assert!(SharedMap::<Single>::open(fd).is_err());
        let file = tempfile::tempfile().unwrap();
        file.set_len(8).unwrap();
        assert!(SharedMap::<Single>::open(file.into()).is_err());
    }

    #[test]
    fn a_peer_cannot_shrink_the_file_under_us() {
        let (_ours, fd) = SharedMap::<Pair>::create().unwrap();
        assert!(rustix::fs::ftruncate(&fd, 0).is_err());
    }
}
