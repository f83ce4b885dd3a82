//! The files of `.packaging/`, tried as they are, as far as a machine without systemd, Docker,
//! OpenWrt and Nix can: the unit by systemd's own tools and by the system calls that the server
//! really makes, the container as an empty root directory, the init script with stand-ins for what
//! OpenWrt gives it. `.ci/package` tries the units on a Debian with systemd.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::common::client::{assert_welcomed, exchange};
use crate::common::document::{self, with};
use crate::common::{Client, Directory, PROGRAM, Server, eventually, retry};
use crate::programs::program;

/// Where some of the files are shown.
const PAGE: &str = "src/manual/deployment.md";

fn file(name: &str) -> String {
    document::text(&format!(".packaging/{name}"))
}

fn unit() -> String {
    file("wormhole-mailbox.service")
}

/// Writes a file of options with a free port in place of its own.
fn on_a_free_port(options: &str, port: &str, path: &Path) {
    let line = format!("port = {port}\n");
    fs::write(path, with(options, &line, "port = 127.0.0.1:0\n")).expect("write");
}

#[test]
#[ignore = "needs systemd-analyze"]
fn the_unit_is_valid_and_as_safe_as_the_manual_says() {
    let analyze = program("systemd-analyze");
    let directory = Directory::new();
    let path = directory.file("wormhole-mailbox.service");
    fs::write(&path, with(&unit(), "ExecStart=wormhole-mailbox", &format!("ExecStart={PROGRAM}")))
        .expect("write");
    let output =
        Command::new(&analyze).args(["verify", "--man=no"]).arg(&path).output().expect("it runs");
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours = complaints.lines().filter(|line| line.contains("wormhole-mailbox.service"));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new());
    let output = Command::new(&analyze)
        .args(["security", "--offline=true", "--no-pager"])
        .arg(&path)
        .output()
        .expect("it runs");
    let judgement = String::from_utf8_lossy(&output.stdout).into_owned();
    // "→ Overall exposure level for x.service: 0.9 SAFE 😀", and the manual has the number.
    let exposure = |text: &str| -> Option<f64> {
        let line = text.lines().find(|line| line.contains("Overall exposure level"))?;
        line.split_once(": ")?.1.split(' ').next()?.parse().ok()
    };
    let found = exposure(&judgement).unwrap_or_else(|| panic!("no verdict: {judgement}"));
    let told = exposure(&document::text(PAGE)).expect("the manual has a verdict");
    assert!(found <= told, "{found}, the manual says {told}: {judgement}");
}

/// The system calls of a set, with those of the sets in it.
fn system_calls(analyze: &Path, set: &str) -> BTreeSet<String> {
    let output = Command::new(analyze).args(["syscall-filter", "--no-pager", set]).output();
    let listed = String::from_utf8(output.expect("it runs").stdout).expect("UTF-8");
    let names = listed.lines().skip(1).map(str::trim).filter(|line| !line.starts_with('#'));
    let mut calls = BTreeSet::new();
    for name in names {
        if name.starts_with('@') {
            calls.append(&mut system_calls(analyze, name));
        } else {
            calls.insert(name.to_owned());
        }
    }
    calls
}

#[test]
#[ignore = "needs systemd-analyze and strace"]
fn the_unit_allows_every_system_call_that_the_server_makes() {
    let analyze = program("systemd-analyze");
    let mut allowed = system_calls(&analyze, "@default");
    let unit = unit();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let sets = line.trim_start_matches('~').split_whitespace();
        for call in sets.flat_map(|set| system_calls(&analyze, set)) {
            if line.starts_with('~') {
                allowed.remove(&call);
            } else {
                allowed.insert(call);
            }
        }
    }
    assert!(allowed.contains("fdatasync") && !allowed.contains("setuid"));

    // SQLite gives its files to the owner of the database if it is root, which the unit's user
    // is not.
    if is_root() {
        allowed.insert("fchown".to_owned());
    }

    let directory = Arc::new(Directory::new());
    let trace = directory.file("trace");
    let mut command = Command::new(program("strace"));
    let options = directory.file("options");
    on_a_free_port(&file("wormhole-mailbox.conf"), "127.0.0.1:4000", &options);
    assert!(unit.contains("\nExecStart=wormhole-mailbox --config=/etc/wormhole-mailbox.conf\n"));
    command.args(["-D", "-f", "-qq", "-o"]).arg(&trace).arg(PROGRAM);
    // 9000 may not be free here.
    command.arg(format!("--config={}", options.display())).arg("--admin=tcp:0");
    let server = Server::spawn(command, Arc::clone(&directory));
    exchange(&server, "happy");
    let (status, _) = server.stop();
    assert!(status.success());
    eventually("the trace is whole", || {
        fs::read_to_string(&trace).is_ok_and(|trace| trace.contains("exit_group("))
    });
    let trace = fs::read_to_string(trace).expect("a trace");
    let made: BTreeSet<&str> = trace
        .lines()
        .filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('))
        .map(|(name, _)| name)
        .filter(|name| name.chars().all(|it| it.is_ascii_alphanumeric() || it == '_'))
        .collect();
    assert!(made.contains("epoll_wait") || made.contains("epoll_pwait"), "{made:?}");
    let refused: Vec<_> = made.iter().filter(|name| !allowed.contains(**name)).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

/// Stand-ins for what `/etc/rc.common` gives a script: they note what they are told.
const PROCD: &str = r#"
procd_open_instance() { :; }
procd_close_instance() { :; }
procd_set_param() {
    local name="$1"; shift
    if [ "$name" = command ]; then printf '%s\n' "$@" >command; else echo "$name=$*" >>params; fi
}
procd_append_param() {
    local name="$1"; shift
    [ "$name" = command ] && printf '%s\n' "$@" >>command
}
procd_add_reload_trigger() { :; }
chown() { echo "chown $*" >>params; }
config_load() { config=$1; }
config_get() { eval "$1=\$(sed -n \"s/^\toption $3 '\(.*\)'$/\1/p\" config)"; }
config_get_bool() { config_get "$1" "$2" "$3"; }
config_list_foreach() {
    sed -n "s/^\tlist $2 '\(.*\)'$/\1/p" config | while read -r value; do "$3" "$value"; done
}
"#;

#[test]
fn the_init_script_for_openwrt_starts_a_server() {
    let directory = Arc::new(Directory::new());
    let script = file("openwrt/wormhole-mailbox.init");
    assert!(script.starts_with("#!/bin/sh /etc/rc.common\n"));
    let state = directory.file("state").to_string_lossy().into_owned();
    let options = directory.file("etc/options");
    let script = with(&script, "/var/run/wormhole-mailbox", &state);
    let script = with(&script, "/var/etc/wormhole-mailbox.conf", &options.to_string_lossy());
    fs::write(directory.file("script"), PROCD.to_owned() + &script + "\nstart_service\n")
        .expect("write");
    // The settings, with the option that is a comment in them, and the log that the test reads.
    let settings = file("openwrt/wormhole-mailbox.config");
    let settings = with(&settings, "/var/run/wormhole-mailbox", &state);
    let settings = with(&settings, "\t#list option", "\tlist option");
    let settings = with(&settings, "log_level 'warn'", "log_level 'info'");
    fs::write(directory.file("config"), settings).expect("write");
    let output = Command::new("sh")
        .args(["-eu", "script"])
        .current_dir(directory.path())
        .output()
        .expect("a shell");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let read = |name: &str| fs::read_to_string(directory.file(name)).expect("noted");
    let params = read("params");
    for expected in ["respawn=3600 1 0\n", "reload_signal=HUP\n", "nofile=600 600\n"] {
        assert!(params.contains(expected), "{params}");
    }
    let config = format!("--config={}", options.display());
    assert_eq!(read("command"), format!("/usr/bin/wormhole-mailbox\n{config}\n"));
    on_a_free_port(&fs::read_to_string(&options).expect("options"), "4000", &options);
    let mut command = Command::new(PROGRAM);
    command.arg(config);
    let server = Server::spawn(command, Arc::clone(&directory));
    assert!(Client::connect(server.address).recv()["welcome"]["motd"].is_string());
    exchange(&server, "happy");
    assert!(Path::new(&state).join("relay.sqlite").exists());
    // The descriptors suffice for the connections, and the manual has the memory.
    let limits = server.log().into_iter().find(|line| line.contains("limits: ")).expect("a line");
    assert!(limits.contains("500 connections"), "{limits}");
    let memory = limits.split("at most ").nth(1).and_then(|it| it.split(" of memory").next());
    let memory = format!("come to {} of memory at most", memory.expect("a size"));
    assert!(document::text(PAGE).contains(&memory), "{memory}");
    let (status, _) = server.stop();
    assert!(status.success());
}

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("proc").uid() == 0
}

/// The static binary, built for the purpose.
fn static_program() -> PathBuf {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = root.join("target/static");
    // As in the Dockerfile, without the time that --release takes.
    assert!(file("Dockerfile").contains("RUSTFLAGS='-C target-feature=+crt-static' cargo build"));
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--target", &target, "--target-dir"])
        .arg(&built)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .current_dir(root)
        .stdin(Stdio::null())
        .status();
    assert!(status.expect("cargo runs").success());
    built.join(target).join("debug/wormhole-mailbox")
}

#[test]
#[ignore = "needs root or user namespaces, and builds a static program"]
fn the_static_program_runs_with_nothing_else_as_the_container_starts_it() {
    let dockerfile = file("Dockerfile");
    // A command as a list, at the end of the line that begins so.
    let list = |name: &str| -> Vec<String> {
        let line = dockerfile.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name}"));
        serde_json::from_str(&line[line.find('[').expect("a list")..]).expect("a list")
    };
    // What the build copies is not ignored.
    let sent = file("Dockerfile.dockerignore");
    for name in
        ["Cargo.toml", "Cargo.lock", ".cargo", "src", "benches", ".packaging/container.conf"]
    {
        assert!(sent.lines().any(|line| line.strip_prefix('!') == Some(name)), "{name}");
    }
    let directory = Arc::new(Directory::new());
    let root = directory.file("root");
    fs::create_dir_all(root.join("etc")).expect("a directory");
    on_a_free_port(&file("container.conf"), "4000", &root.join("etc/wormhole-mailbox.conf"));
    fs::copy(static_program(), root.join("wormhole-mailbox")).expect("copy");
    // Only root may change its root directory; others may where they are root of a namespace.
    let inside = |arguments: &[String]| {
        let mut command = Command::new(if is_root() { "chroot" } else { "unshare" });
        if !is_root() {
            command.args(["--map-root-user", "chroot"]);
        }
        command.arg(&root).args(arguments);
        command
    };
    // Another option, and another place for the admin listener: 9000 may not be free here.
    let mut command = inside(&list("ENTRYPOINT "));
    command.args(["--motd=Hello", "--admin=unix:/admin.sock"]);
    let server = Server::spawn(command, Arc::clone(&directory));
    exchange(&server, "happy");
    let check =
        list("HEALTHCHECK ").into_iter().map(|it| it.replace("127.0.0.1:9000", "unix:/admin.sock"));
    let check: Vec<String> = check.collect();
    assert!(inside(&check).output().expect("it runs").status.success());
    let (status, _) = server.stop();
    assert!(status.success());
    assert!(root.join("usage.sqlite").exists());
    assert!(!inside(&check).output().expect("it runs").status.success());
}

#[test]
#[ignore = "needs systemd-socket-activate"]
fn the_real_socket_activation_of_systemd_starts_it() {
    let directory = Arc::new(Directory::new());
    let paths = ["web.sock", "local.sock"].map(|name| directory.file(name));
    let mut command = Command::new(program("systemd-socket-activate"));
    command.arg("-l").arg(&paths[0]).arg("-l").arg(&paths[1]).arg("--fdname=web:local");
    command.arg(PROGRAM).args(["--port=systemd:local", "--port=systemd:web"]);
    let home = Arc::clone(&directory);
    let starter = std::thread::spawn(move || Server::spawn(command, home));
    // It starts the server when somebody comes, who is then served.
    let guest = retry(|| UnixStream::connect(&paths[0]).map_err(|error| error.to_string()));
    assert_welcomed(guest);
    let server = starter.join().expect("a server");
    let expected = [&paths[1], &paths[0]].map(|path| format!("unix:{}", path.display()));
    let log = server.log();
    let listening = log.iter().filter_map(|line| line.split("listening on ").nth(1));
    assert_eq!(listening.collect::<Vec<_>>(), expected);
    assert_welcomed(UnixStream::connect(&paths[1]).expect("connect"));
    let (status, _) = server.stop();
    assert!(status.success());
    assert!(paths.iter().all(|path| path.exists()));
}
