//! What stands around a server in other people's installations, configured as people configure it
//! and not as the manual says: load balancers, proxies and monitors that speak HTTP/1.0, proxies
//! with their default timeouts.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::behind_proxy::{Proxy, assert_monitored, get};
use crate::common::document::{self, with};
use crate::common::raw::{PING, PONG, Raw, frame, upgrade};
use crate::common::{Client, Directory, FREE_PORT, PATIENCE, Server};
use crate::programs::program;
use rustix::net::{self, AddressFamily, SocketType};
use serde_json::json;

/// Two sides meet through a proxy.
fn assert_meet(address: SocketAddr) {
    let mut clients = ["s1", "s2"].map(|side| {
        let mut client = Client::connect(address);
        assert_eq!(client.recv()["type"], "welcome");
        let mut client = client.bound("app", side);
        client.open("mb");
        client
    });
    clients[0].send(json!({"type": "add", "phase": "p", "body": "00"}));
    assert_eq!(clients[1].recv()["type"], "message");
}

/// nginx with a configuration; `{listen}` in it is where it listens.
fn nginx(directory: &Directory, modules: &str, blocks: &str) -> Proxy {
    let path = directory.path().display().to_string();
    let files: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {path}/{name};\n"))
        .concat();
    let configure = |plain: SocketAddr, tls: SocketAddr| {
        let blocks = blocks.replace("{listen}", &plain.to_string());
        format!(
            "{modules}\ndaemon off;\nmaster_process off;\npid {path}/pid;\nerror_log stderr;\n\
             events {{}}\nhttp {{\naccess_log off;\n{files}server {{ listen {tls}; }}\n{blocks}\n"
        )
    };
    Proxy::start(directory, configure, || {
        let mut command = Command::new(program("nginx"));
        command.arg("-p").arg(directory.path()).args(["-e", "stderr", "-c"]);
        command.arg(directory.file("configuration"));
        command
    })
}

/// nginx in front of a server, with these lines besides `proxy_pass`.
fn nginx_http(server: &Server, directory: &Directory, lines: &str) -> Proxy {
    let address = server.address;
    let block = format!(
        "server {{ listen {{listen}}; location / {{ proxy_pass http://{address}; {lines} }} }} }}"
    );
    nginx(directory, "", &block)
}

/// HAProxy in that mode, with those lines about the server, and that timeout of both sides.
fn haproxy(directory: &Directory, mode: &str, timeout: &str, backend: &str) -> Proxy {
    let configure = |plain: SocketAddr, tls: SocketAddr| {
        format!(
            "defaults\n mode {mode}\n timeout connect 5s\n timeout client {timeout}\n \
             timeout server {timeout}\nbackend it\n {backend}\n\
             listen mailbox\n bind {plain}\n bind {tls}\n default_backend it\n"
        )
    };
    Proxy::start(directory, configure, || {
        let mut command = Command::new(program("haproxy"));
        command.args(["-db", "-f", "configuration"]);
        command
    })
}

#[test]
#[ignore = "needs haproxy"]
fn haproxys_plain_health_check_finds_the_server_up() {
    let server = Server::start(&[]);
    for check in ["option httpchk GET /", "option httpchk HEAD /", "option httpchk GET /v1"] {
        let directory = Directory::new();
        // Without an answer of 2xx or 3xx from the first checks on, no client gets through.
        let backend = format!(
            "{check}\n default-server inter 50ms fall 1\n server it {} check",
            server.address
        );
        let proxy = haproxy(&directory, "http", "50s", &backend);
        assert_meet(proxy.plain);
        // Some checks later.
        std::thread::sleep(Duration::from_millis(300));
        assert_meet(proxy.plain);
        assert!(get(proxy.plain, "/").body.contains("Wormhole Relay"), "{check}");
        let log = std::fs::read_to_string(directory.file("proxy.log")).expect("log");
        assert!(!log.contains("DOWN"), "{check}: {log}");
    }
}

#[test]
#[ignore = "needs nginx"]
fn nginx_speaks_http_1_0_to_the_server_unless_told_otherwise() {
    let (server, directory) = (Server::start(&[]), Directory::new());
    let lines = "proxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection upgrade;";
    let proxy = nginx_http(&server, &directory, lines);
    assert_meet(proxy.plain);
    assert_eq!(get(proxy.plain, "/").body, "Wormhole Relay\n");
    assert_eq!(get(proxy.plain, "/elsewhere").status, 404);
}

#[test]
#[ignore = "needs nginx"]
fn an_idle_client_outlives_nginxs_default_timeout() {
    // A tenth of the defaults: nginx waits for 60 s, the server pings every 40.
    let server = Server::start(&["--websocket-protocol-option=autoPingInterval=4"]);
    let directory = Directory::new();
    let lines = "proxy_http_version 1.1;\nproxy_set_header Upgrade $http_upgrade;\n\
                 proxy_set_header Connection upgrade;\nproxy_read_timeout 6s;";
    let proxy = nginx_http(&server, &directory, lines);
    assert_idle_client_lives(proxy.plain, 4);
}

#[test]
#[ignore = "needs haproxy"]
fn an_idle_client_outlives_haproxys_default_timeout() {
    // A tenth of the defaults: Debian's configuration waits for 50 s, the server pings every 40.
    let server = Server::start(&["--websocket-protocol-option=autoPingInterval=4"]);
    let directory = Directory::new();
    let proxy = haproxy(&directory, "http", "5s", &format!("server it {}", server.address));
    assert_idle_client_lives(proxy.plain, 4);
}

/// A client that does nothing but answer pings is there after some of them.
fn assert_idle_client_lives(address: SocketAddr, pings: u32) {
    let mut raw = Raw::open(address);
    for _ in 0..pings {
        assert_eq!(raw.frame().0, PING);
        raw.send(&frame(PONG, b""));
    }
    raw.send_json(&json!({"type": "ping", "ping": "x"}));
    assert_eq!(raw.json()["type"], "ack");
}

#[test]
#[ignore = "needs nginx with its stream module"]
fn nginxs_stream_module_sends_a_client_of_ipv6_to_a_server_of_ipv4() {
    let ports = ["--port=haproxy:tcp:0:interface=127.0.0.1", FREE_PORT];
    let server = Server::start(&ports);
    let directory = Directory::new();
    let module = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"]
        .map(|path| PathBuf::from(path).join("ngx_stream_module.so"))
        .into_iter()
        .find(|path| path.exists())
        .expect("libnginx-mod-stream is not installed, see .ci/run");
    // What comes to nginx has passed a load balancer that says where it is from.
    let block = format!(
        "}} stream {{ server {{ listen {{listen}} proxy_protocol; set_real_ip_from 127.0.0.0/8; \
         proxy_protocol on; proxy_pass {}; }} }}",
        server.address
    );
    let proxy = nginx(&directory, &format!("load_module {};", module.display()), &block);
    let mut raw = Raw::connect(proxy.plain);
    raw.send(b"PROXY TCP6 2001:db8::9 2001:db8::1 51512 443\r\n");
    raw.send(crate::common::raw::upgrade("/v1", "").as_bytes());
    assert!(raw.head().starts_with("HTTP/1.1 101 "));
    let welcome = raw.json();
    let expected = json!({"ipv6": "2001:db8::9", "port": 51512});
    assert_eq!(welcome["welcome"]["your-address"], expected);
}

fn run(name: &str, arguments: &[&str]) -> Output {
    Command::new(name).args(arguments).output().expect("it runs")
}

#[test]
#[ignore = "needs ab (apache2-utils)"]
fn apache_bench_gets_its_answers() {
    let server = Server::start(&[]);
    let ab = program("ab");
    for path in ["/", "/v1"] {
        let url = format!("http://{}{path}", server.address);
        for options in [&["-n40", "-c4"][..], &["-n40", "-c4", "-k"], &["-n40", "-c4", "-i"]] {
            let arguments = [options, &[&url]].concat();
            let output = run(ab.to_str().expect("UTF-8"), &arguments);
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{output:?}");
            let has = |line: &str| text.lines().any(|it| it.replace(' ', "") == line);
            assert!(has("Completerequests:40") && has("Failedrequests:0"), "{text}");
            assert!(!text.contains("Non-2xx"), "{text}");
        }
    }
}

#[test]
#[ignore = "needs check_http (monitoring-plugins-basic)"]
fn nagios_finds_the_server_well() {
    let server = Server::start(&[]);
    let port = server.address.port().to_string();
    let places = ["/usr/lib/nagios/plugins", "/usr/lib/monitoring-plugins"];
    let check = places.map(|path| format!("{path}/check_http"));
    let check = check.iter().find(|path| PathBuf::from(path).exists());
    let check = check.expect("monitoring-plugins-basic is not installed, see .ci/run");
    for more in [
        &["-u", "/"][..],
        &["-u", "/v1"],
        &["-u", "/", "-s", "Wormhole Relay"],
        &["-u", "/", "-j", "HEAD"],
        &["-u", "/", "-H", "mailbox.example.org"],
        &["-u", "/", "-N"],
    ] {
        let arguments = [&["-I", "127.0.0.1", "-p", &port][..], more].concat();
        let output = run(check, &arguments);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.starts_with("HTTP OK"), "{more:?}: {text}");
    }
}

fn apache(directory: &Directory, lines: &str) -> Proxy {
    let modules = PathBuf::from("/usr/lib/apache2/modules");
    let path = directory.path().display().to_string();
    let load: String = ["mpm_event", "authz_core", "proxy", "proxy_http", "proxy_wstunnel"]
        .map(|name| format!("LoadModule {name}_module {}/mod_{name}.so\n", modules.display()))
        .concat();
    let configure = |plain: SocketAddr, tls: SocketAddr| {
        format!(
            "ServerRoot {path}\nServerName localhost\nPidFile {path}/pid\nErrorLog {path}/log\n\
             DefaultRuntimeDir {path}\n{load}Listen {plain}\nListen {tls}\n{lines}\n"
        )
    };
    Proxy::start(directory, configure, || {
        let mut command = Command::new(program("apache2"));
        command.args(["-DFOREGROUND", "-f"]).arg(directory.file("configuration"));
        command
    })
}

#[test]
#[ignore = "needs apache2"]
fn apaches_proxy_passes_upgrades_and_pages() {
    let (server, directory) = (Server::start(&["--admin=tcp:0"]), Directory::new());
    let address = server.address;
    let shown = document::block("src/manual/proxies.md", "apache", "upgrade=websocket");
    let shown = with(&shown, "127.0.0.1:4000", &address.to_string());
    let shown = with(&shown, "127.0.0.1:9000", &server.admin_address().to_string());
    for lines in [shown, format!("ProxyPass /v1 ws://{address}/v1\nProxyPass / http://{address}/")]
    {
        let proxy = apache(&directory, &lines);
        assert_meet(proxy.plain);
        assert!(get(proxy.plain, "/").body.contains("Wormhole Relay"), "{lines}");
        if lines.contains("/healthz") {
            assert_monitored(proxy.plain, &server);
        }
    }
}

/// A proxy of the local machine is trusted, its client at another address is not.
fn server_with_header(header: &str) -> Server {
    Server::start(&[&format!("--proxy-header={header}"), "--trusted-proxy=127.0.0.1", FREE_PORT])
}

/// A client at 127.0.0.2 that claims to be somewhere else is known by its address.
fn assert_known(proxy: &Proxy) {
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    net::bind(&socket, &SocketAddr::from(([127, 0, 0, 2], 0))).expect("an address");
    net::connect(&socket, &proxy.plain).expect("connect");
    let mut raw = Raw { stream: TcpStream::from(socket) };
    raw.stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let forged = "X-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9;x=\"\r\n";
    raw.send(upgrade("/v1", forged).as_bytes());
    let head = raw.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(raw.json()["welcome"]["your-address"]["ipv4"], "127.0.0.2");
}

#[test]
#[ignore = "needs apache2, haproxy, caddy and nginx"]
fn proxies_that_send_x_forwarded_for_name_the_client() {
    let (server, directory) = (server_with_header("x-forwarded-for"), Directory::new());
    let address = server.address;
    assert_known(&apache(&directory, &format!("ProxyPass / http://{address}/ upgrade=websocket")));
    let backend = format!("option forwardfor\n server it {address}");
    assert_known(&haproxy(&directory, "http", "50s", &backend));
    let upgrade = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; \
                   proxy_set_header Connection upgrade;";
    let added = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;";
    assert_known(&nginx_http(&server, &directory, &format!("{upgrade} {added}")));
    let configure = |plain: SocketAddr, tls: SocketAddr| {
        let site = |of: SocketAddr| {
            let port = of.port();
            format!("http://:{port} {{\nbind 127.0.0.1\nreverse_proxy {address}\n}}\n")
        };
        format!("{{\nadmin off\n}}\n{}{}", site(plain), site(tls))
    };
    assert_known(&Proxy::start(&directory, configure, || {
        let mut command = Command::new(program("caddy"));
        command.args(["run", "--adapter", "caddyfile", "--config", "configuration"]);
        command
    }));
}

#[test]
#[ignore = "needs haproxy"]
fn a_proxy_that_sends_forwarded_names_the_client() {
    let (server, directory) = (server_with_header("forwarded"), Directory::new());
    let backend = format!(
        "http-request add-header Forwarded for=%[src];proto=http\n server it {}",
        server.address
    );
    assert_known(&haproxy(&directory, "http", "50s", &backend));
}

/// Of a burst of health checks that connect and leave without a word, none is in the way.
#[test]
#[ignore = "needs haproxy"]
fn haproxys_checks_of_the_port_alone_are_no_burden() {
    let server = Server::start(&["--limit-connections=4"]);
    let directory = Directory::new();
    let backend = format!("server it {} check inter 5ms fall 1", server.address);
    let proxy = haproxy(&directory, "tcp", "50s", &backend);
    let until = Instant::now() + Duration::from_millis(500);
    while Instant::now() < until {
        assert_meet(proxy.plain);
    }
    let log = std::fs::read_to_string(directory.file("proxy.log")).expect("log");
    assert!(!log.contains("DOWN"), "{log}");
}
