//! A mailbox server for the tests of clients: in memory, on a free port of 127.0.0.1, in the
//! process of the test (manual: testing 1).
//!
//! Installs no signal handlers, reads no environment, writes no file and sets no logger. Any number
//! can run at once.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

pub use crate::config::trouble::Trouble;
use crate::config::trouble::Troubles;
use crate::config::{self, Invocation};
use crate::server::signals::{Remote, Signals};
use crate::startup;

/// The options of a server for tests. It handles one command of a connection at a time, so that
/// trouble comes after the very command that it was ordered for, and it waits for no client at its
/// end.
const OPTIONS: [&str; 4] = [
    "--port=tcp:0:interface=127.0.0.1",
    "--channel-db=:memory:",
    "--limit-tick-messages=1",
    "--limit-close-seconds=0.2",
];

/// A running server. Stops when dropped.
///
/// ```
/// let server = wormhole_mailbox::testing::Server::start()?;
/// assert!(server.url().starts_with("ws://127.0.0.1:"));
/// # Ok::<(), String>(())
/// ```
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    remote: Remote,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Server {
    /// Starts a server that works.
    pub fn start() -> Result<Server, String> {
        Server::start_with(&[])
    }

    /// Starts a server with trouble.
    pub fn start_with(troubles: &[Trouble]) -> Result<Server, String> {
        let (signals, remote) = Signals::remote().map_err(|error| error.to_string())?;
        let (mut reader, mut writer) = UnixStream::pair().map_err(|error| error.to_string())?;
        let troubles = troubles.to_vec();
        let thread = thread::Builder::new().name("wormhole-mailbox".to_owned()).spawn(move || {
            match build(signals, &troubles) {
                Ok((server, address)) => {
                    write!(writer, "{address}")?;
                    drop(writer);
                    server.run()
                }
                Err(problem) => writer.write_all(problem.as_bytes()),
            }
        });
        let thread = Some(thread.map_err(|error| error.to_string())?);
        let mut answer = String::new();
        reader.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        let address = answer.parse().map_err(|_| answer)?;
        Ok(Server { address, remote, thread })
    }

    /// The URL that clients are given, as `ws://127.0.0.1:34567/v1`.
    pub fn url(&self) -> String {
        format!("ws://{}/v1", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.remote.stop();
        if let Some(thread) = self.thread.take() {
            _ = thread.join(); // a panic has been printed
        }
    }
}

fn build(
    signals: Signals,
    troubles: &[Trouble],
) -> Result<(crate::server::Server, String), String> {
    let no_files = |_: &std::path::Path| Err("not read".to_owned());
    match config::parse(OPTIONS.map(Into::into), [], no_files)? {
        Invocation::Serve(mut config, mut reloadable) => {
            config.troubles = Troubles(troubles.to_vec());
            config.rules.is_crowded = config.troubles.is_crowded();
            reloadable.welcome.error = config.troubles.error().map(str::to_owned);
            let (server, addresses) = startup::start_for_tests(*config, *reloadable, signals)?;
            let (address, _) = addresses.first().ok_or("it listens on no address")?;
            Ok((server, address.to_string()))
        }
        _ => Err("the options start no server".to_owned()),
    }
}
