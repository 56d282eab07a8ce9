//! Runs of pgbench.

use crate::settings::Settings;
use harness::Database;
use std::io::Write;
use std::process::Stdio;

/// One run of pgbench with prepared statements: who runs which script in which database, with which variables.
pub struct Run<'a> {
    pub database: &'a Database,
    pub role: &'a str,
    pub script: &'a str,
    pub variables: Vec<(&'a str, String)>,
}

impl Run<'_> {
    /// The transactions per second, connecting left out.
    pub fn tps(&self, settings: &Settings) -> f64 {
        let printed = self.output(settings.clients, settings.seconds);
        let tps = printed.lines().find_map(|line| line.strip_prefix("tps = "));
        let number = tps.and_then(|rest| rest.split(' ').next()).and_then(|number| number.parse().ok());
        number.unwrap_or_else(|| panic!("no tps in what pgbench printed:\n{printed}"))
    }

    fn output(&self, clients: usize, seconds: usize) -> String {
        let mut command = self.database.tool("pgbench", self.role);
        command.args(["-n", "-M", "prepared", "-f", "-"]).args(["-T", &seconds.to_string()]);
        command.args(["-c", &clients.to_string(), "-j", &clients.to_string()]);
        for (name, value) in &self.variables {
            command.args(["-D", &format!("{name}={value}")]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut pgbench = command.spawn().expect("start pgbench");
        let mut input = pgbench.stdin.take().expect("pgbench's input is a pipe");
        input.write_all(self.script.as_bytes()).expect("give pgbench its script");
        drop(input);
        let output = pgbench.wait_with_output().expect("wait for pgbench");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "pgbench failed at\n{}\n{complaints}", self.script);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// A transaction: its first statement, which says who asks, then the same statement some times over.
///
/// `before` sets the variables anew before each, by pgbench's own commands.
pub fn transaction(first: &str, before: &str, statement: &str, times: usize) -> String {
    let one = format!("{before}\n{statement};\n");
    format!("BEGIN;\n{first};\n{}COMMIT;\n", one.repeat(times))
}
