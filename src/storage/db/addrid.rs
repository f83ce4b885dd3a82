//! The address-id database: the address of each id, for one generation (manual: files 4). The only
//! file with peer addresses. Writes do not wait for the disk.

use std::net::IpAddr;
use std::path::Path;

use rusqlite::params;

use super::file::{self, Examined};
use super::open_error::OpenError;
use super::records_file::RecordsFile;
use super::{Failure, run, schema};

const VERSION: usize = 1;

#[derive(Debug)]
pub struct AddridDb(RecordsFile);

impl AddridDb {
    pub fn examine(path: &Path) -> Result<Examined, OpenError> {
        file::examine(path, &schema::ADDRID, VERSION, VERSION)
    }

    pub fn open(examined: Examined) -> Result<AddridDb, OpenError> {
        RecordsFile::open(examined, &schema::ADDRID).map(AddridDb)
    }

    /// Appends the addresses of a generation, after erasing all others if it has just begun.
    pub fn write(
        &mut self,
        generation: u64,
        erase: bool,
        rows: &[(u64, IpAddr)],
    ) -> Result<(), Failure> {
        self.0.write(rows.len(), &mut |transaction| {
            if erase {
                run(transaction, "DELETE FROM address_ids", &[])?;
            }
            for (counter, address) in rows {
                let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
                run(
                    transaction,
                    "INSERT INTO address_ids (generation, counter, type, address) \
                     VALUES (?1, ?2, ?3, ?4)",
                    params![generation as i64, *counter as i64, family, address.to_string()],
                )?;
            }
            Ok(())
        })
    }

    /// Leaves the file clean, without a write-ahead log.
    pub fn close(self) -> Result<(), OpenError> {
        self.0.close()
    }
}
