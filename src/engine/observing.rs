//! What others may know of the engine: whether the server can serve, and how much there is. Names
//! no peer.

use super::Engine;
use crate::message::ConnId;
use crate::store::Counts;
use crate::sys::process;

impl Engine {
    /// Whether a load balancer should send clients here; if not, the reason.
    pub fn can_serve(&self) -> Result<(), String> {
        if let Some(reason) = self.storage.failure() {
            Err(format!("storage unavailable: {reason}"))
        } else if self.draining {
            Err("draining".to_owned())
        } else {
            Ok(())
        }
    }

    /// Whether the admin listener may be asked by that name: otherwise a page of any name whose
    /// address is changed to this machine's could read it in a browser (DNS rebinding).
    pub fn is_admin_host(&self, name: &str) -> bool {
        let is_it = |known: &str| known.eq_ignore_ascii_case(name);
        self.settings.admin_hosts.iter().any(|known| is_it(known))
            || is_it("localhost")
            || process::host_names().iter().any(|known| is_it(known))
    }

    /// Pages in the channel database's write-ahead log since its last checkpoint.
    pub fn wal_pages(&self) -> u32 {
        self.storage.wal_pages()
    }

    /// Seconds for which a reader has kept that log from being copied into the file.
    pub fn wal_blocked_seconds(&self) -> u64 {
        self.storage.log_blocked_seconds(self.clock.instant)
    }

    /// How much is stored.
    pub fn stored(&self) -> Counts {
        self.store.counts()
    }

    /// Changes that wait for the commit.
    pub fn batch_len(&self) -> usize {
        self.effects.changes.len()
    }

    /// Whether the connection has bound.
    pub fn is_bound(&self, conn: ConnId) -> bool {
        self.store.is_bound(conn)
    }
}
