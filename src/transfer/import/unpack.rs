//! Reading an export, which nobody has to trust: its form is checked, and its checksum, before anything is done with it.

use super::lines::Lines;
use crate::error::{Error, Result};
use crate::query;
use crate::relation;
use crate::transfer::format::{self, Checksum, kind};
use crate::transfer::own;
use crate::uuid;
use pgrx::{Uuid, pg_sys};
use serde_json::Value;

const RELATION: &str = "SELECT c.relkind::text, c.relrowsecurity,
        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_attribute a JOIN (VALUES ('seq', 'int8'), ('kind', 'text'), ('name', 'text'), ('data', 'text'))
             AS v (name, type) ON v.name = a.attname::text AND pg_catalog.format('pg_catalog.%s', v.type)::pg_catalog.regtype = a.atttypid
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) = 4
    FROM pg_catalog.pg_class c WHERE c.oid = $1";
/// Records that are in memory at a time.
const BATCH: i64 = 16;

pub fn refused(what: impl AsRef<str>) -> Error {
    Error::invalid(
        format!("the export cannot be loaded: {}", what.as_ref()),
        "It is as export_tenant() wrote it, or it is refused.",
    )
}

/// A table's rows.
pub struct Packed {
    pub name: String,
    pub schema: Option<String>,
    pub tenant_column: Option<String>,
    pub columns: Vec<String>,
    pub rows: Lines,
}

/// What the tenant was, as JSON, and where.
#[derive(Clone)]
pub struct Header {
    pub tenant: Uuid,
    pub isolation: String,
    pub template: Option<String>,
    pub json: String,
}

/// An export whose checksum is right.
pub struct Package {
    pub header: Header,
    pub own: Vec<(&'static own::Own, Lines)>,
    pub tables: Vec<Packed>,
    pub sequences: Vec<(String, i64, bool)>,
}

struct Reader {
    header: Option<Header>,
    own: Vec<(&'static own::Own, Lines)>,
    tables: Vec<Packed>,
    sequences: Vec<(String, i64, bool)>,
    /// Whether the last record was a table, or rows of it.
    in_table: bool,
    records: i64,
    checksum: Checksum,
    ended: Option<Value>,
}

fn object(data: &str) -> Result<Value> {
    serde_json::from_str::<Value>(data)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| refused("a record is no JSON object"))
}

fn text(object: &Value, field: &str) -> Result<Option<String>> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(refused(format!("\"{field}\" is no text"))),
    }
}

impl Reader {
    fn take(&mut self, (number, kind, name, data): (i64, String, String, String)) -> Result<()> {
        if number != self.records + 1 || self.ended.is_some() {
            return Err(refused(format!("record {} is not there once, in its place", self.records + 1)));
        }
        self.records = number;
        let is_table = kind == kind::TABLE || kind == kind::ROWS;
        match kind.as_str() {
            kind::HEADER if self.header.is_none() && number == 1 => self.header = Some(header(&name, &data)?),
            _ if self.header.is_none() => return Err(refused("it does not begin with a header")),
            kind::OWN => self.take_own(&name, &data)?,
            kind::TABLE => self.tables.push(table(name.clone(), &data)?),
            kind::ROWS => match self.tables.last_mut() {
                Some(table) if self.in_table && table.name == name => table.rows.add(data.as_bytes())?,
                _ => return Err(refused(format!("rows of {name} do not follow on it"))),
            },
            kind::SEQUENCE => {
                let position = object(&data)?;
                let value = position.get("last_value").and_then(Value::as_i64);
                let is_called = position.get("is_called").and_then(Value::as_bool);
                let (value, is_called) = value.zip(is_called).ok_or_else(|| refused("a sequence has no position"))?;
                self.sequences.push((name.clone(), value, is_called));
            }
            kind::END => {
                self.ended = Some(object(&data)?);
                return Ok(());
            }
            _ => return Err(refused(format!("record {number} is of an unknown kind"))),
        }
        self.in_table = is_table;
        self.checksum.add(&kind, &name, &data);
        Ok(())
    }

    fn take_own(&mut self, name: &str, data: &str) -> Result<()> {
        let known = own::ALL.iter().find(|own| own.name == name);
        let known = known.ok_or_else(|| refused(format!("it has records of \"{name}\"")))?;
        if self.own.last().is_none_or(|(last, _)| last.name != name) {
            if self.own.iter().any(|(own, _)| own.name == name) {
                return Err(refused(format!("records of {name} do not follow on each other")));
            }
            self.own.push((known, Lines::new()?));
        }
        let Some((_, lines)) = self.own.last_mut() else { return Ok(()) };
        data.lines().try_for_each(|line| known.check(line))?;
        lines.add(data.as_bytes())?;
        lines.add(b"\n")
    }

    fn finish(mut self) -> Result<Package> {
        let (Some(header), Some(end)) = (self.header, self.ended) else { return Err(refused("it is not complete")) };
        for table in &mut self.tables {
            table.rows.finish()?;
        }
        self.own.iter_mut().try_for_each(|(_, lines)| lines.finish())?;
        let lines =
            self.tables.iter().map(|table| table.rows.count).chain(self.own.iter().map(|(_, lines)| lines.count));
        let rows = lines.sum::<u64>();
        let number = |field: &str| end.get(field).and_then(Value::as_u64);
        let is_whole = self.tables.iter().all(|table| table.rows.is_whole())
            && number("records") == Some((self.records - 1).cast_unsigned())
            && number("rows") == Some(rows)
            && text(&end, "sha256")?.as_deref() == Some(self.checksum.finish().as_str());
        if !is_whole {
            return Err(refused("its rows are not those that it was written with"));
        }
        Ok(Package { header, own: self.own, tables: self.tables, sequences: self.sequences })
    }
}

fn header(name: &str, data: &str) -> Result<Header> {
    let header = object(data)?;
    if header.get("format").and_then(Value::as_u64) != Some(format::VERSION.into()) {
        return Err(refused("it is of another format than this version knows"));
    }
    let tenant = header.get("tenant").filter(|tenant| tenant.is_object()).ok_or_else(|| refused("it has no tenant"))?;
    // What is under way is not exported, and nobody would end it here.
    if matches!(text(tenant, "status")?.as_deref(), None | Some("provisioning" | "moving")) {
        return Err(refused("its tenant is in no state that an export has"));
    }
    let id = text(tenant, "id")?.filter(|id| id == name).and_then(|id| uuid::parse(id.as_bytes()));
    Ok(Header {
        tenant: Uuid::from_bytes(id.ok_or_else(|| refused("it has no tenant's id"))?),
        isolation: text(&header, "isolation")?.ok_or_else(|| refused("it has no isolation"))?,
        template: text(&header, "template")?,
        json: data.to_owned(),
    })
}

fn table(name: String, data: &str) -> Result<Packed> {
    let table = object(data)?;
    let columns = table.get("columns").and_then(Value::as_array).ok_or_else(|| refused("a table has no columns"))?;
    let column = |column: &Value| text(column, "name")?.ok_or_else(|| refused("a column has no name"));
    Ok(Packed {
        schema: text(&table, "schema")?,
        tenant_column: text(&table, "tenant_column")?,
        columns: columns.iter().map(column).collect::<Result<_>>()?,
        rows: Lines::new()?,
        name,
    })
}

/// Reads an export from a table, as the caller.
pub fn unpack(source: pg_sys::Oid) -> Result<Package> {
    let found = query::active_rows(RELATION, &[source.into()], |row| {
        Ok((row.must::<String>(1)?, row.must::<bool>(2)?, row.must::<bool>(3)?))
    })?;
    let usable = found
        .first()
        .is_some_and(|(kind, secured, columns)| matches!(kind.as_str(), "r" | "p") && !secured && *columns);
    if !usable {
        return Err(Error::invalid(
            "the source is no table with columns seq bigint, kind text, name text, data text",
            "CREATE TEMPORARY TABLE export (seq bigint, kind text, name text, data text), and load the file into it by COPY.",
        ));
    }
    let mut reader = Reader {
        header: None,
        own: Vec::new(),
        tables: Vec::new(),
        sequences: Vec::new(),
        in_table: false,
        records: 0,
        checksum: Checksum::new(),
        ended: None,
    };
    let sql = format!("SELECT seq, kind, name, data FROM {} ORDER BY seq", relation::name(source));
    let record = |row: &query::Row| {
        let missing = || refused("a record has a column that is null");
        Ok((
            row.get(1)?.ok_or_else(missing)?,
            row.get(2)?.ok_or_else(missing)?,
            row.get(3)?.ok_or_else(missing)?,
            row.get(4)?.ok_or_else(missing)?,
        ))
    };
    query::active_batches(&sql, &[], BATCH, record, |records| {
        pgrx::check_for_interrupts!();
        records.into_iter().try_for_each(|record| reader.take(record))
    })?;
    reader.finish()
}
