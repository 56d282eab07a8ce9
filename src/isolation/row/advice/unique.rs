//! Unique keys and exclusion constraints that leave the tenant out: two tenants cannot hold the same value, and each learns that the other has it.

use super::scope::{Member, Scope};
use super::step::{Problem, Step, UNIQUE_KEY};
use super::{parts, reference};
use crate::error::Result;
use crate::isolation::keys::change::{ACCESS_EXCLUSIVE, BUILDS, Change, Way};
use crate::isolation::keys::index::{self, Index};
use crate::query::{self, ident};

/// Exclusion constraints that do not ask for the same tenant, with the access method.
const EXCLUSIONS: &str = "SELECT con.conname::text, pg_catalog.pg_get_constraintdef(con.oid), m.amname::text
    FROM pg_catalog.pg_constraint con JOIN pg_catalog.pg_class i ON i.oid = con.conindid JOIN pg_catalog.pg_am m ON m.oid = i.relam
    WHERE con.conrelid = $1 AND con.contype = 'x' AND con.conparentid = 0
      AND NOT EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest(con.conkey), pg_catalog.unnest(con.conexclop)) k (attnum, operator)
                      JOIN pg_catalog.pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum
                      JOIN pg_catalog.pg_operator o ON o.oid = k.operator WHERE a.attname = $2::name AND o.oprname = '=')
    ORDER BY con.conname";

pub struct Exclusion {
    pub problem: Problem,
    pub method: String,
    /// None where the access method takes one column only.
    pub change: Option<Change>,
}

pub fn problem(index: &Index, member: &Member) -> Problem {
    let text = format!("unique key {} of {} spans all tenants", ident(&index.name), member.table.name);
    Problem { kind: UNIQUE_KEY, object: index.name.clone(), text }
}

/// Why the key cannot become one of each tenant.
pub fn obstacle(scope: &Scope, index: &Index) -> Result<Option<String>> {
    for key in scope.keys.iter().filter(|key| key.index == index.oid) {
        let name = format!("foreign key {} of {}", ident(&key.name), key.child_name);
        let Some(column) = scope.column_of(key.child) else {
            return Ok(Some(format!(
                "{name} refers to it and is not protected: protect or adopt that table first, or drop the reference"
            )));
        };
        if key.has_child_column(column) {
            return Ok(Some(format!(
                "{name} has the tenant column, and refers to a key that has it not: make it anew by hand"
            )));
        }
        if let Some(obstacle) = reference::obstacle(scope, key) {
            return Ok(Some(obstacle));
        }
    }
    let dependent = index::dependent(vec![index.oid])?;
    Ok(dependent.map(|(_, object)| {
        format!("{object} depends on it. A view that groups by a primary key does: name the other columns in its GROUP BY, too")
    }))
}

/// A unique index that is not valid, of an interrupted build: what is written has to be unique all the same.
pub fn remains(index: &Index, member: &Member) -> Option<Step> {
    if index.valid || !index.unique || index.has_tenant || index.is_attached || index.constraint.is_some() {
        return None;
    }
    let change = parts::drop_invalid(&index.qualified());
    Some(Step::of(&member.table.name, member.table.owner, &problem(index, member), change))
}

pub fn exclusions(member: &Member) -> Result<Vec<Exclusion>> {
    let column = ident(&member.column);
    let args = [member.table.oid.into(), member.column.as_str().into()];
    query::rows(EXCLUSIONS, &args, |row| {
        let (object, definition, method): (String, String, String) = (row.must(1)?, row.must(2)?, row.must(3)?);
        let (table, name) = (&member.table.name, ident(&object));
        let change = matches!(method.as_str(), "gist" | "btree").then(|| {
            let definition = definition.replacen('(', &format!("({column} WITH =, "), 1);
            let statement = format!("ALTER TABLE {table} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} {definition}");
            let note = "excludes rows of the same tenant only; there is no way to build it beside readers and writers";
            Change::new(Way::Together, vec![statement], (ACCESS_EXCLUSIVE, BUILDS), note)
        });
        let text = format!("exclusion constraint {name} of {table} spans all tenants");
        Ok(Exclusion { problem: Problem { kind: UNIQUE_KEY, object, text }, method, change })
    })
}

/// Whether a foreign key's columns and the tenant are a key of the parent by some index.
pub fn is_referable(parent: &Member, tenant: &str, columns: &[String]) -> bool {
    let mut wanted = vec![tenant];
    wanted.extend(columns.iter().map(String::as_str));
    parent.indexes.iter().any(|index| index.can_be_referred_to(&wanted))
}
