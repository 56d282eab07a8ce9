//! Dumps of schemas, and whether two of them say the same under two names.

use crate::row::without_restrict;
use harness::*;
use std::collections::HashSet;
use std::fmt::{self, Display, Formatter, Write};

/// How many differences are shown.
const SHOWN: usize = 12;

/// What `pg_dump --schema-only -n` writes of a schema, but for the label that says whose it is.
pub struct Dump(String);

impl Dump {
    #[track_caller]
    pub fn of(database: &Database, schema: &str) -> Dump {
        let pattern = format!("\"{}\"", schema.replace('"', "\"\""));
        let mut pg_dump = database.tool("pg_dump", "postgres");
        Dump(without_restrict(&run(pg_dump.args([
            "--schema-only",
            "--no-security-labels",
            "--strict-names",
            "-n",
            &pattern,
        ]))))
    }

    /// What the dump of an exact copy would be.
    pub fn renamed(&self, renaming: &Renaming) -> Dump {
        Dump(self.0.lines().flat_map(|line| [renaming.line(line), "\n".to_owned()]).collect())
    }

    #[track_caller]
    pub fn assert_same(&self, copy: &Dump) {
        if let Some(differences) = self.differences(copy) {
            panic!("the copy's dump (+) is not the template's (-):\n{differences}");
        }
    }

    /// Where the dumps differ; None where they do not.
    pub fn differences(&self, copy: &Dump) -> Option<String> {
        let (expected, found) = (self.entries(), copy.entries());
        if expected == found {
            return None;
        }
        let mut shown = String::new();
        let differing = expected.iter().filter(|entry| !found.contains(entry)).map(|entry| ('-', entry, &found));
        let extra = found.iter().filter(|entry| !expected.contains(entry)).map(|entry| ('+', entry, &expected));
        let mut all: Vec<(char, &String, &Vec<String>)> = differing.chain(extra).collect();
        all.sort_by_key(|(sign, entry, _)| (heading(entry), *sign == '+'));
        for (sign, entry, others) in all.iter().take(2 * SHOWN) {
            let counterpart = others.iter().find(|other| heading(other) == heading(entry));
            let is_new = |line: &&str| counterpart.is_none_or(|other| !other.lines().any(|its| its == *line));
            let _ = writeln!(shown, "{}", heading(entry));
            for line in entry.lines().skip(1).filter(is_new) {
                let _ = writeln!(shown, "{sign} {line}");
            }
        }
        if all.is_empty() {
            let at = expected.iter().zip(&found).find(|(one, other)| one != other);
            let _ = writeln!(shown, "the same in another order, from {at:#?}");
        }
        let _ = write!(shown, "({} entries differ)", all.len());
        Some(shown)
    }

    /// The dump cut at its headings, without what either reading of a comment in a function's body leaves open.
    fn entries(&self) -> Vec<String> {
        let mut entries = vec![String::new()];
        for line in self.0.lines().map(without_comment).filter(|line| !line.is_empty() && *line != "--") {
            if line.starts_with("-- Name: ") {
                entries.push(String::new());
            }
            if let Some(entry) = entries.last_mut() {
                entry.push_str(line);
                entry.push('\n');
            }
        }
        entries
    }
}

impl Display for Dump {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The line that says what an entry of a dump is about.
fn heading(entry: &str) -> &str {
    entry.lines().next().unwrap_or_default()
}

fn without_comment(line: &str) -> &str {
    let end = ["-- either way", "/* either way"].iter().filter_map(|start| line.find(start)).min();
    line[..end.unwrap_or(line.len())].trim_end()
}

/// How a schema's name becomes that of its copy, by the rules at the top of `schema/everything.sql`. Both are plain lower-case words.
pub struct Renaming<'a> {
    from: &'a str,
    to: &'a str,
    /// Names of what is in the schema.
    objects: HashSet<String>,
}

impl<'a> Renaming<'a> {
    pub fn new(superuser: &mut Client, from: &'a str, to: &'a str) -> Renaming<'a> {
        const OBJECTS: &str = "SELECT o.name::text FROM pg_namespace AS n, LATERAL (
                SELECT relname FROM pg_class WHERE relnamespace = n.oid UNION SELECT typname FROM pg_type WHERE typnamespace = n.oid UNION
                SELECT proname FROM pg_proc WHERE pronamespace = n.oid UNION SELECT stxname FROM pg_statistic_ext WHERE stxnamespace = n.oid
            ) AS o (name) WHERE n.nspname = $1::text::name";
        let objects = rows(superuser, OBJECTS, &[&from]).iter().map(|row| row.get(0)).collect();
        Renaming { from, to, objects }
    }

    /// Renames the schema where a line of a dump refers to it.
    fn line(&self, line: &str) -> String {
        let lower = line.to_ascii_lowercase();
        let mut result = String::with_capacity(line.len());
        let mut done = 0;
        for (at, _) in lower.match_indices(self.from) {
            let (start, end) = (at, at + self.from.len());
            let is_word = |character: char| character.is_alphanumeric() || character == '_';
            if line[..start].ends_with(is_word) || line[end..].starts_with(is_word) {
                continue;
            }
            if self.is_reference(line, start, end) {
                result.push_str(&line[done..start]);
                result.push_str(self.to);
                done = end;
            }
        }
        result.push_str(&line[done..]);
        result
    }

    /// Whether the name that stands between `start` and `end` is the schema's.
    fn is_reference(&self, line: &str, start: usize, end: usize) -> bool {
        let (mut before, mut after) = (&line[..start], &line[end..]);
        if before.ends_with('\'') && after.starts_with('\'') {
            return ["format(", "nspname", "search_path"].iter().any(|word| line.contains(word));
        }
        if let (Some(outside), Some(behind)) = (before.strip_suffix('"'), after.strip_prefix('"')) {
            (before, after) = (outside, behind);
        }
        if before.ends_with('.') {
            return false;
        }
        if let Some(object) = after.trim_start().strip_prefix('.') {
            return object.starts_with('%') || self.objects.contains(&first_name(object.trim_start()));
        }
        let is_named = ["SCHEMA ", "Schema: "].iter().any(|word| before.ends_with(word));
        let is_heading = before == "-- Name: " && after.starts_with("; Type: SCHEMA;");
        is_named || is_heading || line.contains("search_path")
    }
}

/// The identifier that a text begins with, as the catalogs have it. It may stand in a string, whose quotes are doubled.
fn first_name(text: &str) -> String {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut name = String::new();
        let mut rest = quoted.chars().peekable();
        while let Some(character) = rest.next() {
            if character == '"' && rest.next_if_eq(&'"').is_none() {
                break;
            }
            if character == '\'' {
                rest.next_if_eq(&'\'');
            }
            name.push(character);
        }
        return name;
    }
    text.chars()
        .take_while(|character| character.is_alphanumeric() || *character == '_')
        .collect::<String>()
        .to_lowercase()
}
