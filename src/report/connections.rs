//! `connections`: the rows of the connection table, which a server with `--track-connections` keeps
//! in the channel database.

use std::error::Error;
use std::path::Path;

use serde_json::{Value, json};

use super::table::Align::{Left, Right};
use super::table::Table;
use super::{Report, file_json, file_line};
use crate::format::{self, UNKNOWN};
use crate::storage::db::{self, AddressId, AddressesById, ConnectionRow, FileState};
use crate::sys::clock::{self, Timestamp};

/// Shows addresses instead of their ids if `addrid_db` is given.
pub fn report(
    path: &Path,
    addrid_db: Option<&Path>,
    now: Timestamp,
) -> Result<Report, Box<dyn Error>> {
    let (state, rows) = db::read_connections(path)?;
    let rows = rows.ok_or_else(|| {
        format!(
            "channel database {}: version {} has no connection table; a server with \
             --track-connections makes one",
            path.display(),
            state.version
        )
    })?;
    let addresses = addrid_db.map(db::addresses_by_id).transpose()?;
    let mut text = format!("{}\n{}", file_line(path, state), note(state, rows.is_empty()));
    if !rows.is_empty() {
        let table = table(&rows, addresses.as_ref(), now);
        text += &format!("\n{}\n{} in all.\n", table.text(), rows.len());
    }
    let json = json!({
        "file": file_json(path, state),
        "now": now.0,
        "connections": rows.iter().map(|row| entry(row, addresses.as_ref())).collect::<Vec<_>>(),
    });
    Ok(Report { text, json })
}

fn note(state: FileState, is_empty: bool) -> &'static str {
    match (state.may_be_open(), is_empty) {
        (false, true) => "No server has the file open.\n",
        (false, false) => {
            "No server has the file open: these connections are of a server that was killed.\n"
        }
        (true, true) => "No client is connected, or the server runs without --track-connections.\n",
        (true, false) => {
            "As the server last wrote them. A server without --track-connections leaves the \
             rows of an earlier one.\n"
        }
    }
}

fn table(rows: &[ConnectionRow], addresses: Option<&AddressesById>, now: Timestamp) -> Table {
    let mut table = Table::new(&[
        ("id", Right),
        ("connected", Left),
        ("active", Right),
        ("address", Left),
        ("side", Left),
        ("client", Left),
        ("version", Left),
        ("last commands", Left),
    ]);
    let foreign = |text: &Option<String>| format::or_unknown(text.as_deref(), format::harmless);
    for row in rows {
        table.row(&[
            &row.id,
            &clock::utc(row.connected),
            &format::ago(row.active, now),
            &peer(row, addresses),
            &foreign(&row.side),
            &foreign(&row.implementation),
            &foreign(&row.version),
            &commands(row),
        ]);
    }
    table
}

/// The peer's address id, or its address if addresses are known.
fn peer(row: &ConnectionRow, addresses: Option<&AddressesById>) -> String {
    let Some(id) = row.address_id else { return UNKNOWN.to_owned() };
    match addresses {
        None => id.to_string(),
        Some(addresses) => match address(addresses, id) {
            Some(address) => format::harmless(address),
            None => format!("{id} (erased)"),
        },
    }
}

fn address(addresses: &AddressesById, id: AddressId) -> Option<&str> {
    let at = addresses.binary_search_by_key(&id, |(id, _)| *id).ok()?;
    Some(&addresses[at].1)
}

fn commands(row: &ConnectionRow) -> String {
    let shown = row.last_commands.iter().map(|name| format::harmless(name));
    let shown = shown.collect::<Vec<_>>().join(" ");
    match row.commands - row.last_commands.len() {
        0 => shown,
        more => format!("({more} more) {shown}"),
    }
}

fn entry(row: &ConnectionRow, addresses: Option<&AddressesById>) -> Value {
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
    if let Some(addresses) = addresses {
        entry["address"] = json!(row.address_id.and_then(|id| address(addresses, id)));
    }
    entry
}
