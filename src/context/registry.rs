//! What a bind needs to know: the tenant's state, and what a user is in it.

use super::plan::{self, Plan};
use crate::backend::BackendStatic;
use crate::changes;
use crate::error::{Error, Result};
use crate::home;
use crate::scan::{Key, Row, Table};
use pgrx::Uuid;

/// Column numbers of `tenancy.tenants`; sql/tenant.sql keeps them.
const ID: i16 = 1;
const SLUG: i16 = 2;
const STATUS: i16 = 3;
const PLAN: i16 = 5;
const ISOLATION: i16 = 7;
const EXTERNAL_ID: i16 = 8;
const SCHEMA_NAME: i16 = 17;
const DATABASE_NAME: i16 = 19;
const MOVED_FROM: i16 = 20;

/// Column numbers of `tenancy.memberships` and `tenancy.users`; sql/access.sql keeps them.
const MEMBER_TENANT: i16 = 1;
const MEMBER_USER: i16 = 2;
const MEMBER_ROLE: i16 = 3;
const USER_ID: i16 = 1;
const USER_HOME: i16 = 2;
const USER_EXTERNAL_ID: i16 = 4;
const TOKENS_NOT_BEFORE: i16 = 5;

/// The lifecycle of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Provisioning,
    Active,
    ReadOnly,
    Suspended,
    Moving,
    Cancelled,
    Deleted,
    /// Only on the label of a database that the tenant was moved out of.
    Moved,
}

impl Status {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::ReadOnly => "read_only",
            Self::Suspended => "suspended",
            Self::Moving => "moving",
            Self::Cancelled => "cancelled",
            Self::Deleted => "deleted",
            Self::Moved => "moved",
        }
    }

    pub fn from_name(name: &str) -> Result<Self> {
        [
            Self::Provisioning,
            Self::Active,
            Self::ReadOnly,
            Self::Suspended,
            Self::Moving,
            Self::Cancelled,
            Self::Deleted,
            Self::Moved,
        ]
        .into_iter()
        .find(|status| status.name() == name)
        .ok_or_else(|| Error::Internal(format!("unknown tenant status {name}")))
    }
}

/// Where a tenant's rows live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// In tables that tenants share.
    Row,
    /// In a schema of its own; None while it has none.
    Schema(Option<Identifier>),
    /// In a database of its own, where its tables have a schema of their own as well; None for what is not made yet.
    Database { name: Option<Identifier>, schema: Option<Identifier> },
}

/// An identifier as the catalogs hold it: 63 bytes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identifier {
    length: u8,
    bytes: [u8; 63],
}

impl Identifier {
    pub fn new(name: &str) -> Option<Self> {
        let mut bytes = [0; 63];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(Self { length: name.len() as u8, bytes })
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

/// What a bind needs to know of a tenant.
#[derive(Clone, Copy)]
pub struct Tenant {
    pub id: Uuid,
    pub status: Status,
    pub isolation: Isolation,
    /// Whether the tables that tenants share still hold what was moved out of them.
    pub left_rows: bool,
    /// What its plan says of its transactions; None when nothing.
    pub plan: Option<&'static Plan>,
    /// What the application's own tables know it by; None where it has no external id, or one too long for a key.
    pub key: Option<Identifier>,
}

impl Tenant {
    /// The schema that a binding makes the tenant's tables found in; None for one whose rows are in shared tables.
    pub fn schema(&self) -> Result<Option<Identifier>> {
        match self.isolation {
            Isolation::Row => Ok(None),
            Isolation::Schema(None) => Err(Error::NoSchema(self.id.to_string())),
            Isolation::Schema(schema) => Ok(schema),
            Isolation::Database { schema: Some(schema), .. } if home::is_of(self.id.as_bytes()) => Ok(Some(schema)),
            Isolation::Database { .. } => Err(self.elsewhere()),
        }
    }

    /// Whether its tables are in a database of its own, and this is not that.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self.isolation, Isolation::Database { .. }) && !home::is_of(self.id.as_bytes())
    }

    /// What is said to whoever looks for its tables here.
    pub fn elsewhere(&self) -> Error {
        let database = match &self.isolation {
            Isolation::Database { name, .. } => name.as_ref().map(|name| name.as_str().to_owned()),
            _ => None,
        };
        Error::InOtherDatabase { tenant: self.id.to_string(), database }
    }

    /// The tenant with the state that the label of its own database has for it, where this is that database.
    fn at_home(self) -> Result<Self> {
        match home::here() {
            Some(home) if home.tenant == *self.id.as_bytes() => {
                Ok(Self { status: Status::from_name(&home.state)?, ..self })
            }
            _ => Ok(self),
        }
    }

    /// Whether the tenant may be used now, and for writing.
    pub fn admit(&self, write: bool) -> Result<()> {
        match self.status {
            Status::Active => Ok(()),
            Status::ReadOnly if write => Err(Error::ReadOnlyTenant),
            // Readers stay while a tenant is copied; who writes tries again when it is where it is going.
            Status::ReadOnly => Ok(()),
            Status::Moving if !write => Ok(()),
            Status::Provisioning | Status::Moving => {
                Err(Error::TenantBusy { tenant: self.id.to_string(), state: self.status.name() })
            }
            Status::Moved => Err(Error::MovedAway {
                tenant: self.id.to_string(),
                control: home::here().map(|home| home.control).unwrap_or_default(),
            }),
            Status::Suspended | Status::Cancelled | Status::Deleted => {
                Err(Error::TenantClosed { tenant: self.id.to_string(), state: self.status.name() })
            }
        }
    }
}

static TENANTS: Table = Table::by(c"tenants", c"tenants_pkey");
static TENANTS_BY_SLUG: Table = Table::by(c"tenants", c"tenants_slug_key");
static TENANTS_BY_EXTERNAL_ID: Table = Table::by(c"tenants", c"tenants_external_id_key");
static MEMBERSHIPS: Table = Table::by(c"memberships", c"memberships_pkey");
static USERS: Table = Table::by(c"users", c"users_pkey");
static USERS_BY_EXTERNAL_ID: Table = Table::by(c"users", c"users_external_id_key");

/// Tenants whose state a backend remembers, in memory that is touched as it is used; two that share a place take turns.
const REMEMBERED: usize = 4096;

/// The states that were read last, each with its generation: a trigger of the table announces every change of a row.
static STATES: BackendStatic<[Option<(u64, Tenant)>; REMEMBERED]> = BackendStatic::new([None; REMEMBERED]);

/// The tenant with this id, as of the latest commit and the caller's own changes.
pub fn find(id: Uuid) -> Result<Option<Tenant>> {
    let place = usize::from(u16::from_be_bytes([id.as_bytes()[14], id.as_bytes()[15]])) % REMEMBERED;
    let generation = changes::generation();
    // No other tenant is of a tenant's own database, whatever rows someone has put into it.
    if !home::admits(id.as_bytes()) {
        return Ok(None);
    }
    // SAFETY: one thread; the entry is copied.
    if let Some((known, tenant)) = unsafe { (*STATES.as_ptr())[place] }
        && known == generation
        && tenant.id == id
    {
        return tenant.at_home().map(Some);
    }
    let (row, announced) = TENANTS.first_and_announced(&[Key::uuid(ID, id.as_bytes())])?;
    let found = row.map(read_and_announced).transpose()?;
    if let Some((tenant, true)) = found
        && announced
        && changes::generation() == generation
    {
        // SAFETY: one thread.
        unsafe { (*STATES.as_ptr())[place] = Some((generation, tenant)) };
    }
    found.map(|(tenant, _)| tenant.at_home()).transpose()
}

/// The plan that a tenant is on, and whether every change of that is announced; None for no tenant.
pub fn plan_of(id: Uuid) -> Result<(Option<String>, bool)> {
    let (row, announced) = TENANTS.first_and_announced(&[Key::uuid(ID, id.as_bytes())])?;
    Ok((row.map(|row| row.must(PLAN)).transpose()?, announced))
}

/// The tenant with this slug.
pub fn find_by_slug(slug: &str) -> Result<Option<Tenant>> {
    Ok(TENANTS_BY_SLUG.first(&[Key::text(SLUG, slug)?])?.map(read).transpose()?.filter(is_here))
}

/// The tenant that another system knows by this id.
pub fn find_by_external_id(external_id: &str) -> Result<Option<Tenant>> {
    let found = TENANTS_BY_EXTERNAL_ID.first(&[Key::text(EXTERNAL_ID, external_id)?])?.map(read).transpose()?;
    Ok(found.filter(is_here))
}

/// Whether the tenant can be one of this database: whatever rows someone has put into a tenant's own, it has no other tenant.
fn is_here(tenant: &Tenant) -> bool {
    home::admits(tenant.id.as_bytes())
}

/// What the application's own tables know the tenant by.
pub fn key_of(id: Uuid) -> Result<Option<Identifier>> {
    Ok(find(id)?.and_then(|tenant| tenant.key))
}

fn read(row: Row) -> Result<Tenant> {
    read_and_announced(row)?.0.at_home()
}

/// The tenant, and whether every change of its plan is announced.
fn read_and_announced(row: Row) -> Result<(Tenant, bool)> {
    let isolation = match row.must::<&str>(ISOLATION)? {
        "row" => Isolation::Row,
        "schema" => Isolation::Schema(row.name(SCHEMA_NAME).and_then(|name| Identifier::new(&name))),
        _ => Isolation::Database {
            name: row.name(DATABASE_NAME).and_then(|name| Identifier::new(&name)),
            schema: row.name(SCHEMA_NAME).and_then(|name| Identifier::new(&name)),
        },
    };
    let (plan, announced) = plan::find(row.must(PLAN)?)?;
    let key = row.get::<&str>(EXTERNAL_ID).and_then(Identifier::new);
    let tenant = Tenant {
        id: row.must(ID)?,
        status: Status::from_name(row.must(STATUS)?)?,
        isolation,
        left_rows: row.get::<&str>(MOVED_FROM) == Some("row"),
        plan,
        key,
    };
    Ok((tenant, announced))
}

/// The role of a user in a tenant; None for one who is no member.
pub fn member_role(tenant: &[u8; 16], user: &[u8; 16]) -> Result<Option<String>> {
    let keys = [Key::uuid(MEMBER_TENANT, tenant), Key::uuid(MEMBER_USER, user)];
    MEMBERSHIPS.first(&keys)?.map(|row| row.must(MEMBER_ROLE)).transpose()
}

/// What a credential needs to know of a user.
pub struct User {
    pub id: Uuid,
    /// The tenant that they are of alone; None for a user of any number of tenants.
    home: Option<[u8; 16]>,
    /// When their signed tokens were revoked last, in PostgreSQL's microseconds.
    pub tokens_not_before: Option<i64>,
}

impl User {
    fn from(row: Row) -> Result<Self> {
        Ok(Self { id: row.must(USER_ID)?, home: row.uuid(USER_HOME), tokens_not_before: row.get(TOKENS_NOT_BEFORE) })
    }

    /// Whether a tenant can have the user as a member; one at home in another tenant does not exist for it.
    pub fn exists_for(&self, tenant: Uuid) -> bool {
        self.home.is_none_or(|home| home == *tenant.as_bytes())
    }
}

/// The user with this id.
pub fn find_user(id: Uuid) -> Result<Option<User>> {
    USERS.first(&[Key::uuid(USER_ID, id.as_bytes())])?.map(User::from).transpose()
}

/// The user that another system knows by this id: the tenant's own, or else one of no tenant.
pub fn find_user_by_external_id(external_id: &str, tenant: Uuid) -> Result<Option<User>> {
    for home in [Key::uuid(USER_HOME, tenant.as_bytes()), Key::null(USER_HOME)] {
        if let Some(user) = USERS_BY_EXTERNAL_ID.first(&[Key::text(USER_EXTERNAL_ID, external_id)?, home])? {
            return User::from(user).map(Some);
        }
    }
    Ok(None)
}

/// The role of a user whom a trusted backend names. One whom the product does not know has none; one whom it knows must be a member.
pub fn role_of_named_user(tenant: Uuid, user: Uuid) -> Result<Option<String>> {
    let role = member_role(tenant.as_bytes(), user.as_bytes())?;
    let is_stranger = role.is_none() && find_user(user)?.is_some();
    if is_stranger { Err(Error::NotMember { user: user.to_string(), tenant: tenant.to_string() }) } else { Ok(role) }
}
