//! A connection to a server, on which nothing lasts longer than its deadline.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::format;
use crate::net::socket::Endpoint;
use crate::sys::clock::Clock;
use crate::sys::companion::Companion;
use crate::sys::unix_socket;

#[derive(Debug)]
pub struct Stream {
    /// TCP's too: both kinds of sockets are read, written and timed by the same system calls.
    socket: UnixStream,
    /// How long a step may take.
    pub limit: Duration,
    /// Reading and writing fail with `TimedOut` from then on.
    until: Instant,
    /// The command at the other end; killed after the socket is closed.
    companion: Option<Companion>,
}

impl Stream {
    pub fn connect(endpoint: &Endpoint, limit: Duration) -> io::Result<Stream> {
        let socket = match endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, limit)?;
                stream.set_nodelay(true)?;
                UnixStream::from(OwnedFd::from(stream))
            }
            Endpoint::Unix { path, .. } => unix_socket::connect_within(path, limit)?,
        };
        Ok(Stream::new(socket, limit, None))
    }

    /// Starts a line of the shell, whose stdin and stdout are the connection.
    pub fn through(line: &str, limit: Duration) -> io::Result<Stream> {
        let (companion, socket) = Companion::connect(line)?;
        Ok(Stream::new(socket, limit, Some(companion)))
    }

    fn new(socket: UnixStream, limit: Duration, companion: Option<Companion>) -> Stream {
        Stream { socket, limit, until: Clock::read().instant + limit, companion }
    }

    /// Adds what the command has to say of a problem, if there is one.
    pub fn explain(&self, problem: String) -> String {
        match self.companion.as_ref().and_then(Companion::complaint) {
            Some(text) => {
                format!("{problem}; the command says '{}'", format::harmless_error(&text))
            }
            None => problem,
        }
    }

    /// Begins a step.
    pub fn begin_step(&mut self) {
        self.until = Clock::read().instant + self.limit;
    }

    /// Calls the system with the time that is left, again after a signal.
    fn call(
        &mut self,
        mut call: impl FnMut(&mut UnixStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            let left = self.until.saturating_duration_since(Clock::read().instant);
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.socket.set_write_timeout(Some(left))?;
            self.socket.set_read_timeout(Some(left))?;
            match call(&mut self.socket) {
                // A timeout is this one or `TimedOut`, which depends on the system.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.call(|socket| socket.read(buffer))
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.call(|socket| socket.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
