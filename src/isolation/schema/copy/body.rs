//! Function bodies that are kept as text: where one names its schema, the copy's names the copy's.
//!
//! PostgreSQL does not know what such a text refers to, so this goes by its form. Replaced are the schema's name before a dot and the name of
//! something in the schema (`template.users`, in code, in strings of dynamic SQL and in comments) or before the placeholder of a `format()`
//! (`'template.%I'`), in a list that `search_path` is set to, and as a string by itself where that is a name: given to `format()` and its like,
//! cast to regnamespace, compared with or kept in something that is called a schema. A column, variable, alias or word of the same name
//! stays: a body that puts names together by other means reaches for the template's objects, and the guard says so.

use std::collections::HashSet;

/// What names are looked for, and what they become.
pub struct Renaming<'a> {
    pub from: &'a str,
    pub to: &'a str,
    /// What the schema has: names of tables, types, functions and so on.
    pub objects: &'a HashSet<&'a str>,
}

impl Renaming<'_> {
    /// The body with its schema's name replaced. `is_sql` says whether quotes and comments are those of SQL and PL/pgSQL.
    pub fn apply(&self, body: &str, is_sql: bool) -> String {
        // Quotes in a name are doubled in a text.
        let has_quotes = self.from.contains(['\'', '"']);
        if !has_quotes && !body.to_lowercase().contains(&self.from.to_lowercase()) {
            return body.to_owned();
        }
        if is_sql { self.code(body) } else { self.text(body) }
    }

    /// A statement as PostgreSQL has written it out, where names are as they must be: all that is left are strings that become the name of an
    /// object when they are looked at, `('template.numbers'::text)::regclass`.
    pub fn apply_to_late_names(&self, sql: &str) -> String {
        if LATE.iter().any(|late| sql.contains(late)) {
            self.apply_to_strings(sql, |rest| LATE.iter().any(|late| rest.starts_with(late)))
        } else {
            sql.to_owned()
        }
    }

    /// The same for the strings that a function gets, as the arguments of a trigger.
    pub fn apply_to_arguments(&self, sql: &str) -> String {
        self.apply_to_strings(sql, |_| true)
    }

    /// Rewrites the strings of a statement, where what follows them is as wanted.
    fn apply_to_strings(&self, sql: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut rest = sql;
        let mut result = String::with_capacity(sql.len());
        for token in tokens(sql) {
            rest = &rest[token.text.len()..];
            if token.kind == Kind::Text && !token.text.starts_with('$') && wanted(rest) {
                self.push_string(&mut result, token.text, false);
            } else {
                result.push_str(token.text);
            }
        }
        result
    }

    /// Rewrites SQL or PL/pgSQL.
    fn code(&self, code: &str) -> String {
        let tokens = tokens(code);
        let mut result = String::with_capacity(code.len() + 64);
        let mut in_path = false;
        for (index, token) in tokens.iter().enumerate() {
            let significant = |range: &mut dyn Iterator<Item = usize>| {
                range.map(|at| &tokens[at]).find(|other| !matches!(other.kind, Kind::Space | Kind::Comment))
            };
            let before = significant(&mut (0..index).rev());
            let mut following =
                (index + 1..tokens.len()).filter(|at| !matches!(tokens[*at].kind, Kind::Space | Kind::Comment));
            match token.kind {
                Kind::Name | Kind::Quoted if self.is_schema(token) => {
                    let dot = following.next().is_some_and(|at| tokens[at].text == ".");
                    let object = following.next().map(|at| &tokens[at]);
                    let is_object = |token: &Token| {
                        token.text == "%" || token.name().is_some_and(|name| self.objects.contains(name.as_str()))
                    };
                    let qualifies =
                        dot && before.is_none_or(|before| before.text != ".") && object.is_some_and(is_object);
                    if qualifies || in_path && !dot {
                        result.push_str(&self.new_name(token.kind == Kind::Quoted));
                    } else {
                        result.push_str(token.text);
                    }
                }
                Kind::Text => self.push_string(&mut result, token.text, in_path || is_name(&tokens, index)),
                Kind::Comment => result.push_str(&self.text(token.text)),
                _ => result.push_str(token.text),
            }
            match token.kind {
                Kind::Name if token.text.eq_ignore_ascii_case("search_path") => in_path = true,
                Kind::Other if matches!(token.text, ";" | ")") => in_path = false,
                _ => {}
            }
        }
        result
    }

    /// A string literal, quoted or in dollars.
    fn push_string(&self, result: &mut String, literal: &str, is_name: bool) {
        let (open, close) = delimiters(literal);
        let inner = &literal[open..literal.len() - close];
        let is_plain = literal.starts_with('\'');
        let value = if is_plain { inner.replace("''", "'") } else { inner.to_owned() };
        let path = self.path(&value);
        let renamed = if is_name && path != value {
            path
        } else if is_plain || literal.starts_with('$') {
            // Often SQL itself, with strings of its own.
            self.code(&value)
        } else {
            self.text(&value)
        };
        result.push_str(&literal[..open]);
        result.push_str(&if is_plain { renamed.replace('\'', "''") } else { renamed });
        result.push_str(&literal[literal.len() - close..]);
    }

    /// A string that is a schema's name, or a list of them. As PostgreSQL writes a setting out, each name has a string of its own and no
    /// other quotes.
    fn path(&self, value: &str) -> String {
        if value == self.from {
            return self.to.to_owned();
        }
        let rename = |item: &str| {
            let name = item.trim();
            let is_schema = tokens(name).first().is_some_and(|token| token.text == name && self.is_schema(token));
            if is_schema { item.replace(name, &self.new_name(name.starts_with('"'))) } else { item.to_owned() }
        };
        value.split(',').map(rename).collect::<Vec<String>>().join(",")
    }

    /// The new name, in quotes where it needs them or the old one had some.
    fn new_name(&self, quoted: bool) -> String {
        if quoted { format!("\"{}\"", self.to.replace('"', "\"\"")) } else { crate::query::ident(self.to) }
    }

    fn is_schema(&self, token: &Token) -> bool {
        token.name().is_some_and(|name| name == self.from)
    }

    /// Replaces `schema.object` and `schema.%` wherever the schema stands as a word, in a text of any language.
    fn text(&self, text: &str) -> String {
        let quoted = crate::query::ident(self.from);
        let escaped = format!("\"{}\"", self.from.replace('"', "\"\""));
        let mut result = String::with_capacity(text.len() + 64);
        let mut rest = text;
        let mut previous = None;
        while let Some(character) = rest.chars().next() {
            let starts_word =
                !previous.is_some_and(|previous: char| is_word(previous) || matches!(previous, '.' | '"'));
            let found = [quoted.as_str(), escaped.as_str()]
                .into_iter()
                .find(|form| starts_word && starts_with_name(rest, form) && self.is_qualifier(&rest[form.len()..]));
            if let Some(form) = found {
                result.push_str(&self.new_name(form.starts_with('"')));
                rest = &rest[form.len()..];
                previous = form.chars().next_back();
            } else {
                result.push(character);
                rest = &rest[character.len_utf8()..];
                previous = Some(character);
            }
        }
        result
    }

    /// Whether what follows the schema's name is a dot and something in the schema, or a placeholder.
    fn is_qualifier(&self, rest: &str) -> bool {
        let Some(rest) = rest.strip_prefix('.') else { return false };
        if rest.starts_with('%') {
            return true;
        }
        tokens(rest).first().and_then(Token::name).is_some_and(|name| self.objects.contains(name.as_str()))
    }
}

/// What follows a string that is looked up as a name when it runs; the schema may have a type text of its own.
const LATE: [&str; 3] = ["::text)::reg", "::pg_catalog.text)::reg", "::pg_catalog.text)::pg_catalog.reg"];

/// Functions that take a schema's name as a string.
const TAKE_NAMES: [&str; 6] =
    ["format", "quote_ident", "set_config", "to_regnamespace", "has_schema_privilege", "concat"];

/// Whether the string at `index` is the name of a schema, by what is around it.
fn is_name(tokens: &[Token], index: usize) -> bool {
    let significant = |token: &&Token| !matches!(token.kind, Kind::Space | Kind::Comment);
    let cast: String = tokens[index + 1..].iter().filter(significant).take(5).map(|token| token.text).collect();
    if cast.starts_with("::regnamespace") || cast.starts_with("::pg_catalog.regnamespace") {
        return true;
    }
    let mut depth = 0_usize;
    let mut near = true;
    let mut before = tokens[..index].iter().rev().filter(significant);
    while let Some(token) = before.next() {
        let word = token.name();
        if near && word.as_ref().is_some_and(|word| word.contains("schema") || word == "nspname") {
            return true;
        }
        match (token.text, word.as_deref()) {
            (")", _) => depth += 1,
            ("(", _) if depth > 0 => depth -= 1,
            // The call whose argument it is.
            ("(", _) => {
                return before.next().and_then(Token::name).is_some_and(|name| TAKE_NAMES.contains(&name.as_str()));
            }
            (";", _) => return false,
            (",", _) | (_, Some("and" | "or" | "where" | "then" | "else" | "select" | "when" | "begin")) => {
                near = false
            }
            _ => {}
        }
    }
    false
}

/// Whether `text` begins with the name, in any case where it needs no quotes.
fn starts_with_name(text: &str, name: &str) -> bool {
    match text.get(..name.len()) {
        Some(start) if name.starts_with('"') => start == name,
        Some(start) => start.eq_ignore_ascii_case(name),
        None => false,
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$') || !character.is_ascii()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Space,
    Comment,
    /// An identifier without quotes, or a key word.
    Name,
    /// An identifier in double quotes.
    Quoted,
    /// A string literal.
    Text,
    Other,
}

struct Token<'a> {
    kind: Kind,
    text: &'a str,
}

impl Token<'_> {
    /// The identifier that the token is.
    fn name(&self) -> Option<String> {
        match self.kind {
            Kind::Name => Some(self.text.to_lowercase()),
            Kind::Quoted => Some(self.text.get(1..self.text.len() - 1)?.replace("\"\"", "\"")),
            _ => None,
        }
    }
}

/// The lengths of what a literal opens and closes with: `'`, `E'`, `$tag$`.
fn delimiters(literal: &str) -> (usize, usize) {
    if let Some(rest) = literal.strip_prefix('$') {
        let tag = rest.find('$').map_or(1, |end| end + 2);
        let closes = literal.len() >= 2 * tag;
        return (tag, if closes { tag } else { 0 });
    }
    let open = literal.find('\'').map_or(0, |at| at + 1);
    let closes = literal.len() > open && literal.ends_with('\'');
    (open, usize::from(closes))
}

/// SQL's lexical structure (PostgreSQL manual, section 4.1), as far as it decides what is a name.
fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let (kind, length) = if first.is_whitespace() {
            (Kind::Space, while_matches(rest, char::is_whitespace))
        } else if rest.starts_with("--") {
            (Kind::Comment, rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            (Kind::Comment, block_comment(rest))
        } else if first == '"' {
            (Kind::Quoted, quoted(rest, 1, '"', false))
        } else if first == '\'' {
            (Kind::Text, quoted(rest, 1, '\'', false))
        } else if matches!(first, 'e' | 'E' | 'b' | 'B' | 'x' | 'X' | 'n' | 'N') && rest[1..].starts_with('\'') {
            (Kind::Text, quoted(rest, 2, '\'', matches!(first, 'e' | 'E')))
        } else if first == '$'
            && let Some(length) = dollar_quoted(rest)
        {
            (Kind::Text, length)
        } else if first.is_alphabetic() || first == '_' || !first.is_ascii() {
            (Kind::Name, while_matches(rest, is_word))
        } else if first.is_ascii_digit() {
            (Kind::Other, while_matches(rest, |character| is_word(character) || character == '.'))
        } else {
            (Kind::Other, first.len_utf8())
        };
        tokens.push(Token { kind, text: &rest[..length] });
        rest = &rest[length..];
    }
    tokens
}

fn while_matches(text: &str, matches: impl Fn(char) -> bool) -> usize {
    text.find(|character| !matches(character)).unwrap_or(text.len())
}

/// The length of something in quotes that begins at `from`; a doubled quote stands for itself, after a backslash anything does.
fn quoted(text: &str, from: usize, quote: char, backslashes: bool) -> usize {
    let mut characters = text.char_indices().skip_while(|(at, _)| *at < from).peekable();
    while let Some((at, character)) = characters.next() {
        if character == '\\' && backslashes {
            characters.next();
        } else if character == quote {
            if characters.peek().is_some_and(|(_, next)| *next == quote) {
                characters.next();
            } else {
                return at + 1;
            }
        }
    }
    text.len()
}

/// The length of a comment, which may hold others.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn dollar_quoted(text: &str) -> Option<usize> {
    let tag_end = 1 + while_matches(&text[1..], |character| character.is_alphanumeric() || character == '_');
    if !text[tag_end..].starts_with('$') || text[1..].starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let tag = &text[..=tag_end];
    Some(text[tag.len()..].find(tag).map_or(text.len(), |end| end + 2 * tag.len()))
}
