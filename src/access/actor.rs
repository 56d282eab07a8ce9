//! Who acts on other people, and how far that goes: a member never gives what is above their own role, and never acts on who is above them.
//! A backend that bound a tenant without a user acts for itself, and may do anything in it.

use super::{role, scope};
use crate::context::{self, Source};
use crate::error::{Error, Result};
use crate::guard::lock;
use crate::query::{self, Row};
use pgrx::Uuid;
use pgrx::datum::DatumWithOid;
use std::collections::BTreeMap;

/// One order for everyone, so that two sessions wait for each other and never in a circle.
const LOCK: &str = "SELECT user_id, role FROM tenancy.memberships
    WHERE tenant_id = $1 AND (role = 'owner' OR user_id = ANY ($2)) ORDER BY user_id FOR UPDATE";
const KEEP: &str = "SELECT user_id, role FROM tenancy.memberships
    WHERE tenant_id = $1 AND user_id = ANY ($2) ORDER BY user_id FOR SHARE";
const READ: &str = "SELECT user_id, role FROM tenancy.memberships WHERE tenant_id = $1 AND user_id = ANY ($2)";

/// The bound tenant.
pub fn tenant() -> Result<Uuid> {
    context::bound().map(|bound| Uuid::from_bytes(bound.tenant)).ok_or(Error::Unbound)
}

/// The bound tenant, admitted for writing.
pub fn tenant_for_writing() -> Result<Uuid> {
    let tenant = tenant()?;
    lock::admit_change();
    Ok(tenant)
}

/// What a credential with scopes must have to act on members and credentials: a limited one could otherwise make an unlimited one.
const MANAGE: &str = "tenancy:manage";

/// The user who acts; None for the backend itself.
fn user() -> Result<Option<Uuid>> {
    let Some(bound) = context::bound() else { return Ok(None) };
    scope::refuse_more_than_own(&[MANAGE.to_owned()])?;
    match (bound.user, bound.source) {
        (None, Source::ApiKey) => Err(Error::Forbidden(
            "an API key that belongs to no user cannot act on members or credentials".to_owned(),
            "",
        )),
        (user, _) => Ok(user.map(Uuid::from_bytes)),
    }
}

/// The members that something is about, with the one who acts.
pub struct Members {
    tenant: Uuid,
    roles: BTreeMap<[u8; 16], String>,
    actor: Option<(Uuid, i32)>,
}

fn role_of(row: &Row) -> Result<([u8; 16], String)> {
    Ok((*row.must::<Uuid>(1)?.as_bytes(), row.must(2)?))
}

impl Members {
    /// To change `users`: locks them, the tenant's owners and the acting user.
    pub fn lock(tenant: Uuid, users: &[Uuid]) -> Result<Self> {
        Self::find(tenant, users, |args| query::current_rows(LOCK, args, role_of))
    }

    /// To do something that depends on what `users` and the acting user are, who stay it until the transaction ends.
    pub fn keep(tenant: Uuid, users: &[Uuid]) -> Result<Self> {
        Self::find(tenant, users, |args| query::current_rows(KEEP, args, role_of))
    }

    /// To do something that writes nothing.
    pub fn read(tenant: Uuid, users: &[Uuid]) -> Result<Self> {
        Self::find(tenant, users, |args| query::rows(READ, args, role_of))
    }

    fn find(
        tenant: Uuid,
        users: &[Uuid],
        rows: impl FnOnce(&[DatumWithOid]) -> Result<Vec<([u8; 16], String)>>,
    ) -> Result<Self> {
        let acting = user()?;
        let wanted: Vec<Uuid> = users.iter().copied().chain(acting).collect();
        let roles = rows(&[tenant.into(), wanted.into()])?.into_iter().collect();
        let mut members = Self { tenant, roles, actor: None };
        if let Some(acting) = acting {
            let stranger = || Error::NotMember { user: acting.to_string(), tenant: tenant.to_string() };
            members.actor = Some((acting, members.rank(acting)?.ok_or_else(stranger)?));
        }
        Ok(members)
    }

    /// The tenant whose members these are.
    pub fn tenant(&self) -> Uuid {
        self.tenant
    }

    pub fn role(&self, user: Uuid) -> Option<&str> {
        self.roles.get(user.as_bytes()).map(String::as_str)
    }

    fn rank(&self, user: Uuid) -> Result<Option<i32>> {
        // A role that was taken out of the tables by hand ranks below all.
        self.role(user).map(|own| Ok(role::rank(own)?.unwrap_or_default())).transpose()
    }

    /// The user who acts; None for the backend itself.
    pub fn actor(&self) -> Option<Uuid> {
        self.actor.map(|(user, _)| user)
    }

    /// Fails when the actor would give a role above their own.
    pub fn may_give(&self, role: &str, rank: i32) -> Result<()> {
        match self.actor {
            Some((_, own)) if rank > own => {
                Err(Error::Forbidden(format!("role \"{role}\" is above that of the acting user"), ""))
            }
            _ => Ok(()),
        }
    }

    /// Fails when `user` is above the actor.
    pub fn may_change(&self, user: Uuid) -> Result<()> {
        match self.actor {
            Some((_, own)) if self.rank(user)?.is_some_and(|rank| rank > own) => {
                Err(Error::Forbidden(format!("user \"{user}\" is above the acting user"), ""))
            }
            _ => Ok(()),
        }
    }

    /// Fails when the actor would get a credential of someone who is not below them: it acts as that user.
    pub fn may_impersonate(&self, user: Uuid) -> Result<()> {
        match self.actor {
            Some((actor, own)) if actor != user && self.rank(user)?.is_none_or(|rank| rank >= own) => {
                Err(Error::Forbidden(format!("the acting user cannot have a credential of user \"{user}\""), ""))
            }
            _ => Ok(()),
        }
    }

    /// Fails when the actor's credential for the tenant itself, which outlives their membership, would be more than theirs to have.
    pub fn may_speak_for_tenant(&self) -> Result<()> {
        match self.actor {
            Some((_, own)) if own < role::ADMIN_RANK => Err(Error::MissingRole(role::ADMIN.to_owned())),
            _ => Ok(()),
        }
    }

    /// Fails when `user` is the tenant's last owner.
    pub fn keep_an_owner_besides(&self, user: Uuid) -> Result<()> {
        let is_owner = |role: &str| role == role::OWNER;
        let others = self.roles.iter().any(|(other, role)| other != user.as_bytes() && is_owner(role));
        if self.role(user).is_some_and(is_owner) && !others { Err(Error::LastOwner) } else { Ok(()) }
    }
}
