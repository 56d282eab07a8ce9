//! What the guard asks of a relation. It looks at the relation itself, not at the registry, so that a table stays guarded while a
//! restore is half done or when the extension is dropped.

use crate::label;
use crate::raw;
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// The restrictive policy of a protected table: rows of the bound tenant only.
pub const ISOLATION_POLICY: &str = "tenancy_isolation";
/// The permissive policy beside it, which goes with the extension.
pub const GUARD_POLICY: &str = "tenancy_guard";

/// Whether `relation` is a protected table: row security forced, and our policy on it or, where the extension was dropped, our label.
pub fn is_protected(relation: pg_sys::Oid) -> bool {
    // SAFETY: the relation is locked by the statement that names it; its cache entry is released again; policy names are C strings.
    unsafe {
        let entry = pg_sys::RelationIdGetRelation(relation);
        if entry.is_null() {
            return false;
        }
        let form = (*entry).rd_rel;
        let forced = (*form).relrowsecurity && (*form).relforcerowsecurity;
        let guarded = forced && has_policy((*entry).rd_rsdesc);
        pg_sys::RelationClose(entry);
        guarded || forced && label::is_protected(relation)
    }
}

/// # Safety
/// `description` is null or the row security description of an open relation.
unsafe fn has_policy(description: *mut pg_sys::RowSecurityDesc) -> bool {
    // SAFETY: the caller's promise; the list's cells are policies.
    unsafe {
        !description.is_null()
            && raw::elements::<pg_sys::RowSecurityPolicy>((*description).policies)
                .any(|policy| CStr::from_ptr((*policy).policy_name).to_bytes() == ISOLATION_POLICY.as_bytes())
    }
}

/// Whether the relation belongs to `owner` and has rules, as a view does: the rules' actions run with that owner's rights.
pub fn has_rules_of(relation: pg_sys::Oid, owner: pg_sys::Oid) -> bool {
    // SAFETY: a syscache lookup whose tuple is released after its fields are read.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as _, pg_sys::Datum::from(relation));
        if tuple.is_null() {
            return false;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let found = (*form).relhasrules && (*form).relowner == owner;
        pg_sys::ReleaseSysCache(tuple);
        found
    }
}

/// The relation's name, schema-qualified and quoted.
pub fn name(relation: pg_sys::Oid) -> String {
    // SAFETY: catalog lookups by oid that return null or palloc'd C strings.
    unsafe {
        let text = |pointer: *mut std::ffi::c_char| {
            if pointer.is_null() { String::new() } else { CStr::from_ptr(pointer).to_string_lossy().into_owned() }
        };
        let schema = text(pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation)));
        let table = text(pg_sys::get_rel_name(relation));
        format!("{}.{}", crate::query::ident(&schema), crate::query::ident(&table))
    }
}

/// The role's name, quoted.
pub fn role_name(role: pg_sys::Oid) -> String {
    // SAFETY: a lookup by oid that returns null or a palloc'd C string.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() { role.to_string() } else { crate::query::ident(&CStr::from_ptr(name).to_string_lossy()) }
    }
}

/// The schema of a relation that is open, also when its catalog entry cannot be seen yet; invalid when there is none.
pub fn namespace(relation: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: the relation's cache entry is released after a field is copied.
    unsafe {
        let entry = pg_sys::RelationIdGetRelation(relation);
        if entry.is_null() {
            return pg_sys::InvalidOid;
        }
        let namespace = (*(*entry).rd_rel).relnamespace;
        pg_sys::RelationClose(entry);
        namespace
    }
}

/// Whether the relation exists and is not temporary.
pub fn is_lasting(relation: pg_sys::Oid) -> bool {
    // SAFETY: a look-up by an oid of a relation that exists.
    relation != pg_sys::InvalidOid
        && unsafe { pg_sys::get_rel_persistence(relation) } as u8 != pg_sys::RELPERSISTENCE_TEMP
}

/// The defaults of a relation's columns, as the catalog holds them.
pub fn defaults(relation: pg_sys::Oid) -> Vec<CString> {
    // SAFETY: the relation's cache entry is released after the texts are copied.
    unsafe {
        let entry = pg_sys::RelationIdGetRelation(relation);
        if entry.is_null() {
            return Vec::new();
        }
        let constraints = (*(*entry).rd_att).constr;
        let count = if constraints.is_null() { 0 } else { usize::from((*constraints).num_defval) };
        let text = |index| CStr::from_ptr((*(*constraints).defval.add(index)).adbin).to_owned();
        let defaults = (0..count).map(text).collect();
        pg_sys::RelationClose(entry);
        defaults
    }
}

/// What `find` finds for the first partition of the relation, at whatever depth, for which it finds something.
pub fn find_in_partitions<T>(relation: pg_sys::Oid, find: &dyn Fn(pg_sys::Oid) -> Option<T>) -> Option<T> {
    // SAFETY: the relation is locked by the statement that names it, or one of its partitions that may have gone; its cache entry is released
    // after the partitions' oids are copied.
    let partitions = unsafe {
        let entry = pg_sys::RelationIdGetRelation(relation);
        if entry.is_null() {
            return None;
        }
        let partitions: Vec<(pg_sys::Oid, bool)> =
            if (*(*entry).rd_rel).relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE {
                let description = pg_sys::RelationGetPartitionDesc(entry, false);
                (0..(*description).nparts as usize)
                    .map(|index| (*(*description).oids.add(index), *(*description).is_leaf.add(index)))
                    .collect()
            } else {
                Vec::new()
            };
        pg_sys::RelationClose(entry);
        partitions
    };
    partitions.into_iter().find_map(|(partition, is_leaf)| {
        let deeper = || if is_leaf { None } else { find_in_partitions(partition, find) };
        find(partition).or_else(deeper)
    })
}
