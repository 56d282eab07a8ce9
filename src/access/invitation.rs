//! Invitations: a token that makes whoever brings it a member of the tenant that it was made for.

use super::actor::{self, Members};
use super::secret::{self, Secret};
use super::{member, role};
use crate::audit::{self, Entry};
use crate::context::{self, registry};
use crate::error::{Error, Result, SqlResult};
use crate::guard::lock;
use crate::json::{Jsonb, Object};
use crate::monitor::{self, Kind, Reason};
use crate::query::{self, Row};
use crate::secrecy::INVITATION_PREFIX;
use crate::text;
use pgrx::Uuid;
use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

const IN_RANGE: &str = "SELECT $1 > '0'::pg_catalog.interval AND $1 <= '366 days'::pg_catalog.interval";
const MEMBER_WITH_EMAIL: &str = "SELECT true FROM tenancy.memberships m JOIN tenancy.users u ON u.id = m.user_id
    WHERE m.tenant_id = $1 AND u.email = $2";
const END_EXPIRED: &str = "UPDATE tenancy.stored_invitations SET revoked_at = pg_catalog.now()
    WHERE tenant_id = $1 AND email = $2 AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at <= pg_catalog.clock_timestamp()";
const INSERT: &str =
    "INSERT INTO tenancy.stored_invitations (token_hash, tenant_id, email, role, invited_by, metadata, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, pg_catalog.now() + $7) ON CONFLICT DO NOTHING RETURNING id";
const LOCK_BY_HASH: &str = "SELECT id, tenant_id, email, role, invited_by,
        accepted_at IS NOT NULL OR revoked_at IS NOT NULL, expires_at <= pg_catalog.clock_timestamp()
    FROM tenancy.stored_invitations WHERE token_hash = $1 OR token_hash = $2 FOR UPDATE";
const TENANT_BY_HASH: &str =
    "SELECT tenant_id FROM tenancy.stored_invitations WHERE token_hash = $1 OR token_hash = $2";
const ACCEPT: &str =
    "UPDATE tenancy.stored_invitations SET accepted_at = pg_catalog.now(), accepted_by = $2 WHERE id = $1";
const LOCK: &str = "SELECT accepted_at IS NOT NULL OR revoked_at IS NOT NULL, role FROM tenancy.stored_invitations
    WHERE id = $1 AND tenant_id = $2 FOR UPDATE";
const REVOKE: &str = "UPDATE tenancy.stored_invitations SET revoked_at = pg_catalog.now() WHERE id = $1";
const FORGET: &str = "DELETE FROM tenancy.stored_invitations
    WHERE ((email = $2 AND accepted_by IS NULL) OR accepted_by = $1) AND ($3 IS NULL OR tenant_id = $3) RETURNING id::text";

/// Invites an address to the bound tenant.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn create_invitation(
    email: Option<&str>,
    role: default!(Option<&str>, "'member'"),
    expires_in: default!(Option<Interval>, "'7 days'"),
    metadata: default!(Option<Jsonb>, "'{}'"),
) -> std::result::Result<TableIterator<'static, (name!(invitation_id, Uuid), name!(token, String))>, ErrorReport> {
    let email = text::check_email(email.ok_or(Error::Null("email"))?)?;
    let (role, rank) = role::check_and_keep(role)?;
    let expires_in = expires_in.ok_or(Error::Null("expires_in"))?;
    if query::value::<bool>(IN_RANGE, &[expires_in.into()])? != Some(true) {
        return Err(Error::invalid("an invitation lasts longer than nothing and at most 366 days", "").into());
    }
    let metadata = metadata.ok_or(Error::Null("metadata"))?;
    if !metadata.is_object() {
        return Err(Error::invalid("metadata must be a JSON object", "").into());
    }
    let members = Members::keep(actor::tenant_for_writing()?, &[])?;
    members.may_give(role, rank)?;
    let tenant = members.tenant();
    let person = [tenant.into(), email.as_str().into()];
    if query::value::<bool>(MEMBER_WITH_EMAIL, &person)?.is_some() {
        return Err(Error::Duplicate("member", email).into());
    }
    query::run(END_EXPIRED, &person)?;
    let token = secret::generate(INVITATION_PREFIX)?;
    let hash = Secret::parse(&token).map_err(|_| Error::Internal("a new token has no valid form".to_owned()))?.hash();
    let args = [
        hash.bytes().to_vec().into(),
        tenant.into(),
        email.as_str().into(),
        role.into(),
        members.actor().into(),
        metadata.clone().into(),
        expires_in.into(),
    ];
    let id: Uuid = query::returning(INSERT, &args, |row| row.must(1))?
        .ok_or_else(|| Error::Duplicate("live invitation of", email.clone()))?;
    let target = id.to_string();
    audit::record(&Entry {
        action: "invitation.create",
        tenant: Some(tenant),
        target: Some(&target),
        after: Some(Object::new().text("email", &email).text("role", role).jsonb("metadata", &metadata).finish()),
        ..Entry::default()
    })?;
    Ok(TableIterator::once((id, token)))
}

/// An invitation whose token was brought.
struct Invitation {
    id: Uuid,
    tenant: Uuid,
    role: String,
    invited_by: Option<Uuid>,
    ended: bool,
    expired: bool,
}

impl Invitation {
    fn from(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.must(1)?,
            tenant: row.must(2)?,
            role: row.must(4)?,
            invited_by: row.get(5)?,
            ended: row.must(6)?,
            expired: row.must(7)?,
        })
    }

    /// Why it cannot be accepted now, if so, the tenant's lock being shared. Who has left the tenant, or has been demoted, does not invite any more.
    fn obstacle(&self) -> Result<Option<Reason>> {
        if self.ended {
            return Ok(Some(Reason::Revoked));
        }
        if self.expired {
            return Ok(Some(Reason::Expired));
        }
        let tenant = registry::find(self.tenant)?;
        match tenant.as_ref().map(|tenant| tenant.admit(true)) {
            None | Some(Err(Error::TenantClosed { .. })) => return Ok(Some(Reason::Tenant)),
            Some(admitted) => admitted?,
        }
        let Some(inviter) = self.invited_by else { return Ok(None) };
        // An added role cannot have been removed while the invitation was open; one that was taken away by hand makes it void.
        let inviter = registry::member_role(self.tenant.as_bytes(), inviter.as_bytes())?;
        let inviter = inviter.as_deref().map(role::rank).transpose()?.flatten();
        Ok((inviter < role::rank(&self.role)?).then_some(Reason::Member))
    }
}

/// The invitation with this token, locked, or why there is none to accept.
fn lock_by_token(token: &str, user: Uuid) -> Result<std::result::Result<Invitation, Reason>> {
    let secret = match Secret::parse(token) {
        Ok(secret) if secret.prefix() == INVITATION_PREFIX => secret,
        Ok(_) => return Ok(Err(Reason::Malformed)),
        Err(reason) => return Ok(Err(reason)),
    };
    let hashes = [Some(secret.hash()), secret.older_hash()].map(|hash| hash.map(|hash| hash.bytes().to_vec()).into());
    // Those who change the tenant's people share its lock before they lock anything, and lock users before invitations.
    if let Some(tenant) = query::returning(TENANT_BY_HASH, &hashes, |row| row.must(1))? {
        lock::join_writers(tenant);
        member::keep_user(user)?;
    }
    let Some(invitation) = query::returning(LOCK_BY_HASH, &hashes, Invitation::from)? else {
        return Ok(Err(Reason::Unknown));
    };
    Ok(invitation.obstacle()?.map_or(Ok(invitation), Err))
}

/// Makes a user a member of the tenant that the invitation is for; that tenant.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn accept_invitation(token: Option<&str>, user_id: Option<Uuid>) -> SqlResult<Uuid> {
    let token = token.ok_or(Error::Null("token"))?;
    let user = user_id.ok_or(Error::Null("user_id"))?;
    if context::bound().and_then(|bound| bound.user).is_some_and(|bound| bound != *user.as_bytes()) {
        return Err(Error::Forbidden("an invitation is accepted for the acting user only".to_owned(), "").into());
    }
    let invitation = lock_by_token(token, user)?.map_err(|reason| {
        monitor::count_attempt(Kind::Invitation, "", reason);
        Error::InvalidCredential("invitation")
    })?;
    member::insert(invitation.tenant, user, &invitation.role)?;
    query::run(ACCEPT, &[invitation.id.into(), user.into()])?;
    let target = invitation.id.to_string();
    audit::record(&Entry {
        action: "invitation.accept",
        tenant: Some(invitation.tenant),
        target: Some(&target),
        after: Some(Object::new().text("user_id", &user.to_string()).text("role", &invitation.role).finish()),
        ..Entry::default()
    })?;
    Ok(invitation.tenant)
}

/// Ends an invitation of the bound tenant; false when it has ended before.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn revoke_invitation(invitation_id: Option<Uuid>) -> SqlResult<bool> {
    let id = invitation_id.ok_or(Error::Null("invitation_id"))?;
    let members = Members::keep(actor::tenant_for_writing()?, &[])?;
    let (ended, role) = query::returning(LOCK, &[id.into(), members.tenant().into()], |row| {
        Ok((row.must::<bool>(1)?, row.must::<String>(2)?))
    })?
    .ok_or_else(|| Error::Unknown("invitation", id.to_string()))?;
    members.may_give(&role, role::rank(&role)?.unwrap_or_default())?;
    if ended {
        return Ok(false);
    }
    query::run(REVOKE, &[id.into()])?;
    let target = id.to_string();
    audit::record(&Entry {
        action: "invitation.revoke",
        tenant: Some(members.tenant()),
        target: Some(&target),
        ..Entry::default()
    })?;
    Ok(true)
}

/// Removes the invitations that a user has accepted or that wait for them, in their home tenant or, where they have none, in all; their ids.
pub fn forget(user: Uuid, email: &str, home: Option<Uuid>) -> Result<Vec<String>> {
    query::current_rows(FORGET, &[user.into(), email.into(), home.into()], |row| row.must(1))
}
