//! The tables that hold a tenant's rows: those in a schema of its own, and the protected ones that tenants share.

use crate::context;
use crate::error::{Error, Result};
use crate::extension;
use crate::guard;
use crate::isolation::row::TenantType;
use crate::isolation::row::erase;
use crate::query::{self, ident};
use crate::role;
use pgrx::{Uuid, pg_sys};
use std::collections::BTreeMap;

const SHARED: &str = "SELECT c.oid, n.nspname::text, c.relname::text, c.relowner, c.relkind = 'p', p.tenant_column::text, p.tenant_type
    FROM tenancy.protected_tables p JOIN pg_catalog.pg_class c ON c.oid = p.table_name JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT c.relispartition ORDER BY n.nspname, c.relname";
const OWN: &str = "SELECT c.oid, n.nspname::text, c.relname::text, c.relowner, c.relkind = 'p'
    FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = $1 AND d.deptype = 'n'
      AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY c.relname";
const SCHEMA: &str = "SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1";
/// The columns that are stored and not computed. Types of the tenant's own schema are named without it.
const COLUMNS: &str = "SELECT a.attname::text,
        CASE WHEN t.typnamespace <> c.relnamespace THEN pg_catalog.format_type(a.atttypid, a.atttypmod)
             WHEN e.oid IS NOT NULL THEN pg_catalog.format('%I[]', e.typname) ELSE pg_catalog.quote_ident(t.typname) END,
        coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid) = ANY ($2), false)
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typlen = -1
    LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum";
/// The primary key; texts bytewise, so that rows are in the same order whatever the database's locale.
const KEY: &str = "SELECT a.attname::text, a.attcollation <> 0 FROM pg_catalog.pg_index i
    CROSS JOIN LATERAL pg_catalog.unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid = $1 AND i.indisprimary AND k.place <= i.indnkeyatts ORDER BY k.place";
const REFERENCES: &str = "SELECT conrelid, confrelid FROM pg_catalog.pg_constraint
    WHERE contype = 'f' AND conrelid = ANY ($1) AND confrelid = ANY ($1) AND conrelid <> confrelid";

pub struct Column {
    pub name: String,
    pub type_name: String,
    /// Whether it is filled with the bound tenant where nothing is said.
    pub defaults_to_tenant: bool,
}

/// The column of a protected table that says whose a row is.
pub struct Owned {
    pub column: String,
    /// What it says of the tenant's rows; None where it has no key of the application's own, and so no rows.
    pub value: Option<String>,
    /// The same as SQL.
    literal: Option<String>,
    /// Whether that is such a key, and not the tenant's id.
    pub is_key: bool,
}

impl Owned {
    fn new(tenant: Uuid, column: String, tenant_type: TenantType) -> Result<Self> {
        let (value, literal) = (tenant_type.text(tenant)?, tenant_type.literal(tenant)?);
        Ok(Self { column, value, literal, is_key: tenant_type.is_key() })
    }
}

/// A table with all its partitions, or without the children that inherit from it.
pub struct Table {
    pub oid: pg_sys::Oid,
    pub schema: String,
    pub name: String,
    pub owner: pg_sys::Oid,
    partitioned: bool,
    /// What says whose a row is, in a protected table.
    pub tenant: Option<Owned>,
    pub columns: Vec<Column>,
}

impl Table {
    /// Schema-qualified and quoted.
    pub fn qualified(&self) -> String {
        format!("{}.{}", ident(&self.schema), ident(&self.name))
    }

    /// What a statement reads or deletes from.
    pub fn rows(&self) -> String {
        let only = if self.partitioned { "" } else { "ONLY " };
        format!("{only}{}", self.qualified())
    }

    /// What finds a tenant's rows; None where all are.
    pub fn condition(&self, alias: &str) -> Option<String> {
        let owned = self.tenant.as_ref()?;
        Some(match &owned.literal {
            Some(value) => format!("{alias}{} OPERATOR(pg_catalog.=) {value}", ident(&owned.column)),
            None => "false".to_owned(),
        })
    }

    pub fn where_clause(&self) -> String {
        self.condition("").map(|condition| format!(" WHERE {condition}")).unwrap_or_default()
    }

    fn read_columns(&mut self) -> Result<()> {
        let schema = extension::schema()?;
        let defaults = [
            format!("{schema}.current_tenant()"),
            format!("{schema}.current_tenant_text()"),
            format!("({schema}.current_tenant_text())::character varying"),
        ];
        self.columns = query::active_rows(COLUMNS, &[self.oid.into(), defaults.to_vec().into()], |row| {
            Ok(Column { name: row.must(1)?, type_name: row.must(2)?, defaults_to_tenant: row.must(3)? })
        })?;
        Ok(())
    }

    /// The order of rows that two exports of the same rows share.
    pub fn order(&self) -> Result<String> {
        let key =
            query::active_rows(KEY, &[self.oid.into()], |row| Ok((row.must::<String>(1)?, row.must::<bool>(2)?)))?;
        let tenant = self.tenant.as_ref().map(|owned| owned.column.as_str());
        let mut terms = Vec::new();
        for (name, is_text) in key.iter().filter(|(name, _)| Some(name.as_str()) != tenant) {
            terms.push(format!("{}{}", ident(name), if *is_text { " COLLATE pg_catalog.\"C\"" } else { "" }));
        }
        if key.is_empty() {
            let columns: Vec<String> = self.columns.iter().map(|column| ident(&column.name)).collect();
            terms.push(format!("(ROW({})::pg_catalog.text) COLLATE pg_catalog.\"C\"", columns.join(", ")));
        }
        Ok(if terms.is_empty() { String::new() } else { format!(" ORDER BY {}", terms.join(", ")) })
    }
}

/// Where the rows of a tenant are.
pub struct Place {
    pub tenant: Uuid,
    /// The schema of its own.
    pub schema: Option<pg_sys::Oid>,
    /// Each after those that it refers to.
    pub tables: Vec<Table>,
}

impl Place {
    /// Reads where the tenant's rows are, with the snapshot that is active, and keeps the tables as they are until the transaction ends.
    pub fn read(tenant: Uuid, schema: Option<&str>, lock: pg_sys::LOCKMODE) -> Result<Self> {
        let schema = match schema {
            None => None,
            Some(name) => {
                let found = query::active_rows(SCHEMA, &[name.into()], |row| row.must::<pg_sys::Oid>(1))?;
                Some(*found.first().ok_or_else(|| Error::Unknown("schema", name.to_owned()))?)
            }
        };
        let table = |row: &query::Row, tenant| {
            Ok(Table {
                oid: row.must(1)?,
                schema: row.must(2)?,
                name: row.must(3)?,
                owner: row.must(4)?,
                partitioned: row.must(5)?,
                tenant,
                columns: Vec::new(),
            })
        };
        let mut tables = match schema {
            Some(schema) => query::active_rows(OWN, &[schema.into()], |row| table(row, None))?,
            None => Vec::new(),
        };
        tables.extend(query::active_rows(SHARED, &[], |row| {
            let tenant_type = TenantType::from_name(&row.must::<String>(7)?)?;
            table(row, Some(Owned::new(tenant, row.must(6)?, tenant_type)?))
        })?);
        for found in &mut tables {
            // SAFETY: any oid may be locked; the transaction's end releases it.
            unsafe { pg_sys::LockRelationOid(found.oid, lock) };
            found.read_columns()?;
        }
        Ok(Self { tenant, schema, tables: in_order(tables)? })
    }

    /// Runs `work` on a table, bound to the tenant, as the table's owner, who sees every row.
    pub fn with<T>(&self, table: &Table, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.as_owner(table.owner, work)
    }

    pub fn as_owner<T>(&self, owner: pg_sys::Oid, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let work = || role::as_owner_of_all_rows(owner, work);
        context::for_maintenance(self.tenant, || match self.schema {
            Some(schema) => guard::schema::while_working_on(&[schema], work),
            None => work(),
        })
    }
}

/// Sorts tables so that each comes after those that it refers to, as far as they do not refer to each other.
fn in_order(tables: Vec<Table>) -> Result<Vec<Table>> {
    let oids: Vec<pg_sys::Oid> = tables.iter().map(|table| table.oid).collect();
    let mut places: BTreeMap<u32, usize> = BTreeMap::new();
    places.extend(oids.iter().enumerate().map(|(place, oid)| (oid.to_u32(), place)));
    let references = query::active_rows(REFERENCES, &[oids.into()], |row| {
        let place = |oid: pg_sys::Oid| places.get(&oid.to_u32()).copied().unwrap_or_default();
        Ok((place(row.must(1)?), place(row.must(2)?)))
    })?;
    let mut ordered: Vec<usize> = erase::order(&(0..tables.len()).collect::<Vec<_>>(), &references).concat();
    ordered.reverse();
    let mut tables: Vec<Option<Table>> = tables.into_iter().map(Some).collect();
    Ok(ordered.into_iter().filter_map(|place| tables.get_mut(place).and_then(Option::take)).collect())
}
