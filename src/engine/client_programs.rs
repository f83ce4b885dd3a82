//! Binds per client program over the last day, by the hour.
//!
//! The names are what peers send in `client_version`, so they are cut, the table is bounded, and
//! programs beyond it are counted together. Pure: the time is an argument.

use std::array;
use std::cmp::Reverse;

use crate::limits::{CLIENT_HOURS, CLIENT_NAME_CHARS_MAX, CLIENTS_KEPT_MAX};
use crate::message::ClientVersion;
use crate::sorted::sorted;
use crate::sys::clock::{SECONDS_PER_HOUR, Timestamp};

/// Binds of each hour, at the hour's number since the epoch modulo [`CLIENT_HOURS`].
type Hours = [u64; CLIENT_HOURS];

/// The table of programs, at most [`CLIENTS_KEPT_MAX`].
#[derive(Debug, Default)]
pub struct ClientPrograms {
    programs: Vec<(ClientVersion, Hours)>,
    /// Binds of programs beyond [`CLIENTS_KEPT_MAX`].
    others: Hours,
    /// The newest hour counted, since the epoch.
    hour: u64,
}

impl ClientPrograms {
    /// Counts recorded binds: when, implementation, version, how many.
    pub fn of_binds(
        recorded: Vec<(Timestamp, Option<String>, Option<String>, u64)>,
        now: Timestamp,
    ) -> ClientPrograms {
        let mut programs = ClientPrograms::default();
        for (at, implementation, version, binds) in recorded {
            // A time that is still to come counts as now.
            let at = at.min(now);
            programs.count(implementation.as_deref(), version.as_deref(), at, binds);
        }
        programs
    }

    /// Counts binds of a client program at that time; those a day before the newest ones are
    /// ignored.
    pub fn count(
        &mut self,
        implementation: Option<&str>,
        version: Option<&str>,
        at: Timestamp,
        binds: u64,
    ) {
        let hour = (at.0 / SECONDS_PER_HOUR) as u64;
        self.advance(hour);
        if hour + CLIENT_HOURS as u64 <= self.hour {
            return; // too long ago
        }
        let cut = |name: &str| name.chars().take(CLIENT_NAME_CHARS_MAX).collect::<String>().into();
        let program =
            ClientVersion { implementation: implementation.map(cut), version: version.map(cut) };
        let place = hour as usize % CLIENT_HOURS;
        let has_room = self.programs.len() < CLIENTS_KEPT_MAX;
        match self.programs.iter_mut().find(|(known, _)| *known == program) {
            Some((_, hours)) => hours[place] += binds,
            None if has_room => {
                let hours = array::from_fn(|index| if index == place { binds } else { 0 });
                self.programs.push((program, hours));
            }
            None => self.others[place] += binds,
        }
    }

    /// Programs with their binds in the last day before `now`, most first, and the binds of all
    /// others.
    pub fn last_day(&self, now: Timestamp) -> (Vec<(&ClientVersion, u64)>, u64) {
        let passed = ((now.0 / SECONDS_PER_HOUR) as u64).saturating_sub(self.hour);
        let left = (CLIENT_HOURS as u64).saturating_sub(passed);
        let sum = |hours: &Hours| -> u64 {
            (0..left.min(self.hour + 1)) // none is before 1970
                .map(|back| hours[(self.hour - back) as usize % CLIENT_HOURS])
                .sum()
        };
        let sums = self.programs.iter().map(|(_, hours)| sum(hours)).enumerate();
        let sums = sums.filter(|(_, binds)| *binds > 0).map(|(at, binds)| (Reverse(binds), at));
        let programs = sorted(sums).into_iter();
        let programs = programs.map(|(binds, at)| (&self.programs[at].0, binds.0)).collect();
        (programs, sum(&self.others))
    }

    /// Makes `hour` the newest: clears the hours that are a day old, and drops programs without any
    /// other.
    fn advance(&mut self, hour: u64) {
        let passed = hour.saturating_sub(self.hour).min(CLIENT_HOURS as u64);
        if passed == 0 {
            return;
        }
        for back in 0..passed {
            let place = (hour - back) as usize % CLIENT_HOURS;
            self.others[place] = 0;
            self.programs.iter_mut().for_each(|(_, hours)| hours[place] = 0);
        }
        self.programs.retain(|(_, hours)| hours.iter().any(|binds| *binds > 0));
        self.hour = hour;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some midnight.
    const DAY: Timestamp = Timestamp(20_000.0 * 86_400.0);

    fn program(name: &str) -> ClientVersion {
        ClientVersion { implementation: Some(name.into()), version: None }
    }

    #[test]
    fn binds_count_for_a_day() {
        let mut clients = ClientPrograms::default();
        clients.count(Some("a"), None, DAY, 2);
        clients.count(Some("b"), None, DAY + 23.0 * SECONDS_PER_HOUR, 3);
        let (programs, others) = clients.last_day(DAY + 23.5 * SECONDS_PER_HOUR);
        assert_eq!(programs, [(&program("b"), 3), (&program("a"), 2)]);
        assert_eq!(others, 0);
        let (programs, _) = clients.last_day(DAY + 24.0 * SECONDS_PER_HOUR);
        assert_eq!(programs, [(&program("b"), 3)]);
        clients.count(Some("a"), None, DAY, 2);
        assert_eq!(clients.last_day(DAY + 24.0 * SECONDS_PER_HOUR).0.len(), 1);
        assert!(clients.last_day(DAY + 90.0 * SECONDS_PER_HOUR).0.is_empty());
    }

    #[test]
    fn binds_count_while_the_clock_is_not_set() {
        let mut clients = ClientPrograms::default();
        let epoch = Timestamp(0.0);
        clients.count(Some("a"), None, epoch + 60.0, 1);
        assert_eq!(clients.last_day(epoch + 120.0).0, [(&program("a"), 1)]);
        clients.count(Some("a"), None, epoch + SECONDS_PER_HOUR, 1);
        assert_eq!(clients.last_day(epoch + SECONDS_PER_HOUR).0, [(&program("a"), 2)]);
    }

    #[test]
    fn the_table_is_bounded_and_so_are_the_names() {
        let mut clients = ClientPrograms::default();
        for number in 0..3 * CLIENTS_KEPT_MAX {
            clients.count(Some(&format!("{number:0>1000}")), None, DAY, 1);
            clients.count(Some(&number.to_string()), None, DAY, 1);
        }
        let (programs, others) = clients.last_day(DAY);
        assert_eq!(programs.len(), CLIENTS_KEPT_MAX);
        let counted: u64 = programs.iter().map(|(_, binds)| binds).sum();
        assert_eq!(counted + others, 6 * CLIENTS_KEPT_MAX as u64);
        let longest = programs.iter().filter_map(|(program, _)| program.implementation.as_ref());
        assert!(longest.map(|name| name.len()).max() <= Some(CLIENT_NAME_CHARS_MAX));
    }
}
