//! What the load tool and the side-by-side bench share.

#![allow(dead_code)] // each bench uses its own part

pub mod histogram;
pub mod json;
pub mod modes;
pub mod net;
pub mod process;
