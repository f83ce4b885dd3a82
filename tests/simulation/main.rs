//! The server under simulation: real engine, store, rules, limits and storage; simulated clients,
//! clock and disk. Each run is a function of its seed, and is compared tick by tick with a naive
//! model written from the manual.
//!
//! - `cargo test --test simulation`: some hundred seeds.
//! - `SIMULATION_SEEDS=100000 cargo test --test simulation`: that many.
//! - `SIMULATION_SEED=17 cargo test --test simulation`: that one again; with `SIMULATION_TRACE=1`
//!   and `-- --nocapture` it tells what happened in each tick.
//!
//! What is checked after each tick: each connection got what the model predicts, in order; nothing
//! left before its commit; the database holds what the model says is durable; after a failure or
//! a crash that is the state before the tick or after it, whole. `faults` shows that it notices.
//!
//! A process may hand over to another at the end of any tick; the model then knows of nothing.
//!
//! `driver` runs the tick, `world` and `workload` think up what happens, `model` (with `sessions`, `shares`,
//! `joins` and `moments`) says what must come of it, `check` compares, `database` is the disk.

mod check;
mod commands;
mod database;
mod driver;
mod faults;
mod joins;
mod model;
mod moments;
#[allow(dead_code)] // other tests use more of it
#[path = "../common/random.rs"]
mod random;
mod rows;
mod sessions;
mod shares;
mod takeover;
mod usage;
mod workload;
mod world;

use driver::{Totals, run};
use faults::Fault;

/// Seeds of the ordinary run, chosen for its time.
const SEEDS_COUNT: u64 = 300;

/// Seeds within which a planted fault must be found.
const SEEDS_FOR_FAULT: u64 = 1500;

/// Where the seeds of planted faults begin: other runs than the ordinary ones.
const FIRST_FAULT_SEED: u64 = 1 << 32;

/// Says which seed it was when a run panics.
struct Guard(u64);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with SIMULATION_SEED={}", self.0);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number")))
}

#[test]
fn the_server_does_what_the_model_predicts() {
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_SEEDS").unwrap_or(SEEDS_COUNT),
    };
    let mut sum = Totals::default();
    for seed in seeds {
        let _guard = Guard(seed);
        match run(seed, None) {
            Ok(totals) => sum.add(totals),
            Err(problem) => panic!("seed {seed}: {problem}"),
        }
    }
    println!("{sum:?}");
}

#[track_caller]
fn must_find(fault: Fault) {
    let seeds = FIRST_FAULT_SEED..FIRST_FAULT_SEED + SEEDS_FOR_FAULT;
    let found = seeds.clone().find_map(|seed| {
        let _guard = Guard(seed);
        run(seed, Some(fault)).err().map(|problem| (seed - seeds.start, problem))
    });
    match found {
        Some((runs, problem)) => {
            println!("{fault:?}, after {runs} runs: {problem}");
            let without = run(seeds.start + runs, None).map(|_| ());
            assert_eq!(without, Ok(()), "it was not the fault that was found");
        }
        None => panic!("{fault:?} was not found"),
    }
}

#[test]
fn finds_an_answer_released_before_its_commit() {
    must_find(Fault::ReleasesEarly);
}

#[test]
fn finds_a_lost_message() {
    must_find(Fault::LosesMessage);
}

#[test]
fn finds_a_deleted_message_that_stays() {
    must_find(Fault::ForgetsDeletion);
}

#[test]
fn finds_a_lost_reply() {
    must_find(Fault::LosesReply);
}

#[test]
fn finds_a_reply_to_the_wrong_connection() {
    must_find(Fault::RepliesToWrongConnection);
}

#[test]
fn finds_a_crowded_side_that_holds_a_nameplate() {
    must_find(Fault::CrowdedSideClaims);
    must_find(Fault::ThirdSideHolds);
}

#[test]
fn finds_a_crowded_side_that_renews_a_mailbox() {
    must_find(Fault::ThirdSideRenews);
}

#[test]
fn finds_an_expiry_that_is_off_by_one() {
    must_find(Fault::ExpiresLate);
    must_find(Fault::ExpiresEarly);
}

#[test]
fn finds_a_prefix_without_limits() {
    must_find(Fault::PrefixesAreFree);
}

#[test]
fn finds_a_join_that_keeps_a_side_out_for_nothing() {
    must_find(Fault::JoinsAreFree);
    must_find(Fault::ReleasesAreFree);
}

#[test]
fn finds_a_failure_that_makes_mailboxes_older() {
    must_find(Fault::FailureAges);
}

#[test]
fn finds_an_activity_that_is_written_too_early() {
    must_find(Fault::WritesActivityLate);
}

#[test]
fn finds_a_close_that_forgets_the_nameplate() {
    must_find(Fault::CloseForgetsNameplate);
}

#[test]
fn finds_messages_that_outlive_their_mailbox() {
    must_find(Fault::ForgetsRemains);
}

#[test]
fn finds_a_subscriber_that_is_not_replaced() {
    must_find(Fault::ReplacesLate);
}

#[test]
fn finds_an_address_that_stores_more_than_its_share() {
    must_find(Fault::SharesWithoutEnd);
    must_find(Fault::LoadedIsFree);
}

#[test]
fn finds_a_reserve_that_long_messages_use() {
    must_find(Fault::ReserveForAll);
}

#[test]
fn finds_an_eviction_of_the_wrong_holder() {
    must_find(Fault::EvictsSmallest);
}

#[test]
fn finds_what_a_takeover_forgets() {
    must_find(Fault::TakeoverForgetsMailboxes);
    must_find(Fault::TakeoverForgetsCreators);
}

#[test]
fn finds_a_commit_lost_in_a_crash() {
    must_find(Fault::CrashLosesCommit);
}

#[test]
fn finds_changes_that_outlive_a_failed_commit() {
    must_find(Fault::FailureKeepsChanges);
}
