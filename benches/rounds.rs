//! Measuring sides in turn, so that whatever else the machine does happens to all of them.

use harness::Client;
use std::time::{Duration, Instant};

/// One side of a comparison, measured once per round; it is told the number of the round.
pub type Side<'a> = Box<dyn FnMut(usize) -> f64 + 'a>;

/// Every side's measurements, in the order of the sides, each in the order of the rounds.
///
/// The first round warms caches and plans and does not count. Every other round goes through the sides backwards,
/// so that none is always measured after the same one.
pub fn interleave<const SIDES: usize>(rounds: usize, mut sides: [Side<'_>; SIDES]) -> [Vec<f64>; SIDES] {
    let mut measured: [Vec<f64>; SIDES] = std::array::from_fn(|_| Vec::with_capacity(rounds));
    for round in 0..=rounds {
        let mut order: Vec<usize> = (0..SIDES).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for side in order {
            let value = sides[side](round);
            if round > 0 {
                measured[side].push(value);
            }
        }
    }
    measured
}

/// The seconds that one execution of a statement takes: the median of as many as fit into a moment.
pub fn seconds_each(client: &mut Client, sql: &str) -> f64 {
    const MOMENT: Duration = Duration::from_millis(300);
    let begin = Instant::now();
    let mut executions = Vec::new();
    while executions.len() < 3 || begin.elapsed() < MOMENT {
        executions.push(seconds_once(client, sql));
    }
    median(&executions)
}

/// The seconds that the next execution of a statement takes.
pub fn seconds_once(client: &mut Client, sql: &str) -> f64 {
    let begin = Instant::now();
    execute(client, sql);
    begin.elapsed().as_secs_f64()
}

/// Runs a statement by the simple protocol; panics on an error.
pub fn execute(client: &mut Client, sql: &str) {
    if let Err(error) = client.batch_execute(sql) {
        panic!("{sql}: {error:?}");
    }
}

/// The middle of the values, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}
