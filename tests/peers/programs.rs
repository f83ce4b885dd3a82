//! Where other people's programs are: in `target/`, where `.ci/run` installs some, or on the path.

use std::path::{Path, PathBuf};

/// A program that the test needs and that is ignored without it, so that it must be there.
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).collect::<Vec<_>>();
    let places = [installed("venv/bin"), installed("clients/bin")];
    // Debian has servers where only root's path leads.
    let places = places.into_iter().chain(on_path).chain(["/usr/sbin".into()]);
    let found = places.map(|place| place.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not installed, see .ci/run"))
}

/// A path below `target/`.
pub fn installed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(path)
}
