//! The types of the tables of options: one row says all that parsing, help, manual and completions
//! need to know. Contains no option itself.

use crate::limits::LimitRow;

/// How often an option may be given, and the name of its value in the help. Alternatives are
/// separated by `|`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// At most once, without a value.
    Flag,
    /// At most once, with a value only after `=`.
    Optional,
    /// At most once.
    Once(&'static str),
    /// Any number of times.
    Many(&'static str),
}

/// The default as the help shows it.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// Has none.
    Unset,
    Text(&'static str),
    /// A number and its unit.
    Number(f64, &'static str),
}

/// An option as users see it.
#[derive(Debug)]
pub struct OptionSpec {
    /// Dashes included.
    pub name: &'static str,
    /// One dash and a letter.
    pub short: Option<&'static str>,
    pub arity: Arity,
    pub default: Default,
    /// Whole sentences.
    pub help: &'static str,
}

/// Reads a value and stores it in the settings `S`; the error completes "--option: …".
pub type Setter<S> = fn(&mut S, &str) -> Result<(), String>;

/// What an option does.
#[derive(Debug)]
pub enum Action<S: 'static> {
    Help,
    Version,
    CheckConfig,
    Generate,
    /// Names a file with more options, which is read again at SIGHUP.
    OptionsFile,
    /// Changes only with a restart.
    Set(Setter<S>),
    Limit(&'static LimitRow),
    /// Changes at SIGHUP, if a file of options gives it.
    Reload(Setter<S>),
    /// Names a file that is read again at SIGHUP; the setter gets its content.
    ReloadFile(Setter<S>),
}

impl<S> Action<S> {
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

/// An option and its effect on the settings `S`.
#[derive(Debug)]
pub struct Row<S: 'static> {
    pub spec: OptionSpec,
    pub action: Action<S>,
}

/// Options under one heading of the help.
#[derive(Debug)]
pub struct Group<S: 'static> {
    pub title: &'static str,
    pub rows: &'static [Row<S>],
}

/// Makes the rows of a group. Setters leave out their `Ok(())`:
///
/// ```text
/// "--name" / "-n": Once("VALUE"), Set |s, value| s.field = parser(value)?,
///     Text("default"), "Help.";
/// ```
macro_rules! rows {
    ($settings:ty; $($name:literal $(/ $short:literal)?: $arity:expr,
       $action:ident $(|$s:ident, $value:tt| $set:expr)?, $default:expr, $help:expr;)*) => {
        &[$($crate::config::spec::Row::<$settings> {
            spec: $crate::config::spec::OptionSpec {
                name: $name,
                short: $crate::config::spec::rows!(@short $($short)?),
                arity: $arity,
                default: $default,
                help: $help,
            },
            action: $crate::config::spec::Action::$action
                $((|$s: &mut $settings, $value: &str| { $set; Ok(()) }))?,
        },)*]
    };
    (@short) => { None };
    (@short $short:literal) => { Some($short) };
}
pub(super) use rows;
