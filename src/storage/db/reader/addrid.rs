//! Reads an address-id database: the address of each id.

use std::collections::BTreeMap;
use std::path::Path;

use super::ReadOnly;
use crate::storage::address_ids::AddressId;
use crate::storage::db::columns::{collect, count, text};
use crate::storage::db::open_error::OpenError;
use crate::storage::db::schema::ADDRID;

#[derive(Debug)]
pub struct AddridReader(BTreeMap<AddressId, String>);

impl AddridReader {
    /// Reads the file.
    pub fn open(path: &Path) -> Result<AddridReader, OpenError> {
        let sql = "SELECT generation, counter, address FROM address_ids";
        let found = ReadOnly::open(path, &ADDRID)?.read(|connection| {
            collect(connection, sql, [], |row| {
                let (generation, counter) = (count(row, 0)?, count(row, 1)?);
                Ok((AddressId { generation, counter }, text(row, 2)?.into_owned()))
            })
        })?;
        Ok(AddridReader(found.into_iter().collect()))
    }

    /// None if it has been erased.
    pub fn address(&self, id: AddressId) -> Option<&str> {
        self.0.get(&id).map(String::as_str)
    }
}
