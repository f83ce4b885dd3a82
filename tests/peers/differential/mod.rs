//! The same random commands, played against the reference server 0.8.0 and against ours: what
//! every connection hears must be the same, and so must the rows of both databases.
//!
//! One step is one connection sending one or several commands; then every connection pings and
//! reads up to the pong, so that both servers see one order. A step is played on the one server,
//! then on the other, so a time that a server stores tells in which step it did so.
//!
//! What this server deliberately does otherwise than 0.8.0 is kept out of the commands by
//! `deviations`.
//!
//! `DIFFERENTIAL_SEEDS=FIRST..END` plays others than the usual seeds.

mod deviations;
mod pair;
mod records;
mod script;

use std::sync::Arc;

use crate::common::{Directory, Server};
use crate::python_server::PythonServer;
use pair::Pair;
use script::Script;

/// Steps of one seed.
const STEPS: usize = 120;

#[test]
#[ignore = "needs the reference server"]
fn the_reference_server_and_ours_say_and_store_the_same() {
    let theirs = PythonServer::start_in(Arc::new(Directory::new()));
    let ours = Server::start(&["--usage-db=usage.sqlite"]);
    let mut pair = Pair::new(&theirs, &ours);
    let mut differences = Vec::new();
    let seeds = seeds();
    for seed in seeds.clone() {
        let told = Script::new(seed, &theirs).play(&mut pair, STEPS);
        let told = told.and_then(|()| records::compare_channels(seed, &mut pair));
        differences.extend(told.err().map(|it| format!("seed {seed}: {it}")));
    }
    for seed in seeds {
        let told = records::compare_usage(seed, &mut pair);
        differences.extend(told.err().map(|it| format!("seed {seed}: usage: {it}")));
    }
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(asked) = std::env::var("DIFFERENTIAL_SEEDS") else { return 1..11 };
    let bounds = asked.split_once("..").map(|(first, end)| (first.parse(), end.parse()));
    match bounds {
        Some((Ok(first), Ok(end))) => first..end,
        _ => panic!("DIFFERENTIAL_SEEDS={asked}: FIRST..END expected"),
    }
}
