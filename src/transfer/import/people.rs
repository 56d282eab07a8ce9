//! The people of an export. Users who belong to no tenant alone are known by their e-mail address: one who is here already stays as they are, and
//! is the one who becomes a member. Nothing in a file changes an account.

use super::renew;
use super::unpack::{Package, refused};
use crate::error::{Error, Result};
use crate::query;
use crate::transfer::own;
use crate::uuid;
use pgrx::Uuid;
use pgrx::prelude::*;
use serde_json::Value;
use std::collections::BTreeSet;

const KNOWN: &str = "SELECT id, external_id FROM tenancy.users WHERE email = $1 AND tenant_id IS NULL";

/// Who is who.
#[derive(Default)]
pub struct People {
    /// The ids that users have in the file and have not here, each with the one that they have.
    pub changed: Vec<(Uuid, Uuid)>,
    known: BTreeSet<[u8; 16]>,
}

fn user_of(row: &Value, field: &str) -> Result<Option<[u8; 16]>> {
    match row.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_str()
            .and_then(|id| uuid::parse(id.as_bytes()))
            .map(Some)
            .ok_or_else(|| refused("a user's id cannot be read")),
    }
}

impl People {
    /// Those who are already known.
    pub fn with(changed: Vec<(Uuid, Uuid)>) -> Self {
        Self { changed, known: BTreeSet::new() }
    }

    /// Finds out who is here; `beside` says that the tenant is to be another than the one in the file.
    pub fn find(package: &Package, tenant: Uuid, beside: bool) -> Result<Self> {
        let mut people = Self::default();
        for (own, lines) in &package.own {
            lines.read(|line| {
                let row: Value = serde_json::from_slice(line).map_err(|_| refused("a row cannot be read"))?;
                match own.name {
                    own::USERS => people.add(&row, tenant, beside),
                    "members" => people.require(user_of(&row, "user_id")?),
                    // A key that has ended may be that of somebody who has left.
                    "api_keys" if row.get("revoked_at").is_none_or(Value::is_null) => match user_of(&row, "user_id")? {
                        None => Ok(()),
                        user => people.require(user),
                    },
                    _ => Ok(()),
                }
            })?;
        }
        Ok(people)
    }

    fn add(&mut self, row: &Value, tenant: Uuid, beside: bool) -> Result<()> {
        let id = user_of(row, "id")?.ok_or_else(|| refused("a user has no id"))?;
        self.known.insert(id);
        let text = |field: &str| row.get(field).and_then(Value::as_str);
        let id = Uuid::from_bytes(id);
        if row.get("at_home").and_then(Value::as_bool).ok_or_else(|| refused("a user is nowhere at home"))? {
            if beside {
                self.changed.push((id, renew::uuid(tenant, id)));
            }
            return Ok(());
        }
        let email = text("email").ok_or_else(|| refused("a user has no e-mail address"))?;
        let here =
            query::current_rows(KNOWN, &[email.into()], |row| Ok((row.must::<Uuid>(1)?, row.get::<String>(2)?)))?;
        let Some((here, external_id)) = here.into_iter().next() else { return Ok(()) };
        if external_id.as_deref().zip(text("external_id")).is_some_and(|(here, there)| here != there) {
            return Err(Error::State(
                format!("user \"{here}\" has the e-mail address of one in the export, and another external id"),
                "Find out whether they are the same, and update_user() the one here.",
            ));
        }
        if here != id {
            notice!("user \"{id}\" of the export is user \"{here}\" here");
            self.changed.push((id, here));
        }
        Ok(())
    }

    fn require(&self, user: Option<[u8; 16]>) -> Result<()> {
        let is_known = user.is_some_and(|user| self.known.contains(&user));
        if is_known { Ok(()) } else { Err(refused("somebody in it is a member, or has a key, and is no user of it")) }
    }

    /// The two sides of what has changed, as arguments of statements.
    pub fn arrays(&self) -> (Vec<Uuid>, Vec<Uuid>) {
        self.changed.iter().copied().unzip()
    }
}
