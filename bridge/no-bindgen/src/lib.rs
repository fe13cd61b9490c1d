//! An empty stand-in for `bindgen`.
//!
//! Two crates below iceoryx2 list bindgen as a build dependency and use it only when they are built on QNX. Building
//! the real one takes a tenth of this project's first build, so the workspace patches it with nothing. Delete this
//! folder and the `[patch]` entry once iceoryx2 makes that dependency conditional.
