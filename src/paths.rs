//! Where things lie when no flag says so, after the XDG base directory specification.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::error::{Code, Failure};

/// Where a command keeps what belongs to this user: `$XDG_DATA_HOME/talka`, or `~/.local/share/talka`.
pub(crate) fn data_home() -> Result<PathBuf, Failure> {
    base("XDG_DATA_HOME", ".local/share").ok_or_else(no_home)
}

/// Where commands keep what can be made anew: `$XDG_CACHE_HOME/talka`, or `~/.cache/talka`. `None` for a user
/// without a home.
pub(crate) fn cache_home() -> Option<PathBuf> {
    base("XDG_CACHE_HOME", ".cache")
}

/// Where running programs note that they run: `$XDG_RUNTIME_DIR/talka`, or `~/.local/state/talka`.
pub(crate) fn runtime_dir() -> Result<PathBuf, Failure> {
    base("XDG_RUNTIME_DIR", ".local/state").ok_or_else(no_home)
}

/// The data directory of a coordinator or worker: the flag's, or one of its own under [`data_home`].
pub(crate) fn data_dir(flag: Option<PathBuf>, role: &str) -> Result<PathBuf, Failure> {
    flag.map_or_else(|| Ok(data_home()?.join(role)), Ok)
}

/// Where commands keep this user's own key: below the flag's directory, or below [`data_home`].
pub(crate) fn submitter_dir(flag: Option<&Path>) -> Result<PathBuf, Failure> {
    let base = flag.map_or_else(data_home, |dir| Ok(dir.to_owned()))?;
    Ok(base.join("submitter"))
}

/// The program that sandbox processes run: this one.
pub(crate) fn own_executable() -> std::io::Result<PathBuf> {
    if cfg!(target_os = "linux") {
        // Stays right when the file is replaced by a newer version while this one runs.
        return Ok(PathBuf::from("/proc/self/exe"));
    }
    env::current_exe()
}

/// Creates a directory that only this user can read, and its parents.
pub(crate) fn create_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn base(variable: &str, below_home: &str) -> Option<PathBuf> {
    // The specification: a relative path is to be ignored.
    let set = env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(below_home));
    set.or_else(home).map(|base| base.join("talka"))
}

fn no_home() -> Failure {
    Failure::new(Code::Io, "this user has no home directory; give --data-dir (TALKA_DATA_DIR)")
}
