//! What honest clients and operators notice of an attack. The observers run in a process of their
//! own, so that the attack's own threads do not hold them up.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Error, Message};

use super::crowd::text;
use super::honest::{HONEST_PATIENCE, Honest, transfer};
use crate::common::Server;

/// Names the server's and the admin listener's address to the process of observers.
const ADDRESSES: &str = "ATTACK_OBSERVE";

/// What the process prints when it has begun, and before its result.
const READY: &str = "observers are ready";
const RESULT: &str = "observed: ";

/// Failures whose texts are kept.
const FAILURES_KEPT: usize = 4;

/// What was measured of one thing, again and again.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Seconds of those that succeeded.
    seconds: Vec<f64>,
    pub failed: usize,
    /// Texts of the first failures that differ.
    pub failures: Vec<String>,
}

impl Series {
    fn note(&mut self, begun: Instant, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.seconds.push(begun.elapsed().as_secs_f64()),
            Err(failure) => {
                self.failed += 1;
                let is_new = !self.failures.contains(&failure);
                if is_new && self.failures.len() < FAILURES_KEPT {
                    self.failures.push(failure);
                }
            }
        }
    }

    pub fn count(&self) -> usize {
        self.seconds.len()
    }

    /// The value below which that share of all lies, in seconds.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (sorted.len() as f64 * share) as usize;
        sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::INFINITY)
    }

    pub fn worst(&self) -> f64 {
        self.quantile(1.0)
    }

    fn to_json(&self) -> Value {
        json!({"seconds": self.seconds, "failed": self.failed, "failures": self.failures})
    }

    fn from_json(value: &Value) -> Series {
        let list = |name: &str| value[name].as_array().cloned().unwrap_or_default();
        Series {
            seconds: list("seconds").iter().filter_map(Value::as_f64).collect(),
            failed: value["failed"].as_u64().unwrap_or(0) as usize,
            failures: list("failures")
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        }
    }
}

/// All that is observed.
#[derive(Clone, Debug)]
pub struct Observed {
    /// From one honest client to another, one message every 20 to 50 ms.
    pub pair: Series,
    /// From connect to the welcome.
    pub newcomers: Series,
    /// Answers of `/healthz`.
    pub healthz: Series,
    /// Whole transfers between two addresses.
    pub transfers: Series,
}

/// The process of observers.
pub struct Observers {
    child: Child,
    stop: Option<ChildStdin>,
    output: BufReader<std::process::ChildStdout>,
}

impl Observers {
    /// Starts it, and waits until the pair has exchanged its first message.
    pub fn start(server: &Server) -> Observers {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["attacks::observers::observe", "--exact", "--ignored", "--nocapture"])
            .env(ADDRESSES, format!("{} {}", server.address, server.admin_address()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("observers");
        let stop = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut observers = Observers { child, stop, output };
        observers.line_with(READY);
        observers
    }

    /// The rest of the first line that has these words.
    fn line_with(&mut self, words: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let count = self.output.read_line(&mut line).expect("observers' output");
            assert!(count > 0, "the observers ended without {words:?}");
            if let Some((_, rest)) = line.split_once(words) {
                return rest.to_owned();
            }
        }
    }

    pub fn finish(mut self) -> Observed {
        self.stop = None;
        let result = self.line_with(RESULT);
        _ = self.child.wait();
        let result: Value = serde_json::from_str(&result).expect("JSON");
        let series = |name: &str| Series::from_json(&result[name]);
        Observed {
            pair: series("pair"),
            newcomers: series("newcomers"),
            healthz: series("healthz"),
            transfers: series("transfers"),
        }
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
#[ignore = "the process of observers, started by the tests of attacks"]
fn observe() {
    let Ok(addresses) = std::env::var(ADDRESSES) else { return };
    let (server, admin) = addresses.split_once(' ').expect("two addresses");
    let server: SocketAddr = server.parse().expect("an address");
    let admin: SocketAddr = admin.parse().expect("an address");
    let stop = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        let pair = scope.spawn(|| pair(server, &stop));
        let newcomers = scope.spawn(|| {
            repeat(&stop, Duration::from_millis(200), |number| {
                Honest::connect(server, &format!("203.0.113.{}", number % 250 + 1)).map(|_| ())
            })
        });
        let healthz =
            scope.spawn(|| repeat(&stop, Duration::from_millis(100), |_| ask_healthz(admin)));
        let transfers = scope.spawn(|| {
            repeat(&stop, Duration::from_millis(300), |number| {
                let from = |network: u8| format!("198.18.{network}.{}", number % 250 + 1);
                transfer(server, [&from(1), &from(2)], "transfers")
            })
        });
        _ = std::io::stdin().read_to_end(&mut Vec::new());
        stop.store(true, Ordering::Relaxed);
        json!({
            "pair": pair.join().expect("pair").to_json(),
            "newcomers": newcomers.join().expect("newcomers").to_json(),
            "healthz": healthz.join().expect("healthz").to_json(),
            "transfers": transfers.join().expect("transfers").to_json(),
        })
    });
    println!("\n{RESULT}{result}");
}

/// Measures the same again and again until `stop`.
fn repeat(
    stop: &AtomicBool,
    pause: Duration,
    measure: impl Fn(usize) -> Result<(), String>,
) -> Series {
    let mut series = Series::default();
    for number in 0.. {
        let begun = Instant::now();
        series.note(begun, measure(number));
        if stop.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(pause);
    }
    series
}

fn ask_healthz(admin: SocketAddr) -> Result<(), String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(HONEST_PATIENCE))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| format!("healthz: {error}"))?;
    let status = answer.lines().next().unwrap_or_default();
    if status.contains(" 200") { Ok(()) } else { Err(format!("healthz: {status:?}")) }
}

/// Sends on schedule, whether or not earlier messages have arrived: a stall is seen by all
/// messages that fall into it.
fn pair(server: SocketAddr, stop: &AtomicBool) -> Series {
    let join = |from: &str, side: &str| -> Result<Honest, String> {
        let mut client = Honest::bind(server, from, "pair", side)?;
        client.send(&json!({"type": "open", "mailbox": "the-pair"}))?;
        client.add("hello")?;
        Ok(client)
    };
    let (sender, mut receiver) = match (join("198.51.100.1", "a"), join("198.51.100.2", "b")) {
        (Ok(sender), Ok(receiver)) => (sender, receiver),
        (Err(error), _) | (_, Err(error)) => panic!("the pair cannot begin: {error}"),
    };
    println!("\n{READY}");
    let sent = Mutex::new(Vec::new());
    let mut series = Series::default();
    let mut writer = sender.socket.get_ref().try_clone().expect("clone");
    let mut echoes = sender.socket.get_ref().try_clone().expect("clone");
    let socket = receiver.socket.get_ref();
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
    echoes.set_read_timeout(None).expect("timeout");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            _ = std::io::copy(&mut echoes, &mut std::io::sink());
        });
        scope.spawn(|| {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // 20 to 50 ms, in an order that repeats itself late.
                std::thread::sleep(Duration::from_millis(20 + number * 17 % 31));
                sent.lock().expect("sent").push(Instant::now());
                let phase = number.to_string();
                let add = json!({"type": "add", "phase": phase, "body": "00".repeat(50)});
                if writer.write_all(&text(&add)).is_err() {
                    break;
                }
            }
        });
        let mut delivered = HashSet::new();
        let mut stopped = None;
        loop {
            let outstanding = sent.lock().expect("sent").len() - delivered.len();
            if stop.load(Ordering::Relaxed) {
                let stopped: &mut Instant = stopped.get_or_insert_with(Instant::now);
                if outstanding == 0 || stopped.elapsed() > HONEST_PATIENCE {
                    break;
                }
            }
            let lost = match receiver.socket.read() {
                Ok(Message::Text(text)) => {
                    if let Some(number) = number_on_schedule(&text) {
                        series.note(sent.lock().expect("sent")[number], Ok(()));
                        delivered.insert(number);
                    }
                    continue;
                }
                Ok(Message::Close(frame)) => format!("the pair was closed: {frame:?}"),
                Ok(_) => continue,
                Err(Error::Io(error)) if is_timeout(&error) => continue,
                Err(error) => format!("the pair was lost: {error}"),
            };
            series.note(Instant::now(), Err(lost));
            break;
        }
        for number in 0..sent.lock().expect("sent").len() {
            if !delivered.contains(&number) {
                series.note(Instant::now(), Err("a message never came".to_owned()));
            }
        }
        stop_reading(&sender);
    });
    series
}

/// Ends the thread that reads the echoes.
fn stop_reading(sender: &Honest) {
    _ = sender.socket.get_ref().shutdown(std::net::Shutdown::Both);
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted)
}

/// The number of a message of the pair, which is its phase.
fn number_on_schedule(text: &str) -> Option<usize> {
    let message: Value = serde_json::from_str(text).ok()?;
    let phase = message["phase"].as_str().filter(|_| message["type"] == "message")?;
    phase.parse().ok()
}
