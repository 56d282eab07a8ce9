//! Foreign keys between protected tables that a row of another tenant can satisfy.

use super::scope::Scope;
use super::step::{FOREIGN_KEY, Problem};
use crate::isolation::keys::foreign_key::ForeignKey;
use crate::query::ident;

pub struct Reference<'a> {
    /// All foreign keys that were looked at.
    pub all: &'a [ForeignKey],
    pub key: &'a ForeignKey,
    /// The tenant columns of its ends.
    pub tenant: (&'a str, &'a str),
    pub problem: Problem,
    /// Why it cannot have them.
    pub obstacle: Option<String>,
}

pub fn find(scope: &Scope) -> Vec<Reference<'_>> {
    scope.keys.iter().filter_map(|key| of_key(scope, key)).collect()
}

fn of_key<'a>(scope: &'a Scope, key: &'a ForeignKey) -> Option<Reference<'a>> {
    let tenant = (scope.column_of(key.child)?, scope.column_of(key.parent)?);
    if key.compares(tenant.0, tenant.1) {
        return None;
    }
    let obstacle = if key.has_child_column(tenant.0) {
        let parent = &key.parent_name;
        Some(format!("it compares the tenant column with another one than that of {parent}: make it anew by hand"))
    } else {
        obstacle(scope, key)
    };
    let text = format!("foreign key {} of {} can refer to a row of another tenant", ident(&key.name), key.child_name);
    Some(Reference {
        all: &scope.keys,
        key,
        tenant,
        problem: Problem { kind: FOREIGN_KEY, object: key.name.clone(), text },
        obstacle,
    })
}

/// Why a foreign key cannot have the tenant in it.
pub fn obstacle(scope: &Scope, key: &ForeignKey) -> Option<String> {
    let (message, way_out) = key.obstacle(scope.are_alike(key.child, key.parent))?;
    Some(format!("{message}. {way_out}"))
}
