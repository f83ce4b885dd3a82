//! Compares what the two servers have in their databases about one seed's apps.

use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::Value;

use super::pair::{BOTH, Pair, Which, same};
use super::script::app_pattern;

/// What a column holds, which decides how to compare it.
#[derive(Clone, Copy)]
enum Column {
    App,
    Nameplate,
    Mailbox,
    /// A time.
    Time,
    /// Seconds after the time that is first in the row.
    Lasting,
    Plain,
}

use Column::{App, Lasting, Mailbox, Nameplate, Plain, Time};

/// Tables as queries, each beginning with the app.
const CHANNEL: [(&str, &[Column]); 5] = [
    (
        "SELECT app_id, name, mailbox_id, request_id FROM nameplates
         WHERE app_id LIKE ?1 ORDER BY id",
        &[App, Nameplate, Mailbox, Plain],
    ),
    (
        "SELECT app_id, name, claimed, side, added FROM nameplate_sides
         JOIN nameplates ON id = nameplates_id WHERE app_id LIKE ?1 ORDER BY nameplate_sides.rowid",
        &[App, Nameplate, Plain, Plain, Time],
    ),
    (
        // Without `updated`, which ours writes only when it is old (manual: rules 5): the
        // simulation tries exactly when.
        "SELECT app_id, id, for_nameplate FROM mailboxes
         WHERE app_id LIKE ?1 ORDER BY rowid",
        &[App, Mailbox, Plain],
    ),
    (
        "SELECT app_id, id, opened, side, added, mood FROM mailbox_sides
         JOIN mailboxes ON id = mailbox_id WHERE app_id LIKE ?1 ORDER BY mailbox_sides.rowid",
        &[App, Mailbox, Plain, Plain, Time, Plain],
    ),
    (
        "SELECT app_id, mailbox_id, side, phase, body, server_rx, msg_id FROM messages
         WHERE app_id LIKE ?1 ORDER BY rowid",
        &[App, Mailbox, Plain, Plain, Plain, Time, Plain],
    ),
];

const USAGE: [(&str, &[Column]); 3] = [
    (
        "SELECT app_id, connect_time, side, implementation, version FROM client_versions
         WHERE app_id LIKE ?1 ORDER BY rowid",
        &[App, Time, Plain, Plain, Plain],
    ),
    (
        "SELECT app_id, started, waiting_time, total_time, result FROM nameplates
         WHERE app_id LIKE ?1 ORDER BY rowid",
        &[App, Time, Lasting, Lasting, Plain],
    ),
    (
        "SELECT app_id, started, waiting_time, total_time, for_nameplate, result FROM mailboxes
         WHERE app_id LIKE ?1 ORDER BY rowid",
        &[App, Time, Lasting, Lasting, Plain, Plain],
    ),
];

/// Compares the channel databases.
pub fn compare_channels(seed: u64, pair: &mut Pair) -> Result<(), String> {
    for (query, columns) in CHANNEL {
        let [theirs, ours] =
            BOTH.map(|which| rows(pair, which, &pair.channel(which), query, columns, seed));
        same(query, &theirs, &ours)?;
    }
    Ok(())
}

/// Compares the usage databases.
pub fn compare_usage(seed: u64, pair: &mut Pair) -> Result<(), String> {
    for (query, columns) in USAGE {
        // Our rows may lag by a second.
        let mut result = Ok(());
        for _ in 0..40 {
            let [theirs, ours] =
                BOTH.map(|which| rows(pair, which, &pair.usage(which), query, columns, seed));
            result = same(query, &theirs, &ours);
            if result.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        result?;
    }
    Ok(())
}

fn rows(
    pair: &Pair,
    which: Which,
    database: &Connection,
    query: &str,
    columns: &[Column],
    seed: u64,
) -> Vec<Vec<Value>> {
    let mut statement = database.prepare(query).expect("query");
    let rows = statement.query_map([app_pattern(seed)], |row| {
        let mut raw = Vec::new();
        for index in 0..columns.len() {
            raw.push(row.get::<_, Value>(index)?);
        }
        Ok(raw)
    });
    rows.expect("rows")
        .map(|row| {
            let row = row.expect("row");
            row.iter()
                .zip(columns)
                .map(|(it, kind)| canonical(pair, which, &row, it, *kind))
                .collect()
        })
        .collect()
}

fn canonical(pair: &Pair, which: Which, row: &[Value], value: &Value, kind: Column) -> Value {
    let step = |time| Value::Text(format!("step {}", pair.step(which, time)));
    match (kind, value, &row[0], &row[1]) {
        (Nameplate, Value::Text(name), Value::Text(app), _) => {
            Value::Text(pair.nameplate(which, app, name))
        }
        (Mailbox, Value::Text(id), ..) => Value::Text(pair.mailbox(which, id)),
        (Time, Value::Real(time), ..) => step(*time),
        (Lasting, Value::Real(seconds), _, Value::Real(started)) => step(started + seconds),
        // The column makes an integer of a whole number. Ours has more zeros, because what comes
        // in one tick comes at one time.
        (Lasting, Value::Integer(0), _, Value::Real(started)) => step(*started),
        // Another type, say an integer for a time, must show.
        _ => value.clone(),
    }
}
