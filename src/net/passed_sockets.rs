//! Listening sockets that a service manager has opened (systemd's `LISTEN_FDS`): they outlive a
//! restart, so no connection is refused meanwhile.
//!
//! Takes them over as listeners, each once. Must never close one that is not selected, nor remove a
//! unix socket's file: both are the manager's.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::os::fd::OwnedFd;

use listenfd::ListenFd;

use crate::limits::PASSED_SOCKETS_MAX;
use crate::net::listeners::Origin;
use crate::net::socket::{Endpoint, Listener};

/// Which of the passed sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// All of them, in order.
    All,
    /// The one with that number, from 0.
    Index(usize),
    /// Those with that name, in order.
    Name(String),
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pick::All => Ok(()),
            Pick::Index(index) => write!(f, "{index}"),
            Pick::Name(name) => write!(f, "{name}"),
        }
    }
}

/// The passed sockets, and which of them are taken.
pub struct PassedSockets {
    manager: ListenFd,
    /// Those that an earlier process has taken from the manager and handed over, by index.
    handed_over: BTreeMap<usize, OwnedFd>,
    /// Names by index; several sockets may have the same one.
    names: Vec<String>,
    taken: Vec<bool>,
}

impl PassedSockets {
    pub fn none() -> PassedSockets {
        PassedSockets {
            manager: ListenFd::empty(),
            handed_over: BTreeMap::new(),
            names: Vec::new(),
            taken: Vec::new(),
        }
    }

    /// Reads the environment, and removes the variables. To be called once.
    pub fn from_environment() -> Result<PassedSockets, String> {
        let variable = |name| env::var(name).unwrap_or_default();
        let count = count(&variable("LISTEN_PID"), &variable("LISTEN_FDS"), std::process::id())?;
        Ok(PassedSockets {
            // By itself it would also accept LISTEN_FDS without LISTEN_PID.
            manager: if count == 0 { ListenFd::empty() } else { ListenFd::from_env() },
            handed_over: BTreeMap::new(),
            names: variable("LISTEN_FDNAMES").split(':').map(str::to_owned).collect(),
            taken: vec![false; count],
        })
    }

    /// Takes what an earlier process has left with the manager under that name; it comes after the
    /// sockets that are listened on.
    pub fn take_stored(&mut self, name: &str) -> Option<OwnedFd> {
        let index = self.taken.len().checked_sub(1)?;
        if self.names.get(index)? != name {
            return None;
        }
        self.taken.pop();
        // It takes any unix socket of that type.
        let socket = self.manager.take_unix_datagram(index);
        socket.ok().flatten().map(OwnedFd::from)
    }

    /// Adds sockets that an earlier process has handed over, with their numbers and names. If it
    /// has executed this one, it has removed the variables; else the manager passes the same again.
    pub fn add_handed_over(&mut self, sockets: Vec<(usize, String, OwnedFd)>) {
        let passed = self.taken.len();
        for (index, name, descriptor) in sockets {
            if index < passed || index >= PASSED_SOCKETS_MAX {
                continue;
            }
            let count = self.taken.len().max(index + 1);
            self.taken.resize(count, true); // what no option took has stayed with the manager
            self.names.resize(count, String::new());
            (self.taken[index], self.names[index]) = (false, name);
            self.handed_over.insert(index, descriptor);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Takes the selected sockets, with the addresses that they listen on.
    pub fn take(&mut self, pick: &Pick) -> Result<Vec<(Listener, Endpoint, Origin)>, String> {
        if self.is_empty() {
            return Err(
                "no socket has been passed to this process (LISTEN_FDS, LISTEN_PID)".to_owned()
            );
        }
        let indexes: Vec<usize> =
            (0..self.taken.len()).filter(|index| self.is_picked(*index, pick)).collect();
        if indexes.is_empty() {
            return Err(format!(
                "none of the {} passed sockets has that number or name",
                self.taken.len()
            ));
        }
        indexes.into_iter().map(|index| self.take_one(index)).collect()
    }

    fn is_picked(&self, index: usize, pick: &Pick) -> bool {
        match pick {
            Pick::All => true,
            Pick::Index(wanted) => *wanted == index,
            Pick::Name(wanted) => self.names.get(index) == Some(wanted),
        }
    }

    fn take_one(&mut self, index: usize) -> Result<(Listener, Endpoint, Origin), String> {
        if std::mem::replace(&mut self.taken[index], true) {
            return Err(format!("passed socket {index} is picked twice"));
        }
        let problem = |why: &dyn fmt::Display| format!("passed socket {index}: {why}");
        let adopted = if let Some(descriptor) = self.handed_over.remove(&index) {
            Listener::adopt(descriptor)
        } else if let Ok(Some(listener)) = self.manager.take_tcp_listener(index) {
            Listener::adopt_tcp(listener)
        } else if let Ok(Some(listener)) = self.manager.take_unix_listener(index) {
            Listener::adopt_unix(listener)
        } else {
            return Err(problem(&"not a stream socket of TCP or unix"));
        };
        let (listener, address) = adopted.map_err(|error| problem(&error))?;
        let name = self.names.get(index).cloned().unwrap_or_default();
        Ok((listener, address, Origin::Passed { index, name }))
    }

    /// Sockets that no option selects; connections to them would hang.
    pub fn left_over(&self) -> impl Iterator<Item = usize> {
        self.taken.iter().enumerate().filter(|(_, taken)| !**taken).map(|(index, _)| index)
    }
}

/// How many sockets are passed to the process `ours`.
fn count(pid: &str, count: &str, ours: u32) -> Result<usize, String> {
    if pid.parse() != Ok(ours) || count.is_empty() {
        return Ok(0); // meant for another process, or not set
    }
    count.parse().ok().filter(|count| *count <= PASSED_SOCKETS_MAX).ok_or_else(|| {
        format!("LISTEN_FDS: '{count}' must be a number of sockets, at most {PASSED_SOCKETS_MAX}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_count_only_for_the_process_that_is_named() {
        assert_eq!(count("17", "2", 17), Ok(2));
        assert_eq!(count("17", "0", 17), Ok(0));
        for (pid, fds) in [("18", "2"), ("", "2"), ("17", ""), ("", ""), ("17 ", "2")] {
            assert_eq!(count(pid, fds, 17), Ok(0), "{pid:?} {fds:?}");
        }
        for fds in ["-1", "two", "99999999999999999999", &(PASSED_SOCKETS_MAX + 1).to_string()] {
            assert!(count("17", fds, 17).is_err_and(|line| line.contains(fds)), "{fds}");
        }
    }
}
