//! Reads an address-id database: the address of each id.

use std::path::Path;

use super::read;
use crate::storage::db::AddressId;
use crate::storage::db::columns::{for_each, number, text};
use crate::storage::db::open_error::OpenError;
use crate::storage::db::schema::ADDRID;

/// In the order of the ids, without those that have been erased.
pub type AddressesById = Vec<(AddressId, String)>;

pub fn addresses_by_id(path: &Path) -> Result<AddressesById, OpenError> {
    let sql = "SELECT generation, counter, address FROM address_ids ORDER BY 1, 2";
    let mut addresses = AddressesById::new();
    read(path, &ADDRID, |connection, _| {
        for_each(connection, sql, &[], &mut |row| {
            let (generation, counter) = (number(row, 0)? as u64, number(row, 1)? as u64);
            addresses.push((AddressId { generation, counter }, text(row, 2)?.into_owned()));
            Ok(())
        })
    })?;
    Ok(addresses)
}
