//! Leaves nothing behind, however the test process ends.
//!
//! Rust drops no statics and `SIGKILL` asks nobody, so cleaning up is left to a small shell process. It reads
//! from a pipe whose other end only this process holds; when the pipe closes, for whatever reason, it stops
//! every process whose working directory lies in the run directory, and removes that directory.

use crate::stage;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};

/// SIGQUIT is a server's immediate shutdown, which still gives back its shared memory; PgBouncer may take
/// the same signal for a request to wait for its clients.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
run_directory=$1
while read -r _; do :; done

signal_all() {
    found=
    for process in /proc/[0-9]*; do
        case $(readlink "$process/cwd" 2>/dev/null) in
        "$run_directory" | "$run_directory"/*)
            found=yes
            signal=$1
            [ "$(cat "$process/comm" 2>/dev/null)" != pgbouncer ] || signal=KILL
            kill -s "$signal" "${process#/proc/}" 2>/dev/null
            ;;
        esac
    done
    [ -n "$found" ]
}

attempts=0
if signal_all QUIT; then
    while signal_all 0 && [ $attempts -lt 50 ]; do
        attempts=$((attempts + 1))
        sleep 0.1
    done
    signal_all KILL
fi
rm -rf -- "$run_directory"
"#;

struct Run {
    directory: PathBuf,
    watcher: Mutex<Option<Child>>,
    next: AtomicU32,
}

static RUN: LazyLock<Run> = LazyLock::new(|| {
    let directory = create_run_directory();
    let watcher = Command::new("sh")
        .args(["-c", SCRIPT, "watcher"])
        .arg(&directory)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("start the watcher");
    // SAFETY: the callback is a plain function that lives as long as the process and does not unwind.
    unsafe { libc::atexit(finish) };
    Run { directory, watcher: Mutex::new(Some(watcher)), next: AtomicU32::new(1) }
});

fn create_run_directory() -> PathBuf {
    let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |age| age.subsec_nanos());
    let name = format!("pg_tenancy.{}.{nanos}", std::process::id());
    // A socket's path may have 107 characters, and the shell compares resolved working directories.
    let directory = std::env::temp_dir().canonicalize().expect("the temporary directory").join(name);
    std::fs::create_dir(&directory).expect("create the run directory");
    stage::give_to_server(&directory);
    directory
}

/// Does not let the process end before its servers have: whoever runs the tests may remove the stage next.
extern "C" fn finish() {
    let watcher = RUN.watcher.lock().ok().and_then(|mut watcher| watcher.take());
    if let Some(mut watcher) = watcher {
        drop(watcher.stdin.take());
        // Nothing is left to do about a failure here.
        let _ = watcher.wait();
    }
}

/// A new directory in the run directory, owned by the account that servers run as.
pub(crate) fn new_directory(label: &str) -> PathBuf {
    let number = RUN.next.fetch_add(1, Ordering::Relaxed);
    let directory = RUN.directory.join(format!("{label}{number}"));
    std::fs::create_dir(&directory).expect("create a directory in the run directory");
    stage::give_to_server(&directory);
    directory
}
