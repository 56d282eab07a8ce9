//! What isolation costs: each figure as a ratio to what a user would otherwise write, measured in one run on throwaway
//! servers, in interleaved rounds. `README.md` says what each compares and how to read the table.

mod cpu;
mod crm;
mod figures;
mod pgbench;
mod plot;
mod report;
mod rounds;
mod settings;
mod surroundings;
mod tables;

use report::Row;
use settings::Settings;
use std::process::ExitCode;

/// A group of figures: what selects it on the command line, and what measures it.
type Group = (&'static str, fn(&Settings) -> Vec<Row>);

const GROUPS: [Group; 18] = [
    ("rows", figures::rows::measure),
    ("search", figures::search::measure),
    ("insert", figures::insert::measure),
    ("create", figures::create::measure),
    ("keys", figures::keys::measure),
    ("principal", figures::principal::measure),
    ("unrelated", figures::unrelated::measure),
    ("skew", figures::skew::measure),
    ("clone", figures::clone::measure),
    ("schemas", figures::schemas::measure),
    ("fleet", figures::fleet::measure),
    ("rates", figures::rates::measure),
    ("usage", figures::usage::measure),
    ("months", figures::months::measure),
    ("limits", figures::limits::measure),
    ("adopt", figures::adopt::measure),
    ("export", figures::export::measure),
    ("move", figures::moving::measure),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [option, file] = arguments.as_slice()
        && option == "--plot"
    {
        let table = std::io::read_to_string(std::io::stdin()).map_err(|error| error.to_string());
        return match table.and_then(|table| draw(&table, file)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let (settings, selected) = match settings::from_surroundings(&GROUPS.map(|(name, _)| name)) {
        Ok(chosen) => chosen,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    let before = surroundings::load();
    let mut rows = Vec::new();
    for (name, measure) in GROUPS {
        if selected.contains(&name) {
            eprintln!("measuring: {name}");
            rows.extend(measure(&settings));
        }
    }
    let table = report::table(&rows);
    println!("{table}");
    println!("{}", surroundings::describe(&settings, &before));
    let picture = std::env::var("BENCH_PLOT").unwrap_or_else(|_| "target/bench.svg".to_owned());
    if let Err(error) = draw(&table, &picture) {
        eprintln!("no picture: {error}");
    }
    let missed = rows.iter().filter(|row| row.is_met() == Some(false)).count();
    if missed > 0 && !settings.quick {
        println!("{missed} of the bars were missed");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Writes the table's picture to a file.
fn draw(table: &str, file: &str) -> Result<(), String> {
    let picture = plot::svg(table)?;
    std::fs::write(file, picture).map_err(|error| format!("{file}: {error}"))?;
    eprintln!("drawn: {file}");
    Ok(())
}
