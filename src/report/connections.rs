//! Who is connected, by the connection table of a server that keeps one.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::table::{Align, Table};
use super::{Findings, file_json, file_line, text};
use crate::storage::db::{AddridReader, ChannelReader, ConnectionRow, FileState};
use crate::sys::clock::Timestamp;

/// All that was found.
#[derive(Debug)]
pub struct Connections {
    path: PathBuf,
    state: FileState,
    rows: Vec<ConnectionRow>,
    /// Where to look addresses up, if they are to be shown.
    addresses: Option<AddridReader>,
    now: Timestamp,
}

/// Reads the files. Without the table there is nothing to tell.
pub fn find(path: &Path, addrid_db: Option<&Path>, now: Timestamp) -> Result<Connections, String> {
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
    /// The peer, as far as it may be shown.
    fn peer(&self, row: &ConnectionRow) -> String {
        let Some(id) = row.address_id else { return "-".to_owned() };
        match &self.addresses {
            None => id.to_string(),
            Some(addresses) => match addresses.address(id) {
                Some(address) => text::harmless(address),
                None => format!("{id} (erased)"),
            },
        }
    }

    fn note(&self) -> &'static str {
        match (self.state.log_bytes, self.rows.is_empty()) {
            (None, true) => "No server has the file open.\n",
            (None, false) => {
                "No server has the file open: these are the connections of one that was killed.\n"
            }
            (Some(_), true) => {
                "Nobody is connected, or the server runs without --track-connections.\n"
            }
            (Some(_), false) => {
                "As the server last wrote them. One that was started without --track-connections \
                 leaves here what an earlier one wrote.\n"
            }
        }
    }
}

fn commands(row: &ConnectionRow) -> String {
    let shown = row.last_commands.iter().map(|name| text::harmless(name));
    let shown = shown.collect::<Vec<_>>().join(" ");
    match row.commands - row.last_commands.len() {
        0 => shown,
        more => format!("({more} more) {shown}"),
    }
}

impl Findings for Connections {
    fn text(&self) -> String {
        let mut text = file_line(&self.path, self.state) + "\n" + self.note();
        if self.rows.is_empty() {
            return text;
        }
        let mut table = Table::new(&[
            ("id", Align::Right),
            ("connected (UTC)", Align::Left),
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
                text::time(row.connected),
                text::ago(row.active, self.now),
                self.peer(row),
                text::harmless_or_dash(row.side.as_deref()),
                text::harmless_or_dash(row.implementation.as_deref()),
                text::harmless_or_dash(row.version.as_deref()),
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
