//! What every test needs: a server with its own root, workers, conditions with a deadline, and a check for leaks.

pub(crate) mod chance;
pub(crate) mod child;
pub(crate) mod fixture;
pub(crate) mod leaks;
pub(crate) mod manager;
pub(crate) mod wait;
pub(crate) mod workers;

/// The size of a test: `short` on every change, `long` with `MITOSIS_LONG=1`.
pub(crate) fn size<T>(short: T, long: T) -> T {
    match std::env::var_os("MITOSIS_LONG") {
        Some(value) if value != "0" => long,
        _ => short,
    }
}
