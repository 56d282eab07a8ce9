//! The table.

use crate::rounds::median;

/// What a side's numbers are, and so which are better.
#[derive(Clone, Copy)]
pub enum Unit {
    /// Seconds for one execution: less is better.
    Seconds,
    /// Transactions in a second: more is better.
    Transactions,
    /// Rows in a second: more is better.
    Rows,
    /// Schemas made in a second: more is better.
    Schemas,
}

impl Unit {
    fn format(self, value: f64) -> String {
        match self {
            Unit::Seconds if value < 1e-4 => format!("{:.3} µs", value * 1e6),
            Unit::Seconds if value < 0.01 => format!("{:.3} ms", value * 1e3),
            Unit::Seconds => format!("{:.1} ms", value * 1e3),
            Unit::Transactions => format!("{value:.0} tps"),
            Unit::Rows => format!("{value:.0} rows/s"),
            Unit::Schemas => format!("{value:.1} schemas/s"),
        }
    }
}

/// What the ratio, ours to theirs, has to keep.
#[derive(Clone, Copy)]
pub enum Bar {
    AtMost(f64),
    AtLeast(f64),
    /// Shown for comparison.
    None,
}

/// A figure: our side and another, of the same rounds.
pub struct Row {
    figure: String,
    ours: String,
    theirs: String,
    ratios: Vec<f64>,
    bar: Bar,
}

impl Row {
    /// `ours` and `theirs` are a name and the measurements of each round.
    pub fn new(figure: &str, unit: Unit, ours: (&str, &[f64]), theirs: (&str, &[f64]), bar: Bar) -> Row {
        let side = |(name, values): (&str, &[f64])| format!("{} {name}", unit.format(median(values)));
        let ratios = ours.1.iter().zip(theirs.1).map(|(ours, theirs)| ours / theirs).collect();
        Row { figure: figure.to_owned(), ours: side(ours), theirs: side(theirs), ratios, bar }
    }

    /// Whether the median of the rounds' ratios keeps the bar; None when there is none.
    pub fn is_met(&self) -> Option<bool> {
        let ratio = median(&self.ratios);
        match self.bar {
            Bar::AtMost(most) => Some(ratio <= most),
            Bar::AtLeast(least) => Some(ratio >= least),
            Bar::None => None,
        }
    }

    fn cells(&self) -> [String; 6] {
        let least = self.ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.ratios.iter().copied().fold(0.0, f64::max);
        let bar = match self.bar {
            Bar::AtMost(most) => format!("≤ {most:.2}"),
            Bar::AtLeast(least) => format!("≥ {least:.2}"),
            Bar::None => "–".to_owned(),
        };
        let met = match self.is_met() {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "–",
        };
        let ratio = format!("{:.3} ({least:.3} … {most:.3})", median(&self.ratios));
        [self.figure.clone(), self.ours.clone(), self.theirs.clone(), ratio, bar, met.to_owned()]
    }
}

/// All figures as one table of Markdown, with columns of even width.
pub fn table(rows: &[Row]) -> String {
    let head = ["figure", "our side", "the other side", "ratio: median (range)", "bar", "met"].map(str::to_owned);
    let cells: Vec<[String; 6]> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let widths: [usize; 6] =
        std::array::from_fn(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut lines: Vec<String> = cells.iter().map(|row| line(row, &widths)).collect();
    lines.insert(1, line(&widths.map(|width| "-".repeat(width)), &widths));
    lines.join("\n") + "\n"
}

fn line(cells: &[String; 6], widths: &[usize; 6]) -> String {
    let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    format!("| {} |", padded.join(" | "))
}
