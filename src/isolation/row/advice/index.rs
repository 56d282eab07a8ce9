//! Indexes that row security keeps from being searched: PostgreSQL lets a statement's own conditions wait for the policies, unless their operators are
//! leakproof. The guard's planner searches an index that begins with the tenant column for any condition, if its kind is known to tell nothing.

use super::scope::Member;
use super::step::{INDEX, Problem};
use crate::isolation::keys::index::Index;
use crate::query::ident;

/// What can be done about an index that is not searched.
pub enum Remedy {
    /// One that begins with the tenant column, which needs this extension.
    Counterpart(Option<&'static str>),
    /// Nothing that could be put into a statement.
    Note(String),
}

pub fn problem(index: &Index, member: &Member) -> Problem {
    let text =
        format!("row security keeps statements from searching index {} of {}", ident(&index.name), member.table.name);
    Problem { kind: INDEX, object: index.name.clone(), text }
}

/// What can be done about an index of `member`; None where nothing has to be.
pub fn remedy(index: &Index, member: &Member) -> Option<Remedy> {
    if !index.valid || index.is_attached {
        return None;
    }
    let search = member.searches.iter().find(|search| search.index == index.oid)?;
    if search.serves || member.indexes.iter().any(|other| other.serves_in_place_of(index, &member.column)) {
        return None;
    }
    let column = ident(&member.column);
    let is_searched = match index.method.as_str() {
        "btree" => true,
        "gin" | "gist" => search.is_known(),
        _ => false,
    };
    if index.is_led && is_searched {
        return None;
    }
    Some(match index.method.as_str() {
        "btree" | "hash" => Remedy::Counterpart(None),
        "gin" | "gist" if !search.is_known() => Remedy::Note(format!(
            "nor would they with {column} in front: its operator class is none of those that are known to tell nothing of other tenants' keys"
        )),
        "gin" => Remedy::Counterpart((!search.takes_tenant).then_some("btree_gin")),
        "gist" => Remedy::Counterpart((!search.takes_tenant).then_some("btree_gist")),
        method => Remedy::Note(format!(
            "no index of method {method} can tell the rows of a tenant apart: use btree, GIN or GiST, with {column} in front"
        )),
    })
}
