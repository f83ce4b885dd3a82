//! The reference server, magic-wormhole-mailbox-server 0.8.0, on a free port.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::programs::program;
use crate::common::{Directory, Running, Signal, process, retry};

/// The databases that it uses.
pub const FILES: [&str; 2] = ["--channel-db=relay.sqlite", "--usage-db=usage.sqlite"];

/// A running reference server. Killed when dropped.
pub struct PythonServer {
    child: Running,
    pub address: SocketAddr,
    directory: Arc<Directory>,
}

impl PythonServer {
    /// Starts in a directory that may hold files of an earlier run.
    pub fn start_in(directory: Arc<Directory>) -> PythonServer {
        let outside = Directory::new();
        let path = outside.file("log");
        let log = File::create(&path).expect("log");
        let child = Command::new(program("twist"))
            .args(["--log-format=text", "wormhole-mailbox", "--port=tcp:0:interface=127.0.0.1"])
            .args(FILES)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("server starts");
        let child = Running(child);
        let port = retry(|| {
            let log = fs::read_to_string(&path).expect("log");
            let port =
                log.lines().find_map(|line| line.split(" starting on ").nth(1)?.parse().ok());
            port.ok_or(log)
        });
        PythonServer { child, address: SocketAddr::from(([127, 0, 0, 1], port)), directory }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.file(name)
    }

    /// SIGTERM, then waits for the end.
    pub fn stop(mut self) {
        process::signal(self.child.0.id(), Signal::TERM);
        self.child.0.wait().expect("wait");
    }
}
