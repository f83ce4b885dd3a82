//! Reads columns whatever type a file has them in: SQLite stores what it is given, and other
//! servers write these files too.

use std::borrow::Cow;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, ToSql};

use crate::sys::clock::Timestamp;

/// Runs a query and passes on its rows one by one.
pub fn for_each(
    connection: &Connection,
    sql: &str,
    params: &[&dyn ToSql],
    each: &mut dyn FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        each(row)?;
    }
    Ok(())
}

/// Runs a query and collects what `read` makes of its rows.
pub fn collect<T>(
    connection: &Connection,
    sql: &str,
    params: &[&dyn ToSql],
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    let mut found = Vec::new();
    for_each(connection, sql, params, &mut |row| {
        found.push(read(row)?);
        Ok(())
    })?;
    Ok(found)
}

/// A text; empty for null.
pub fn text<'row>(row: &'row Row<'_>, column: usize) -> rusqlite::Result<Cow<'row, str>> {
    Ok(optional_text(row, column)?.unwrap_or_default())
}

pub fn optional_text<'row>(
    row: &'row Row<'_>,
    column: usize,
) -> rusqlite::Result<Option<Cow<'row, str>>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => None,
        ValueRef::Integer(value) => Some(value.to_string().into()),
        ValueRef::Real(value) => Some(value.to_string().into()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(match std::str::from_utf8(bytes) {
            Ok(text) => text.into(), // much faster than the other, which looks at each byte
            Err(_) => String::from_utf8_lossy(bytes),
        }),
    })
}

pub fn optional_string(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(optional_text(row, column)?.map(Cow::into_owned))
}

/// A number; zero for null.
pub fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<f64> {
    Ok(optional_number(row, column)?.unwrap_or_default())
}

/// A number; zero for a text.
pub fn optional_number(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<f64>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => None,
        ValueRef::Integer(value) => Some(value as f64),
        ValueRef::Real(value) => Some(value),
        ValueRef::Text(_) | ValueRef::Blob(_) => Some(0.0),
    })
}

pub fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    number(row, column).map(Timestamp)
}

pub fn flag(row: &Row<'_>, column: usize) -> rusqlite::Result<bool> {
    Ok(number(row, column)? != 0.0)
}

/// The value of a `COUNT`.
pub fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}
