//! The server's promise in the type system: nothing that depends on a change leaves before the
//! change is committed.
//!
//! An outbox takes only `Released` output. Only `release` makes it, which needs the proof that only
//! a commit or a rollback returns.

use crate::message::{ConnId, Output, Outputs};
use crate::storage::Committed;

/// Output that may leave.
#[derive(Debug)]
pub struct Released(Output);

impl Released {
    pub fn into_output(self) -> Output {
        self.0
    }
}

#[cfg(test)]
impl Released {
    /// For tests of what comes after the release.
    pub fn in_test(output: Output) -> Released {
        Released(output)
    }
}

/// Releases a tick's outputs, one connection after the other, those of each in order.
pub fn release(
    outputs: &mut Outputs,
    _proof: Committed,
    mut deliver: impl FnMut(ConnId, &mut dyn Iterator<Item = Released>),
) {
    outputs.drain_by_connection(|conn, own| deliver(conn, &mut own.map(Released)));
}
