//! Child processes: start, watch, end, and leave nothing behind.
//!
//! Workers run tasks through it and a manager runs its workers through it; it knows neither. [`spawn()`] is one `clone3`
//! (`posix_spawn` where the kernel refuses that), a [`Child`] is watched by its pidfd, and [`kill_tree`] and [`kill_marked`]
//! end what a child left behind. No policy lives here: who is ended, when and why is decided by the callers.
//!
//! ```text
//!   SpawnSpec --spawn--> Child --exited--> (zombie: pid and group number still ours) --reap--> ExitInfo
//!                          |                                |
//!                       signal, kill_group            kill_group, then kill_adopted: what outlived the leader
//! ```
//!
//! Every child is in one process-wide register from before its first instruction until it is reaped. Whatever else the
//! kernel lists as a child of this process was adopted from a descendant that died ([`set_child_subreaper`]).

mod activity;
mod affinity;
mod caller;
mod child;
mod clone;
mod error;
mod fault;
pub mod groups;
pub mod limited;
mod marked;
pub mod passed;
mod posix;
mod register;
mod resolve;
mod spawn;
mod spec;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tree;

pub use activity::cpu_time;
pub use affinity::{on_cores, usable_cores};
pub use caller::remember_caller;
pub use child::Child;
pub use error::SpawnError;
pub use fault::tell_lost_memory;
pub use marked::{MARK, kill_marked};
pub use resolve::{DEFAULT_PATH, find_as_a_shell, resolve_program};
pub use rustix::process::{Pid, Signal};
pub use spawn::spawn;
pub use spawn::{survive_file_size_limit, watch_readable};
pub use spec::{ExitInfo, ExitStatus, ProcessGroup, SpawnSpec, Stdio};
pub use tree::{
    Swept, adopted_children, kill_adopted, kill_group, kill_tree, reap_adopted,
    set_child_subreaper, signal_adopted,
};
