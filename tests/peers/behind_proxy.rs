//! Behind nginx and Caddy, with the files of `.packaging/` on other ports, and behind HAProxy:
//! WebSocket passes, the server knows its clients' addresses, real clients meet, and a monitor sees
//! the server's state and nothing else of its operator's.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clients::{Kind, Payload, Site};
use crate::common::admin::Answer;
use crate::common::document::{self, with};
use crate::common::raw::{Raw, answer_to, upgrade};
use crate::common::{
    Client, Directory, FREE_PORT, PATIENCE, Running, Server, eventually, output_of, stdout_of,
};
use crate::programs::program;
use serde_json::json;

/// Where the configurations are shown.
const PAGE: &str = "src/manual/proxies.md";

/// Port 0 instead of 9000.
const ADMIN: &str = "--admin=tcp:0";

/// A running proxy, with a plain and a TLS port of this machine.
pub struct Proxy {
    child: Running,
    pub plain: SocketAddr,
    pub tls: SocketAddr,
}

impl Proxy {
    /// Starts a program whose configuration is made for two ports.
    pub fn start(
        directory: &Directory,
        configure: impl Fn(SocketAddr, SocketAddr) -> String,
        command: impl Fn() -> Command,
    ) -> Proxy {
        let until = Instant::now() + PATIENCE;
        loop {
            // Somebody else may take a port in between; then it is tried again.
            let [plain, tls] = free_addresses();
            fs::write(directory.file("configuration"), configure(plain, tls)).expect("write");
            let log = fs::File::create(directory.file("proxy.log")).expect("log");
            let child = command()
                .current_dir(directory.path())
                .env("HOME", directory.path())
                .env("XDG_DATA_HOME", directory.path())
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("log"))
                .stderr(log)
                .spawn()
                .expect("the proxy starts");
            let mut proxy = Proxy { child: Running(child), plain, tls };
            while proxy.child.0.try_wait().expect("wait").is_none() {
                if [plain, tls].iter().all(|address| TcpStream::connect(address).is_ok()) {
                    return proxy;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let log = fs::read_to_string(directory.file("proxy.log")).expect("log");
            assert!(Instant::now() < until, "{log}");
        }
    }
}

pub fn free_addresses() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address"))
}

/// A certificate for `localhost`, and its key.
pub fn certificate(directory: &Directory) -> (PathBuf, PathBuf) {
    let (certificate, key) = (directory.file("certificate.pem"), directory.file("key.pem"));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .expect("openssl runs");
    assert!(output.status.success(), "{output:?}");
    (certificate, key)
}

/// The server as the manual has it behind a proxy; port 0 instead of 4000.
fn server() -> Server {
    let line = "\nwormhole-mailbox --port=tcp:4000:interface=127.0.0.1 --admin=9000\n";
    assert!(document::text(PAGE).contains(line));
    Server::start(&[FREE_PORT, ADMIN])
}

pub fn on_ports_of(server: &Server, block: &str) -> String {
    let block = with(block, "127.0.0.1:4000", &server.address.to_string());
    with(&block, "127.0.0.1:9000", &server.admin_address().to_string())
}

fn nginx(server: &Server, directory: &Directory) -> Proxy {
    let (certificate, key) = certificate(directory);
    let configure = |plain: SocketAddr, tls: SocketAddr| {
        let block = document::text(".packaging/nginx.conf");
        let block = on_ports_of(server, &block);
        let block =
            with(&block, "/etc/ssl/mailbox.example.org.pem", &certificate.to_string_lossy());
        let block = with(&block, "/etc/ssl/mailbox.example.org.key", &key.to_string_lossy());
        let encrypted = with(&block, "443 ssl", &format!("{tls} ssl"));
        let plain = with(&block, "443 ssl", &plain.to_string());
        let directory = directory.path().display();
        let files: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {directory}/{name};\n"))
            .concat();
        format!(
            "daemon off;\nmaster_process off;\npid {directory}/pid;\nerror_log stderr;\nevents {{}}\n\
             http {{\naccess_log off;\n{files}\n{encrypted}\n{plain}\n}}\n"
        )
    };
    Proxy::start(directory, configure, || {
        let mut command = Command::new(program("nginx"));
        command.arg("-p").arg(directory.path()).arg("-e").arg("stderr");
        command.arg("-c").arg(directory.file("configuration"));
        command
    })
}

fn caddy(server: &Server, directory: &Directory) -> Proxy {
    let block = on_ports_of(server, &document::text(".packaging/Caddyfile"));
    start_caddy(directory, &block, "mailbox.example.org {")
}

/// Starts Caddy with a block whose first line is `names`, once with TLS and once without.
pub fn start_caddy(directory: &Directory, block: &str, names: &str) -> Proxy {
    let (certificate, key) = certificate(directory);
    let configure = |plain: SocketAddr, tls: SocketAddr| {
        let own = format!("tls {} {}", certificate.display(), key.display());
        let encrypted = with(block, names, &format!("https://localhost:{} {{\n{own}", tls.port()));
        let plain = with(block, names, &format!("http://{plain} {{"));
        format!("{{\nadmin off\nauto_https disable_redirects\n}}\n{encrypted}\n{plain}\n")
    };
    Proxy::start(directory, configure, || {
        let mut command = Command::new(program("caddy"));
        command.args(["run", "--adapter", "caddyfile", "--config", "configuration"]);
        command
    })
}

/// A client through the proxy: two sides meet, and each is told its own address, not the proxy's.
fn assert_proxied(proxy: &Proxy) {
    let mut clients = [(); 2].map(|()| Client::connect(proxy.plain));
    for (client, side) in clients.iter_mut().zip(["s1", "s2"]) {
        let welcome = client.recv();
        let local = client.socket.get_ref().local_addr().expect("an address");
        let expected = json!({"ipv4": "127.0.0.1", "port": local.port()});
        assert_eq!(welcome["welcome"]["your-address"], expected);
        client.quiet(json!({"type": "bind", "appid": "a", "side": side}));
        client.open("mb");
    }
    let [first, second] = &mut clients;
    first.send(json!({"type": "add", "phase": "p", "body": "00"}));
    let received = second.recv();
    assert_eq!((&received["type"], &received["side"]), (&json!("message"), &json!("s1")));

    // Other paths pass as well.
    let answer = get(proxy.plain, "/");
    assert!(answer.status == 200 && answer.body.contains("Wormhole Relay"), "{answer:?}");
}

pub fn get(address: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    Answer::of(&answer_to(address, &request))
}

/// A monitor outside sees that storage fails and when it is back, and no other page of the admin
/// listener.
pub fn assert_monitored(address: SocketAddr, server: &Server) {
    let health = || get(address, "/healthz");
    assert_eq!((health().status, health().body.as_str()), (200, "ok\n"));
    let (file, aside) = (server.file("relay.sqlite"), server.file("aside"));
    fs::rename(&file, &aside).expect("rename");
    let mut client = Client::connect(address);
    client.recv();
    client.bound("app", "a").send(json!({"type": "claim", "nameplate": "7"}));
    eventually("the failure shows", || health().status == 503);
    assert!(health().body.contains("missing"), "{:?}", health());
    assert_eq!(get(address, "/").status, 200, "which is why a monitor does not ask for this");
    fs::rename(&aside, &file).expect("rename");
    eventually("the end of it shows", || health().status == 200);
    for path in ["/metrics", "/status.json", "/live", "/healthz/../metrics", "//status.json"] {
        let answer = get(address, path);
        assert_ne!(answer.status, 200, "{path}: {answer:?}");
        assert!(!answer.body.contains("wormhole_mailbox"), "{path}: {answer:?}");
    }
}

/// `check` goes the way of the clients, and fails where they do.
fn assert_checked(proxy: &Proxy, directory: &Directory) {
    let port = proxy.tls.port();
    let url = format!("wss://localhost:{port}/v1");
    // As in the manual, but for the authority.
    let page = document::block("src/manual/subcommands.md", "sh", "--via=");
    let via = page.split('\'').nth(1).expect("a quoted command");
    // A name without a dot is told to the proxy only if asked to.
    let host = format!("localhost:{port} -servername localhost");
    let via = with(via, "mailbox.example.org:443", &host);
    let authority = directory.file("certificate.pem");
    let trusting = format!("--via={via} -CAfile {}", authority.display());
    assert!(stdout_of(&["check", &url, &trusting]).contains("replay"));
    let output = output_of(&["check", &url, &format!("--via={via}")]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("certificate verify failed"), "{error}");
}

/// The clients that know `wss://` and take another list of authorities from the environment.
fn assert_real_clients_meet(proxy: &Proxy, directory: &Directory) {
    let mut site = Site::new(format!("wss://localhost:{}/v1", proxy.tls.port()));
    site.authority = Some(directory.file("certificate.pem"));
    for kind in Kind::texting() {
        let text = format!("to {kind:?} over TLS");
        let mut sender = kind.send(&site, None, &Payload::Text(text.clone()));
        let mut receiver = kind.receive(&site, &sender.code());
        receiver.succeed();
        sender.succeed();
        assert!(receiver.output().contains(&text), "{}", receiver.output());
    }
}

#[test]
#[ignore = "needs nginx, openssl and the Python and Go clients"]
fn nginx_as_in_the_manual_passes_everything() {
    let (server, directory) = (server(), Arc::new(Directory::new()));
    let proxy = nginx(&server, &directory);
    assert_proxied(&proxy);
    assert_monitored(proxy.plain, &server);
    assert_checked(&proxy, &directory);
    assert_real_clients_meet(&proxy, &directory);
}

#[test]
#[ignore = "needs caddy, openssl and the Python and Go clients"]
fn caddy_as_in_the_manual_passes_everything() {
    let (server, directory) = (server(), Arc::new(Directory::new()));
    let proxy = caddy(&server, &directory);
    assert_proxied(&proxy);
    assert_monitored(proxy.plain, &server);
    assert_checked(&proxy, &directory);
    assert_real_clients_meet(&proxy, &directory);
}

#[test]
#[ignore = "needs haproxy, openssl and the Python and Go clients"]
fn haproxy_as_in_the_manual_passes_everything() {
    let line = "\nwormhole-mailbox --port=haproxy:tcp:4000:interface=127.0.0.1 --admin=9000\n";
    assert!(document::text(PAGE).contains(line));
    let (server, proxied) = start_for_haproxy(&[ADMIN]);
    let directory = Directory::new();
    let (certificate, key) = certificate(&directory);
    let both = [certificate, key].map(|path| fs::read_to_string(path).expect("PEM")).concat();
    let pem = directory.file("both.pem");
    fs::write(&pem, both).expect("write");
    let configure = |plain: SocketAddr, tls: SocketAddr| {
        let block = document::block(PAGE, "haproxy", "send-proxy-v2");
        let block = with(&block, "127.0.0.1:4000", &proxied.to_string());
        let block = with(&block, "127.0.0.1:9000", &server.admin_address().to_string());
        let block = with(&block, "/etc/ssl/mailbox.example.org.pem", &pem.to_string_lossy());
        with(&block, "bind :443", &format!("bind {plain}\n    bind {tls}")) + "\n"
    };
    let proxy = Proxy::start(&directory, configure, || {
        let mut command = Command::new(program("haproxy"));
        command.args(["-db", "-f", "configuration"]);
        command
    });
    assert_proxied(&proxy);
    assert_monitored(proxy.plain, &server);
    assert_checked(&proxy, &directory);
    assert_real_clients_meet(&proxy, &directory);
}

/// A running HAProxy.
struct HaProxy {
    _child: Running,
    address: SocketAddr,
    _directory: Directory,
}

impl HaProxy {
    /// In front of a server, given as HAProxy's configuration has it.
    fn start(backend: &str) -> HaProxy {
        HaProxy::bound("", backend)
    }

    /// The same, with options of the listening side.
    fn bound(bind: &str, backend: &str) -> HaProxy {
        let directory = Directory::new();
        let config = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
             listen mailbox\n bind fd@3 {bind}\n server mailbox {backend}\n"
        );
        fs::write(directory.file("haproxy.cfg"), config).expect("configuration");
        // It listens on our socket, so we know where.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let child = Command::new("sh")
            .args(["-c", "exec 3<&0 </dev/null; exec \"$0\" -db -f haproxy.cfg"])
            .arg(program("haproxy"))
            .current_dir(directory.path())
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .spawn();
        let child = Running(child.expect("haproxy starts"));
        HaProxy { _child: child, address, _directory: directory }
    }
}

/// A server that expects PROXY headers at one address.
fn start_for_haproxy(options: &[&str]) -> (Server, SocketAddr) {
    let ports = ["--port=haproxy:tcp:0:interface=127.0.0.1", FREE_PORT];
    let server = Server::start(&[&ports[..], options].concat());
    let proxied = server.address;
    (server, proxied)
}

#[test]
#[ignore = "needs haproxy"]
fn haproxy_tells_who_its_clients_are_in_both_versions() {
    let (server, proxied) = start_for_haproxy(&["--port=haproxy:unix:x.sock"]);
    let unix = server.file("x.sock");
    for backend in [
        format!("{proxied} send-proxy"),
        format!("{proxied} send-proxy-v2"),
        format!("{proxied} send-proxy-v2 check inter 50ms"),
        format!("{proxied} send-proxy-v2-ssl-cn proxy-v2-options unique-id,crc32c"),
        format!("unix@{} send-proxy-v2", unix.display()),
    ] {
        let haproxy = HaProxy::start(&backend);
        for _ in 0..3 {
            let mut client = Client::connect(haproxy.address);
            let port = client.socket.get_ref().local_addr().expect("an address").port();
            let expected = json!({"ipv4": "127.0.0.1", "port": port});
            assert_eq!(client.recv()["welcome"]["your-address"], expected, "{backend}");
            client.quiet(json!({"type": "bind", "appid": "app", "side": "side"}));
        }
    }
}

#[test]
#[ignore = "needs haproxy"]
fn circuits_that_tor_numbers_are_told_apart_behind_haproxy() {
    let network = "fc00:dead:beef:4dad::";
    let option = format!("--onion-network={network}/64");
    let (_server, proxied) = start_for_haproxy(&[&option, "--limit-address-connections=1"]);
    let haproxy = HaProxy::bound("accept-proxy", &format!("{proxied} send-proxy-v2"));
    let circuit = |number: u32| {
        let mut raw = Raw::connect(haproxy.address);
        // As tor writes it: the number in two parts, and the lower one again as the port.
        raw.send(format!("PROXY TCP6 {network}7:{number:x} ::1 {number} 80\r\n").as_bytes());
        raw.send(upgrade("/v1", "").as_bytes());
        (raw.head(), raw)
    };
    // One address may have one connection: so each circuit, and all of them 16.
    let mut accepted: Vec<Raw> = (1..=16).map(|number| circuit(number).1).collect();
    for (raw, number) in accepted.iter_mut().zip(1..) {
        let expected = json!({"ipv6": format!("{network}7:{number:x}"), "port": number});
        assert_eq!(raw.json()["welcome"]["your-address"], expected);
    }
    assert!(circuit(1).0.starts_with("HTTP/1.1 429 "));
    assert!(circuit(17).0.starts_with("HTTP/1.1 429 "));
}

#[test]
#[ignore = "needs haproxy and the Python and Go clients"]
fn real_clients_work_through_haproxy() {
    let (_server, proxied) = start_for_haproxy(&[]);
    let haproxy = HaProxy::start(&format!("{proxied} send-proxy-v2"));
    let site = Site::new(format!("ws://{}/v1", haproxy.address));
    for kind in Kind::texting() {
        let text = format!("through a proxy with {kind:?}");
        let mut sender = kind.send(&site, None, &Payload::Text(text.clone()));
        let mut receiver = kind.receive(&site, &sender.code());
        receiver.succeed();
        sender.succeed();
        assert!(receiver.output().contains(&text), "{}", receiver.output());
    }
}
