//! Where the programs of others are that tests run against the server.
//!
//! They live under `target/` or on the path, put there by the CI script. A test whose program is
//! missing says so and passes, unless the environment says `REAL_CLIENTS=required`.

use std::path::{Path, PathBuf};

/// The Python that has magic-wormhole and its mailbox server installed.
pub fn python() -> Option<PathBuf> {
    found(in_venv("python"), "target/venv/bin/python")
}

/// Twisted's runner beside that Python, which starts the reference server.
pub fn twist() -> Option<PathBuf> {
    found(in_venv("twist"), "target/venv/bin/twist")
}

/// The directory of the reference's munin plugins.
pub fn munin_plugins() -> Option<PathBuf> {
    found(installed("munin"), "target/munin")
}

fn found(path: Option<PathBuf>, name: &str) -> Option<PathBuf> {
    if path.is_none() {
        skip(name);
    }
    path
}

/// A program of the Python environment, if installed.
pub fn in_venv(program: &str) -> Option<PathBuf> {
    installed(&format!("venv/bin/{program}"))
}

/// Something under `target/`, if it is there.
pub fn installed(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(path);
    path.exists().then_some(path)
}

/// A program on the path, if there is one.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|it| it.join(program)).find(|it| it.exists())
}

/// Says that a test is skipped for want of a program, or fails it if nothing may be missing.
pub fn skip(missing: &str) {
    let required = std::env::var_os("REAL_CLIENTS").is_some_and(|it| it == "required");
    assert!(!required, "{missing} is not installed, and REAL_CLIENTS=required is set");
    println!("skipped: {missing} is not installed");
}
