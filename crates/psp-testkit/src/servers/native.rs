use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Runs a server until standard input closes, then ends it and removes its directory. `$1` is the signal, `$2` the directory,
/// the rest the command. A line on standard input names a signal: the server is ended with it and
/// started again.
const KEEPER: &str = r#"
signal=$1; dir=$2; shift 2
trap : INT TERM HUP
"$@" & server=$!
while read -r restart; do
    kill "-$restart" "$server"; wait "$server"
    "$@" & server=$!
done
kill "-$signal" "$server" 2>/dev/null
wait "$server"
rm -rf "$dir"
"#;

/// A server that ends with this value, or with this process.
pub(super) struct Native {
    keeper: Child,
}

impl Native {
    /// Starts a command; its output goes to a file.
    pub(super) fn start(signal: &str, dir: &Path, log: &Path, command: &[&OsStr], user: Option<(u32, u32)>) -> Self {
        let log = std::fs::File::create(log).unwrap();
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper", signal]).arg(dir).args(command);
        keeper.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log).current_dir("/");
        as_user(&mut keeper, user);
        Self { keeper: keeper.spawn().expect("sh") }
    }

    /// Ends the server with that signal and starts it again.
    pub(super) fn restart(&mut self, signal: &str) {
        use std::io::Write;
        writeln!(self.keeper.stdin.as_mut().expect("not stopped"), "{signal}").unwrap();
    }

    /// Ends it and waits until it has ended.
    pub(super) fn stop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs a command as another user, where there is one.
pub(super) fn as_user(command: &mut Command, user: Option<(u32, u32)>) {
    use std::os::unix::process::CommandExt;
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
}

/// An unprivileged user, when this process is root: Postgres refuses to run as root.
pub(super) fn unprivileged() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    // What this process makes belongs to the user it runs as.
    if tempfile::tempfile().and_then(|file| file.metadata()).unwrap().uid() != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map(|id| id.parse().ok());
        Some((ids.next()??, ids.next()??))
    };
    find("postgres").or_else(|| find("nobody"))
}

/// A program on the path or in one of these directories.
pub(super) fn program(name: &str, more: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = more.into_iter().chain(std::env::split_paths(&path).collect::<Vec<_>>());
    dirs.map(|dir| dir.join(name)).find(|program| program.is_file())
}
