//! What the program does with its arguments: help, mistakes, and what the log says of a start.
//! How it stops is the subject of `stopping.rs`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::sync::Arc;

use crate::common::{
    self, Directory, FREE_PORT, PROGRAM, Server, Signal, assert_fails, level, stdout_of,
};
use serde_json::json;
use wormhole_mailbox::limits::LOG_LINE_BYTES_MAX;

fn assert_mistake(arguments: &[&str], named: &[&str]) {
    common::assert_mistake(Command::new(PROGRAM).args(arguments), &Directory::new(), named);
}

fn assert_failure(directory: &Directory, arguments: &[&str], named: &[&str]) {
    assert_fails(Command::new(PROGRAM).args(arguments), directory, 1, named);
}

/// Every option, with a value that is right where it takes one.
const OPTIONS: &[(&str, Option<&str>)] = &[
    ("--port", Some("tcp:0:interface=127.0.0.1")),
    ("--trusted-proxy", Some("10.0.0.0/8")),
    ("--admin", Some("0")),
    ("--admin-public", None),
    ("--admin-host", Some("wormhole.lan")),
    ("--channel-db", Some("c.sqlite")),
    ("--usage-db", Some("u.sqlite")),
    ("--addrid-db", Some("a.sqlite")),
    ("--generation-duration", Some("3600")),
    ("--track-connections", None),
    ("--synchronous", Some("normal")),
    ("--blur-usage", Some("60")),
    ("--advertise-version", Some("1.0")),
    ("--signal-error", Some("no")),
    ("--motd", Some("hello")),
    ("--list", Some("empty")),
    ("--disallow-list", None),
    ("--permission", Some("offer")),
    ("--hashcash-bits", Some("12")),
    ("--attack-events", Some("30")),
    ("--attack-half-life", Some("90")),
    ("--claim-without-allocate", None),
    ("--nameplate-cooldown", Some("30")),
    ("--allocate-from", Some("127.0.0.0/8")),
    ("--nameplate-digits", Some("4")),
    ("--websocket-protocol-option", Some("autoPingInterval=30")),
    ("--log-fd", Some("7")),
    ("--log-level", Some("debug")),
    ("--expire-after", Some("60")),
    ("--expire-check", Some("30")),
    ("--drain-message", Some("later")),
    ("--drain-seconds", Some("60")),
];

#[test]
fn help_shows_every_option_with_its_default_and_unit() {
    for arguments in [&["--help=all"][..], &["-hall"], &["--help", "all"]] {
        let help = stdout_of(arguments);
        let flags = [("--help", None), ("--version", None), ("-p,", None)];
        for (name, value) in OPTIONS.iter().chain(&flags) {
            let line = help.lines().find(|line| {
                line.split([' ', '=']).any(|word| word == *name) && line.starts_with("  -")
            });
            let line = line.unwrap_or_else(|| panic!("{name} is missing in {help}"));
            assert_eq!(line.contains('='), value.is_some() || *name == "-p,", "{line}");
        }
        for default in ["660 s", "300 s", "86400 s", "40 s", "600 s", "relay.sqlite", "tcp:4000"] {
            assert!(help.contains(default), "{default}: {help}");
        }
        for name in [
            "autoPingInterval",
            "autoPingTimeout",
            "openHandshakeTimeout",
            "closeHandshakeTimeout",
            "maxMessagePayloadSize",
            "maxFramePayloadSize",
            "maxConnections",
            "allowedOrigins",
            "tcpNoDelay",
        ] {
            assert!(help.contains(name), "{name}: {help}");
        }
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
        // Those that only print something have no default, and that of `--log-fd` means nothing.
        const WITHOUT: [&str; 5] =
            ["--log-fd", "--check-config", "--generate", "--version", "--help"];
        for entry in help.split("\n  -").skip(1) {
            let name = entry.split(['=', '\n']).next().and_then(|it| it.split(' ').next_back());
            let name = format!("--{}", name.expect("a name").trim_start_matches('-'));
            let has_default = entry.contains("[default:") || entry.contains("Known:");
            assert_eq!(has_default, !WITHOUT.contains(&name.as_str()), "{entry}");
        }
    }
}

#[test]
fn help_alone_shows_the_twelve_options_of_the_readme() {
    let readme = include_str!("../../README.md").split("\n## Options\n").nth(1);
    let section = readme.and_then(|rest| rest.split("\n## ").next()).expect("a section");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `--"));
    let twelve: Vec<String> =
        rows.map(|row| format!("  --{}=", row.split('`').next().expect("a name"))).collect();
    assert_eq!(twelve.len(), 12);
    for arguments in [&["--help"][..], &["-h"], &["help"], &["--help", "--port=1"]] {
        let help = stdout_of(arguments);
        let help = help.replace("-p, ", "");
        let options: Vec<&str> = help.lines().filter(|line| line.starts_with("  --")).collect();
        assert_eq!(options.len(), 12, "{help}");
        for (option, name) in options.iter().zip(&twelve) {
            assert!(option.starts_with(name.as_str()), "{option} is not {name}");
        }
        assert!(help.contains("--help=all"), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }
    assert_mistake(&["--help=some"], &["--help", "some", "all"]);
    assert_mistake(&["--help", "some"], &["--help", "some", "all"]);
}

#[test]
fn help_shows_a_command_by_its_name() {
    for command in ["status", "usage", "connections", "check", "member", "test-server"] {
        let help = stdout_of(&["help", command]);
        assert_eq!(help, stdout_of(&[command, "--help"]));
        assert_eq!(help, stdout_of(&["--help", command]));
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }
    assert_eq!(stdout_of(&["help", "help"]), stdout_of(&["--help"]));
    assert_mistake(&["help", "usag"], &["usag", "did you mean usage?"]);
    assert_mistake(&["help", "usage", "status"], &["status"]);
    assert_mistake(&["help", "--json"], &["--json"]);
}

#[test]
fn version_is_one_line() {
    for flag in ["--version", "-V"] {
        let version = format!("wormhole-mailbox {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(stdout_of(&[flag]), version);
    }
}

#[test]
fn every_option_takes_its_value_with_an_equals_sign_and_without() {
    let joined: Vec<String> = OPTIONS
        .iter()
        .map(|(name, value)| value.map_or((*name).to_owned(), |value| format!("{name}={value}")))
        .collect();
    let apart: Vec<&str> =
        OPTIONS.iter().flat_map(|(name, value)| [*name].into_iter().chain(*value)).collect();
    let joined: Vec<&str> = joined.iter().map(String::as_str).collect();
    for arguments in [joined, apart] {
        let server = Server::start(&arguments);
        server.bind("app", "s");
        for file in ["c.sqlite", "u.sqlite", "a.sqlite"] {
            assert!(server.file(file).exists(), "{file}");
        }
    }
}

#[test]
fn a_value_may_look_like_an_option() {
    let server = Server::start(&["--motd", "--disallow-list"]);
    let mut client = crate::common::Client::connect(server.address);
    assert_eq!(client.recv()["welcome"]["motd"], "--disallow-list");
}

#[test]
fn unknown_options_and_stray_words_are_mistakes() {
    assert_mistake(&["--nonsense"], &["--nonsense"]);
    assert_mistake(&["--nonsense=5"], &["--nonsense"]);
    assert_mistake(&["-x"], &["-x"]);
    assert_mistake(&["stray"], &["stray"]);
    assert_mistake(&["--"], &["--"]);
    assert_mistake(&[FREE_PORT, "--Port=5"], &["--Port"]);
    assert_mistake(&[""], &[]);
    assert_mistake(&[FREE_PORT, "status"], &["status: ", "a command is the first word"]);
}

#[test]
fn long_words_are_cut_and_what_is_right_is_not() {
    let long = "x".repeat(5_000);
    for (argument, right) in [
        (format!("--{long}"), "unknown option, see --help"),
        (format!("--port={long}"), "is not an endpoint: give PORT, "),
        (format!("--synchronous={long}"), "must be full, normal or off"),
        (format!("--websocket-protocol-option={long}=1"), "known are autoPingInterval"),
        (long.clone(), "there are status, usage"),
    ] {
        assert_mistake(&[&argument], &["wormhole-mailbox: ", "xxx…xxx", right]);
    }
    assert_failure(&Directory::new(), &[&format!("--usage-db={long}")], &["name too long"]);
    let mut command = Command::new(PROGRAM);
    command.arg("--check-config").env(format!("WORMHOLE_MAILBOX_{long}\n"), "1");
    let output = command.current_dir(Directory::new().path()).output().expect("the program runs");
    let warning = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(warning.len() <= LOG_LINE_BYTES_MAX && warning.lines().count() == 1, "{warning}");
    assert!(warning.ends_with("ignored, this is no option's variable\n"), "{warning}");
}

#[test]
fn a_text_that_cannot_be_written_is_a_failure() {
    for argument in ["--help", "--version", "--generate=man", "--check-config"] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let mut command = Command::new(PROGRAM);
        assert_fails(
            command.arg(argument).stdout(full),
            &Directory::new(),
            1,
            &["stdout", "No space left"],
        );
    }
}

#[test]
fn the_words_of_a_command_may_come_after_its_options() {
    let directory = Directory::new();
    let url = "ws://127.0.0.1:1/v1/0123456789abcdef";
    for arguments in [["check", "--json", url], ["check", url, "--json"]] {
        assert_failure(&directory, &arguments, &["ws://127.0.0.1:1/v1/…: step 'connect'"]);
    }
    let mut command = Command::new(PROGRAM);
    command.args(["member", "--members=members", "add", "alice"]).current_dir(directory.path());
    assert!(command.output().expect("the program runs").status.success());
    let members = fs::read_to_string(directory.file("members")).expect("a file");
    assert!(members.starts_with("alice "), "{members}");
}

#[test]
fn an_unknown_option_or_command_names_the_known_one_that_resembles_it() {
    for (wrong, right) in [
        ("--prot=4000", "--port"),
        ("--Port=4000", "--port"),
        ("--usagedb=x", "--usage-db"),
        ("--channel_db=x", "--channel-db"),
        ("--expire", "--expire-after"),
        ("--trust-proxy=::1", "--trusted-proxy"),
        ("-v", "-V"),
        ("stats", "status"),
        ("halp", "help"),
    ] {
        assert_mistake(&[wrong], &[wrong, &format!("did you mean {right}?")]);
    }
    assert_mistake(&["usage", "--usagedb=x"], &["did you mean --usage-db?"]);
}

#[test]
fn what_is_left_of_twist_is_answered_with_what_to_do() {
    for (argument, named) in [
        ("--log-file=mailbox.log", "stderr"),
        ("--logfile=mailbox.log", "stderr"),
        ("--log-format=text", "leave it out"),
        ("--pidfile=", "leave it out"),
        ("--nodaemon", "leave it out"),
        ("-n", "leave it out"),
        ("--reactor=epoll", "leave it out"),
        ("-l", "stderr"),
        ("--syslog", "stderr"),
        ("--rundir=/srv", "that directory"),
        ("--umask=0027", "leave it out"),
        ("--uid=mailbox", "as that user"),
        ("-g", "as that user"),
        ("--no_save", "leave it out"),
        ("-o", "leave it out"),
        ("--originalname", "leave it out"),
        ("--spew", "leave it out"),
        ("--chroot=/srv", "chroot"),
    ] {
        let name = argument.split('=').next().expect("a name");
        assert_mistake(&[FREE_PORT, argument], &[name, named]);
    }
    assert_mistake(&["wormhole-mailbox", FREE_PORT], &["wormhole-mailbox", "leave out"]);
    let after_option = ["--log-level=info", "wormhole-mailbox", FREE_PORT];
    assert_mistake(&after_option, &["wormhole-mailbox: leave out"]);
    for (value, named) in [
        ("trustXForwardedFor=1", "--proxy-header=x-forwarded-for and --trusted-proxy=NETWORK"),
        ("allowNullOrigin=true", "allowedOrigins"),
        ("webStatus=false", "leave it out"),
        ("autoPingSize=4", "leave it out"),
        ("perMessageCompressionAccept=null", "leave it out"),
    ] {
        let name = value.split('=').next().expect("a name");
        let option = "--websocket-protocol-option";
        assert_mistake(&[&format!("{option}={value}")], &[option, name, named]);
    }
}

#[test]
fn a_mistake_is_one_line_whatever_the_value_holds() {
    assert_mistake(&["--port=a\nb\u{1b}[31mc"], &["--port: 'a b [31mc'"]);
    assert_mistake(&["--track-connections", ""], &["'': unknown option"]);
}

#[test]
fn what_is_no_text_is_named() {
    for word in [&b"--motd=\xff"[..], b"\xff", b"--motd\xff=x"] {
        let named = format!("wormhole-mailbox: {}: must be UTF-8\n", String::from_utf8_lossy(word));
        let mut command = Command::new(PROGRAM);
        command.arg(OsStr::from_bytes(word));
        common::assert_mistake(&mut command, &Directory::new(), &[&named]);
    }
}

#[test]
fn log_levels_may_be_written_as_the_log_has_them() {
    Server::start(&["--log-level=INFO"]).bind("app", "side");
}

#[test]
fn every_option_but_the_repeatable_ones_may_be_given_once() {
    for (name, value) in OPTIONS {
        const REPEATABLE: [&str; 6] = [
            "--port",
            "--trusted-proxy",
            "--websocket-protocol-option",
            "--admin",
            "--admin-host",
            "--allocate-from",
        ];
        if REPEATABLE.contains(name) {
            continue;
        }
        let argument = value.map_or((*name).to_owned(), |value| format!("{name}={value}"));
        assert_mistake(&[&argument, &argument], &[name]);
    }
}

#[test]
fn a_missing_value_and_one_too_many_are_mistakes() {
    for (name, value) in OPTIONS {
        match value {
            Some(_) => assert_mistake(&[name], &[name]),
            None => assert_mistake(&[&format!("{name}=yes")], &[name]),
        }
    }
}

#[test]
fn bad_values_are_mistakes_and_the_line_names_option_and_value() {
    for (option, value) in [
        ("--port", "example.org:4000"),
        ("--port", "tcp:99999"),
        ("--port", "tcp:4000:interface=eth0"),
        ("--port", "tcp:4000:color=red"),
        ("--port", "unix:x.sock:mode=888"),
        ("--admin", "example.org:9000"),
        ("--admin-host", "example.org:9000"),
        ("--admin-host", "http://example.org"),
        ("--admin-host", ""),
        ("--admin", "0.0.0.0:9000"),
        ("--admin", "[::]:9000"),
        ("--admin", "192.0.2.1:9000"),
        ("--trusted-proxy", "10.0.0.0/33"),
        ("--trusted-proxy", "localhost"),
        ("--generation-duration", "0"),
        ("--generation-duration", "a day"),
        ("--synchronous", "sometimes"),
        ("--blur-usage", "-5"),
        ("--blur-usage", "1.5"),
        ("--expire-after", "0"),
        ("--expire-after", "NaN"),
        ("--expire-after", "inf"),
        ("--expire-check", "-1"),
        ("--drain-seconds", "0"),
        ("--drain-seconds", "soon"),
        ("--log-fd", "stderr"),
        ("--log-level", "loud"),
        ("--log-level", "trace"),
        ("--log-level", "off"),
        ("--list", "some"),
        ("--permission", "ask"),
        ("--hashcash-bits", "0"),
        ("--hashcash-bits", "41"),
        ("--hashcash-bits", "many"),
        ("--attack-events", "0"),
        ("--attack-events", "1.5"),
        ("--attack-half-life", "0"),
        ("--nameplate-digits", "0"),
        ("--nameplate-digits", "7"),
        ("--nameplate-digits", "two"),
        ("--allocate-from", "10.0.0.0/33"),
        ("--nameplate-cooldown", "-1"),
        ("--nameplate-cooldown", "NaN"),
    ] {
        let wrong = value.rsplit(['=']).next().expect("a part");
        let wrong = wrong.strip_prefix("tcp:").unwrap_or(wrong);
        let wrong = wrong.strip_prefix("4000:color").unwrap_or(wrong);
        let named = if wrong == "red" { "color" } else { wrong };
        assert_mistake(&[&format!("{option}={value}")], &[option, named]);
        assert_mistake(&[option, value], &[option, named]);
    }
    for (option, rule) in [
        ("--blur-usage=4294967296", "seconds from 0 to 4294967295"),
        ("--usage-keep=5000000000", "days from 1 to 4294967295"),
        ("--attack-events=5000000000", "events from 1 to 4294967295"),
        ("--websocket-protocol-option=maxConnections=-1", "above 0, or 0 for the default"),
    ] {
        assert_mistake(&[option], &[rule]);
    }
    assert_mistake(&["--port="], &["--port"]);
    assert_mistake(&["--channel-db="], &["--channel-db"]);
    assert_mistake(&["--expire-after="], &["--expire-after"]);
}

#[test]
fn two_words_on_lists_must_agree() {
    for list in ["--list=real", "--list=decoy"] {
        assert_mistake(&["--disallow-list", list], &["--disallow-list", "--list"]);
    }
    Server::start(&["--disallow-list", "--list=empty"]).bind("app", "side");
}

#[test]
fn tls_endpoints_are_refused_with_a_word_on_proxies() {
    for endpoint in ["ssl:443:privateKey=key.pem", "le:/certs:tcp\\:443"] {
        assert_mistake(&[&format!("--port={endpoint}")], &["--port", "TLS", "proxy"]);
    }
}

#[test]
fn websocket_options_are_checked_by_name_and_value() {
    const OPTION: &str = "--websocket-protocol-option";
    for (value, named) in [
        ("utf8validateIncoming=true", "utf8validateIncoming"),
        ("version=13", "version"),
        ("autoPingInterval", "autoPingInterval"),
        ("autoPingInterval=often", "autoPingInterval"),
        ("autoPingInterval=-1", "autoPingInterval"),
        ("autoPingTimeout=\"5\"", "autoPingTimeout"),
        ("openHandshakeTimeout=-2", "openHandshakeTimeout"),
        ("closeHandshakeTimeout=null", "closeHandshakeTimeout"),
        ("maxMessagePayloadSize=1.5", "maxMessagePayloadSize"),
        ("maxFramePayloadSize=-1", "maxFramePayloadSize"),
        ("maxConnections=many", "maxConnections"),
        ("allowedOrigins=[1]", "allowedOrigins"),
        ("tcpNoDelay=1", "tcpNoDelay"),
        ("", ""),
    ] {
        assert_mistake(&[&format!("{OPTION}={value}")], &[OPTION, named]);
    }
    let right = [
        "autoPingInterval=0",
        "autoPingTimeout=1.5",
        "openHandshakeTimeout=0",
        "closeHandshakeTimeout=1",
        "maxMessagePayloadSize=0",
        "maxFramePayloadSize=65536",
        "maxConnections=0",
        "allowedOrigins=[\"*\"]",
        "tcpNoDelay=false",
    ];
    let arguments: Vec<String> = right.iter().map(|it| format!("{OPTION}={it}")).collect();
    Server::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).bind("app", "s");
}

#[test]
fn a_database_that_cannot_be_opened_is_a_failure_and_is_left_as_it_was() {
    let directory = Directory::new();
    const CONTENT: &str = "This is no database, but something somebody may want to keep.";
    fs::write(directory.file("text"), CONTENT.repeat(100)).expect("write");
    fs::create_dir(directory.file("folder")).expect("a folder");
    for option in ["--channel-db", "--usage-db", "--addrid-db"] {
        for file in ["text", "folder", "missing/file.sqlite"] {
            assert_failure(&directory, &[FREE_PORT, &format!("{option}={file}")], &[file]);
        }
    }
    // A directory that is there, and takes no files.
    assert_failure(
        &directory,
        &[FREE_PORT, "--channel-db=/proc/x"],
        &["'/proc' takes no new files"],
    );
    let text = fs::read_to_string(directory.file("text")).expect("read");
    assert_eq!(text, CONTENT.repeat(100));
}

#[test]
fn log_fd_is_accepted_with_a_warning() {
    let server = Server::start(&["--log-fd=7"]);
    let log = server.log();
    assert!(log.iter().any(|it| it.contains("WARN") && it.contains("--log-fd")), "{log:#?}");
    server.bind("app", "s");
}

#[test]
fn the_log_of_a_start_names_addresses_files_and_limits() {
    let server = Server::start(&[
        "--usage-db=usage.sqlite",
        "--addrid-db=addrid.sqlite",
        "--websocket-protocol-option=maxConnections=17",
        "--websocket-protocol-option=maxMessagePayloadSize=54321",
        "--expire-after=77",
    ]);
    let log = server.log();
    assert_ne!(server.address.port(), 0);
    for parts in [
        &["listening on", &server.address.to_string()][..],
        &["relay.sqlite", "version 2"],
        &["usage.sqlite", "version 2"],
        &["addrid.sqlite"],
        &["limits", "17 connections", "54321 bytes"],
        &["77 s"],
    ] {
        assert!(
            log.iter().any(|line| parts.iter().all(|part| line.contains(part))),
            "{parts:?} in {log:#?}"
        );
    }
    let levels = ["INFO", "WARN", "ERROR"].map(Some);
    assert!(log.iter().all(|line| levels.contains(&level(line))), "{log:#?}");
    let server = Server::start(&[]);
    let log = server.log();
    let says_version_1 =
        |line: &String| line.contains("relay.sqlite") && line.contains("version 1");
    assert!(log.iter().any(says_version_1), "{log:#?}");
}

#[test]
fn the_log_shows_no_codes_phases_or_bodies_and_each_peer_only_when_debugging() {
    for (options, shows_address) in [
        (&["--log-level=info"][..], false),
        (&["--log-level=debug"], true),
        (&["--log-level=debug", "--blur-usage=60"], false),
        (&["--log-level=debug", "--addrid-db=:memory:"], false),
    ] {
        let mut server = Server::start(options);
        let mut client = server.bind("secret-app", "secret-side");
        let peer = client.socket.get_ref().local_addr().expect("an address").to_string();
        let mailbox = client.claim("987654321");
        client.open(&mailbox);
        client.one(json!({"type": "add", "phase": "secret-phase", "body": "secret-body"}));
        client.one(json!({"type": "close", "mood": "secret-mood"}));
        client.error(json!({"type": "secret-type"}));
        drop(client);
        server.signal(Signal::TERM);
        server.wait();
        let log = server.log().join("\n");
        assert!(log.ends_with("stopped"), "{log}");
        for secret in ["987654321", "secret-phase", "secret-body", mailbox.as_str()] {
            assert!(!log.contains(secret), "{secret}: {log}");
        }
        assert_eq!(log.contains(&peer), shows_address, "{options:?}: {log}");
        if options.contains(&"--addrid-db=:memory:") {
            assert!(log.contains("addr-1-1"), "{log}");
        }
    }
}

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 128 && exec \"$0\" \"$1\""]);
    command.args([PROGRAM, FREE_PORT]);
    let server = Server::spawn(command, Arc::new(Directory::new()));
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).expect("limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[3], words[4], "{line}");
    assert_ne!(words[3], "128");
}
