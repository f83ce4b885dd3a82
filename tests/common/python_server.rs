//! The reference server, magic-wormhole-mailbox-server 0.8.0, on a free port.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::real_clients::in_venv;
use super::{Directory, PATIENCE};

/// A running reference server. Killed when dropped.
pub struct PythonServer {
    child: Child,
    pub address: SocketAddr,
    directory: Directory,
}

impl PythonServer {
    /// Starts it, if it is installed.
    pub fn start() -> Option<PythonServer> {
        let twist = in_venv("twist")?;
        let directory = Directory::new();
        let log = File::create(directory.file("log")).expect("log");
        let child = Command::new(twist)
            .args(["--log-format=text", "wormhole-mailbox", "--port=tcp:0:interface=127.0.0.1"])
            .args(["--channel-db=relay.sqlite", "--usage-db=usage.sqlite"])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("server starts");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = PythonServer { child, address, directory };
        let until = Instant::now() + PATIENCE;
        while server.address.port() == 0 {
            let log = fs::read_to_string(server.file("log")).expect("log");
            assert!(Instant::now() < until, "the reference server does not start: {log}");
            let port =
                log.lines().find_map(|line| line.split(" starting on ").nth(1)?.parse().ok());
            server.address.set_port(port.unwrap_or(0));
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(server)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.file(name)
    }
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
