//! Connecting to a unix socket within a time: while the queue of a listener is full, the system
//! would wait for ever.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd, retry_on_intr};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};

/// Fails with [`ErrorKind::TimedOut`] after that time.
pub fn connect_within(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let stream = UnixStream::from(socket(AddressFamily::UNIX, SocketType::STREAM, None)?);
    fcntl_setfd(&stream, FdFlags::CLOEXEC)?;
    // Holds for connecting as well.
    stream.set_write_timeout(Some(limit))?;
    let address = SocketAddrUnix::new(path)?;
    match retry_on_intr(|| connect(&stream, &address)).map_err(io::Error::from) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
        outcome => outcome.map(|()| stream),
    }
}
