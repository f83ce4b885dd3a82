//! Failures and overload: tests that are heavy on the machine, or that break the disk, the memory
//! or the power under a running server.

#[allow(dead_code)] // each test binary uses its own part
#[path = "../common/mod.rs"]
mod common;

mod attacks; // what others notice of an attack, and what it costs
mod durability; // kills in the middle of traffic, a locked database
mod file_systems; // full, read-only, without shared memory
mod overload; // descriptors, floods, every abuse at once
mod power_loss; // what a power failure may leave of the files
mod storage_failure; // a disk that fails and works again
mod takeover; // kills at each step, many connections, steady traffic
