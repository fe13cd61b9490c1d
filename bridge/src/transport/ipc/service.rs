//! The service type of the bridge: every segment is a file below the private root, none has a name in `/dev/shm`.
//!
//! The transport's own type makes segments by `shm_open`, which puts names into a directory where every user may write:
//! others can create them first, and truncate one that is open to all. Here they are files of [`storage::Storage`], which
//! reserves them in full and looks at the owner. Everything else is as in the transport's type for processes.

mod storage;

use core::fmt::Debug;

use iceoryx2_bb_elementary_traits::testing::abandonable::Abandonable;
use iceoryx2_bb_elementary_traits::zero_copy_send::ZeroCopySend;
use iceoryx2_bb_lock_free::mpmc::counting_bit_set::RelocatableCountingBitSet;
use iceoryx2_cal::event::trigger::State;
use iceoryx2_cal::event::trigger::unix_datagram_socket::GenericUnixDatagramSocketTrigger;
use iceoryx2_cal::resizable_shared_memory::dynamic::DynamicMemory;
use iceoryx2_cal::shared_memory::common::details::{AllocatorDetails, Memory};
use iceoryx2_cal::shm_allocator::bump_allocator::BumpAllocator;
use iceoryx2_cal::shm_allocator::pool_allocator::PoolAllocator;
use iceoryx2_cal::zero_copy_connection::common::details::{Connection, SharedManagementData};
use iceoryx2_cal::{arc_sync_policy, bag, hash, monitoring, reactor, serialize, static_storage};

use storage::Storage;
pub(crate) use storage::take_failure;

type Segment<A> = Memory<A, Storage<AllocatorDetails<A>>>;

/// Two processes of one user, below one private directory.
#[derive(Debug, Clone)]
pub struct Private {}

impl iceoryx2::service::Service for Private {
    type StaticStorage = static_storage::recommended::Ipc;
    type ConfigSerializer = serialize::recommended::Recommended;
    type PersistentDynamicStorage<T: Debug + Send + Sync + ZeroCopySend + 'static> = Storage<T>;
    type Bag = bag::recommended::Recommended;
    type DynamicStorage<T: Debug + Send + Sync + ZeroCopySend + 'static> = Storage<T>;
    type ServiceNameHasher = hash::recommended::Recommended;
    type SharedMemory = Segment<PoolAllocator>;
    type ResizableSharedMemory = DynamicMemory<PoolAllocator, Segment<PoolAllocator>>;
    type Connection = Connection<Storage<SharedManagementData>>;
    type Event = GenericUnixDatagramSocketTrigger<
        RelocatableCountingBitSet,
        Storage<State<RelocatableCountingBitSet, ()>>,
    >;
    type Monitoring = monitoring::recommended::Ipc;
    type Reactor = reactor::recommended::Ipc;
    type ArcThreadSafetyPolicy<T: Send + Debug + Abandonable> =
        arc_sync_policy::single_threaded::SingleThreaded<T>;
    type BlackboardMgmt<KeyType: Send + Sync + Debug + ZeroCopySend + 'static> = Storage<KeyType>;
    type BlackboardPayload = Segment<BumpAllocator>;
    type UniqueId = iceoryx2::unique_id_generator::unique_system_id::UniqueSystemId;
}

impl iceoryx2::service::internal::ServiceInternal<Private> for Private {}
