//! Faults planted at the seams, to show that a run finds them. None is in the server: each
//! perturbs the simulated database, the driver, or the model that the server is compared with.

/// Something wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The driver releases answers before the commit, with the proof of an earlier one.
    ReleasesEarly,
    /// The database says a message is stored and does not store it.
    LosesMessage,
    /// An answer never arrives.
    LosesReply,
    /// An answer arrives at another connection.
    RepliesToWrongConnection,
    /// The database takes a crowded side for one that claims.
    CrowdedSideClaims,
    /// By the model's rules, a third side holds a nameplate alive.
    ThirdSideHolds,
    /// By the model's rules, a third side renews a mailbox's lifetime.
    ThirdSideRenews,
    /// By the model's rules, a mailbox idle for exactly the allowed time lives on.
    ExpiresLate,
    /// By the model's rules, the time of an activity is written an eighth of a second later.
    WritesActivityLate,
    /// By the model's clock, a mailbox expires an eighth of a second too soon.
    ExpiresEarly,
    /// Closing the last side leaves the nameplate in the database.
    CloseForgetsNameplate,
    /// A message that a client deleted stays in the database.
    ForgetsDeletion,
    /// The rest of the messages of a mailbox that ended is never deleted.
    ForgetsRemains,
    /// By the model's rules, a side has one subscription more before the oldest is closed.
    ReplacesLate,
    /// By the model's rules, an address that has its share may store more.
    SharesWithoutEnd,
    /// By the model's rules, the reserve is for long messages too.
    ReserveForAll,
    /// By the model's rules, the smallest holders lose theirs when the store is full.
    EvictsSmallest,
    /// By the model's rules, what was loaded is charged to nobody.
    LoadedIsFree,
    /// A takeover forgets which mailboxes are open.
    TakeoverForgetsMailboxes,
    /// A takeover forgets who created the nameplates.
    TakeoverForgetsCreators,
    /// After a crash, the last commit is gone.
    CrashLosesCommit,
    /// By the model's rules, a failure makes mailboxes as old as the file says.
    FailureAges,
    /// By the model's rules, all /64s of a /56 have their limits, and the /56 has none.
    PrefixesAreFree,
    /// By the model's rules, a join that keeps a side out costs nothing.
    JoinsAreFree,
    /// By the model's rules, a nameplate claimed anew says nothing of an earlier join.
    ReleasesAreFree,
    /// A failed commit's changes stay in what the model expects.
    FailureKeepsChanges,
}
