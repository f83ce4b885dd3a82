//! Which addresses numbers stand for. Only for those who asked for addresses.

use std::collections::BTreeMap;
use std::path::Path;

use super::ReadOnly;
use crate::storage::db::columns::{collect, text};
use crate::storage::db::file::OpenError;
use crate::storage::db::schema::ADDRID;

/// An address-id database, read.
#[derive(Debug)]
pub struct AddridReader(BTreeMap<(i64, i64), String>);

impl AddridReader {
    /// Reads the file.
    pub fn open(path: &Path) -> Result<AddridReader, OpenError> {
        let sql = "SELECT generation, counter, address FROM address_ids";
        let found = ReadOnly::open(path, &ADDRID)?.read(|connection| {
            collect(connection, sql, [], |row| {
                Ok(((row.get(0)?, row.get(1)?), text(row, 2)?.into_owned()))
            })
        })?;
        Ok(AddridReader(found.into_iter().collect()))
    }

    /// The address of a generation and counter; none if it has been erased.
    pub fn address(&self, id: (i64, i64)) -> Option<&str> {
        self.0.get(&id).map(String::as_str)
    }
}
