//! Errors with what caused them, as one line for people. Pure.

use std::error::Error;

/// An error and everything that caused it, each once, separated by colons.
#[must_use]
pub(crate) fn error_chain(error: &(dyn Error + '_)) -> String {
    causes(error).fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What caused an error, the nearest first.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + '_),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause| (*cause).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_chain_is_one_line_from_the_outermost_to_the_root() {
        let error = Outer(std::io::Error::other("inner"));
        assert_eq!(error_chain(&error), "outer: inner");
        assert_eq!(error_chain(&std::io::Error::other("alone")), "alone");
    }
}
