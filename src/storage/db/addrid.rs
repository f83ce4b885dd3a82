//! The address-id database: the address of each id, for one generation (manual: files 4). The only
//! file with peer addresses. Writes do not wait for the disk.

use std::fs::File;
use std::net::IpAddr;
use std::path::Path;

use rusqlite::Connection;

use super::file::{self, OpenError, Opened};
use super::schema;

const VERSION: usize = 1;

#[derive(Debug)]
pub struct AddridDb {
    connection: Connection,
    _guard: Option<File>,
}

impl AddridDb {
    pub fn open(path: &Path) -> Result<AddridDb, OpenError> {
        let Opened { connection, guard, .. } = file::open(path, &schema::ADDRID, VERSION, VERSION)?;
        file::write_without_waiting(&connection)
            // An erased address must not survive in a free page.
            .and_then(|()| connection.pragma_update(None, "secure_delete", true))
            .map_err(|error| OpenError::new(path, &schema::ADDRID, error))?;
        Ok(AddridDb { connection, _guard: guard })
    }

    /// Appends the addresses of a generation, after erasing all others if it has just begun.
    pub fn write(
        &mut self,
        generation: u64,
        erase: bool,
        rows: &[(u64, IpAddr)],
    ) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        if erase {
            transaction.execute("DELETE FROM address_ids", [])?;
        }
        for (counter, address) in rows {
            let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
            transaction
                .prepare_cached(
                    "INSERT INTO address_ids (generation, counter, type, address) \
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute((generation as i64, *counter as i64, family, address.to_string()))?;
        }
        transaction.commit()
    }

    /// Leaves the file clean, without a write-ahead log.
    pub fn close(self) -> rusqlite::Result<()> {
        self.connection.close().map_err(|(_, error)| error)
    }
}
