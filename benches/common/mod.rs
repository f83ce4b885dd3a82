//! What the benches share.

#![allow(dead_code, unused_imports)] // each bench uses its own part

pub mod histogram;
pub mod json;
pub mod modes;
pub mod net;
pub mod process;
pub mod report;
pub mod svg;
pub mod syncs;

use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Whether the machine has a program, which can be asked for its version so.
pub fn is_installed(program: &str, version: &str) -> bool {
    let status = Command::new(program).arg(version).stdout(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Ten thousand clients need as many descriptors.
pub fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // If this fails, connecting fails later and says why.
    _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
