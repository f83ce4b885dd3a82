//! Programs of others that tests run against the server. They live under `target/`, put there by
//! the CI script; a test whose program is missing says so and passes, unless the environment says
//! `REAL_CLIENTS=required`.

use std::path::PathBuf;

/// The Python that has magic-wormhole and its mailbox server installed.
pub fn python() -> Option<PathBuf> {
    found("target/venv/bin/python")
}

/// Twisted's runner beside that Python, which starts the reference server.
pub fn twist() -> Option<PathBuf> {
    found("target/venv/bin/twist")
}

/// The directory of the reference's munin plugins.
pub fn munin_plugins() -> Option<PathBuf> {
    found("target/munin")
}

fn found(place: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(place);
    if path.exists() {
        return Some(path);
    }
    let required = std::env::var("REAL_CLIENTS").is_ok_and(|value| value == "required");
    assert!(!required, "{place} is missing");
    println!("skipped: {place} is missing");
    None
}
