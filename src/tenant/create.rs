//! Creating and changing a tenant's registry row.

use super::slug;
use crate::access;
use crate::audit::{self, Entry};
use crate::context;
use crate::database;
use crate::error::{Error, Result, SqlResult};
use crate::guard::lock::{Mode, Subject};
use crate::isolation::schema;
use crate::json::{Jsonb, Object};
use crate::metering::plan;
use crate::query;
use crate::sqltype::Name;
use crate::text;
use pgrx::Uuid;
use pgrx::prelude::*;

/// Derived slugs that are tried with a longer suffix each time before the id itself is used.
const SUFFIX_LENGTHS: [usize; 3] = [4, 8, 32];

const INSERT: &str = "INSERT INTO tenancy.tenants (id, slug, name, plan, isolation, external_id, metadata)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
const TAKEN: &str = "SELECT id = $1, slug = $2, external_id = $3 FROM tenancy.tenants
    WHERE id = $1 OR slug = $2 OR external_id = $3 ORDER BY id = $1 DESC, slug = $2 DESC LIMIT 1";
const CURRENT: &str = "SELECT name, slug, external_id, metadata FROM tenancy.tenants WHERE id = $1 FOR NO KEY UPDATE";
const UPDATE: &str =
    "UPDATE tenancy.tenants SET name = $2, slug = $3, external_id = $4, metadata = $5, updated_at = pg_catalog.now()
    WHERE id = $1";
const OTHER_WITH_SLUG: &str = "SELECT true FROM tenancy.tenants WHERE slug = $2 AND id <> $1";
const GUARDED_BY_KEY: &str =
    "SELECT table_name::text FROM tenancy.protected_tables WHERE tenant_type IN ('key_text', 'key_bigint')
    ORDER BY table_name LIMIT 1";
const OTHER_WITH_EXTERNAL_ID: &str = "SELECT true FROM tenancy.tenants WHERE external_id = $2 AND id <> $1";

fn check_metadata(metadata: Jsonb) -> Result<Jsonb> {
    if metadata.is_object() { Ok(metadata) } else { Err(Error::invalid("metadata must be a JSON object", "")) }
}

/// A tenant to be.
struct New<'a> {
    id: Uuid,
    name: &'a str,
    plan: &'a str,
    isolation: String,
    external_id: Option<&'a str>,
    metadata: &'a Jsonb,
}

impl New<'_> {
    /// Inserts the tenant under `slug`; false when the slug is taken by another tenant and may be tried anew.
    fn insert(&self, slug: &str) -> Result<bool> {
        let args = [
            self.id.into(),
            slug.into(),
            self.name.into(),
            self.plan.into(),
            self.isolation.as_str().into(),
            self.external_id.into(),
            self.metadata.clone().into(),
        ];
        if query::run(INSERT, &args)? == 1 {
            self.external_id.into_iter().for_each(context::key::take_alone);
            return Ok(true);
        }
        let taken: Option<(bool, bool)> =
            query::first(TAKEN, &[self.id.into(), slug.into(), self.external_id.into()], |row| {
                Ok((row.must(1)?, row.must(2)?))
            })?;
        match taken {
            Some((true, _)) => Err(Error::Duplicate("tenant", self.id.to_string())),
            Some((false, false)) => {
                Err(Error::Duplicate("external id", self.external_id.unwrap_or_default().to_owned()))
            }
            // Taken by slug, or by a transaction that ended meanwhile.
            _ => Ok(false),
        }
    }

    fn record(&self, slug: &str) -> Result<()> {
        audit::record(&Entry {
            action: "tenant.create",
            tenant: Some(self.id),
            target: Some(slug),
            after: Some(
                Object::new()
                    .text("name", self.name)
                    .text("slug", slug)
                    .text("plan", self.plan)
                    .text("isolation", &self.isolation)
                    .optional("external_id", self.external_id)
                    .jsonb("metadata", self.metadata)
                    .finish(),
            ),
            ..Entry::default()
        })
    }

    /// Inserts the tenant under a slug derived from its name, with a piece of its id where that is taken.
    fn insert_under_derived_slug(&self) -> Result<String> {
        let id = self.id.to_string().replace('-', "");
        if let Some(derived) = slug::from_name(self.name) {
            if self.insert(&derived)? {
                return Ok(derived);
            }
            for length in SUFFIX_LENGTHS {
                let suffixed = slug::with_suffix(&derived, &id[..length]);
                if self.insert(&suffixed)? {
                    return Ok(suffixed);
                }
            }
        }
        let fallback = format!("tenant-{id}");
        if self.insert(&fallback)? { Ok(fallback) } else { Err(Error::Duplicate("slug", fallback)) }
    }
}

/// What `create_tenant` is asked for.
pub struct Wanted<'a> {
    pub name: &'a str,
    pub slug: Option<&'a str>,
    pub plan: &'a str,
    pub isolation: Option<&'a str>,
    pub metadata: Jsonb,
    pub id: Uuid,
    pub external_id: Option<&'a str>,
    pub owner: Option<Uuid>,
    pub template: Option<String>,
    pub schema_name: Option<String>,
}

/// Registers a tenant, as the extension's owner, and makes its schema, or has its database made.
pub fn create(wanted: Wanted) -> Result<Uuid> {
    let name = text::check_name(wanted.name)?;
    let given = wanted.slug.map(slug::check).transpose()?;
    let (id, plan) = (wanted.id, wanted.plan);
    let external_id = wanted.external_id.map(text::check_external_id).transpose()?;
    let metadata = check_metadata(wanted.metadata)?;
    let planned = plan::isolation_of(plan)?;
    let isolation = plan::check_isolation(wanted.isolation.unwrap_or(&planned))?.to_owned();
    let is_row = isolation == "row";
    if is_row && (wanted.template.is_some() || wanted.schema_name.is_some()) {
        return Err(Error::invalid(
            format!("a tenant of isolation \"{isolation}\" has no schema of its own"),
            "Leave template and schema_name out, or say isolation => 'schema' or 'database'.",
        ));
    }

    let new = New { id, name, plan, isolation, external_id, metadata: &metadata };
    let slug = match given {
        Some(given) if new.insert(given)? => given.to_owned(),
        Some(given) => return Err(Error::Duplicate("slug", given.to_owned())),
        None => new.insert_under_derived_slug()?,
    };
    new.record(&slug)?;
    if let Some(owner) = wanted.owner {
        access::insert_member(id, owner, access::OWNER)?;
    }
    if !is_row {
        let template = wanted.template.map_or_else(schema::unnamed_template, Ok)?;
        let schema_name = wanted.schema_name.as_deref();
        match new.isolation.as_str() {
            "database" => database::request(id, &template, schema_name)?,
            _ => schema::create(id, &template, schema_name, true).map(drop)?,
        }
    }
    Ok(id)
}

/// Registers a tenant and, where its isolation says so, makes its schema, or has its database made.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::too_many_arguments)]
fn create_tenant(
    name: Option<&str>,
    slug: default!(Option<&str>, "NULL"),
    plan: default!(Option<&str>, "'free'"),
    isolation: default!(Option<&str>, "NULL"),
    metadata: default!(Option<Jsonb>, "'{}'"),
    id: default!(Option<Uuid>, "gen_random_uuid()"),
    external_id: default!(Option<&str>, "NULL"),
    owner: default!(Option<Uuid>, "NULL"),
    template: default!(Option<Name>, "NULL"),
    schema_name: default!(Option<Name>, "NULL"),
) -> SqlResult<Uuid> {
    let wanted = Wanted {
        name: name.ok_or(Error::Null("name"))?,
        slug,
        plan: plan.ok_or(Error::Null("plan"))?,
        isolation,
        metadata: metadata.ok_or(Error::Null("metadata"))?,
        id: id.ok_or(Error::Null("id"))?,
        external_id,
        owner,
        template: template.map(|Name(template)| template),
        schema_name: schema_name.map(|Name(name)| name),
    };
    Ok(create(wanted)?)
}

/// What `update_tenant` can change.
struct Fields {
    name: String,
    slug: String,
    external_id: Option<String>,
    metadata: Jsonb,
}

impl Fields {
    fn read(tenant: Uuid) -> Result<Self> {
        query::returning(CURRENT, &[tenant.into()], |row| {
            Ok(Self { name: row.must(1)?, slug: row.must(2)?, external_id: row.get(3)?, metadata: row.must(4)? })
        })?
        .ok_or_else(|| Error::unknown_tenant(tenant))
    }

    fn to_json(&self) -> Jsonb {
        Object::new()
            .text("name", &self.name)
            .text("slug", &self.slug)
            .optional("external_id", self.external_id.as_deref())
            .jsonb("metadata", &self.metadata)
            .finish()
    }
}

/// Rows are found by their tenant's external id, and transactions that are bound go on with the one that they began with: another tenant
/// must not get it meanwhile.
fn refuse_while_guarding() -> Result<()> {
    Subject::external_ids().lock(Mode::Share);
    match query::current_rows(GUARDED_BY_KEY, &[], |row| row.must::<String>(1))?.into_iter().next() {
        None => Ok(()),
        Some(table) => Err(Error::State(
            format!("the external id of a tenant cannot change while it guards rows, as in {table}"),
            "Keys of the application's own are for good.",
        )),
    }
}

/// Registers a tenant of isolation row, and says so in the audit log, under a slug that its name suggests.
pub fn register(id: Uuid, name: &str, plan: &str, external_id: Option<&str>) -> Result<()> {
    let metadata = Object::new().finish();
    let isolation = "row".to_owned();
    let new = New { id, name, plan, isolation, external_id, metadata: &metadata };
    let slug = new.insert_under_derived_slug()?;
    new.record(&slug)
}

/// Changes what is given of a tenant.
#[pg_extern(security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn update_tenant(
    tenant: Option<Uuid>,
    name: default!(Option<&str>, "NULL"),
    slug: default!(Option<&str>, "NULL"),
    external_id: default!(Option<&str>, "NULL"),
    metadata: default!(Option<Jsonb>, "NULL"),
) -> SqlResult<Uuid> {
    let tenant = tenant.ok_or(Error::Null("tenant"))?;
    let name = name.map(text::check_name).transpose()?;
    let slug = slug.map(slug::check).transpose()?;
    let external_id = external_id.map(text::check_external_id).transpose()?;
    let metadata = metadata.map(check_metadata).transpose()?;

    let before = Fields::read(tenant)?;
    let after = Fields {
        name: name.map_or_else(|| before.name.clone(), str::to_owned),
        slug: slug.map_or_else(|| before.slug.clone(), str::to_owned),
        external_id: external_id.map(str::to_owned).or_else(|| before.external_id.clone()),
        metadata: metadata.unwrap_or_else(|| before.metadata.clone()),
    };
    for (what, taken, value) in [
        ("slug", OTHER_WITH_SLUG, Some(&after.slug)),
        ("external id", OTHER_WITH_EXTERNAL_ID, after.external_id.as_ref()),
    ] {
        if let Some(value) = value
            && query::value::<bool>(taken, &[tenant.into(), value.as_str().into()])?.is_some()
        {
            return Err(Error::Duplicate(what, value.clone()).into());
        }
    }
    if before.external_id.is_some() && after.external_id != before.external_id {
        refuse_while_guarding()?;
    }
    if after.external_id != before.external_id {
        after.external_id.iter().for_each(|key| context::key::take_alone(key));
    }
    let args = [
        tenant.into(),
        after.name.as_str().into(),
        after.slug.as_str().into(),
        after.external_id.as_deref().into(),
        after.metadata.clone().into(),
    ];
    query::run(UPDATE, &args)?;
    audit::record(&Entry {
        action: "tenant.update",
        tenant: Some(tenant),
        target: Some(&after.slug),
        before: Some(before.to_json()),
        after: Some(after.to_json()),
    })?;
    Ok(tenant)
}
