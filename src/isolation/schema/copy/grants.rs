//! Privileges: what an object of the copy is granted beyond what a new object has, in the order of its ACL.

use super::Schema;
use super::catalog::{Catalog, Kind, Object, class};
use super::describe::Part;
use super::plan::Step;
use crate::error::Result;
use crate::query::{self, ident};
use crate::relation::role_name;
use pgrx::pg_sys::Oid;

/// Every entry of the ACLs of objects that have one, and of what a new object of who makes it would have (`base`).
const ENTRIES: &str = "WITH objects (class, object, sub, owner, acl, kind, default_kind) AS (
        SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, c.oid, 0, c.relowner, c.relacl,
               CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::pg_catalog.\"char\", CASE c.relkind WHEN 'S' THEN 'S' ELSE 'r' END::pg_catalog.\"char\"
        FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1)
        UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, a.attrelid, a.attnum, c.relowner, a.attacl, 'c', NULL
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
        WHERE a.attrelid = ANY ($1) AND a.attacl IS NOT NULL AND NOT a.attisdropped
        UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, 0, p.proowner, p.proacl, 'f', 'f' FROM pg_catalog.pg_proc p WHERE p.oid = ANY ($2)
        UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, 0, t.typowner, t.typacl, 'T', 'T' FROM pg_catalog.pg_type t WHERE t.oid = ANY ($3)
        UNION ALL SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, n.oid, 0, n.nspowner, n.nspacl, 'n', 'n' FROM pg_catalog.pg_namespace n WHERE n.oid = $4
    ), wanted AS (
        SELECT o.*, pg_catalog.acldefault(o.kind, o.owner) AS plain,
               (SELECT d.defaclacl FROM pg_catalog.pg_default_acl d WHERE d.defaclrole = o.owner AND d.defaclnamespace = 0 AND d.defaclobjtype = o.default_kind) AS preset
        FROM objects o
    )
    SELECT w.class, w.object, w.sub, w.owner, e.base, a.grantor,
           CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END,
           a.privilege_type, a.is_grantable
    FROM wanted w
    CROSS JOIN LATERAL (VALUES (true, coalesce(w.preset, w.plain)), (false, coalesce(w.acl, w.plain))) e (base, acl)
    CROSS JOIN LATERAL pg_catalog.aclexplode(e.acl) WITH ORDINALITY a (grantor, grantee, privilege_type, is_grantable, place)
    WHERE w.acl IS NOT NULL OR w.preset IS NOT NULL
    ORDER BY w.class, w.object, w.sub, e.base DESC, a.place";

const DEFAULTS: &str = "SELECT pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(d.defaclrole)),
        CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' ELSE 'TYPES' END,
        CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END,
        pg_catalog.string_agg(a.privilege_type, ', ' ORDER BY a.place), a.is_grantable, d.defaclrole
    FROM pg_catalog.pg_default_acl d
    CROSS JOIN LATERAL pg_catalog.aclexplode(d.defaclacl) WITH ORDINALITY a (grantor, grantee, privilege_type, is_grantable, place)
    WHERE d.defaclnamespace = $1
    GROUP BY d.oid, d.defaclrole, d.defaclobjtype, a.grantee, a.is_grantable
    ORDER BY d.defaclrole, d.defaclobjtype, pg_catalog.min(a.place)";

#[derive(Clone, PartialEq, Eq)]
struct Entry {
    grantor: Oid,
    grantee: String,
    privilege: String,
    grantable: bool,
}

/// The ACL that an object has, and that which a new one gets.
struct Acl {
    object: Object,
    column: i32,
    owner: Oid,
    base: Vec<Entry>,
    target: Vec<Entry>,
}

/// GRANT or REVOKE, less the object: what comes before its name and after.
#[derive(Clone, PartialEq, Eq)]
struct Change {
    role: Oid,
    before: String,
    after: String,
}

fn read(schema: &Schema, catalog: &Catalog) -> Result<Vec<Acl>> {
    let oids = |objects: &mut dyn Iterator<Item = Oid>| objects.collect::<Vec<Oid>>();
    let relations = oids(&mut catalog.relations.iter().map(|relation| relation.oid));
    let functions = oids(&mut catalog.functions.iter().map(|function| function.oid));
    let types = oids(&mut catalog.types.iter().map(|found| found.oid));
    let mut acls: Vec<Acl> = Vec::new();
    let entries =
        query::rows(ENTRIES, &[relations.into(), functions.into(), types.into(), schema.oid.into()], |row| {
            let entry = Entry {
                grantor: row.must(6)?,
                grantee: row.must(7)?,
                privilege: row.must(8)?,
                grantable: row.must(9)?,
            };
            Ok(((row.must(1)?, row.must(2)?), row.must::<i32>(3)?, row.must::<Oid>(4)?, row.must::<bool>(5)?, entry))
        })?;
    for (object, column, owner, is_base, entry) in entries {
        if acls.last().is_none_or(|acl| (acl.object, acl.column) != (object, column)) {
            acls.push(Acl { object, column, owner, base: Vec::new(), target: Vec::new() });
        }
        if let Some(acl) = acls.last_mut() {
            if is_base { acl.base.push(entry) } else { acl.target.push(entry) }
        }
    }
    // The copy of a schema may get another owner than its original has.
    for acl in acls.iter_mut().filter(|acl| acl.object.0 == class::SCHEMA && acl.owner != schema.owner) {
        let (before, after) = (role_name(acl.owner), role_name(schema.owner));
        for entry in acl.base.iter_mut().chain(&mut acl.target) {
            if entry.grantor == acl.owner {
                entry.grantor = schema.owner;
            }
            if entry.grantee == before {
                entry.grantee.clone_from(&after);
            }
        }
        acl.owner = schema.owner;
    }
    Ok(acls)
}

impl Acl {
    /// Whether what the base has of the target and what is granted to it then are in the target's order.
    fn keeps_order(&self) -> bool {
        let kept = self.base.iter().filter(|entry| self.target.contains(entry));
        let others = self.target.iter().filter(|entry| !self.base.contains(entry));
        grantees(kept.chain(others)) == grantees(self.target.iter())
    }

    /// What makes the target of the base.
    fn changes(&self, column: Option<&str>) -> Vec<Change> {
        let privileges = |entries: &[&Entry]| {
            let privileges: Vec<String> = entries
                .iter()
                .map(|entry| {
                    column.map_or_else(
                        || entry.privilege.clone(),
                        |column| format!("{} ({})", entry.privilege, ident(column)),
                    )
                })
                .collect();
            privileges.join(", ")
        };
        let mut changes = Vec::new();
        let keeps_order = self.keeps_order();
        let stays = |entry: &Entry| keeps_order && self.base.contains(entry) && self.target.contains(entry);
        let extra: Vec<&Entry> = self.base.iter().filter(|entry| !stays(entry)).collect();
        for entries in extra.chunk_by(|one, other| one.grantee == other.grantee) {
            let Some(first) = entries.first() else { continue };
            let before = format!("REVOKE {} ON ", privileges(entries));
            changes.push(Change { role: self.owner, before, after: format!(" FROM {}", first.grantee) });
        }
        let missing: Vec<&Entry> = self.target.iter().filter(|entry| !stays(entry)).collect();
        let together = |one: &&Entry, other: &&Entry| {
            (one.grantor, &one.grantee, one.grantable) == (other.grantor, &other.grantee, other.grantable)
        };
        for entries in missing.chunk_by(together) {
            let Some(first) = entries.first() else { continue };
            let option = if first.grantable { " WITH GRANT OPTION" } else { "" };
            changes.push(Change {
                role: first.grantor,
                before: format!("GRANT {} ON ", privileges(entries)),
                after: format!(" TO {}{option}", first.grantee),
            });
        }
        changes
    }
}

/// Who is granted something by whom, in the order of an ACL.
fn grantees<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<(Oid, &'a str)> {
    let mut grantees = Vec::new();
    for entry in entries {
        let grantee = (entry.grantor, entry.grantee.as_str());
        if !grantees.contains(&grantee) {
            grantees.push(grantee);
        }
    }
    grantees
}

/// What gives the copy the privileges of the original.
pub struct Grants {
    pub objects: Vec<Step>,
    /// Of the schema itself.
    pub schema: Vec<Step>,
}

/// What each object is granted beyond a new one: its kind and name, and the statements less these.
fn changes(schema: &Schema, catalog: &Catalog, destination: &str) -> Result<Vec<(&'static str, String, Vec<Change>)>> {
    let mut all = Vec::new();
    for acl in read(schema, catalog)? {
        let (class, oid) = acl.object;
        let mut column = None;
        let (kind, name) = match class {
            class::FUNCTION => {
                let Some(function) = catalog.functions.iter().find(|function| function.oid == oid) else { continue };
                let kind = if function.kind == "p" { "PROCEDURE" } else { "FUNCTION" };
                (kind, format!("{}({})", ident(&function.name), function.types))
            }
            class::TYPE => {
                let Some(found) = catalog.types.iter().find(|found| found.oid == oid) else { continue };
                ("TYPE", ident(&found.name))
            }
            class::SCHEMA => (SCHEMA, ident(destination)),
            _ => {
                let Some(relation) = catalog.relation(oid) else { continue };
                let columns = relation.columns.iter().find(|known| known.number == acl.column);
                column = columns.map(|column| column.name.as_str());
                (if relation.kind == Kind::Sequence { "SEQUENCE" } else { "TABLE" }, ident(&relation.name))
            }
        };
        let changes = acl.changes(column);
        if !changes.is_empty() {
            all.push((kind, name, changes));
        }
    }
    Ok(all)
}

/// The statements that give the copy in `destination` the privileges of `schema`. Objects that need the same are named together.
pub fn steps(schema: &Schema, catalog: &Catalog, destination: &str) -> Result<Grants> {
    let mut groups: Vec<(&'static str, Vec<Change>, Vec<String>)> = Vec::new();
    for (kind, name, changes) in changes(schema, catalog, destination)? {
        match groups.iter_mut().find(|(known, wanted, _)| *known == kind && *wanted == changes) {
            Some((_, _, names)) => names.push(name),
            None => groups.push((kind, changes, vec![name])),
        }
    }
    let mut grants = Grants { objects: Vec::new(), schema: Vec::new() };
    for (kind, changes, names) in groups {
        let steps = if kind == SCHEMA { &mut grants.schema } else { &mut grants.objects };
        // By its whole name, or hostile code that drops the copy's object could make this one of PostgreSQL's.
        let qualify = |name: String| if kind == SCHEMA { name } else { format!("{}.{name}", ident(destination)) };
        let names = names.into_iter().map(qualify).collect::<Vec<String>>().join(", ");
        for Change { role, before, after } in changes {
            let sql = format!("{before}{kind} {names}{after}");
            steps.push(Step::new(role, sql, format!("privileges of {names}")));
        }
    }
    Ok(grants)
}

/// The privileges of each object, and the default ones, in words that can be compared.
pub fn parts(schema: &Schema, catalog: &Catalog, name: &str) -> Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    for (_, name, changes) in changes(schema, catalog, name)? {
        let texts =
            changes.into_iter().map(|change| format!("{}{}", change.before.trim_end_matches(" ON "), change.after));
        let text = texts.collect::<Vec<String>>().join("; ");
        // A table's and those of its columns.
        match parts.last_mut().filter(|last| last.name == name) {
            Some(last) => last.definition.push_str(&format!("; {text}")),
            None => parts.push(Part { kind: "privileges", name, definition: text }),
        }
    }
    let defaults = defaults(schema.oid, name)?.into_iter().map(|step| step.sql).collect::<Vec<String>>().join("; ");
    if !defaults.is_empty() {
        parts.push(Part { kind: "default privileges", name: ident(name), definition: defaults });
    }
    Ok(parts)
}

const SCHEMA: &str = "SCHEMA";

/// The default privileges of the schema, which come last so that the copy's own objects do not get them.
pub fn defaults(schema: Oid, destination: &str) -> Result<Vec<Step>> {
    query::rows(DEFAULTS, &[schema.into()], |row| {
        let [role, objects, grantee, privileges]: [String; 4] =
            [row.must(1)?, row.must(2)?, row.must(3)?, row.must(4)?];
        let option = if row.must::<bool>(5)? { " WITH GRANT OPTION" } else { "" };
        let schema = ident(destination);
        Ok(Step::new(
            row.must(6)?,
            format!(
                "ALTER DEFAULT PRIVILEGES FOR ROLE {role} IN SCHEMA {schema} GRANT {privileges} ON {objects} TO {grantee}{option}"
            ),
            format!("default privileges of {role}"),
        ))
    })
}
