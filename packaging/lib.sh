# What the scripts beside this file share; sourced, not run. Sets `root` (the checkout), `machine` (the architecture as
# the kernel names it), `target` (the Rust target of releases), `version`, and `out`, where finished packages are put.
# shellcheck shell=bash
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
machine=$(uname -m)
target=$machine-unknown-linux-musl
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
# Relative to the checkout unless it is absolute, as cargo reads it.
target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")
out=$target_dir/packages
mkdir -p "$out"

# Set by cargo where a test calls these scripts; build scripts of dependencies look at them and would run again.
unset OUT_DIR CARGO_MANIFEST_DIR CARGO_MANIFEST_PATH "${!CARGO_PKG_@}"

fail() {
    echo "packaging: $*" >&2
    exit 1
}

# The static program, built if it is not up to date.
binary=$target_dir/$target/release/mitosis
build_binary() {
    if ! rustc --print target-libdir --target "$target" 2>/dev/null | xargs -r test -d; then
        command -v rustup >/dev/null ||
            fail "Rust's standard library for $target is missing and there is no rustup to add it; install Rust with rustup"
        rustup target add "$target"
    fi
    command -v musl-gcc >/dev/null ||
        fail "the C parts need \`musl-gcc\`; install it (Debian: apt-get install musl-tools)"
    cargo build --release --locked --target "$target" --bin mitosis
}

# Completion scripts and manual pages, as the program describes itself: describe DIRECTORY.
describe() {
    local dir=$1 shell
    mkdir -p "$dir"
    for shell in bash zsh fish; do
        "$binary" completions "$shell" >"$dir/mitosis.$shell"
    done
    "$binary" man --dir "$dir/man1"
}
