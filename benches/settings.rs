//! How much to measure.

use std::str::FromStr;

/// The sizes, from the environment or by default.
pub struct Settings {
    /// Rows of the large table.
    pub rows: usize,
    /// Tenants that share them evenly.
    pub tenants: usize,
    /// Interleaved rounds, besides one to warm up.
    pub rounds: usize,
    /// The same for figures of narrow bars and for CPU times.
    pub fine_rounds: usize,
    /// Seconds of each run of pgbench.
    pub seconds: usize,
    /// Sessions of pgbench.
    pub clients: usize,
    /// Rows of one bulk insert.
    pub bulk: usize,
    /// API keys of all tenants.
    pub keys: usize,
    /// To see that everything works: the figures mean little.
    pub quick: bool,
}

const USAGE: &str = "usage: bench [--quick] [GROUP ...]
       bench --plot FILE < TABLE
    --quick          small sizes, to see that everything works; a missed bar is no failure then
    --plot FILE      draw a table that was printed before
    GROUP            one of: rows search insert create keys principal unrelated skew clone schemas fleet rates usage months limits adopt export move; all by default
environment, each a number:
    BENCH_ROWS (2000000), BENCH_TENANTS (1000), BENCH_ROUNDS (7), BENCH_FINE_ROUNDS (21),
    BENCH_SECONDS (2), BENCH_CLIENTS (1), BENCH_BULK (200000), BENCH_KEYS (1000000)
    BENCH_PLOT (target/bench.svg): where the table is drawn to";

/// The settings and the groups to measure, or what is wrong with the command line or the environment.
pub fn from_surroundings(groups: &[&'static str]) -> Result<(Settings, Vec<&'static str>), String> {
    let mut quick = false;
    let mut selected = Vec::new();
    for argument in std::env::args().skip(1) {
        match groups.iter().find(|group| **group == argument) {
            Some(group) => selected.push(*group),
            None if argument == "--quick" => quick = true,
            None => return Err(USAGE.to_owned()),
        }
    }
    if selected.is_empty() {
        selected = groups.to_vec();
    }
    Ok((read(quick)?, selected))
}

fn read(quick: bool) -> Result<Settings, String> {
    let size = |name, full, small| number(name, if quick { small } else { full });
    let settings = Settings {
        rows: size("BENCH_ROWS", 2_000_000, 50_000)?,
        tenants: size("BENCH_TENANTS", 1000, 50)?,
        rounds: size("BENCH_ROUNDS", 7, 1)?,
        fine_rounds: size("BENCH_FINE_ROUNDS", 21, 1)?,
        seconds: size("BENCH_SECONDS", 2, 1)?,
        clients: size("BENCH_CLIENTS", 1, 1)?,
        bulk: size("BENCH_BULK", 200_000, 5000)?,
        keys: size("BENCH_KEYS", 1_000_000, 20_000)?,
        quick,
    };
    if settings.rows < settings.tenants {
        return Err("BENCH_ROWS must not be less than BENCH_TENANTS".to_owned());
    }
    Ok(settings)
}

/// The number in an environment variable.
fn number(name: &str, default: usize) -> Result<usize, String> {
    let Ok(text) = std::env::var(name) else {
        return Ok(default);
    };
    match usize::from_str(&text) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{name} must be a positive number, not {text:?}")),
    }
}
