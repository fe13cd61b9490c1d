//! How much tasks may occupy at a holder of leases, and what of it a task lacks. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::task::Resources;

const MIB: u64 = 1 << 20;

/// What tasks may occupy at once; `None` where there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Capacity {
    /// CPU cores, in thousandths.
    pub milli_cpus: Option<u64>,
    /// Memory in bytes.
    pub mem_bytes: Option<u64>,
    /// Whole GPUs.
    pub gpus: Option<u64>,
}

/// More is wanted than there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// What is wanted, e.g. `2.5 CPUs`.
    pub wanted: String,
    /// What there is of it, e.g. `2`.
    pub there: String,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it needs {} and there are {}", self.wanted, self.there)
    }
}

impl Capacity {
    /// What a task wants and could never get here, not even alone.
    #[must_use]
    pub fn lacks(&self, wanted: &Resources) -> Option<Lack> {
        self.lack_of(&Self {
            milli_cpus: Some(wanted.milli_cpus()),
            mem_bytes: wanted.mem_bytes,
            gpus: Some(wanted.gpus.into()),
        })
    }

    /// The first amount of `wanted` that is more than there is.
    #[must_use]
    pub fn lack_of(&self, wanted: &Self) -> Option<Lack> {
        let beyond = |wanted: Option<u64>, there: Option<u64>| {
            let (wanted, there) = (wanted.unwrap_or(0), there?);
            (wanted > there).then_some((wanted, there))
        };
        if let Some((wanted, there)) = beyond(wanted.milli_cpus, self.milli_cpus) {
            return Some(Lack {
                wanted: cpus_in_words(wanted),
                there: cores(there),
            });
        }
        if let Some((wanted, there)) = beyond(wanted.mem_bytes, self.mem_bytes) {
            return Some(Lack {
                wanted: format!("{} MiB of memory", wanted.div_ceil(MIB)),
                there: format!("{} MiB", there / MIB),
            });
        }
        let (wanted, there) = beyond(wanted.gpus, self.gpus)?;
        let plural = if wanted == 1 { "" } else { "s" };
        Some(Lack {
            wanted: format!("{wanted} GPU{plural}"),
            there: there.to_string(),
        })
    }
}

/// Cores as people write them.
fn cores(milli_cpus: u64) -> String {
    let (whole, rest) = (milli_cpus / 1000, milli_cpus % 1000);
    let digits = format!("{whole}.{rest:03}");
    digits
        .trim_end_matches('0')
        .trim_end_matches('.')
        .to_owned()
}

fn cpus_in_words(milli_cpus: u64) -> String {
    let plural = if milli_cpus == 1000 { "" } else { "s" };
    format!("{} CPU{plural}", cores(milli_cpus))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Capacity = Capacity {
        milli_cpus: Some(2_500),
        mem_bytes: Some(1 << 30),
        gpus: Some(1),
    };

    fn lack(wanted: Resources) -> Option<String> {
        SMALL.lacks(&wanted).map(|lack| lack.to_string())
    }

    #[test]
    fn what_does_not_fit_is_named_with_what_there_is() {
        let cpus = |cpus| Resources {
            cpus: Some(cpus),
            ..Resources::default()
        };
        assert_eq!(lack(cpus(2.5)), None);
        assert_eq!(
            lack(cpus(2.501)).as_deref(),
            Some("it needs 2.501 CPUs and there are 2.5")
        );
        let mem = Resources {
            mem_bytes: Some((1 << 30) + 1),
            ..Resources::default()
        };
        assert_eq!(
            lack(mem).as_deref(),
            Some("it needs 1025 MiB of memory and there are 1024 MiB")
        );
        let gpus = Resources {
            gpus: 2,
            ..Resources::default()
        };
        assert_eq!(
            lack(gpus).as_deref(),
            Some("it needs 2 GPUs and there are 1")
        );
        assert_eq!(lack(Resources::default()), None);
    }

    #[test]
    fn without_a_limit_everything_fits() {
        let much = Resources {
            cpus: Some(60_000.0),
            mem_bytes: Some(u64::MAX),
            gpus: u32::MAX,
            ..Resources::default()
        };
        assert_eq!(Capacity::default().lacks(&much), None);
    }
}
