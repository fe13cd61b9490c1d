//! Exit codes of every command, in one place.
//!
//! Scripts and the manager's respawn policy rely on them, so a code is never given a second meaning.

use std::process::ExitCode;

/// How a process of this program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: everything that was asked for is done; all tasks completed.
    Ok,
    /// 1: some task failed or was cancelled.
    TaskFailed,
    /// 2: the command line, a file or a spec is wrong; nothing was run.
    Usage,
    /// 3: the system itself failed.
    System,
    /// 4: `wait`: the time was over before all tasks had ended.
    TimedOut,
    /// 69: role `worker`: the manager or coordinator is gone or was never there.
    ManagerGone,
    /// 75: role `worker`: stopped before its task ended; the task was handed back.
    HandedBack,
    /// 77: role `worker`: refused (token, identity or protocol version); respawning will not help.
    Refused,
    /// 130: interrupted by the user.
    Interrupted,
    /// The code of the one command that `run -- CMD` ran.
    Command(u8),
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::TaskFailed => 1,
            Self::Usage => 2,
            Self::System => 3,
            Self::TimedOut => 4,
            Self::ManagerGone => 69,
            Self::HandedBack => 75,
            Self::Refused => 77,
            Self::Interrupted => 130,
            Self::Command(code) => code,
        }
    }

    /// The named exit with this number, as a manager reads it from a dead worker.
    #[must_use]
    pub fn of_worker(code: i32) -> Option<Self> {
        [
            Self::Ok,
            Self::Usage,
            Self::System,
            Self::ManagerGone,
            Self::HandedBack,
            Self::Refused,
        ]
        .into_iter()
        .find(|exit| i32::from(exit.code()) == code)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_recognises_the_codes_its_workers_use() {
        for exit in [Exit::Ok, Exit::ManagerGone, Exit::HandedBack, Exit::Refused] {
            assert_eq!(Exit::of_worker(i32::from(exit.code())), Some(exit));
        }
        assert_eq!(Exit::of_worker(101), None);
    }
}
