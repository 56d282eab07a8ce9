//! The CPU time that the server spends on something, which a busy machine sways less than the time that a client waits.

use crate::rounds::execute;
use harness::{Client, Database, backend_pid};
use std::fs;

/// A session whose server process is watched.
pub struct Watched {
    pub client: Client,
    pid: i32,
}

impl Watched {
    /// A session of a role that runs `settings` first.
    pub fn connect(database: &Database, role: &str, settings: &str) -> Watched {
        let mut client = database.connect(role);
        execute(&mut client, settings);
        let pid = backend_pid(&mut client);
        Watched { client, pid }
    }

    /// The seconds of CPU time that `work` costs the server, divided by `times`.
    pub fn seconds_each(&mut self, times: usize, work: impl FnOnce(&mut Client)) -> f64 {
        let before = seconds_used(self.pid);
        work(&mut self.client);
        (seconds_used(self.pid) - before) / times as f64
    }
}

/// The seconds that a process has run, in user and kernel mode; exact for one that waits.
fn seconds_used(pid: i32) -> f64 {
    let path = format!("/proc/{pid}/schedstat");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let nanoseconds: Option<f64> = text.split(' ').next().and_then(|number| number.parse().ok());
    nanoseconds.unwrap_or_else(|| panic!("{path} is not as expected: {text:?}")) / 1e9
}
