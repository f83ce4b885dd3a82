//! What all integration tests share: a real server on a free port in a directory of its own, and a
//! WebSocket client that speaks JSON.

pub mod abuse;
pub mod admin;
pub mod clients;
pub mod python_server;
pub mod raw;
pub mod readme;
pub mod real_clients;
pub mod sql;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long a test waits to see that nothing comes.
pub const SILENCE: Duration = Duration::from_millis(200);

/// A directory that goes when the test ends.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Directory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir()
            .join(format!("wormhole-mailbox-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("temp directory");
        Directory(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// A running server. Killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    /// Reads the log, to the end of the process.
    reader: JoinHandle<()>,
    pub directory: Arc<Directory>,
}

impl Server {
    /// Starts with these options, in a fresh directory, on a free port of 127.0.0.1.
    pub fn start(options: &[&str]) -> Server {
        Server::start_in(Arc::new(Directory::new()), options)
    }

    /// Starts in a directory that may hold files of an earlier run.
    pub fn start_in(directory: Arc<Directory>, options: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wormhole-mailbox"));
        if !options.iter().any(|option| option.starts_with("--port")) {
            command.arg("--port=tcp:0:interface=127.0.0.1");
        }
        command.args(options);
        Server::spawn(command, directory)
    }

    /// Starts a prepared command (under `prlimit`, say); it must have its port.
    pub fn spawn(mut command: Command, directory: Arc<Directory>) -> Server {
        command.stdin(Stdio::null());
        Server::spawn_with_its_stdin(command, directory)
    }

    /// As `spawn`, with the standard input that the command has been given.
    pub fn spawn_with_its_stdin(mut command: Command, directory: Arc<Directory>) -> Server {
        let mut child = command
            .current_dir(directory.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("server starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = child.stderr.take().expect("stderr is piped");
        let lines = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().expect("log").push(line);
            }
        });
        let mut server =
            Server { child, address: SocketAddr::from(([0; 4], 0)), log, reader, directory };
        // The settings are logged last, when the addresses are bound and the files open.
        server.wait_for_log("usage times are");
        if let Some(address) = server.logged_addresses().first() {
            server.address = *address;
        }
        server
    }

    /// The TCP addresses that the log says are listened on.
    pub fn logged_addresses(&self) -> Vec<SocketAddr> {
        self.log()
            .iter()
            .filter_map(|line| line.split("listening on ").nth(1)?.trim().parse().ok())
            .collect()
    }

    /// All log lines so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("log").clone()
    }

    /// Waits for a line that contains `part`; gives it.
    pub fn wait_for_log(&mut self, part: &str) -> String {
        self.wait_for_log_after(0, part)
    }

    /// The same, leaving out so many lines that have been seen.
    pub fn wait_for_log_after(&mut self, seen: usize, part: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let is_whole = self.reader.is_finished();
            let mut fresh = self.log().into_iter().skip(seen);
            if let Some(line) = fresh.find(|line| line.contains(part)) {
                return line;
            }
            if is_whole {
                let status = self.child.wait().expect("wait");
                panic!("server ended with {status} without logging {part:?}: {:#?}", self.log());
            }
            assert!(Instant::now() < until, "no {part:?} in {:#?}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn url(&self) -> String {
        format!("ws://{}/v1", self.address)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.file(name)
    }

    /// A connection with its welcome read.
    pub fn connect(&self) -> Client {
        let mut client = Client::connect(self.address);
        assert_eq!(client.recv()["type"], "welcome");
        client
    }

    /// A bound connection.
    pub fn bind(&self, appid: &str, side: &str) -> Client {
        let mut client = self.connect();
        client.send(json!({"type": "bind", "appid": appid, "side": side}));
        assert_eq!(client.recv()["type"], "ack");
        client
    }

    /// Sends a signal by name, as in "TERM".
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// SIGTERM, then waits for the end; gives the directory for a next start.
    pub fn stop(mut self) -> (ExitStatus, Arc<Directory>) {
        self.signal("TERM");
        (self.wait(), Arc::clone(&self.directory))
    }

    /// SIGKILL, then waits for the end.
    pub fn kill(mut self) -> Arc<Directory> {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
        Arc::clone(&self.directory)
    }

    /// Waits for the process to end.
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(Instant::now() < until, "server does not end: {:#?}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A WebSocket client.
pub struct Client {
    pub socket: WebSocket<TcpStream>,
}

impl Client {
    /// Connects without reading anything.
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        let (socket, _) =
            tungstenite::client(format!("ws://{address}/v1"), stream).expect("handshake");
        // Only now: a read with a timeout can be interrupted when a child process ends, and an
        // interrupted handshake cannot go on.
        socket.get_ref().set_read_timeout(Some(PATIENCE)).expect("timeout");
        Client { socket }
    }

    pub fn send(&mut self, message: Value) {
        self.send_text(&message.to_string());
    }

    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("send");
    }

    /// The next message, without its `server_tx`, whose presence is checked.
    pub fn recv(&mut self) -> Value {
        let mut message = self.recv_raw();
        let server_tx = message.as_object_mut().expect("an object").remove("server_tx");
        assert!(server_tx.is_some_and(|it| it.is_f64()), "server_tx missing");
        message
    }

    /// Reads on when a signal interrupts.
    fn read(&mut self) -> tungstenite::Result<Message> {
        loop {
            match self.socket.read() {
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }

    /// The next message as it came.
    pub fn recv_raw(&mut self) -> Value {
        loop {
            match self.read().expect("a message") {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Sends a command and gives what comes up to the answer of a ping sent after it: the ack,
    /// then all it caused here.
    pub fn ask(&mut self, command: Value) -> Vec<Value> {
        self.send(command);
        self.send(json!({"type": "ping", "ping": "asked"}));
        let mut answers = Vec::new();
        loop {
            let answer = self.recv();
            if answer == json!({"type": "pong", "pong": "asked"}) {
                answers.pop(); // the ping's ack
                return answers;
            }
            answers.push(answer);
        }
    }

    /// Sends a command that has one answer besides the ack; gives that.
    pub fn one(&mut self, command: Value) -> Value {
        let mut answers = self.ask(command.clone());
        assert_eq!(answers.len(), 2, "ack and one answer to {command}: {answers:?}");
        assert_eq!(answers[0]["type"], "ack");
        answers.remove(1)
    }

    /// Sends a command that is refused; gives the error's text.
    pub fn error(&mut self, command: Value) -> String {
        let answer = self.one(command.clone());
        assert_eq!(answer["type"], "error", "{command}: {answer}");
        assert_eq!(answer["orig"], command);
        answer["error"].as_str().expect("a text").to_owned()
    }

    /// Sends a command that has no answer besides the ack.
    pub fn quiet(&mut self, command: Value) {
        let answers = self.ask(command.clone());
        assert_eq!(answers.len(), 1, "only an ack to {command}: {answers:?}");
        assert_eq!(answers[0]["type"], "ack");
    }

    pub fn allocate(&mut self) -> String {
        let answer = self.one(json!({"type": "allocate"}));
        answer["nameplate"].as_str().unwrap_or_else(|| panic!("allocated: {answer}")).to_owned()
    }

    pub fn claim(&mut self, nameplate: &str) -> String {
        let answer = self.one(json!({"type": "claim", "nameplate": nameplate}));
        answer["mailbox"].as_str().unwrap_or_else(|| panic!("claimed: {answer}")).to_owned()
    }

    /// Opens a mailbox; gives what is replayed.
    pub fn open(&mut self, mailbox: &str) -> Vec<Value> {
        let mut answers = self.ask(json!({"type": "open", "mailbox": mailbox}));
        assert_eq!(answers.remove(0)["type"], "ack");
        answers
    }

    /// The code and reason of the close that ends the connection.
    pub fn close_code(&mut self) -> u16 {
        loop {
            match self.read() {
                Ok(Message::Close(Some(frame))) => return frame.code.into(),
                Ok(_) => {}
                Err(error) => panic!("no close frame: {error}"),
            }
        }
    }
}
