//! A segment as a file: the transport's own file storage, reserved in full before anything is written into it.
//!
//! A file of memory that is only made long takes its pages when they are touched, and on a full file system that is a
//! fatal signal in the middle of a call. Reserved here, it is an error of the creation. Opened, its owner and mode are
//! looked at. It changes nothing else: every operation is the wrapped storage's.
#![expect(
    unsafe_code,
    reason = "two operations of the transport's traits are declared unsafe and passed on as they are"
)]

use core::fmt::Debug;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::time::Duration;
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use iceoryx2_bb_elementary_traits::testing::abandonable::Abandonable;
use iceoryx2_bb_elementary_traits::zero_copy_send::ZeroCopySend;
use iceoryx2_bb_memory::bump_allocator::BumpAllocator;
use iceoryx2_bb_posix::file::AccessMode;
use iceoryx2_cal::dynamic_storage::file::{
    Builder as FileBuilder, Configuration as FileConfiguration, Storage as FileStorage,
};
use iceoryx2_cal::dynamic_storage::{
    DynamicStorage, DynamicStorageBuilder, DynamicStorageCreateError, DynamicStorageOpenError,
    DynamicStorageOpenOrCreateError,
};
use iceoryx2_cal::named_concept::{
    FileName, NamedConcept, NamedConceptBuilder, NamedConceptConfiguration,
    NamedConceptDoesExistError, NamedConceptListError, NamedConceptMgmt,
    NamedConceptPathHintRemoveError, NamedConceptRemoveError, Path as TransportPath,
};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use iceoryx2::prelude::SemanticString;

use crate::ours::{self, Want};

/// Bytes written at once where the file system cannot reserve.
const BLOCK: usize = 64 << 10;

thread_local! {
    /// Why the last creation or opening on this thread failed: the transport's errors have no room for it.
    static FAILURE: RefCell<Option<io::Error>> = const { RefCell::new(None) };
}

/// Why the last creation or opening of a segment on this thread failed, if it was for want of room or for its owner.
pub(crate) fn take_failure() -> Option<io::Error> {
    FAILURE.take()
}

fn noted<T>(result: io::Result<T>) -> Option<T> {
    result.map_err(|error| FAILURE.set(Some(error))).ok()
}

/// The content of a segment of type `T`.
#[derive(Debug)]
#[repr(transparent)]
pub struct Storage<T: Debug + Send + Sync + ZeroCopySend>(FileStorage<T>);

type Initialize<'a, T> = Box<dyn FnMut(&mut MaybeUninit<T>, &mut BumpAllocator) -> bool + 'a>;

/// Collects what a creation needs; reserving is put in front of its first step.
pub struct Builder<'a, T: Debug + Send + Sync + ZeroCopySend> {
    inner: FileBuilder<'a, T>,
    name: FileName,
    config: FileConfiguration<T>,
    initialize: Option<Initialize<'a, T>>,
}

impl<T: Debug + Send + Sync + ZeroCopySend> Debug for Builder<'_, T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.inner.fmt(f)
    }
}

impl<'a, T: Debug + Send + Sync + ZeroCopySend + 'static> Builder<'a, T> {
    /// The wrapped builder, which reserves before it initializes.
    fn reserving(self) -> FileBuilder<'a, T> {
        let file = self.config.path_for(&self.name);
        let mut initialize = self.initialize;
        self.inner.initializer(move |value, allocator| {
            if noted(reserve(path(file.as_bytes()))).is_none() {
                return false;
            }
            initialize
                .as_mut()
                .is_none_or(|initialize| initialize(value, allocator))
        })
    }
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// Has the file system give every page of a file.
fn reserve(path: &Path) -> io::Result<()> {
    // Not read: until it is finished, not even its owner may.
    let mut file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    let len = file.metadata()?.len();
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(&mut file, len),
        Err(errno) => Err(errno.into()),
    }
}

/// Nothing has been written into it yet but zeros.
fn write_zeros(file: &mut File, len: u64) -> io::Result<()> {
    let zeros = [0; BLOCK];
    let mut left = usize::try_from(len).map_err(io::Error::other)?;
    while left > 0 {
        let now = left.min(BLOCK);
        file.write_all(&zeros[..now])?;
        left -= now;
    }
    Ok(())
}

/// A segment in a private directory can only be ours; that it is none the less looked at costs one system call.
fn check(path: &Path) -> io::Result<()> {
    match ours::check(path, Want::PrivateFile) {
        // Its owner has removed the name meanwhile, which is allowed.
        Err(ours::NotOurs::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(ours::NotOurs::Io { source, .. }) => Err(source),
        Err(refused) => Err(io::Error::new(io::ErrorKind::PermissionDenied, refused)),
        Ok(()) => Ok(()),
    }
}

impl<'a, T: Debug + Send + Sync + ZeroCopySend> NamedConceptBuilder<Storage<T>> for Builder<'a, T> {
    fn new(name: &FileName) -> Self {
        Self {
            inner: FileBuilder::new(name),
            name: *name,
            config: FileConfiguration::default(),
            initialize: None,
        }
    }

    fn config(mut self, config: &FileConfiguration<T>) -> Self {
        self.inner = self.inner.config(config);
        self.config = config.clone();
        self
    }
}

impl<'a, T: Debug + Send + Sync + ZeroCopySend + 'static> DynamicStorageBuilder<'a, T, Storage<T>>
    for Builder<'a, T>
{
    fn has_ownership(mut self, value: bool) -> Self {
        self.inner = self.inner.has_ownership(value);
        self
    }

    /// Nobody but this user gets access, whatever the transport asks for.
    fn enable_global_access(self, _value: bool) -> Self {
        self
    }

    fn supplementary_size(mut self, value: usize) -> Self {
        self.inner = self.inner.supplementary_size(value);
        self
    }

    fn timeout(mut self, value: Duration) -> Self {
        self.inner = self.inner.timeout(value);
        self
    }

    fn initializer<F: FnMut(&mut MaybeUninit<T>, &mut BumpAllocator) -> bool + 'a>(
        mut self,
        value: F,
    ) -> Self {
        self.initialize = Some(Box::new(value));
        self
    }

    fn create(self) -> Result<Storage<T>, DynamicStorageCreateError> {
        self.reserving().create().map(Storage)
    }

    fn open(self, access_mode: AccessMode) -> Result<Storage<T>, DynamicStorageOpenError> {
        let file = self.config.path_for(&self.name);
        let opened = self.inner.open(access_mode)?;
        noted(check(path(file.as_bytes()))).ok_or(DynamicStorageOpenError::InternalError)?;
        Ok(Storage(opened))
    }

    fn open_or_create(self) -> Result<Storage<T>, DynamicStorageOpenOrCreateError> {
        let file = self.config.path_for(&self.name);
        let opened = self.reserving().open_or_create()?;
        noted(check(path(file.as_bytes()))).ok_or(DynamicStorageOpenError::InternalError)?;
        Ok(Storage(opened))
    }
}

impl<T: Debug + Send + Sync + ZeroCopySend> Abandonable for Storage<T> {
    unsafe fn abandon_in_place(this: NonNull<Self>) {
        // SAFETY: the caller promises a valid value that is not used afterwards; this type is `repr(transparent)` over
        // the wrapped one, so the pointer is one to that, with the same promise.
        unsafe { FileStorage::<T>::abandon_in_place(this.cast()) }
    }
}

impl<T: Debug + Send + Sync + ZeroCopySend> NamedConcept for Storage<T> {
    fn name(&self) -> &FileName {
        self.0.name()
    }
}

impl<T: Debug + Send + Sync + ZeroCopySend> NamedConceptMgmt for Storage<T> {
    type Configuration = FileConfiguration<T>;

    unsafe fn remove_cfg(
        name: &FileName,
        config: &Self::Configuration,
    ) -> Result<bool, NamedConceptRemoveError> {
        // SAFETY: passed on with the caller's promise that nobody uses it.
        unsafe { FileStorage::<T>::remove_cfg(name, config) }
    }

    fn does_exist_cfg(
        name: &FileName,
        config: &Self::Configuration,
    ) -> Result<bool, NamedConceptDoesExistError> {
        FileStorage::<T>::does_exist_cfg(name, config)
    }

    fn list_cfg(config: &Self::Configuration) -> Result<Vec<FileName>, NamedConceptListError> {
        FileStorage::<T>::list_cfg(config)
    }

    fn remove_path_hint(value: &TransportPath) -> Result<(), NamedConceptPathHintRemoveError> {
        FileStorage::<T>::remove_path_hint(value)
    }
}

impl<T: Debug + Send + Sync + ZeroCopySend + 'static> DynamicStorage<T> for Storage<T> {
    type Builder<'a> = Builder<'a, T>;

    fn does_support_persistency() -> bool {
        FileStorage::<T>::does_support_persistency()
    }

    fn has_ownership(&self) -> bool {
        self.0.has_ownership()
    }

    fn release_ownership(&self) {
        self.0.release_ownership();
    }

    fn acquire_ownership(&self) {
        self.0.acquire_ownership();
    }

    fn get(&self) -> &T {
        self.0.get()
    }

    unsafe fn __internal_set_type_name_in_config(config: &mut Self::Configuration, name: &str) {
        // SAFETY: passed on with the caller's promise.
        unsafe { FileStorage::<T>::__internal_set_type_name_in_config(config, name) }
    }
}
