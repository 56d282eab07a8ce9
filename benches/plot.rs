//! The table as a picture: an SVG file that is readable on a light and on a dark page.
//!
//! Drawn from the printed table, so that one that was kept can be drawn again. Every figure is turned into a speed, ours
//! as a multiple of the other side's, so that right of the middle is better whatever the table's ratio is of.

use std::fmt::Write;

/// Across: names, then the axis, then the number and the bar.
const WIDTH: f64 = 1000.0;
const AXIS_FROM: f64 = 470.0;
const AXIS_TO: f64 = 846.0;
/// Speeds at the ends of the axis, which is logarithmic; what lies beyond becomes an arrow there.
const SLOWEST: f64 = 0.4;
const FASTEST: f64 = 2.5;
const TICKS: [f64; 9] = [0.4, 0.5, 0.65, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5];
/// Downwards.
const HEAD: f64 = 92.0;
const FIGURE: f64 = 22.0;
const SIDES: f64 = 19.0;
const FOOT: f64 = 34.0;

const STYLE: &str = "
text { font: 12px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; }
.title { font-size: 17px; font-weight: 600; } .pale { font-size: 11.5px; } .right { text-anchor: end; } .middle { text-anchor: middle; }
.figure { font-weight: 600; } .range { stroke-width: 5; stroke-linecap: round; opacity: .35; } .bar { stroke-width: 2.5; }
.one { stroke-width: 1.5; } .shown .dot { stroke-width: 2; }
";

/// What belongs to the ground that the picture is shown on.
struct Colours {
    ground: &'static str,
    band: &'static str,
    line: &'static str,
    ink: &'static str,
    pale: &'static str,
    kept: &'static str,
    bar: &'static str,
    missed: &'static str,
}

const LIGHT: Colours = Colours {
    ground: "#ffffff",
    band: "#f6f8fa",
    line: "#d8dee4",
    ink: "#1f2328",
    pale: "#59636e",
    kept: "#0969da",
    bar: "#bc6c00",
    missed: "#cf222e",
};

const DARK: Colours = Colours {
    ground: "#0d1117",
    band: "#161b22",
    line: "#30363d",
    ink: "#e6edf3",
    pale: "#9198a1",
    kept: "#4493f8",
    bar: "#d29922",
    missed: "#f85149",
};

impl Colours {
    fn rules(&self) -> String {
        let Colours { ground, band, line, ink, pale, kept, bar, missed } = self;
        format!(
            "text {{ fill: {ink}; }} .pale {{ fill: {pale}; }} .ground {{ fill: {ground}; stroke: {line}; }} .band {{ fill: {band}; }}
.grid {{ stroke: {line}; }} .one {{ stroke: {pale}; }} .bar {{ stroke: {bar}; }} .range {{ stroke: {kept}; }} .dot {{ fill: {kept}; }}
.missed .range {{ stroke: {missed}; }} .missed .dot, .missed .number {{ fill: {missed}; }} .shown .dot {{ fill: {ground}; stroke: {kept}; }}
"
        )
    }
}

/// A row of the table.
struct Row {
    figure: String,
    ours: String,
    theirs: String,
    /// Our speed as a multiple of theirs: the median of the rounds, the least and the most.
    speed: [f64; 3],
    /// The speed that has to be kept.
    bar: Option<f64>,
    missed: bool,
}

/// The picture of a table of Markdown as [`crate::report::table`] makes it; other lines are passed over.
pub fn svg(table: &str) -> Result<String, String> {
    let rows = table.lines().filter_map(cells).map(|cells| read(&cells)).collect::<Result<Vec<Row>, String>>()?;
    if rows.is_empty() {
        return Err("no figure in the table".to_owned());
    }
    Ok(draw(&rows))
}

/// The cells of a line that is a row, and not the table's head.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let cells: Vec<&str> = inner.split(" | ").map(str::trim).collect();
    let is_head = cells[0] == "figure" || cells[0].starts_with("--");
    (!is_head).then_some(cells)
}

fn read(cells: &[&str]) -> Result<Row, String> {
    let &[figure, ours, theirs, ratio, bar, met] = cells else {
        return Err(format!("{} cells where six were due: {}", cells.len(), cells.join(" | ")));
    };
    let wrong = |what: &str| format!("no {what} in the row of {figure}");
    let numbers =
        |text: &str| text.split([' ', '(', ')', '…', '≤', '≥']).filter_map(|word| word.parse().ok()).collect();
    let ratios: Vec<f64> = numbers(ratio);
    let &[median, least, most] = ratios.as_slice() else {
        return Err(wrong("ratio with its range"));
    };
    let (unit, ours) = named(ours).ok_or_else(|| wrong("number of our side"))?;
    let (_, theirs) = named(theirs).ok_or_else(|| wrong("number of the other side"))?;
    let is_time = matches!(unit, "ms" | "µs");
    let bar: Vec<f64> = numbers(bar);
    let bar = bar.first().map(|&bar| if is_time { 1.0 / bar } else { bar });
    let speed = if is_time { [1.0 / median, 1.0 / most, 1.0 / least] } else { [median, least, most] };
    let name = |name: &str| name.to_owned();
    Ok(Row { figure: name(figure), ours: name(ours), theirs: name(theirs), speed, bar, missed: met == "NO" })
}

/// The unit and the name of a side: `43.5 ms guarded table`.
fn named(side: &str) -> Option<(&str, &str)> {
    let (_, named) = side.split_once(' ')?;
    named.split_once(' ')
}

fn draw(rows: &[Row]) -> String {
    let begins = |at: usize| at == 0 || rows[at - 1].figure != rows[at].figure;
    let height_of = |at: usize| if begins(at) { FIGURE + SIDES } else { SIDES };
    let height = HEAD + (0..rows.len()).map(height_of).sum::<f64>() + FOOT;
    let bottom = height - FOOT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">
<title>Speed of pg_tenancy against what one would otherwise write</title>
<style>{STYLE}{}@media (prefers-color-scheme: dark) {{
{}}}
</style>
<rect class=\"ground\" x=\".5\" y=\".5\" width=\"{}\" height=\"{}\" rx=\"8\"/>
",
        LIGHT.rules(),
        DARK.rules(),
        WIDTH - 1.0,
        height - 1.0,
    );
    let mut bands = String::new();
    let mut marks = String::new();
    let mut top = HEAD;
    let mut figures = 0;
    for (at, row) in rows.iter().enumerate() {
        if begins(at) {
            figures += 1;
            let same = rows[at..].iter().take_while(|other| other.figure == row.figure).count();
            let tall = FIGURE + SIDES * count(same);
            if figures % 2 == 1 {
                put(
                    &mut bands,
                    &format!("<rect class=\"band\" x=\"1\" y=\"{top}\" width=\"{}\" height=\"{tall}\"/>", WIDTH - 2.0),
                );
            }
            write_text(&mut marks, "figure", 16.0, top + 16.0, &row.figure);
            top += FIGURE;
        }
        mark(&mut marks, row, top + SIDES / 2.0 - 2.0);
        top += SIDES;
    }
    svg += &bands;
    legend(&mut svg);
    for tick in TICKS {
        let (x, class) = (across(tick), if is_one(tick) { "one" } else { "grid" });
        put(
            &mut svg,
            &format!("<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{bottom}\"/>", HEAD - 6.0),
        );
        write_text(&mut svg, "pale middle", x, HEAD - 12.0, &format!("{tick}×"));
        write_text(&mut svg, "pale middle", x, bottom + 20.0, &format!("{tick}×"));
    }
    svg += &marks;
    svg + "</svg>\n"
}

/// What the picture shows and how to read it.
fn legend(svg: &mut String) {
    write_text(svg, "title", 16.0, 32.0, "Speed against what one would otherwise write");
    write_text(
        svg,
        "pale",
        16.0,
        52.0,
        "pg_tenancy's as a multiple of the other side's, each in the same round: right of 1× is faster",
    );
    const Y: f64 = 28.0;
    const KINDS: [(f64, &str, &str, bool); 3] = [
        (600.0, "kept", "median and range, bar kept", true),
        (836.0, "missed", "bar missed", true),
        (600.0, "shown", "for comparison, no bar", false),
    ];
    for (x, class, label, has_bar) in KINDS {
        let y = if has_bar { Y } else { Y + 20.0 };
        let bar = if has_bar {
            format!("<line class=\"bar\" x1=\"{0}\" x2=\"{0}\" y1=\"{1}\" y2=\"{2}\"/>", x + 5.0, y - 6.0, y + 6.0)
        } else {
            String::new()
        };
        put(
            svg,
            &format!(
                "<g class=\"{class}\"><line class=\"range\" x1=\"{}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>{bar}<circle class=\"dot\" cx=\"{}\" cy=\"{y}\" r=\"4\"/></g>",
                x + 4.0,
                x + 28.0,
                x + 18.0
            ),
        );
        write_text(svg, "pale", x + 38.0, y + 4.0, label);
    }
}

/// One comparison: names, range, median, bar and number.
fn mark(svg: &mut String, row: &Row, y: f64) {
    const LONGEST: usize = 74;
    let [median, least, most] = row.speed;
    let class = match (row.missed, row.bar) {
        (true, _) => "missed",
        (false, Some(_)) => "kept",
        (false, None) => "shown",
    };
    let sides = format!("{} against {}", row.ours, row.theirs);
    let shown: String =
        if sides.chars().count() > LONGEST { sides.chars().take(LONGEST - 1).chain(['…']).collect() } else { sides };
    write_text(svg, "pale", 28.0, y + 4.0, &shown);
    put(svg, &format!("<g class=\"{class}\">"));
    put(
        svg,
        &format!(
            "<line class=\"range\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y}\" y2=\"{y}\"/>",
            across(least),
            across(most)
        ),
    );
    if let Some(bar) = row.bar {
        put(
            svg,
            &format!(
                "<line class=\"bar\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1}\" y2=\"{2}\"/>",
                across(bar),
                y - 7.0,
                y + 7.0
            ),
        );
    }
    let x = across(median);
    let point = if median > FASTEST {
        format!("<path class=\"dot\" d=\"M {} {} l 10 5 l -10 5 z\"/>", x - 4.0, y - 5.0)
    } else if median < SLOWEST {
        format!("<path class=\"dot\" d=\"M {} {} l -10 5 l 10 5 z\"/>", x + 4.0, y - 5.0)
    } else {
        format!("<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y}\" r=\"4\"/>")
    };
    put(svg, &point);
    write_text(svg, "number right", WIDTH - 82.0, y + 4.0, &format!("{}×", number(median)));
    if let Some(bar) = row.bar {
        write_text(svg, "pale right", WIDTH - 16.0, y + 4.0, &format!("≥ {}", number(bar)));
    }
    put(svg, "</g>");
}

/// Where a speed is on the axis, or the end of it.
fn across(speed: f64) -> f64 {
    let share = (speed.clamp(SLOWEST, FASTEST) / SLOWEST).ln() / (FASTEST / SLOWEST).ln();
    AXIS_FROM + share * (AXIS_TO - AXIS_FROM)
}

/// With as many digits as say something.
fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 0.1 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

fn is_one(tick: f64) -> bool {
    (tick - 1.0).abs() < f64::EPSILON
}

fn count(rows: usize) -> f64 {
    u32::try_from(rows).map_or(0.0, f64::from)
}

fn write_text(svg: &mut String, class: &str, x: f64, y: f64, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    put(svg, &format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y}\">{text}</text>"));
}

fn put(svg: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(svg, "{line}");
}
