//! Hands the connections over to the program that is now at its path, which the process executes
//! (SIGUSR2; manual: reloading 5), or to the next process that the service manager starts (SIGALRM;
//! manual: reloading 6).
//!
//! A program to be executed first checks itself with the same options. Then the state that is not
//! in the database is written down, and the process executes the new program, or leaves all with
//! the manager and ends. Until then nothing has changed, so that a failure at any step leaves the
//! server as it was; a failure afterwards closes the connections, and loses nothing acknowledged.

use std::io;
use std::iter;
use std::os::fd::{AsFd, OwnedFd};

use super::inheritance::Inheritance;
use super::{Server, Stage, signals};
use crate::codec::handover as codec;
use crate::limits::{TAKEOVER_CHECK, TAKEOVER_GRACE};
use crate::message::CloseReason;
use crate::message::handover::{Head, ListenerRecord};
use crate::net::connection::{Connection, Times};
use crate::net::handover::{self, RecordWriter};
use crate::storage::db::describe_locks;
use crate::sys::logging::{info, warn};
use crate::sys::process;
use crate::sys::program::Check;

/// The successor of this process.
#[derive(Clone, Copy, Debug)]
pub(super) enum Successor {
    /// The program that is now at the path of this one.
    Program,
    /// The next process that the service manager starts.
    NextProcess,
}

impl Server {
    /// Begins with the check of the new program.
    pub(super) fn begin_takeover(&mut self) {
        if let Some(obstacle) = self.takeover_obstacle() {
            warn!("SIGUSR2 is ignored: {obstacle}");
            return;
        }
        let until = self.clock.instant + TAKEOVER_CHECK;
        let check = describe_locks(self.engine.locks()).and_then(|locks| {
            let list = self.listeners.check_list() + &locks;
            self.program.check((handover::LISTENING, &list))
        });
        match check {
            Ok(check) => self.stage = Stage::Checking { check, until },
            Err(error) => self.refuse_takeover(&error.to_string()),
        }
    }

    /// Begins to leave the connections with the service manager; stops where that cannot be.
    pub(super) fn begin_leaving(&mut self) {
        // A restart goes before a takeover.
        if let Stage::Checking { .. } | Stage::HandingOver { .. } = self.stage {
            self.stage = Stage::Serving;
        }
        let obstacle = self.takeover_obstacle();
        match &mut self.notifier {
            Some(notifier) if obstacle.is_none() => {
                notifier.stopping();
                self.wait_for_connections(Successor::NextProcess);
            }
            _ => self.begin_stop(),
        }
    }

    fn takeover_obstacle(&self) -> Option<String> {
        let obstacle = match self.stage {
            _ if !self.config.takeover => "--takeover=no",
            Stage::Draining { .. } | Stage::Stopping { .. } | Stage::Left => {
                "the server is about to stop"
            }
            Stage::Checking { .. } | Stage::HandingOver { .. } => {
                "the server is being replaced already"
            }
            Stage::Serving if self.engine.is_degraded() => return self.engine.can_serve().err(),
            Stage::Serving if !self.engine.has_state_on_disk() => {
                "without a channel database on disk the new process would not find the state"
            }
            Stage::Serving => return None,
        };
        Some(obstacle.to_owned())
    }

    /// Gives up a takeover and logs why; the server goes on as before.
    pub(super) fn refuse_takeover(&mut self, reason: &str) {
        self.stage = Stage::Serving;
        warn!("not replaced by {}: {reason}", self.program.path.display());
    }

    /// Goes on with a takeover. To be called at the end of a tick.
    pub(super) fn advance_takeover(&mut self) {
        let now = self.clock.instant;
        if let Stage::Checking { check, until } = &mut self.stage
            && let Some(result) = outcome(check, *until <= now)
        {
            match result {
                Ok(()) => self.wait_for_connections(Successor::Program),
                Err(reason) => self.refuse_takeover(&reason),
            }
        }
        if let Stage::HandingOver { until, successor } = self.stage {
            self.hand_over_if_ready(until <= now, successor);
        }
    }

    fn wait_for_connections(&mut self, successor: Successor) {
        let until = self.clock.instant + TAKEOVER_GRACE;
        self.stage = Stage::HandingOver { successor, until };
    }

    /// Closes the connections that have had their time to come into a state that a record can hold.
    pub(super) fn close_late_for_takeover(&mut self) {
        let now = self.clock.instant;
        if matches!(self.stage, Stage::HandingOver { until, .. } if until <= now) {
            for conn in self.connections.unsettled() {
                self.connections.close(conn, CloseReason::GoingAway, now, &mut self.engine);
            }
        }
    }

    /// Hands over when all connections are in such a state. `is_late`: requests to the admin
    /// listener have had their time.
    fn hand_over_if_ready(&mut self, is_late: bool, successor: Successor) {
        let has_admins = self.admin_connections.len() > 0;
        if !self.engine.has_state_on_disk() {
            self.give_up(successor, "its storage has failed");
        } else if self.connections.unsettled().is_empty()
            && (is_late || !has_admins)
            && let Err(error) = self.hand_over(successor)
        {
            self.give_up(successor, &error.to_string());
        }
    }

    fn give_up(&mut self, successor: Successor, reason: &str) {
        match successor {
            Successor::Program => self.refuse_takeover(reason),
            Successor::NextProcess => {
                warn!("nothing is left with the service manager: {reason}");
                self.begin_stop();
            }
        }
    }

    /// If nothing fails, the new program is executed, or the server has come to its end. If a
    /// signal has come meanwhile, it is handled first, in the next tick.
    fn hand_over(&mut self, successor: Successor) -> io::Result<()> {
        let (socket, count) = self.pack()?;
        match successor {
            Successor::NextProcess => {
                let notifier = self.notifier.as_ref().ok_or(io::ErrorKind::NotConnected)?;
                notifier.store(socket.as_fd())?;
                info!("leaving {count} connections with the service manager");
                self.stage = Stage::Left;
                Ok(())
            }
            Successor::Program => {
                let variable = handover::variable(&socket)?;
                signals::hold()?;
                // The new program would not know of it.
                if self.signals.is_waiting() {
                    return signals::deliver();
                }
                info!("handing over {count} connections to {}", self.program.path.display());
                self.engine.warn_of_losses();
                let error = self.program.replace(socket, (handover::VARIABLE, &variable));
                signals::deliver()?;
                // Descriptors that wait in the socket keep their connections open.
                handover::close_stdin()?;
                process::survive_closed_pipe()?;
                Err(error)
            }
        }
    }

    /// The socket in which everything waits for the successor, and the number of connections there.
    fn pack(&mut self) -> io::Result<(OwnedFd, usize)> {
        let prepared = self.engine.prepare_handover();
        prepared.map_err(|error| io::Error::other(error.to_string()))?;
        let addresses = codec::encode(&self.engine.export_addresses());
        let times = Times::now();
        // What is encoded for one connection is in memory for it alone, replays included.
        let numbers = self.connections.with_least_output(self.config.limits.buffered_bytes_max);
        if let left @ 1.. = self.connections.len() - numbers.len() {
            warn!("{left} connections are not handed over: too much output waits for them");
        }
        // A second server must not get the files between this process and the next.
        let locks = self.engine.locks().map(|file| (ListenerRecord::of_lock(), file.as_fd()));
        let (listeners, descriptors): (Vec<_>, Vec<_>) =
            self.listeners.export().chain(locks).unzip();
        let mut records = RecordWriter::new()?;
        records.write(&codec::encode_head(&Head {
            next_conn: self.next_conn,
            listeners,
            connections: numbers.len() as u64,
        }))?;
        records.write(&addresses)?;
        for conn in &numbers {
            if let Some(record) = self.connections.export(*conn, &self.engine, &times) {
                records.write(&codec::encode(&record))?;
            }
        }
        let file = records.finish()?;
        let connections = numbers.iter().filter_map(|conn| self.connections.descriptor(*conn));
        let socket =
            handover::send(iter::once(file.as_fd()).chain(descriptors).chain(connections))?;
        Ok((socket, numbers.len()))
    }

    /// Goes on with the connections of an earlier process, which the engine knows already.
    pub fn restore(&mut self, inheritance: Inheritance) {
        let Inheritance { next_conn, connections, .. } = inheritance;
        self.next_conn = next_conn;
        let (times, count) = (Times::now(), connections.len());
        for (record, descriptor) in connections {
            let (conn, is_rejected) = (record.conn, record.is_rejected);
            match Connection::restore(record, descriptor, &times) {
                Ok(connection) => self.insert(conn, connection, is_rejected),
                Err(_) => self.engine.disconnect(conn, CloseReason::PeerReset),
            }
        }
        info!("took over {count} connections");
    }
}

/// The end of a check: the reason if it failed; none if it goes on.
fn outcome(check: &mut Check, is_late: bool) -> Option<Result<(), String>> {
    check.outcome().or_else(|| {
        is_late.then(|| Err(format!("its check takes more than {} s", TAKEOVER_CHECK.as_secs())))
    })
}
