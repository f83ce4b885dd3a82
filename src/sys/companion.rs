//! A command that runs beside this process. Nothing waits for it.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::limits::COMPANION_OUTPUT_BYTES_MAX;

/// Killed and reaped when dropped, together with the commands that it has started; these live on if
/// it has ended by itself.
#[derive(Debug)]
pub struct Companion {
    child: Child,
    stderr: UnixStream,
    is_reaped: bool,
}

impl Companion {
    /// Starts a command.
    pub fn start(command: &mut Command) -> io::Result<Companion> {
        let (stderr, its_stderr) = UnixStream::pair()?;
        stderr.set_nonblocking(true)?;
        let child = command.stderr(OwnedFd::from(its_stderr)).process_group(0).spawn()?;
        Ok(Companion { child, stderr, is_reaped: false })
    }

    /// Starts a line of the shell. Returns the other end of its stdin and stdout, one socket.
    pub fn connect(line: &str) -> io::Result<(Companion, UnixStream)> {
        let (connection, its_connection) = UnixStream::pair()?;
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", line]).stdin(OwnedFd::from(its_connection.try_clone()?));
        Ok((Companion::start(shell.stdout(OwnedFd::from(its_connection)))?, connection))
    }

    /// How it has ended, if it has; it is reaped then.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        self.is_reaped = status.is_some();
        Ok(status)
    }

    /// The last lines that it has written to stderr: of openssl's, the very last is the vaguest.
    pub fn complaint(&self) -> Option<String> {
        const LINES_MAX: usize = 3;
        let mut bytes = Vec::new();
        // Ends with an error where nothing more is there, and keeps what was.
        _ = (&self.stderr).take(COMPANION_OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(LINES_MAX)..];
        if last.is_empty() { None } else { Some(last.join(" / ")) }
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        // Once it is reaped, another may have its number.
        if !self.is_reaped {
            _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            _ = self.child.wait();
        }
    }
}
