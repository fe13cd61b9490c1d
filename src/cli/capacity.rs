//! What tasks need and what a machine has for them: `--cpus` and `--total-cpus` and their kin.

use clap::Args;

use crate::manager::Totals;
use crate::protocol::limits::ByteSize;
use crate::protocol::task::Resources;

/// A number of CPUs.
pub(super) fn cpus(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if number > 0.0 && number <= 65_536.0 {
        Ok(number)
    } else {
        Err("allowed is above 0 up to 65536".to_owned())
    }
}

/// What a task needs that does not say so itself.
#[derive(Debug, Args)]
#[command(next_help_heading = "Resources")]
pub(super) struct NeedsArgs {
    /// CPUs per task [default: one worker's share]. MITO_CPUS names the ones of a task that asks for whole ones.
    #[arg(long, value_name = "N", value_parser = cpus)]
    cpus: Option<f64>,
    /// Memory per task, e.g. 512M or 4G; for choosing what runs together; see --limit-memory.
    #[arg(long, value_name = "SIZE")]
    mem: Option<ByteSize>,
    /// GPUs per task. CUDA_VISIBLE_DEVICES names them.
    #[arg(long, value_name = "N")]
    gpus: Option<u32>,
    /// Keep each task on the CPUs it was given; needs whole --cpus.
    #[arg(long)]
    pin: bool,
}

impl NeedsArgs {
    /// As a part of a spec.
    pub(super) fn resources(&self) -> Resources {
        Resources {
            cpus: self.cpus,
            mem_bytes: self.mem.map(|size| size.0),
            gpus: self.gpus.unwrap_or(0),
            pin: self.pin,
            ..Resources::default()
        }
    }
}

/// What tasks may occupy at once.
#[derive(Debug, Args)]
#[command(next_help_heading = "Resources")]
pub(super) struct CapacityArgs {
    /// CPUs that all tasks together may take [default: one per worker].
    #[arg(long, value_name = "N", env = "MITOSIS_TOTAL_CPUS", value_parser = cpus)]
    total_cpus: Option<f64>,
    /// Memory that all tasks together may take [default: the machine's].
    #[arg(long, value_name = "SIZE", env = "MITOSIS_TOTAL_MEM")]
    total_mem: Option<ByteSize>,
    /// GPUs that all tasks together may take [default: those of CUDA_VISIBLE_DEVICES, else of /dev].
    #[arg(long, value_name = "N", env = "MITOSIS_TOTAL_GPUS", value_parser = clap::value_parser!(u32).range(..=1024))]
    total_gpus: Option<u32>,
}

impl CapacityArgs {
    /// With what the machine says where the arguments do not.
    pub(super) fn totals(&self) -> Totals {
        let visible = std::env::var(VISIBLE_GPUS).ok();
        Totals {
            milli_cpus: self.total_cpus.map(milli),
            mem_bytes: self.total_mem.map(|size| size.0),
            gpus: gpus(self.total_gpus, visible.as_deref(), devices),
        }
    }

    /// The arguments again, for a command that is repeated.
    pub(super) fn words(&self) -> Vec<String> {
        let words = [
            ("--total-cpus", self.total_cpus.map(|cpus| cpus.to_string())),
            ("--total-mem", self.total_mem.map(|size| size.0.to_string())),
            ("--total-gpus", self.total_gpus.map(|gpus| gpus.to_string())),
        ];
        let given = words
            .into_iter()
            .filter_map(|(name, value)| Some([name.to_owned(), value?]));
        given.flatten().collect()
    }
}

/// Variable that names the GPUs a process may use.
const VISIBLE_GPUS: &str = "CUDA_VISIBLE_DEVICES";

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the parser keeps the number between 0 and 65536"
)]
fn milli(cpus: f64) -> u32 {
    ((cpus * 1000.0).floor() as u32).max(1)
}

/// Names of GPUs: as many as are asked for, by the names that the variable gives them, or all that there are.
fn gpus(wanted: Option<u32>, visible: Option<&str>, devices: impl FnOnce() -> u32) -> Vec<String> {
    let named: Option<Vec<String>> = visible.map(|list| {
        let names = list.split(',').map(str::trim);
        // By CUDA's rule the list ends at the first name that is no device.
        let names = names.take_while(|name| !name.is_empty() && *name != "-1");
        names.map(str::to_owned).collect()
    });
    let numbered = |count: u32| (0..count).map(|number| number.to_string()).collect();
    match (wanted, named) {
        (None, Some(named)) => named,
        (None, None) => numbered(devices()),
        (Some(count), Some(named)) if named.len() >= count as usize => {
            named.into_iter().take(count as usize).collect()
        }
        (Some(count), _) => numbered(count),
    }
}

/// GPUs that the driver shows as devices.
fn devices() -> u32 {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let is_gpu = |name: &str| {
        let number = name.strip_prefix("nvidia");
        number
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let gpus = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_gpu));
    u32::try_from(gpus.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_cpus_are_bounded() {
        assert_eq!(cpus("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "nan", "inf", "65537", "two"] {
            assert!(cpus(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn gpus_go_by_the_names_that_are_visible() {
        let all = |wanted, visible| gpus(wanted, visible, || 3);
        assert_eq!(all(None, None), ["0", "1", "2"]);
        assert_eq!(all(None, Some("4, GPU-a")), ["4", "GPU-a"]);
        assert!(all(None, Some("")).is_empty() && all(None, Some("-1,0")).is_empty());
        assert_eq!(all(Some(1), Some("4,5")), ["4"]);
        assert_eq!(all(Some(2), Some("4")), ["0", "1"]);
        assert!(all(Some(0), None).is_empty());
    }
}
