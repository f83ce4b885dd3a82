//! Trouble on order, for the tests of clients (manual: testing 2). A real server has none.

use std::time::Duration;

use super::values;

/// What goes wrong. Those with `after` do so once, when that many commands of all connections
/// have been answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// Every connection is closed as by a restart; what is stored stays.
    Restart { after: u64 },
    /// The connection that sent the last of the commands is cut.
    Drop { after: u64 },
    /// Nothing is read or sent for that time.
    Freeze { after: u64, time: Duration },
    /// Each `claim` and `open` finds two other sides.
    Crowded,
    /// The welcome has this error, and so has the answer to each command but `bind` and `ping`.
    Error(String),
    /// A pause before each further message that an `open` replays.
    SlowReplay(Duration),
}

impl Trouble {
    /// Reads `restart:AFTER`, `drop:AFTER`, `freeze:AFTER:SECONDS`, `crowded`, `error:TEXT` or
    /// `slow-replay:MS`.
    pub fn parse(text: &str) -> Result<Trouble, String> {
        let (kind, value) = text.split_once(':').unwrap_or((text, ""));
        let after = |text: &str| {
            let number = text.parse().ok().filter(|number| *number > 0);
            number.ok_or_else(|| format!("'{text}' must be a whole number of commands above 0"))
        };
        match kind {
            "restart" => Ok(Trouble::Restart { after: after(value)? }),
            "drop" => Ok(Trouble::Drop { after: after(value)? }),
            "freeze" => {
                let (commands, seconds) = value.split_once(':').unwrap_or((value, ""));
                let time = Duration::from_secs_f64(values::positive_seconds(seconds)?);
                Ok(Trouble::Freeze { after: after(commands)?, time })
            }
            "crowded" if value.is_empty() => Ok(Trouble::Crowded),
            "error" if !value.is_empty() => Ok(Trouble::Error(value.to_owned())),
            "slow-replay" => {
                let time = value.parse().ok().map(|ms: u32| Duration::from_millis(ms.into()));
                let problem = || format!("'{value}' must be a whole number of milliseconds");
                time.map(Trouble::SlowReplay).ok_or_else(problem)
            }
            _ => Err(format!(
                "'{text}' must be restart:AFTER, drop:AFTER, freeze:AFTER:SECONDS, crowded, \
                 error:TEXT or slow-replay:MS"
            )),
        }
    }
}

/// The trouble of a server.
#[derive(Clone, Debug, Default)]
pub struct Troubles(pub Vec<Trouble>);

impl Troubles {
    /// Whether each `claim` and `open` fails.
    pub fn is_crowded(&self) -> bool {
        self.0.contains(&Trouble::Crowded)
    }

    /// The first error on order.
    pub fn error(&self) -> Option<&str> {
        self.0.iter().find_map(|trouble| match trouble {
            Trouble::Error(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The pause before each further message of a replay.
    pub fn replay_pause(&self) -> Option<Duration> {
        self.0.iter().find_map(|trouble| match trouble {
            Trouble::SlowReplay(time) => Some(*time),
            _ => None,
        })
    }

    /// The troubles that are due once this number of commands has been answered.
    pub fn due(&self, commands: u64) -> impl Iterator<Item = &Trouble> {
        self.0.iter().filter(move |trouble| {
            use Trouble::{Drop, Freeze, Restart};
            matches!(trouble, Restart { after } | Drop { after } | Freeze { after, .. }
                if *after == commands)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_written_with_its_numbers() {
        for (text, trouble) in [
            ("restart:3", Trouble::Restart { after: 3 }),
            ("drop:1", Trouble::Drop { after: 1 }),
            ("freeze:2:0.5", Trouble::Freeze { after: 2, time: Duration::from_millis(500) }),
            ("crowded", Trouble::Crowded),
            ("error:a: b", Trouble::Error("a: b".to_owned())),
            ("slow-replay:250", Trouble::SlowReplay(Duration::from_millis(250))),
        ] {
            assert_eq!(Trouble::parse(text), Ok(trouble), "{text}");
        }
        for text in [
            "",
            "x",
            "restart",
            "restart:0",
            "restart:-1",
            "drop:x",
            "freeze:1",
            "freeze:1:0",
            "freeze:x:1",
            "crowded:1",
            "error:",
            "slow-replay:",
            "slow-replay:1.5",
        ] {
            assert!(Trouble::parse(text).is_err(), "{text}");
        }
    }
}
