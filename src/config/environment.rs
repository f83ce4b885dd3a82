//! Variables of the environment → options, for containers: `WORMHOLE_MAILBOX_CHANNEL_DB` is
//! `--channel-db` (manual: command_line 2).

use std::ffi::OsString;

use super::arguments::{self, RawOption};
use super::nearest::nearest;
use super::spec::{Action, Arity, Row};
use super::values;

/// How the names of all variables begin.
const PREFIX: &str = "WORMHOLE_MAILBOX_";

/// How Kubernetes begins the value of `WORMHOLE_MAILBOX_PORT` when it has a service of that name.
const KUBERNETES_SERVICE: &str = "tcp://";

/// Values of the variable of a flag.
const SWITCHES: [(&str, bool); 4] = [("yes", true), ("no", false), ("1", true), ("0", false)];

/// Reads variables as options of a table; returns warnings about those of no option as well. An
/// empty variable counts as not set.
pub fn read(
    variables: &mut dyn Iterator<Item = (OsString, OsString)>,
    table: &[&'static Row],
) -> Result<(Vec<RawOption>, Vec<String>), String> {
    let (mut options, mut warnings) = (Vec::new(), Vec::new());
    for (variable, value) in variables {
        let variable = variable.to_string_lossy();
        let Some(own_name) = variable.strip_prefix(PREFIX).filter(|_| !value.is_empty()) else {
            continue;
        };
        let Some(row) = table.iter().copied().find(|row| name(row) == own_name) else {
            let names: Vec<String> = table.iter().map(|row| name(row)).collect();
            let meant = nearest(own_name, &mut names.iter().map(String::as_str));
            let meant = meant.map(|name| format!(", did you mean {PREFIX}{name}?"));
            let meant = meant.unwrap_or_default();
            warnings.push(format!("{variable}: ignored, this is no option's variable{meant}"));
            continue;
        };
        let error = |problem: &str| format!("{variable}: {problem}");
        let value = value.to_str().ok_or_else(|| error("must be UTF-8"))?;
        if row.name == "--port" && value.starts_with(KUBERNETES_SERVICE) {
            warnings.push(error("ignored, Kubernetes sets it for a service of that name"));
            continue;
        }
        if !row.action.may_be_in_file() && !matches!(row.action, Action::OptionsFile) {
            return Err(error("may be given on the command line only"));
        }
        let mut push = |value: Option<&str>| {
            arguments::push(&mut options, row, value.map(str::to_owned), format!("{variable}: "))
        };
        match row.arity {
            Arity::Flag => {
                if values::one_of(value, &SWITCHES).map_err(|problem| error(&problem))? {
                    push(None)?;
                }
            }
            Arity::Many(_) => value.split_whitespace().try_for_each(|value| push(Some(value)))?,
            Arity::Optional | Arity::Once(_) => push(Some(value))?,
        }
    }
    Ok((options, warnings))
}

/// The name of an option's variable after the prefix.
fn name(row: &Row) -> String {
    row.name.trim_start_matches('-').replace('-', "_").to_ascii_uppercase()
}
