//! The jobserver of `make -j`: which descriptors its tokens are in, so that a `make` inside a task finds them.
//!
//! The recipe's shell gets them from `make` for lines that call `$(MAKE)` or begin with `+`, and their numbers stand in
//! `MAKEFLAGS`. A jobserver that is a FIFO has a name instead and needs nothing. How many tasks run at a time is still said
//! by the number of workers: tokens are drawn by whoever understands them, not by us. Pure apart from one variable.

use std::os::fd::RawFd;

/// The descriptors of this process's jobserver, whether they are open or not.
#[must_use]
pub fn descriptors() -> Option<[RawFd; 2]> {
    descriptors_in(&std::env::var("MAKEFLAGS").ok()?)
}

/// The descriptors that are named last: a nested `make` appends its own.
fn descriptors_in(flags: &str) -> Option<[RawFd; 2]> {
    let named = flags.split_ascii_whitespace().rev().find_map(|flag| {
        flag.strip_prefix("--jobserver-auth=")
            .or_else(|| flag.strip_prefix("--jobserver-fds="))
    })?;
    let (read, write) = named.split_once(',')?;
    let number = |text: &str| text.parse().ok().filter(|number| *number > 2);
    Some([number(read)?, number(write)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_found_in_the_flags_of_every_make() {
        let found = descriptors_in;
        assert_eq!(found(" -j4 --jobserver-auth=3,4"), Some([3, 4]));
        assert_eq!(found("w -j --jobserver-fds=5,6 -- X=1"), Some([5, 6]));
        assert_eq!(
            found("--jobserver-auth=3,4 --jobserver-auth=7,8"),
            Some([7, 8])
        );
        for none in [
            "",
            "-j4",
            "--jobserver-auth=fifo:/tmp/x",
            "--jobserver-auth=-2,-2",
            "--jobserver-auth=3",
        ] {
            assert_eq!(found(none), None, "{none}");
        }
    }
}
