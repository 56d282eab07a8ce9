//! What the figures were measured on.

use crate::settings::Settings;
use crate::tables;
use harness::{Cluster, simple, text};
use std::fs;

/// The settings of the server that sway the figures.
const SERVER_SETTINGS: &str =
    "SELECT string_agg(name || ' = ' || current_setting(name), ', ' ORDER BY name) FROM pg_settings
    WHERE name IN ('autovacuum', 'checkpoint_timeout', 'fsync', 'full_page_writes', 'jit', 'max_wal_size',
                   'max_parallel_workers_per_gather', 'shared_buffers', 'synchronous_commit', 'wal_level', 'huge_pages',
                   'synchronize_seqscans', 'statement_timeout', 'debug_assertions')";

/// How busy the machine is: runnable processes on average over one, five and fifteen minutes.
pub fn load() -> String {
    let load = read("/proc/loadavg");
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// The machine, the server and the sizes, as a list of Markdown.
pub fn describe(settings: &Settings, load_before: &str) -> String {
    let cluster = Cluster::start(tables::options());
    let database = cluster.database("surroundings");
    let mut superuser = database.superuser();
    let version = text(&mut superuser, "SELECT version()");
    let extension = text(&mut superuser, "SELECT extversion FROM pg_extension WHERE extname = 'pg_tenancy'");
    let server = simple(&mut superuser, SERVER_SETTINGS).remove(0).remove(0).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    [
        format!("machine: {cores} cores, {}, {} of memory", field("/proc/cpuinfo", "model name"), memory()),
        format!("system: Linux {}; load before {load_before}, after {}", read("/proc/sys/kernel/osrelease"), load()),
        format!("server: {version}; pg_tenancy {extension}"),
        format!("settings: {server}"),
        format!(
            "sizes: {} rows, {} tenants, {} rounds ({} for narrow bars and CPU times), {} s of pgbench each, {} client(s), {} rows in bulk, {} API keys{}",
            settings.rows,
            settings.tenants,
            settings.rounds,
            settings.fine_rounds,
            settings.seconds,
            settings.clients,
            settings.bulk,
            settings.keys,
            if settings.quick { "; QUICK: the figures mean little" } else { "" },
        ),
    ]
    .map(|line| format!("- {line}\n"))
    .concat()
}

fn memory() -> String {
    let kilobytes: f64 = field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0.0);
    format!("{:.0} GB", kilobytes / 1e6)
}

/// The value of the first line `name : value` of a file.
fn field(path: &str, name: &str) -> String {
    let text = read(path);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    line.unwrap_or("unknown").trim().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
