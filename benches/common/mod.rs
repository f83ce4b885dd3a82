//! What the load tool and the side-by-side bench share.

#![allow(dead_code)] // each bench uses its own part

pub mod histogram;
pub mod json;
pub mod modes;
pub mod net;
pub mod process;
pub mod report;
pub mod svg;
pub mod syncs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Ten thousand clients need as many descriptors.
pub fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // If this fails, connecting fails later and says why.
    _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
