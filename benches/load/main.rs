#[path = "../common/mod.rs"]
mod common;
use common::modes::*;
fn main() {
    let t = common::net::Target::parse("ws://127.0.0.1:4567/v1").unwrap();
    let mut e = Exchange::new(1);
    let p = Plan { warm_up: std::time::Duration::ZERO, measured: std::time::Duration::from_millis(100), pid: None, progress: false };
    println!("{:?}", run(&mut e, &t, p).map(|o| o.operations()));
    println!("{e:?}");
}
