//! The status page in a browser: it shows the same values as its source, nothing is fetched or
//! complained of, and it is not blank.

use std::fs;
use std::process::{Command, Output, Stdio};

use crate::common::Server;
use crate::common::client::exchange;
use crate::common::page::{BUSY, assert_shows, busy_server};
use crate::programs::program;

/// A browser without a window at a URL, in a directory of its own.
fn browse(server: &Server, url: &str, options: &[&str]) -> Output {
    let profile = server.file("profile");
    let output = Command::new(program("chromium"))
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(options)
        .arg(url)
        .stdin(Stdio::null())
        .output()
        .expect("the browser runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let log = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    output
}

#[test]
#[ignore = "needs chromium"]
fn a_browser_shows_the_same_values_and_complains_of_nothing() {
    let (server, _client) = busy_server();
    let url = format!("http://{}/", server.admin_address());
    let output = browse(&server, &url, &["--dump-dom"]);
    let dom = String::from_utf8(output.stdout).expect("UTF-8");
    assert_shows(&dom, &BUSY);
    // What the parser made of it: eight drawings, and nothing that had to be moved about.
    assert_eq!(dom.matches("<svg ").count(), 8, "{dom}");
    assert_eq!(dom.matches("<title id=").count(), 8);
    assert_eq!(dom.matches("<table>").count(), dom.matches("</table>").count());
}

#[test]
#[ignore = "needs chromium"]
fn a_browser_draws_it_on_a_desk_and_a_phone_by_day_and_by_night() {
    let server = Server::start(&["--admin=0"]);
    exchange(&server, "happy");
    let url = format!("http://{}/", server.admin_address());
    let mut pictures = Vec::new();
    for size in ["1280,900", "412,900"] {
        let picture = |url: &str, scheme: u8| {
            let path = server.file("picture.png");
            let options = [
                &format!("--screenshot={}", path.display()),
                &format!("--window-size={size}"),
                &format!("--blink-settings=preferredColorScheme={scheme}"),
            ];
            browse(&server, url, &options.map(String::as_str));
            fs::read(&path).expect("a picture")
        };
        let blank = picture("data:text/html,", 1);
        for scheme in [1, 0] {
            let picture = picture(&url, scheme);
            assert!(picture.starts_with(b"\x89PNG"));
            // The picture of one colour shrinks to next to nothing.
            assert!(picture.len() > 2 * blank.len(), "{} bytes look blank", picture.len());
            pictures.push(picture);
        }
    }
    assert_ne!(pictures[0], pictures[1], "the night is dark");
    assert_ne!(pictures[2], pictures[3], "the night is dark");
}
