//! `connections`: the rows of the connection table, which a server with `--track-connections` keeps
//! in the channel database.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::table::{Align, Table};
use super::{Report, file_json, file_line};
use crate::format::{self, UNKNOWN};
use crate::storage::db::{AddridReader, ChannelReader, ConnectionRow, FileState};
use crate::sys::clock::{self, Timestamp};

#[derive(Debug)]
pub struct Connections {
    path: PathBuf,
    state: FileState,
    rows: Vec<ConnectionRow>,
    /// Addresses by their ids, with `--addresses`.
    addresses: Option<AddridReader>,
    now: Timestamp,
}

pub fn collect(
    path: &Path,
    addrid_db: Option<&Path>,
    now: Timestamp,
) -> Result<Connections, String> {
    let reader = ChannelReader::open(path).map_err(|error| error.to_string())?;
    let rows = reader.connections().map_err(|error| error.to_string())?.ok_or_else(|| {
        format!(
            "channel database {}: version {} has no connection table; a server with \
             --track-connections makes one",
            path.display(),
            reader.state().version
        )
    })?;
    let addresses = addrid_db.map(AddridReader::open).transpose();
    Ok(Connections {
        path: path.to_owned(),
        state: reader.state(),
        rows,
        addresses: addresses.map_err(|error| error.to_string())?,
        now,
    })
}

impl Connections {
    /// The peer's address id, or its address with `--addresses`.
    fn peer(&self, row: &ConnectionRow) -> String {
        let Some(id) = row.address_id else { return UNKNOWN.to_owned() };
        match &self.addresses {
            None => id.to_string(),
            Some(addresses) => match addresses.address(id) {
                Some(address) => format::harmless(address),
                None => format!("{id} (erased)"),
            },
        }
    }

    fn note(&self) -> &'static str {
        match (self.state.log_bytes, self.rows.is_empty()) {
            (None, true) => "No server has the file open.\n",
            (None, false) => {
                "No server has the file open: these connections are of a server that was killed.\n"
            }
            (Some(_), true) => {
                "No client is connected, or the server runs without --track-connections.\n"
            }
            (Some(_), false) => {
                "As the server last wrote them. A server without --track-connections leaves the \
                 rows of an earlier one.\n"
            }
        }
    }
}

fn commands(row: &ConnectionRow) -> String {
    let shown = row.last_commands.iter().map(|name| format::harmless(name));
    let shown = shown.collect::<Vec<_>>().join(" ");
    match row.commands - row.last_commands.len() {
        0 => shown,
        more => format!("({more} more) {shown}"),
    }
}

impl Report for Connections {
    fn text(&self) -> String {
        let mut text = file_line(&self.path, self.state) + "\n" + self.note();
        if self.rows.is_empty() {
            return text;
        }
        let mut table = Table::new(&[
            ("id", Align::Right),
            ("connected", Align::Left),
            ("active", Align::Right),
            ("address", Align::Left),
            ("side", Align::Left),
            ("client", Align::Left),
            ("version", Align::Left),
            ("last commands", Align::Left),
        ]);
        for row in &self.rows {
            table.row(vec![
                row.id.to_string(),
                clock::utc(row.connected),
                format::ago(row.active, self.now),
                self.peer(row),
                format::harmless_or_unknown(row.side.as_deref()),
                format::harmless_or_unknown(row.implementation.as_deref()),
                format::harmless_or_unknown(row.version.as_deref()),
                commands(row),
            ]);
        }
        text += &format!("\n{}\n{} in all.\n", table.text(), self.rows.len());
        text
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let mut entry = json!({
                "id": row.id,
                "connected": row.connected.0,
                "active": row.active.0,
                "address_id": row.address_id.map(|id| id.to_string()),
                "side": row.side,
                "implementation": row.implementation,
                "version": row.version,
                "commands": row.commands,
                "last_commands": row.last_commands,
            });
            if let Some(addresses) = &self.addresses {
                entry["address"] = json!(row.address_id.and_then(|id| addresses.address(id)));
            }
            entry
        });
        json!({
            "file": file_json(&self.path, self.state),
            "now": self.now.0,
            "connections": rows.collect::<Vec<_>>(),
        })
    }
}
