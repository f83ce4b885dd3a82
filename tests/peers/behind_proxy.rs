//! Behind nginx and Caddy, configured as the README says, with ports and files replaced: WebSocket
//! passes, the server knows who is there, and real clients meet over `wss://`.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::clients::{Kind, Payload, Site};
use crate::common::readme::{self, with};
use crate::common::real_clients::{on_path, skip};
use crate::common::{Client, Directory, PATIENCE, Server};
use serde_json::json;

/// A running proxy, with a plain and a TLS port of this machine. Killed when dropped.
struct Proxy {
    child: Child,
    plain: SocketAddr,
    tls: SocketAddr,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Proxy {
    /// Starts a program whose configuration is made for two ports.
    fn start(
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
            let mut proxy = Proxy { child, plain, tls };
            while proxy.child.try_wait().expect("wait").is_none() {
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

fn free_addresses() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address"))
}

/// A certificate for `localhost`, and its key.
fn certificate(directory: &Directory) -> (PathBuf, PathBuf) {
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

/// The server as the README has it behind a proxy; port 0 instead of 4000.
fn server() -> Server {
    assert!(readme::TEXT.contains("wormhole-mailbox --port=tcp:4000:interface=127.0.0.1\n"));
    Server::start(&["--port=tcp:0:interface=127.0.0.1"])
}

fn nginx(program: &Path, server: &Server, directory: &Directory) -> Proxy {
    let (certificate, key) = certificate(directory);
    let configure = |plain: SocketAddr, tls: SocketAddr| {
        let block = readme::block("nginx", "proxy_pass http://127.0.0.1:4000");
        let block = with(block, "127.0.0.1:4000", &server.address.to_string());
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
        let mut command = Command::new(program);
        command.arg("-p").arg(directory.path()).arg("-e").arg("stderr");
        command.arg("-c").arg(directory.file("configuration"));
        command
    })
}

fn caddy(program: &Path, server: &Server, directory: &Directory) -> Proxy {
    let (certificate, key) = certificate(directory);
    let configure = |plain: SocketAddr, tls: SocketAddr| {
        let block = readme::block("caddy", "reverse_proxy 127.0.0.1:4000");
        let block = with(block, "127.0.0.1:4000", &server.address.to_string());
        let name = "mailbox.example.org {";
        let own = format!("tls {} {}", certificate.display(), key.display());
        let encrypted = with(&block, name, &format!("https://localhost:{} {{\n{own}", tls.port()));
        let plain = with(&block, name, &format!("http://{plain} {{"));
        format!("{{\nadmin off\nauto_https disable_redirects\n}}\n{encrypted}\n{plain}\n")
    };
    Proxy::start(directory, configure, || {
        let mut command = Command::new(program);
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
    let mut stream = TcpStream::connect(proxy.plain).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", proxy.plain);
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("Wormhole Relay"), "{answer}");
}

/// The clients that know `wss://` and take another list of authorities from the environment.
fn assert_real_clients_meet(proxy: &Proxy, directory: &Directory) {
    let mut site = Site::new(format!("wss://localhost:{}/v1", proxy.tls.port()));
    site.authority = Some(directory.file("certificate.pem"));
    let kinds = Kind::installed().into_iter().filter(|kind| kind.knows_texts());
    for kind in kinds {
        let text = format!("to {kind:?} over TLS");
        let mut sender = kind.send(&site, None, &Payload::Text(text.clone()));
        let mut receiver = kind.receive(&site, &sender.code());
        receiver.succeed();
        sender.succeed();
        assert!(receiver.output().contains(&text), "{}", receiver.output());
    }
}

#[test]
fn nginx_as_in_the_readme_passes_everything() {
    // Debian puts it where only root's path leads.
    let in_sbin = || Some(PathBuf::from("/usr/sbin/nginx")).filter(|path| path.exists());
    let Some(program) = on_path("nginx").or_else(in_sbin) else { return skip("nginx") };
    let (server, directory) = (server(), Arc::new(Directory::new()));
    let proxy = nginx(&program, &server, &directory);
    assert_proxied(&proxy);
    assert_real_clients_meet(&proxy, &directory);
}

#[test]
fn caddy_as_in_the_readme_passes_everything() {
    let Some(program) = on_path("caddy") else { return skip("caddy") };
    let (server, directory) = (server(), Arc::new(Directory::new()));
    let proxy = caddy(&program, &server, &directory);
    assert_proxied(&proxy);
    assert_real_clients_meet(&proxy, &directory);
}
