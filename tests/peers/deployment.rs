//! The ways to run it that the README shows, tried as they are written there, as far as a machine
//! without systemd, Docker and OpenWrt can: the unit by systemd's own tools and by the system
//! calls that the server really makes, the container as an empty root directory, the init script
//! with stand-ins for what OpenWrt gives it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::common::readme::{self, with};
use crate::common::real_clients::{on_path, skip};
use crate::common::{Directory, Server};
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_wormhole-mailbox");

fn unit() -> &'static str {
    readme::block("ini", "ExecStart=")
}

/// What the program is started with by a line that begins so: its arguments, on a free port.
fn arguments(line: &str, port: &str) -> Vec<String> {
    let arguments = line.split_whitespace().skip(1).map(str::to_owned);
    arguments
        .map(
            |it| if it.starts_with("--port=") { with(&it, port, "--port=127.0.0.1:0") } else { it },
        )
        .collect()
}

fn unit_arguments() -> Vec<String> {
    let line = unit().lines().find(|line| line.starts_with("ExecStart=")).expect("a command");
    arguments(line, "--port=tcp:4000:interface=127.0.0.1")
}

/// Two sides meet and leave.
fn exchange(server: &Server) {
    let [mut first, mut second] = ["s1", "s2"].map(|side| server.bind("a", side));
    let nameplate = first.allocate();
    let mailbox = second.claim(&nameplate);
    first.claim(&nameplate);
    for client in [&mut first, &mut second] {
        client.open(&mailbox);
        client.ask(json!({"type": "release"}));
        client.ask(json!({"type": "close", "mood": "happy"}));
    }
}

#[test]
fn the_unit_is_valid_and_as_safe_as_the_readme_says() {
    let Some(analyze) = on_path("systemd-analyze") else { return skip("systemd-analyze") };
    let directory = Directory::new();
    let path = directory.file("wormhole-mailbox.service");
    fs::write(&path, with(unit(), "/usr/local/bin/wormhole-mailbox", PROGRAM)).expect("write");
    let output = Command::new(&analyze).arg("verify").arg(&path).output().expect("it runs");
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours = complaints.lines().filter(|line| line.contains("wormhole-mailbox.service"));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new());
    let output = Command::new(&analyze)
        .args(["security", "--offline=true", "--no-pager"])
        .arg(&path)
        .output()
        .expect("it runs");
    let judgement = String::from_utf8_lossy(&output.stdout).into_owned();
    let verdict = judgement.lines().find(|line| line.contains("Overall exposure level"));
    let verdict = verdict.unwrap_or_else(|| panic!("no verdict: {judgement}"));
    assert!(readme::TEXT.contains(verdict.trim()), "the README has another: {verdict}");
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
fn the_unit_allows_every_system_call_that_the_server_makes() {
    let Some(analyze) = on_path("systemd-analyze") else { return skip("systemd-analyze") };
    let Some(strace) = on_path("strace") else { return skip("strace") };
    let mut allowed = system_calls(&analyze, "@default");
    for line in unit().lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
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
    let mut command = Command::new(strace);
    command.args(["-f", "-qq", "-o"]).arg(&trace).arg(PROGRAM).args(unit_arguments());
    let mut server = Server::spawn(command, Arc::clone(&directory));
    exchange(&server);
    // The server is strace's child.
    let children = format!("/proc/{}/task/{}/children", server.pid(), server.pid());
    let pid = fs::read_to_string(children).expect("children").trim().to_owned();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
    assert!(server.wait().success());
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
chown() { echo "chown $*" >>params; }
"#;

#[test]
fn the_init_script_for_openwrt_starts_a_server() {
    let directory = Arc::new(Directory::new());
    let script = readme::block("sh", "start_service()");
    assert!(script.starts_with("#!/bin/sh /etc/rc.common\n"));
    let state = directory.file("state").to_string_lossy().into_owned();
    let script = with(script, "/var/run/wormhole-mailbox", &state);
    fs::write(directory.file("script"), PROCD.to_owned() + &script + "\nstart_service\n")
        .expect("write");
    let shell = on_path("dash").unwrap_or_else(|| PathBuf::from("sh"));
    let output = Command::new(shell)
        .args(["-eu", "script"])
        .current_dir(directory.path())
        .output()
        .expect("a shell");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let read = |name: &str| fs::read_to_string(directory.file(name)).expect("noted");
    assert!(read("params").contains("respawn=3600 1 0\n"));
    let line = read("command").replace('\n', " ");
    assert!(line.starts_with("/usr/bin/wormhole-mailbox "), "{line}");
    let mut command = Command::new(PROGRAM);
    // The level that the script sets leaves out the lines that the test waits for.
    command.args(arguments(&with(&line, "--log-level=warn ", ""), "--port=4000"));
    let server = Server::spawn(command, Arc::clone(&directory));
    exchange(&server);
    assert!(Path::new(&state).join("relay.sqlite").exists());
    // The descriptors suffice for the connections, and the README knows the memory.
    let limits = server.log().into_iter().find(|line| line.contains("limits: ")).expect("a line");
    assert!(limits.contains("500 connections"), "{limits}");
    let memory = limits.split("at most ").nth(1).and_then(|it| it.split(" of memory").next());
    let memory = format!("come to {} of memory at most", memory.expect("a size"));
    assert!(readme::TEXT.contains(&memory), "{memory}");
    let (status, _) = server.stop();
    assert!(status.success());
}

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("proc").uid() == 0
}

/// The static binary, built for the purpose: only where everything is to be tried.
fn static_program() -> Option<PathBuf> {
    if std::env::var_os("REAL_CLIENTS").is_none_or(|it| it != "required") {
        println!("skipped: a static build takes a while, REAL_CLIENTS=required makes it");
        return None;
    }
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = root.join("target/static");
    // As in the README, without the time that --release takes.
    assert!(readme::TEXT.contains("RUSTFLAGS='-C target-feature=+crt-static' cargo build"));
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--target", &target, "--target-dir"])
        .arg(&built)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .current_dir(root)
        .stdin(Stdio::null())
        .status();
    assert!(status.expect("cargo runs").success());
    Some(built.join(target).join("debug/wormhole-mailbox"))
}

#[test]
fn the_static_program_runs_with_nothing_else_as_the_container_starts_it() {
    let Some(program) = static_program() else { return };
    let dockerfile = readme::block("dockerfile", "FROM scratch");
    let list = |name: &str| -> Vec<String> {
        let line = dockerfile.lines().find_map(|line| line.strip_prefix(name));
        serde_json::from_str(line.unwrap_or_else(|| panic!("no {name}"))).expect("a list")
    };
    let start = [list("ENTRYPOINT "), list("CMD ")].concat().join(" ");
    let directory = Arc::new(Directory::new());
    let root = directory.file("root");
    fs::create_dir_all(root.join("data")).expect("a directory");
    fs::copy(program, root.join("wormhole-mailbox")).expect("copy");
    // Only root may change its root directory; others may where they are root of a namespace.
    let mut command = Command::new(if is_root() { "chroot" } else { "unshare" });
    if !is_root() {
        command.args(["--map-root-user", "chroot"]);
    }
    command.arg(&root).arg("/wormhole-mailbox").args(arguments(&start, "--port=4000"));
    let server = Server::spawn(command, Arc::clone(&directory));
    exchange(&server);
    let (status, _) = server.stop();
    assert!(status.success());
    assert!(root.join("usage.sqlite").exists());
}
