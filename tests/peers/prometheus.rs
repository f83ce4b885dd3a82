//! The metrics, read by Prometheus' own parser.

use std::fs;
use std::process::Command;

use crate::common::Server;
use crate::common::client::exchange;
use crate::programs::program;

/// Reads the text with Prometheus' own parser; prints each family with its type and each sample.
const PARSE: &str = "
import sys
from prometheus_client.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.documentation, family.name
    assert family.type in ('gauge', 'counter', 'histogram'), (family.name, family.type)
    for sample in family.samples:
        assert family.type != 'counter' or sample.name.endswith('_total'), sample
        print(sample.name, float(sample.value))
";

#[test]
#[ignore = "needs prometheus-client for Python"]
fn prometheus_own_parser_reads_them() {
    let server = Server::start(&["--admin=0"]);
    exchange(&server, "happy");
    let text = server.ask_admin("/metrics").body;
    let path = server.file("metrics.txt");
    fs::write(&path, &text).expect("written");
    let input = fs::File::open(&path).expect("opens");
    let output =
        Command::new(program("python")).args(["-c", PARSE]).stdin(input).output().expect("runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}\n{text}");
    let parsed = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(parsed.contains("wormhole_mailbox_mailboxes_ended_total 1.0\n"), "{parsed}");
    let lines = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(parsed.lines().count(), lines, "every sample is read");
}
