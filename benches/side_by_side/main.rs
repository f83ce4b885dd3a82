mod floor;
mod servers;
#[path = "../common/mod.rs"]
mod common;

use std::time::Duration;
use common::modes::*;
use servers::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|a| a == FLOOR_ARGUMENT) {
        return floor::run(args[at + 1].parse()?, args[at + 2].as_ref());
    }
    for kind in [Kind::Floor, Kind::Ours, Kind::Floor, Kind::Ours, Kind::Python] {
        let plan = |server: &Server| Plan {
            warm_up: Duration::from_millis(300), measured: Duration::from_secs(3),
            pid: Some(server.pid), progress: false };
        let show = |name: &str, o: Outcome| println!("{kind:?} {name}: {:.0}/s p50 {:?} p99.9 {:?} cpu/op {:.1} us wr/op {:.0} own {:.2} unanswered {}", o.per_second(), o.latency.quantile(0.5), o.latency.quantile(0.999), o.cpu_per_operation().unwrap_or(0.)*1e6, o.written_per_operation().unwrap_or(0.), o.own_cpu_share, o.unanswered);
        let server = Server::start(kind, &Setup::default())?;
        let p = plan(&server);
        for n in [1, 32] {
            show(&format!("relay {n}"), run(&mut Relay::new(n, 200, None, kind.dialect()), &server.target, p)?);
            show(&format!("ping {n}"), run(&mut Ping::new(n, kind.dialect()), &server.target, p)?);
        }
        show("relay 32 @200", run(&mut Relay::new(32, 200, Some(200.), kind.dialect()), &server.target, p)?);
        if kind != Kind::Floor {
            for n in [1, 16, 64] {
            show(&format!("exchange {n}"), run(&mut Exchange::new(n), &server.target, p)?);
            }
        }
    }
    Ok(())
}
