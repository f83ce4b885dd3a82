//! Listening sockets that a service manager has opened (systemd's `LISTEN_FDS`): they outlive a
//! restart, so no connection is refused meanwhile.
//!
//! Takes them over as listeners, each once. Must never close one that is not selected, nor remove a
//! unix socket's file: both are the manager's.

use std::env;
use std::fmt;
use std::io;
use std::iter;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use listenfd::ListenFd;

use crate::limits::PASSED_SOCKETS_MAX;
use crate::message::handover::ListenerRecord;
use crate::net::handover::PASSED;
use crate::net::listeners::HandedOver;
use crate::net::socket::Listener;

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

impl Pick {
    fn selects(&self, index: usize, name: &str) -> bool {
        match self {
            Pick::All => true,
            Pick::Index(wanted) => *wanted == index,
            Pick::Name(wanted) => *wanted == name,
        }
    }
}

/// One of the passed sockets.
struct Passed {
    /// Several may have the same one.
    name: String,
    state: State,
    /// An earlier process has taken it from the manager and handed it over.
    handed_over: Option<OwnedFd>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    /// An option has selected it.
    Picked,
    /// It has stayed with the manager: no option of an earlier process has selected it.
    Absent,
}

/// A socket that an option has selected, and where it is from.
pub type Taken = (Listener, ListenerRecord);

/// The passed sockets, and which of them are taken.
pub struct PassedSockets {
    manager: ListenFd,
    /// By the manager's number.
    list: Vec<Passed>,
}

impl PassedSockets {
    pub fn none() -> PassedSockets {
        PassedSockets { manager: ListenFd::empty(), list: Vec::new() }
    }

    /// Reads the environment, and removes the variables. To be called once, and before anything
    /// else is opened: what is announced but missing would be taken for one of the process's own.
    pub fn from_environment() -> Result<PassedSockets, String> {
        let variable = |name| env::var(name).unwrap_or_default();
        let count = count(&variable("LISTEN_PID"), &variable("LISTEN_FDS"), std::process::id())?;
        // The library's own variable.
        if count > 0 && variable("LISTEN_FDS_FIRST_FD").is_empty() {
            check_open(count, lowest_free())?;
        }
        let names = variable("LISTEN_FDNAMES");
        let names = names.split(':').chain(iter::repeat("")).take(count);
        let mut sockets = PassedSockets::none();
        // By itself it would also accept LISTEN_FDS without LISTEN_PID.
        if count > 0 {
            sockets.manager = ListenFd::from_env();
        }
        names.enumerate().for_each(|(index, name)| sockets.add(index, name.to_owned(), None));
        Ok(sockets)
    }

    /// Takes what an earlier process has left with the manager under that name; it comes after the
    /// sockets that are listened on.
    pub fn take_stored(&mut self, name: &str) -> Option<OwnedFd> {
        self.list.pop_if(|last| last.name == name)?;
        // It takes any unix socket of that type.
        let socket = self.manager.take_unix_datagram(self.list.len());
        socket.ok().flatten().map(OwnedFd::from)
    }

    /// The sockets that a process would hand over, by its
    /// [`Listeners::check_list`](super::listeners::Listeners::check_list). They can be picked, and
    /// not taken.
    pub fn announced(check_list: &str) -> PassedSockets {
        let mut sockets = PassedSockets::none();
        for line in check_list.lines() {
            if let Some((index, name)) = line.strip_prefix(PASSED).and_then(|it| it.split_once(':'))
                && let Ok(index) = index.parse()
            {
                sockets.add(index, name.to_owned(), None);
            }
        }
        sockets
    }

    /// Takes those that an earlier process has handed over. If it has executed this one, it has
    /// removed the variables; else the manager passes the same again.
    pub fn add_handed_over(&mut self, handed_over: &mut HandedOver) {
        let passed = self.list.len();
        let is_passed = |record: &ListenerRecord| matches!(record, ListenerRecord::Passed { .. });
        for (record, descriptor) in handed_over.extract_if(.., |(record, _)| is_passed(record)) {
            if let ListenerRecord::Passed { index, name } = record
                && index as usize >= passed
            {
                self.add(index as usize, name, Some(descriptor));
            }
        }
    }

    fn add(&mut self, index: usize, name: String, handed_over: Option<OwnedFd>) {
        if index < PASSED_SOCKETS_MAX {
            let count = self.list.len().max(index + 1);
            let absent = || Passed { name: String::new(), state: State::Absent, handed_over: None };
            self.list.resize_with(count, absent);
            self.list[index] = Passed { name, state: State::Free, handed_over };
        }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Closes what an earlier process has handed over and nothing has taken.
    pub fn close_handed_over(&mut self) {
        for socket in &mut self.list {
            if socket.handed_over.take().is_some() {
                socket.state = State::Absent;
            }
        }
    }

    /// Takes the selected sockets.
    pub fn take(&mut self, pick: &Pick) -> Result<Vec<Taken>, String> {
        let mut taken = Vec::new();
        for index in self.pick(pick)? {
            let Passed { name, handed_over, .. } = &mut self.list[index];
            let descriptor = handed_over.take().or_else(|| stream_socket(index, &mut self.manager));
            let wrong = || format!("passed socket {index}: not a stream socket of TCP or unix");
            let listener = Listener::adopt(descriptor.ok_or_else(wrong)?)
                .map_err(|error| format!("passed socket {index}: {error}"))?;
            let record = ListenerRecord::Passed { index: index as u64, name: name.clone() };
            taken.push((listener, record));
        }
        Ok(taken)
    }

    /// Selects sockets, each once; returns their numbers.
    pub fn pick(&mut self, pick: &Pick) -> Result<Vec<usize>, String> {
        if self.is_empty() {
            return Err(
                "no socket has been passed to this process (LISTEN_FDS, LISTEN_PID)".to_owned()
            );
        }
        let mut picked = Vec::new();
        for (index, socket) in self.list.iter_mut().enumerate() {
            if !pick.selects(index, &socket.name) {
                continue;
            }
            match std::mem::replace(&mut socket.state, State::Picked) {
                State::Free => picked.push(index),
                State::Picked => return Err(format!("passed socket {index} is picked twice")),
                State::Absent => {
                    return Err(format!("passed socket {index} comes with a restart only"));
                }
            }
        }
        if picked.is_empty() {
            let count = self.list.len();
            return Err(format!("none of the {count} passed sockets has that number or name"));
        }
        Ok(picked)
    }

    /// Numbers of the sockets that no option selects; connections to them would hang.
    pub fn left_over(&self) -> impl Iterator<Item = usize> {
        let list = self.list.iter().enumerate();
        list.filter(|(_, socket)| socket.state == State::Free).map(|(index, _)| index)
    }
}

fn stream_socket(index: usize, manager: &mut ListenFd) -> Option<OwnedFd> {
    if let Ok(Some(listener)) = manager.take_tcp_listener(index) {
        return Some(listener.into());
    }
    manager.take_unix_listener(index).ok().flatten().map(OwnedFd::from)
}

/// The number that the next descriptor gets.
fn lowest_free() -> Option<usize> {
    let next = io::stderr().as_fd().try_clone_to_owned().ok()?;
    usize::try_from(next.as_raw_fd()).ok()
}

/// Fails if one of the announced descriptors is not open: the lowest that is not is `free`.
fn check_open(count: usize, free: Option<usize>) -> Result<(), String> {
    const FIRST: usize = 3;
    match free {
        Some(free) if (FIRST..FIRST + count).contains(&free) => {
            Err(format!("LISTEN_FDS: {count} sockets are announced, and {} passed", free - FIRST))
        }
        _ => Ok(()),
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

    #[test]
    fn a_socket_that_is_announced_and_not_open_is_missed() {
        for (count, free, is_missed) in
            [(1, 3, true), (3, 4, true), (3, 5, true), (1, 4, false), (2, 5, false), (2, 9, false)]
        {
            assert_eq!(check_open(count, Some(free)).is_err(), is_missed, "{count} {free}");
        }
        assert_eq!(check_open(1, None), Ok(()), "not known");
    }
}
