//! The types of the tables of options: one row says all that parsing, help, manual and completions
//! need to know. Contains no option itself.

use super::settings::Settings;
use super::values;
use crate::limits::LimitRow;

/// How often an option may be given, and the name of its value in the help. Alternatives are
/// separated by `|`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// At most once, without a value.
    Flag,
    /// At most once, with or without a value.
    Optional,
    /// At most once.
    Once(&'static str),
    /// Any number of times.
    Many(&'static str),
}

/// The default as the help shows it.
#[derive(Clone, Copy, Debug)]
pub enum ShownDefault {
    /// Has none.
    Unset,
    Text(&'static str),
    /// A number and its unit.
    Number(f64, &'static str),
    /// That of this option.
    OfLimit(&'static str),
    /// The value sets one of these, each of which has a default.
    Each(&'static [Row]),
}

/// Reads a value and stores it in the settings; the error completes "--option: …".
pub type Setter = fn(&mut Settings, &str) -> Result<(), String>;

/// What an option does.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    Help,
    Version,
    CheckConfig,
    Generate,
    /// Names a file with more options, which is read again at SIGHUP.
    OptionsFile,
    /// Changes only with a restart.
    Set(Setter),
    Limit(&'static LimitRow),
    /// Changes at SIGHUP, if a file of options gives it.
    Reload(Setter),
    /// Names a file that is read again at SIGHUP; the setter gets its content.
    ReloadFile(Setter),
}

impl Action {
    /// Whether a file of options may contain the option.
    pub fn may_be_in_file(&self) -> bool {
        use Action::{CheckConfig, Generate, Help, OptionsFile, Version};
        !matches!(self, Help | Version | CheckConfig | Generate | OptionsFile)
    }

    /// Whether the option names a file that is read again at SIGHUP.
    pub fn names_reloaded_file(&self) -> bool {
        matches!(self, Action::OptionsFile | Action::ReloadFile(_))
    }

    /// Whether a changed value comes into force at SIGHUP.
    pub fn is_reloadable(&self) -> bool {
        matches!(self, Action::Reload(_) | Action::ReloadFile(_))
    }
}

/// An option.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Dashes included.
    pub name: &'static str,
    /// One dash and a letter.
    pub short: Option<&'static str>,
    pub arity: Arity,
    pub action: Action,
    pub default: ShownDefault,
    /// Whole sentences.
    pub help: &'static str,
}

impl Row {
    /// Sets a value, or for a [`Action::ReloadFile`] the content of the file that is the value. The
    /// other actions change no setting.
    pub fn set(&self, settings: &mut Settings, value: &str) -> Result<(), String> {
        match self.action {
            Action::Set(set) | Action::Reload(set) | Action::ReloadFile(set) => {
                set(settings, value)
            }
            Action::Limit(limit) => {
                (limit.set)(&mut settings.config.limits, values::limit(value, limit)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Options under one heading of the help.
#[derive(Debug)]
pub struct Group {
    pub title: &'static str,
    pub rows: &'static [Row],
}

/// Makes the rows of a group; rows that other groups have as well come last, by their names.
/// Setters leave out their `Ok(())`:
///
/// ```text
/// "--name" / "-n": Once("VALUE"), Set |s, value| s.field = parser(value)?,
///     Text("default"), "Help.";
/// ROW, OTHER_ROW
/// ```
macro_rules! rows {
    ($($name:literal $(/ $short:literal)?: $arity:expr,
       $action:ident $(|$s:ident, $value:tt| $set:expr)?, $default:expr, $help:expr;)*
     $($shared:ident),*) => {
        &[$($crate::config::spec::Row {
            name: $name,
            short: [$(Some($short),)? None][0],
            arity: $arity,
            action: $crate::config::spec::Action::$action $((|$s, $value| { $set; Ok(()) }))?,
            default: $default,
            help: $help,
        },)* $($shared),*]
    };
}
pub(super) use rows;
