//! The tables of a schema and their columns, and what is asked of their rows, each as its owner.

use crate::error::{Error, Result};
use crate::isolation::row::inspect::TenantType;
use crate::query::{self, ident};
use crate::{fields, role, row_file};
use pgrx::{Uuid, pg_sys};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Tables that are no partitions: in a schema, where those of a table elsewhere are tables, too; or all that are protected (`$1` NULL).
const TABLES: &str =
    "SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relowner, c.relkind = 'p',
        p.tenant_column::pg_catalog.text, p.tenant_type
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN tenancy.protected_tables p ON p.table_name = c.oid
    WHERE (c.relnamespace = $1 OR $1 IS NULL AND p.table_name IS NOT NULL)
      AND c.relkind IN ('r', 'p')
      AND (NOT c.relispartition OR EXISTS (SELECT FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class parent ON parent.oid = h.inhparent
        WHERE h.inhrelid = c.oid AND parent.relnamespace <> $1)) AND c.relpersistence <> 't'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY n.nspname, c.relname";
/// A default that is a constant is known by how PostgreSQL writes it down.
const COLUMNS: &str = "SELECT a.attrelid, a.attname::pg_catalog.text, a.attgenerated <> '',
        CASE WHEN pg_catalog.starts_with(d.adbin::pg_catalog.text, '{CONST ') THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END
    FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum";

/// A table with all its partitions, or one without.
#[derive(Clone)]
pub struct Table {
    pub oid: pg_sys::Oid,
    pub schema: String,
    pub name: String,
    /// Schema-qualified and quoted.
    pub full_name: String,
    pub owner: pg_sys::Oid,
    pub is_partitioned: bool,
    /// The column that says whose a row is, where tenants share the table.
    pub tenant: Option<(String, TenantType)>,
    pub columns: Vec<Column>,
}

#[derive(Clone)]
pub struct Column {
    pub name: String,
    pub is_generated: bool,
    /// Its default, where that is a constant.
    pub constant: Option<String>,
}

/// The number of rows and a sum over them that does not depend on their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    pub rows: u64,
    pub sum: String,
}

/// Whether a query of `true` gives any row, as the owner of the table that it is of.
pub fn gives_rows(owner: pg_sys::Oid, sql: &str) -> Result<bool> {
    role::as_owner_of_all_rows(owner, || query::current_column::<bool>(sql, &[])).map(|rows| !rows.is_empty())
}

impl Digest {
    pub fn to_json(&self) -> Value {
        json!({ "rows": self.rows, "sum": self.sum })
    }

    pub fn from_json(digest: &Value) -> Result<Self> {
        let rows = u64::try_from(fields::number(digest, "rows")?).unwrap_or_default();
        Ok(Self { rows, sum: fields::text(digest, "sum")?.to_owned() })
    }
}

/// Reads the tables of a schema.
pub fn of_schema(schema: pg_sys::Oid) -> Result<Vec<Table>> {
    read(Some(schema))
}

/// Reads all protected tables.
pub fn protected() -> Result<Vec<Table>> {
    read(None)
}

fn read(schema: Option<pg_sys::Oid>) -> Result<Vec<Table>> {
    let mut tables = query::current_rows(TABLES, &[schema.into()], |row| {
        let (namespace, name): (String, String) = (row.must(2)?, row.must(3)?);
        let kind = row.get::<String>(7)?.map(|kind| TenantType::from_name(&kind)).transpose()?;
        Ok(Table {
            oid: row.must(1)?,
            full_name: format!("{}.{}", ident(&namespace), ident(&name)),
            schema: namespace,
            name,
            owner: row.must(4)?,
            is_partitioned: row.must(5)?,
            tenant: row.get(6)?.zip(kind),
            columns: Vec::new(),
        })
    })?;
    let oids: Vec<pg_sys::Oid> = tables.iter().map(|table| table.oid).collect();
    let mut columns: HashMap<pg_sys::Oid, Vec<Column>> = HashMap::new();
    let found = query::current_rows(COLUMNS, &[oids.into()], |row| {
        let column = Column { name: row.must(2)?, is_generated: row.must(3)?, constant: row.get(4)? };
        Ok((row.must::<pg_sys::Oid>(1)?, column))
    })?;
    for (table, column) in found {
        columns.entry(table).or_default().push(column);
    }
    for table in &mut tables {
        table.columns = columns.remove(&table.oid).unwrap_or_default();
    }
    Ok(tables)
}

impl Table {
    /// What another database is to know of it.
    pub fn to_json(&self) -> Value {
        let column = |column: &Column| json!({ "name": column.name, "is_generated": column.is_generated });
        json!({
            "name": self.name,
            "full_name": self.full_name,
            "tenant": self.tenant.as_ref().map(|(column, kind)| json!({ "column": column, "kind": kind.name() })),
            "columns": self.columns.iter().map(column).collect::<Vec<Value>>(),
        })
    }

    /// Without what is that database's own.
    pub fn from_json(table: &Value) -> Result<Self> {
        let column = |column: &Value| {
            let name = fields::text(column, "name")?.to_owned();
            Ok(Column { name, is_generated: fields::boolean(column, "is_generated")?, constant: None })
        };
        let tenant = match &table["tenant"] {
            Value::Null => None,
            tenant => {
                let kind = TenantType::from_name(fields::text(tenant, "kind")?)?;
                Some((fields::text(tenant, "column")?.to_owned(), kind))
            }
        };
        Ok(Self {
            oid: pg_sys::InvalidOid,
            schema: String::new(),
            name: fields::text(table, "name")?.to_owned(),
            full_name: fields::text(table, "full_name")?.to_owned(),
            owner: pg_sys::InvalidOid,
            is_partitioned: false,
            tenant,
            columns: fields::list(table, "columns")?.iter().map(column).collect::<Result<_>>()?,
        })
    }

    /// Keeps the definition as it is until the transaction ends.
    pub fn lock(&self) {
        // SAFETY: any oid may be locked.
        unsafe { pg_sys::LockRelationOid(self.oid, pg_sys::AccessShareLock as _) };
    }

    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The table as a FROM clause has it: not with what inherits from it, which is a table of its own.
    pub fn source(&self) -> String {
        if self.is_partitioned { self.full_name.clone() } else { format!("ONLY {}", self.full_name) }
    }

    /// The condition that finds the tenant's rows; none where all are its.
    pub fn condition(&self, tenant: Uuid) -> Result<Option<String>> {
        let Some((column, kind)) = &self.tenant else { return Ok(None) };
        let own = kind.literal(tenant)?;
        // Without a key the tenant has no rows here.
        let own = own.map(|own| format!("{} OPERATOR(pg_catalog.=) {own}", ident(column)));
        Ok(Some(own.unwrap_or_else(|| "false".to_owned())))
    }

    /// The same as a clause.
    pub fn wanted(&self, tenant: Uuid) -> Result<String> {
        Ok(self.condition(tenant)?.map(|condition| format!(" WHERE {condition}")).unwrap_or_default())
    }

    fn holds(&self, conditions: &[String]) -> Result<bool> {
        let wanted = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        let sql = format!("SELECT true FROM {}{wanted} LIMIT 1", self.source());
        gives_rows(self.owner, &sql)
    }

    /// Whether the tenant has rows here.
    pub fn has_rows(&self, tenant: Uuid) -> Result<bool> {
        self.holds(&self.condition(tenant)?.into_iter().collect::<Vec<_>>())
    }

    /// How many rows the tenant has here.
    pub fn count(&self, tenant: Uuid) -> Result<u64> {
        let sql = format!("SELECT pg_catalog.count(*) FROM {}{}", self.source(), self.wanted(tenant)?);
        let found: Vec<Option<i64>> = self.read(&sql)?;
        Ok(found.into_iter().flatten().next().unwrap_or(0).cast_unsigned())
    }

    /// Whether a row of the tenant has something in the column that its default does not give anyway.
    pub fn has_values(&self, tenant: Uuid, column: &Column) -> Result<bool> {
        let name = ident(&column.name);
        let mut conditions: Vec<String> = self.condition(tenant)?.into_iter().collect();
        conditions.push(format!("{name} IS NOT NULL"));
        conditions.extend(
            column
                .constant
                .as_ref()
                .map(|constant| format!("{name}::pg_catalog.text <> ({constant})::pg_catalog.text")),
        );
        self.holds(&conditions)
    }

    /// Whether a row has something else in the column than what such a column has of the tenant.
    pub fn has_strangers(&self, tenant: Uuid, column: &str, kind: TenantType) -> Result<bool> {
        let column = ident(column);
        let stranger = kind
            .literal(tenant)?
            .map(|own| format!("{column}::pg_catalog.text IS DISTINCT FROM ({own})::pg_catalog.text"));
        self.holds(&[stranger.unwrap_or_else(|| "true".to_owned())])
    }

    /// Counts and sums up the tenant's rows by what the columns look like.
    pub fn digest(&self, tenant: Uuid, columns: &[String]) -> Result<Digest> {
        let wanted = self.wanted(tenant)?;
        let sql = format!(
            "SELECT pg_catalog.concat_ws(' ', pg_catalog.count(*), coalesce(pg_catalog.sum({}), 0)) FROM {}{wanted}",
            hash(columns),
            self.source()
        );
        let found: Vec<Option<String>> = self.read(&sql)?;
        let text = found.into_iter().flatten().next().unwrap_or_default();
        let (rows, sum) = text.split_once(' ').unwrap_or_default();
        let rows = rows.parse().map_err(|_| Error::Internal("a count is no number".to_owned()))?;
        Ok(Digest { rows, sum: sum.to_owned() })
    }

    /// A number for each row, by what the columns look like.
    pub fn hashes(&self, columns: &[String]) -> Result<Vec<i64>> {
        let found: Vec<Option<i64>> = self.read(&format!("SELECT {} FROM {}", hash(columns), self.source()))?;
        Ok(found.into_iter().flatten().collect())
    }

    fn read<T: pgrx::FromDatum + pgrx::IntoDatum>(&self, sql: &str) -> Result<Vec<Option<T>>> {
        role::as_owner_of_all_rows(self.owner, || row_file::with_settings(|| query::current_column(sql, &[])))
    }
}

fn hash(columns: &[String]) -> String {
    let columns: Vec<String> = columns.iter().map(|column| ident(column)).collect();
    format!("pg_catalog.hashtextextended(ROW({})::pg_catalog.text COLLATE \"C\", 0)", columns.join(", "))
}
