//! Hands the connections over to the program that is now at its path, which the process executes
//! (SIGUSR2; manual: reloading 5), or to the next process that the service manager starts (SIGALRM;
//! manual: reloading 6).
//!
//! A program to be executed first checks itself with the same options. Then the state that is not
//! in the database is written down, and the process executes the new program, or leaves all with
//! the manager and ends. Until then nothing has changed, so that a failure at any step leaves the
//! server as it was; a failure afterwards closes the connections, and loses nothing acknowledged.

use std::io::{self, Read};
use std::iter;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::time::Instant;

use log::{info, warn};

use super::inheritance::Inheritance;
use super::{Server, Stage, signals};
use crate::codec::handover as codec;
use crate::limits::{LOG_LINE_BYTES_MAX, TAKEOVER_CHECK, TAKEOVER_CHECK_POLL, TAKEOVER_GRACE};
use crate::message::close::CloseReason;
use crate::message::handover::Head;
use crate::net::connection::{Connection, Times};
use crate::net::handover::{self, RecordWriter};
use crate::sys::clock::Clock;
use crate::sys::process;

/// How far a takeover is.
#[derive(Debug, Default)]
pub(super) enum Takeover {
    #[default]
    Idle,
    /// The new program checks itself; ends with it, or at that time.
    Checking { child: Child, until: Instant },
    /// Connections come to a point at which they can be handed over; ends then, or at that time.
    Waiting { until: Instant, successor: Successor },
}

/// The successor of this process.
#[derive(Clone, Copy, Debug)]
pub(super) enum Successor {
    /// The program that is now at the path of this one.
    Program,
    /// The next process that the service manager starts.
    NextProcess,
}

impl Takeover {
    /// When to look again at the latest.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        match self {
            Takeover::Idle => None,
            Takeover::Checking { .. } => Some(now + TAKEOVER_CHECK_POLL),
            Takeover::Waiting { until, .. } => Some(*until),
        }
    }
}

impl Server {
    /// Begins with the check of the new program.
    pub(super) fn begin_takeover(&mut self) {
        if let Some(reason) = self.takeover_obstacle() {
            warn!("SIGUSR2 is ignored: {reason}");
            return;
        }
        let until = self.clock.instant + TAKEOVER_CHECK;
        match self.program.check() {
            Ok(child) => self.takeover = Takeover::Checking { child, until },
            Err(error) => self.refuse_takeover(&error.to_string()),
        }
    }

    /// Begins to leave the connections with the service manager; returns whether it does.
    pub(super) fn begin_leaving(&mut self) -> bool {
        self.abandon_check();
        if self.takeover_obstacle().is_some() {
            return false;
        }
        let Some(notifier) = &mut self.notifier else { return false };
        notifier.stopping();
        self.wait_for_connections(Successor::NextProcess);
        true
    }

    /// A restart goes before a takeover.
    fn abandon_check(&mut self) {
        if let Takeover::Checking { child, .. } = &mut self.takeover {
            end(child);
            self.takeover = Takeover::Idle;
        }
    }

    fn takeover_obstacle(&self) -> Option<&'static str> {
        if !self.config.takeover {
            Some("--takeover=no")
        } else if !matches!(self.stage, Stage::Serving) {
            Some("the server is about to stop")
        } else if !matches!(self.takeover, Takeover::Idle) {
            Some("the server is being replaced already")
        } else if !self.engine.has_state_on_disk() {
            Some("without a channel database on disk the new process would not find the state")
        } else {
            None
        }
    }

    fn refuse_takeover(&mut self, reason: &str) {
        self.takeover = Takeover::Idle;
        warn!("not replaced by {}: {reason}", self.program.path().display());
    }

    /// Goes on with a takeover. To be called at the end of a tick.
    pub(super) fn advance_takeover(&mut self) {
        let now = self.clock.instant;
        if let Takeover::Checking { child, until } = &mut self.takeover
            && let Some(result) = outcome(child, *until <= now)
        {
            match result {
                Ok(()) => self.wait_for_connections(Successor::Program),
                Err(reason) => self.refuse_takeover(&reason),
            }
        }
        if let Takeover::Waiting { until, successor } = self.takeover {
            self.hand_over_if_ready(until <= now, successor);
        }
    }

    fn wait_for_connections(&mut self, successor: Successor) {
        let until = self.clock.instant + TAKEOVER_GRACE;
        self.takeover = Takeover::Waiting { until, successor };
    }

    /// Closes the connections that have had their time to come to the end of a message.
    pub(super) fn close_late_for_takeover(&mut self) {
        let now = self.clock.instant;
        if matches!(self.takeover, Takeover::Waiting { until, .. } if until <= now) {
            self.connections.close_mid_message(now, &mut self.engine);
        }
    }

    /// Hands over when no connection is between the fragments of a message. `is_late`: requests to
    /// the admin listener have had their time.
    fn hand_over_if_ready(&mut self, is_late: bool, successor: Successor) {
        let has_admins = self.admin_connections.len() > 0;
        if !matches!(self.stage, Stage::Serving) || !self.engine.has_state_on_disk() {
            self.give_up(successor, "the server stops, or its storage has failed");
        } else if !self.connections.is_any_mid_message()
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
                self.takeover = Takeover::Idle;
                warn!("nothing is left with the service manager: {reason}");
                self.begin_stop();
            }
        }
    }

    /// If nothing fails, the new program is executed, or the server has come to its end.
    fn hand_over(&mut self, successor: Successor) -> io::Result<()> {
        let socket = self.pack()?;
        let count = self.connections.len();
        match (successor, &self.notifier) {
            (Successor::NextProcess, Some(notifier)) => {
                notifier.store(socket.as_fd())?;
                info!("leaving {count} connections with the service manager");
                self.stage = Stage::Left;
                Ok(())
            }
            _ => {
                let variable = handover::variable(&socket)?;
                info!("handing over {count} connections to {}", self.program.path().display());
                signals::hold()?;
                let error = self.program.replace(socket, (handover::VARIABLE, &variable));
                signals::deliver()?;
                // What waits in the socket keeps connections open.
                handover::close_stdin()?;
                // Executing a program takes this back, even if it fails.
                process::survive_closed_pipe()?;
                Err(error)
            }
        }
    }

    /// The socket in which everything waits for the successor.
    fn pack(&mut self) -> io::Result<OwnedFd> {
        self.engine.flush_records();
        let (times, now) = (Times::now(), Clock::read().wall);
        let numbers = self.connections.numbers();
        let (listeners, descriptors): (Vec<_>, Vec<_>) = self.listeners.export().unzip();
        let mut records = RecordWriter::new()?;
        records.write(&codec::encode_head(&Head {
            first_conn: self.first_conn,
            next_conn: self.next_conn,
            listeners,
            connections: numbers.len() as u64,
        }))?;
        records.write(&codec::encode(&self.engine.export_addresses()))?;
        for conn in &numbers {
            if let Some(record) = self.connections.export(*conn, &self.engine, &times, now) {
                records.write(&codec::encode(&record))?;
            }
        }
        let file = records.finish()?;
        let connections = numbers.iter().filter_map(|conn| self.connections.descriptor(*conn));
        handover::send(iter::once(file.as_fd()).chain(descriptors).chain(connections))
    }

    /// Goes on with the connections of an earlier process, which the engine knows already.
    pub fn restore(&mut self, inheritance: Inheritance) {
        let (connections, next_conn) = inheritance.into_connections();
        self.next_conn = self.next_conn.max(next_conn);
        let (times, count) = (Times::now(), connections.len());
        for (record, descriptor) in connections {
            let (conn, is_rejected) = (record.conn, record.is_rejected);
            let restored = Connection::restore(record, descriptor, &times);
            let registered = restored.ok().filter(|it| self.register(conn, it.socket()));
            match registered {
                Some(connection) => {
                    let address = self.engine.network_of(conn);
                    self.connections.restore(conn, connection, address, is_rejected);
                }
                None => self.engine.disconnect(conn, CloseReason::PeerReset),
            }
        }
        info!("took over {count} connections");
    }
}

/// The end of a check: the reason if it failed; none if it goes on.
fn outcome(child: &mut Child, is_late: bool) -> Option<Result<(), String>> {
    match child.try_wait() {
        Ok(Some(status)) if status.success() => Some(Ok(())),
        Ok(Some(status)) => Some(Err(problem(child, status))),
        Ok(None) if is_late => {
            end(child);
            Some(Err(format!("its check takes more than {} s", TAKEOVER_CHECK.as_secs())))
        }
        Ok(None) => None,
        Err(error) => Some(Err(error.to_string())),
    }
}

fn end(child: &mut Child) {
    // Both fail only if it has ended meanwhile.
    _ = child.kill();
    _ = child.wait();
}

/// What the new program has written about its failure.
fn problem(child: &mut Child, status: ExitStatus) -> String {
    let mut text = [0; LOG_LINE_BYTES_MAX / 2];
    let read = child.stderr.as_mut().map_or(Ok(0), |stderr| stderr.read(&mut text));
    let text = String::from_utf8_lossy(&text[..read.unwrap_or(0)]).into_owned();
    format!("{status}: {}", text.trim().replace('\n', "; "))
}
