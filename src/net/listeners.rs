//! All listening sockets: accepting within a budget, and what to do when descriptors run out.
//!
//! The poll reports waiting connections once; what the budget leaves over is remembered here.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use mio::{Interest, Registry, Token};
use rustix::io::Errno;

use crate::codec::http::{self, Rejection};
use crate::limits::{ACCEPT_RETRY, LOG_REPEAT, REJECTED_HEAD_BYTES};
use crate::message::Peer;
use crate::message::handover::ListenerRecord;
use crate::net::handover::PASSED;
use crate::net::socket::{self, Endpoint, Listener, Role, Socket};
use crate::sys::logging::warn;

/// Listeners of an earlier process, until an option asks for them.
pub type HandedOver = Vec<(ListenerRecord, OwnedFd)>;

/// A listening socket of the server.
#[derive(Debug)]
struct Entry {
    listener: Listener,
    role: Role,
    /// Where it is from, for a hand-over. The file is filled in then.
    record: ListenerRecord,
    /// Whether more connections may wait.
    is_ready: bool,
    /// When to try again after an error; the other listeners go on.
    retry_at: Option<Instant>,
}

/// The listening sockets.
#[derive(Debug, Default)]
pub struct Listeners {
    list: Vec<Entry>,
    /// Index of the listener whose turn it is: a flood at one must not keep the others waiting.
    next: usize,
    /// Spare descriptor, closed on EMFILE so that one pending connection can be accepted and
    /// refused.
    spare: Option<File>,
    /// Descriptors ran out, and this has been logged; not again before then.
    quiet_until: Option<Instant>,
}

impl Listeners {
    /// Binds all endpoints. The error names the endpoint.
    ///
    /// A listener that an earlier process has handed over is taken instead of bound.
    pub fn bind(
        endpoints: &[(Endpoint, Role)],
        handed_over: HandedOver,
    ) -> Result<Listeners, String> {
        let mut listeners = Listeners { spare: open_spare(), ..Listeners::default() };
        let mut known: Vec<_> = handed_over.into_iter().filter_map(take_over).collect();
        // First, what holds an address that is not wanted any more is closed.
        known.retain(|(name, _)| endpoints.iter().any(|(it, _)| it.to_string() == *name));
        for (endpoint, role) in endpoints {
            let name = endpoint.to_string();
            let listener = match known.extract_if(.., |(known, _)| *known == name).next() {
                Some((_, listener)) => listener.follow(endpoint),
                None => Listener::bind(endpoint),
            };
            let listener =
                listener.map_err(|error| format!("cannot listen on {endpoint}: {error}"))?;
            listeners.add(listener, *role, ListenerRecord::Bound { endpoint: name, file: None });
        }
        Ok(listeners)
    }

    /// The listeners as records and descriptors.
    pub fn export(&self) -> impl Iterator<Item = (ListenerRecord, BorrowedFd<'_>)> {
        self.list.iter().map(|entry| {
            let mut record = entry.record.clone();
            if let ListenerRecord::Bound { file, .. } = &mut record {
                *file = entry.listener.file();
            }
            (record, entry.listener.as_fd())
        })
    }

    /// The listeners, for a program to check whether it can have those that its options name: a
    /// line each, `ADDRESS:PORT`, `unix:PATH`, or `systemd:NUMBER:NAME` of a passed socket.
    pub fn check_list(&self) -> String {
        let lines = self.list.iter().map(|Entry { listener, record, .. }| match record {
            ListenerRecord::Bound { .. } => format!("{}\n", listener.endpoint()),
            ListenerRecord::Passed { index, name } => format!("{PASSED}{index}:{name}\n"),
        });
        lines.collect()
    }

    /// The addresses that are listened on, or will be.
    pub fn addresses(&self) -> Vec<(Endpoint, Role)> {
        self.list.iter().map(|entry| (entry.listener.endpoint().clone(), entry.role)).collect()
    }

    /// Begins to listen on all of them. The error names the address.
    pub fn listen(&mut self) -> Result<(), String> {
        for Entry { listener, .. } in &mut self.list {
            let listening = listener.listen();
            listening
                .map_err(|error| format!("cannot listen on {}: {error}", listener.endpoint()))?;
        }
        Ok(())
    }

    /// Leaves the files of unix sockets where they are, for the next process.
    pub fn leave_files(&mut self) {
        self.list.iter_mut().for_each(|entry| entry.listener.leave_file());
    }

    /// Adds a listener; the record says where it is from.
    pub fn add(&mut self, listener: Listener, role: Role, record: ListenerRecord) {
        self.list.push(Entry { listener, role, record, is_ready: false, retry_at: None });
    }

    /// Registers all with the poll, under tokens from `first` on.
    pub fn register(&self, registry: &Registry, first: usize) -> io::Result<()> {
        for (index, entry) in self.list.iter().enumerate() {
            let token = Token(first + index);
            socket::register(&entry.listener, registry, token, Interest::READABLE)?;
        }
        Ok(())
    }

    /// To be called when the poll has reported that connections wait at this one.
    pub fn set_ready(&mut self, index: usize) {
        if let Some(entry) = self.list.get_mut(index) {
            entry.is_ready = true;
        }
    }

    /// Whether connections may wait that the poll will not report again.
    pub fn has_leftovers(&self) -> bool {
        self.list.iter().any(|entry| entry.is_ready && entry.retry_at.is_none())
    }

    /// When to call [`Listeners::accept`] again after an error.
    pub fn retry_at(&self) -> Option<Instant> {
        let ready = self.list.iter().filter(|entry| entry.is_ready);
        ready.filter_map(|entry| entry.retry_at).min()
    }

    /// Accepts the next connection at a listener of these roles, at one after the other; each try
    /// takes one of `tries_left`.
    pub fn accept(
        &mut self,
        roles: &[Role],
        tries_left: &mut usize,
        now: Instant,
    ) -> Option<(Socket, Peer, Role)> {
        while *tries_left > 0 {
            let is_waiting = |entry: &Entry| {
                let is_due = entry.retry_at.is_none_or(|retry_at| retry_at <= now);
                entry.is_ready && is_due && roles.contains(&entry.role)
            };
            let mut turns = (self.next..self.list.len()).chain(0..self.next);
            let index = turns.find(|index| is_waiting(&self.list[*index]))?;
            self.next = index + 1;
            *tries_left -= 1;
            let Entry { listener, role, retry_at, .. } = &mut self.list[index];
            *retry_at = None;
            match listener.accept() {
                Ok((socket, peer)) => return Some((socket, peer, *role)),
                Err(error) => self.handle_error(index, &error, now),
            }
        }
        None
    }

    fn handle_error(&mut self, index: usize, error: &io::Error, now: Instant) {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                self.list[index].is_ready = false;
                return;
            }
            io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => return,
            _ => {}
        }
        let exhausted = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
        if exhausted.contains(&error.raw_os_error()) {
            if self.quiet_until.is_none_or(|until| until <= now) {
                self.quiet_until = Some(now + LOG_REPEAT);
                warn!("out of file descriptors, turning new connections away: {error}");
            }
            if self.turn_away(index) {
                return;
            }
        } else {
            warn!("accepting a connection: {error}");
        }
        self.list[index].retry_at = Some(now + ACCEPT_RETRY);
    }

    /// Accepts one waiting connection with the spare descriptor and closes it, so that the queue
    /// does not jam. Returns whether there was one: without free descriptors `accept` fails even
    /// when none waits.
    fn turn_away(&mut self, index: usize) -> bool {
        if self.spare.take().is_none() {
            self.spare = open_spare();
            return false;
        }
        let entry = &mut self.list[index];
        let waited = match entry.listener.accept() {
            Ok(_) => true, // closed at once
            Err(error) => {
                entry.is_ready = error.kind() != io::ErrorKind::WouldBlock;
                false
            }
        };
        self.spare = open_spare();
        waited
    }
}

/// A bound listener of an earlier process, and its endpoint as the option named it.
fn take_over((record, descriptor): (ListenerRecord, OwnedFd)) -> Option<(String, Listener)> {
    let ListenerRecord::Bound { endpoint, file } = record else { return None };
    Some((endpoint, Listener::take_over(descriptor, file).ok()?))
}

fn open_spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Sends a rejection to a connection that there is no room to keep, as far as the socket takes it
/// at once. It carries no state, so it need not wait for the commit.
pub fn reject(mut socket: Socket, rejection: Rejection) {
    // Reading what has come already keeps the close from turning into a reset.
    let mut head = Vec::with_capacity(REJECTED_HEAD_BYTES);
    _ = socket.receive(&mut head);
    let mut answer = rejection.answer();
    if http::is_head_request(&head) {
        http::remove_body(&mut answer);
    }
    _ = socket.write(&answer);
    _ = socket.shutdown_write();
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use rustix::net::Shutdown;

    use super::*;

    const ROLES: [Role; 2] = [Role::Client, Role::ProxiedClient];

    /// A listener of each role, and three connections that wait at each.
    fn listeners() -> (Listeners, Vec<TcpStream>) {
        let endpoint = Endpoint::Tcp(([127, 0, 0, 1], 0).into());
        let mut listeners =
            Listeners::bind(&ROLES.map(|role| (endpoint.clone(), role)), HandedOver::default())
                .expect("they are bound");
        listeners.listen().expect("they listen");
        let mut clients = Vec::new();
        for (index, (endpoint, _)) in listeners.addresses().into_iter().enumerate() {
            let Endpoint::Tcp(address) = endpoint else { panic!("{endpoint}") };
            clients.extend((0..3).map(|_| TcpStream::connect(address).expect("a connection")));
            listeners.set_ready(index);
        }
        (listeners, clients)
    }

    fn accept_all(listeners: &mut Listeners, mut tries_left: usize, now: Instant) -> Vec<Role> {
        let accept = || listeners.accept(&ROLES, &mut tries_left, now).map(|(.., role)| role);
        std::iter::from_fn(accept).collect()
    }

    #[test]
    fn listeners_have_their_turns_however_many_connections_wait_at_one() {
        let (mut listeners, _clients) = listeners();
        let accepted = accept_all(&mut listeners, 6, Instant::now());
        assert_eq!(accepted, [ROLES, ROLES, ROLES].concat());
    }

    #[test]
    fn a_listener_that_fails_does_not_keep_the_others_from_their_connections() {
        let (mut listeners, _clients) = listeners();
        let now = Instant::now();
        // From now on `accept` fails.
        rustix::net::shutdown(&listeners.list[0].listener, Shutdown::Both).expect("shut down");
        assert_eq!(accept_all(&mut listeners, 10, now), [ROLES[1]; 3]);
        assert!(!listeners.has_leftovers(), "the loop sleeps until the next try");
        let retry_at = listeners.retry_at().expect("a next try");
        assert_eq!(accept_all(&mut listeners, 10, now), []);
        assert_eq!(listeners.retry_at(), Some(retry_at));
        assert_eq!(accept_all(&mut listeners, 10, retry_at), []);
        assert!(listeners.retry_at() > Some(retry_at), "it has been tried again");
    }
}
