//! Trouble that the test of a client has ordered (manual: testing 2).

use std::mem;

use super::Engine;
use crate::config::trouble::Trouble;
use crate::message::{Command, ConnId, Refusal};

impl Engine {
    /// Notes the trouble that comes after this command.
    pub(super) fn note_trouble(&mut self, conn: ConnId) {
        if self.config.troubles.0.is_empty() {
            return;
        }
        let commands = self.metrics.commands.iter().sum();
        let due = self.config.troubles.due(commands);
        self.trouble.extend(due.map(|trouble| (trouble.clone(), conn)));
    }

    /// The trouble that this tick's commands have made due, and the connection of each.
    pub fn take_trouble(&mut self) -> Vec<(Trouble, ConnId)> {
        mem::take(&mut self.trouble)
    }

    /// Fails with the error that was ordered for this command, if one was.
    pub(super) fn refuse_for_trouble(&self, command: &Command<'_>) -> Result<(), Refusal> {
        let troubles = &self.config.troubles;
        match command {
            Command::Bind { .. } | Command::Ping { .. } => Ok(()),
            Command::Claim { .. } | Command::Open { .. } if troubles.is_crowded() => Ok(()),
            _ => match troubles.error() {
                Some(text) => Err(Refusal::OnOrder { message: text.into() }),
                None => Ok(()),
            },
        }
    }
}
