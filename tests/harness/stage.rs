//! Where the binaries are, and as whom they run.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The staged PostgreSQL's directory of programs.
///
/// Resolved to its real path, because PostgreSQL finds its library and share directories relative to it.
static BIN: LazyLock<PathBuf> = LazyLock::new(|| {
    let stage = std::env::var_os("PG_TENANCY_STAGE").unwrap_or_else(|| {
        panic!(
            "PG_TENANCY_STAGE is not set: run the tests through `make test`, or stage the package by \
             `tools/stage.sh DIR` and set PG_TENANCY_STAGE=DIR"
        )
    });
    let bin = Path::new(&stage).join("bin");
    bin.canonicalize().unwrap_or_else(|error| panic!("{} is not a stage of tools/stage.sh: {error}", bin.display()))
});

/// The account that servers run as when the tests run as root, since a PostgreSQL server refuses root.
static SERVER_ACCOUNT: LazyLock<Option<Account>> = LazyLock::new(|| {
    // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    is_root.then(|| Account { uid: id("-u"), gid: id("-g") })
});

pub(crate) struct Account {
    pub uid: u32,
    pub gid: u32,
}

fn id(what: &str) -> u32 {
    let printed = run(Command::new("id").args([what, "postgres"]));
    printed.trim().parse().expect("id prints a number")
}

pub(crate) fn server_account() -> Option<&'static Account> {
    SERVER_ACCOUNT.as_ref()
}

/// The path of a program of the staged PostgreSQL.
pub(crate) fn program(name: &str) -> PathBuf {
    BIN.join(name)
}

/// A command of whoever runs the tests.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    forget_surroundings(&mut command);
    command
}

/// A command of the account that servers run as, in `directory`.
///
/// The directory matters: the watcher recognises what it has to stop by its working directory.
pub(crate) fn server_command(program: impl AsRef<OsStr>, directory: &Path) -> Command {
    let mut command = command(program);
    command.current_dir(directory);
    if let Some(account) = server_account() {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

/// Runs a command to its end and gives what it printed; panics with what it complained of when it fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => panic!("cannot run {command:?}: {error}"),
    };
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?} failed ({}):\n{printed}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

/// Drops what the environment of the developer might tell libpq or the server.
fn forget_surroundings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("PG") && !name.contains('_')) {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C");
}

/// Gives a file or directory to the account that servers run as.
pub(crate) fn give_to_server(path: &Path) {
    if let Some(account) = server_account() {
        std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid))
            .unwrap_or_else(|error| panic!("chown {}: {error}", path.display()));
    }
}

/// Where a server that lives in `directory` logs to: there, or, to be kept, in PG_TENANCY_LOGS.
pub(crate) fn log_file(directory: &Path) -> PathBuf {
    match (std::env::var_os("PG_TENANCY_LOGS"), directory.file_name()) {
        (Some(logs), Some(name)) => Path::new(&logs).join(name).with_extension("log"),
        _ => directory.join("log"),
    }
}

/// A TCP port of 127.0.0.1 that nobody listens on and no other call in this process is given.
///
/// From below the range that Linux takes the ports of outgoing connections from: a server that restarts finds
/// its port free again.
pub fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const PORTS: u32 = 12_000;
    static CALLS: AtomicU32 = AtomicU32::new(0);
    // Processes begin at different places, so that they rarely try the same port at the same time.
    let origin = std::process::id().wrapping_mul(97);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let next = || {
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        u16::try_from(FIRST + origin.wrapping_add(call) % PORTS).ok()
    };
    std::iter::from_fn(next).take(PORTS as usize).find(is_free).expect("a free port of 127.0.0.1")
}
