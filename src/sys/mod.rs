//! The operating system: clock, randomness, memory, the identity of files, this process and its
//! program, a command beside it, unix sockets, the log's sink.
//!
//! The only room that reads the wall clock or draws random bytes; knows nothing of the server.

pub mod clock;
pub mod companion;
pub mod entropy;
pub mod heap;
pub mod identity;
pub mod logging;
pub mod mmap;
pub mod process;
pub mod program;
pub mod unix_socket;
