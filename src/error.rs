//! Every error that this extension raises: its SQLSTATE, message, detail and hint.
//!
//! Messages follow PostgreSQL's style (lower case, no full stop, the way out in the hint) and never hold a credential.

use pgrx::Uuid;
use pgrx::pg_sys::panic::{ErrorReport, ErrorReportWithLevel, ErrorReportable};
use pgrx::prelude::*;
use std::convert::Infallible;
use std::ffi::CStr;

pub type Result<T> = std::result::Result<T, Error>;

/// What SQL functions return: pgrx raises an [`ErrorReport`] with its SQLSTATE, and anything else without.
pub type SqlResult<T> = std::result::Result<T, ErrorReport>;

#[derive(Debug)]
pub enum Error {
    /// Nothing is bound in this transaction.
    Unbound,
    /// A tenant other than the bound one was named; None where it is NULL.
    TenantMismatch(Option<String>),
    /// A row to be written belongs to a tenant other than the bound one; None where it has none.
    ForeignRow(Option<String>),
    /// No tenant has this id, slug or external id.
    UnknownTenant(String),
    /// The tenant's state forbids what was asked, for good or until someone changes it.
    TenantClosed { tenant: String, state: &'static str },
    /// The tenant's state forbids it for the moment: try again.
    TenantBusy { tenant: String, state: &'static str },
    /// A write for a tenant that may only be read.
    ReadOnlyTenant,
    /// Another tenant was bound earlier in this transaction.
    AlreadyBound,
    /// The product knows the user, who is no member of the tenant.
    NotMember { user: String, tenant: String },
    /// A key or token does not authenticate; deliberately without the reason, which tenancy.failed_attempts counts.
    InvalidCredential(&'static str),
    /// The principal has not the role, or none of its rank.
    MissingRole(String),
    /// The principal's credential has not the scope.
    MissingScope(String),
    /// The principal may not do this to someone else: what, and the way out.
    Forbidden(String, &'static str),
    /// A tenant keeps an owner.
    LastOwner,
    /// What is named has ended, or is in use: message and hint.
    State(String, &'static str),
    /// The session's role steps around row security.
    BypassingRole { role: String, database: String },
    /// A cursor is open that belongs to the tenant bound before.
    OpenCursor(String),
    /// A cursor WITH HOLD of this transaction is open when a tenant is to be bound.
    OpenHoldableCursor(String),
    /// The running statement uses protected tables.
    MixingStatement,
    /// A cursor WITH HOLD would carry a tenant's rows out of its transaction.
    HoldableCursor(String),
    /// The tenant's state allows no such change: what it is, and what it cannot do.
    IllegalChange { state: &'static str, change: String },
    /// The retention of a deleted tenant has not passed.
    RetentionNotOver { until: String },
    /// A purge of this tenant has begun, so nothing can bring it back.
    PurgeBegun,
    /// An argument is malformed: message and hint.
    Invalid(String, &'static str),
    /// An argument that must be given is NULL.
    Null(&'static str),
    /// Something with this unique name exists: what it is, and the name.
    Duplicate(&'static str, String),
    /// No such plan, level, table, exemption …: what it is, and its name.
    Unknown(&'static str, String),
    /// `grant_access` refuses a role: each reason with the statement that removes it.
    UnsafeRole { role: String, level: String, reasons: Vec<String>, remedies: Vec<String> },
    /// The table is not in a state that can be protected: message and hint.
    Unprotectable(String, String),
    /// A bypassing role's view or function reads or writes a protected table for a role that does not bypass.
    BackDoor { relation: String, owner: String },
    /// TRUNCATE of a protected table by a role that row security binds.
    Truncate(String),
    /// EXPLAIN ANALYZE of a protected table in a transaction that was bound by a credential.
    Counts(String),
    /// A protected table's row security or policies were taken away other than by unprotect_table().
    Opened(String),
    /// A materialised view over a protected table.
    MaterializedView { view: String, table: String },
    /// A procedure of several transactions was called inside one.
    InTransactionBlock(&'static str),
    /// A row refers to one that is not there, or is another tenant's: table and constraint.
    Dangling { table: String, constraint: String },
    /// Not there in this version.
    Unsupported(String),
    /// A schema has something that a copy of it would lack.
    Unclonable(String),
    /// A schema that is to be made in another database needs what that has not.
    NeedsOutside { schema: String, objects: String },
    /// Objects outside a schema depend on what is in it.
    DependentObjects { schema: String, objects: String },
    /// A copy needs more locks than the server can hold.
    TooManyLocks { schema: String, needed: usize, room: usize },
    /// The library was not loaded when the server started.
    NotPreloaded,
    /// The schema that was named for the functions is open to everyone.
    OpenSchema(String),
    /// Another session has committed what this transaction's snapshot does not show and must not miss.
    Serialization,
    /// The database's texts are not Unicode.
    Encoding,
    /// The schema is another tenant's, or nothing is bound.
    ForeignSchema(String),
    /// The schema is a template's, and the session may not use it now.
    TemplateSchema(String),
    /// The tenant is to have a schema and has none yet.
    NoSchema(String),
    /// The tenant is served by another database than this; None while that is not made yet.
    InOtherDatabase { tenant: String, database: Option<String> },
    /// The tenant was moved after this transaction bound it.
    Moved(String),
    /// The tenant was moved out of this database of its own.
    MovedAway { tenant: String, control: String },
    /// A shared table still holds the rows that were moved out of it.
    LeftRows(String),
    /// Kept by another database, from which this tenant's own has a copy.
    KeptByControl(String),
    /// What was raised elsewhere: by a worker in another database, or where something had to be put back before it is raised again.
    Elsewhere { sqlstate: String, message: String, detail: Option<String>, hint: Option<String> },
    /// A view of PostgreSQL's that shows values of every schema.
    ShowsAllSchemas(String),
    /// A sequence function that was reached where the guard cannot see which sequence it will use.
    SequenceUnseen(&'static str),
    /// The server has no room for a background worker.
    NoWorkers,
    /// verify_sql did not return true; what it returned.
    NotVerified(&'static str),
    /// SQL that is part of a transaction of ours tries to end it.
    TransactionControl,
    /// A run over many schemas was stopped: message and detail.
    Stopped(String, String),
    /// Neither the tenant nor its plan says how much of a resource it may have.
    NoLimit { resource: String, plan: String },
    /// Neither the tenant nor its plan says how often a resource may be used.
    NoRateLimit { resource: String, plan: String },
    /// A tenant would have or use more than its limit.
    LimitReached { resource: String, max: String },
    /// A tenant asks too often, or does too much at once: message and when to try again.
    RateLimited { message: String, retry: String },
    /// No metric has this name.
    UnknownMetric(String),
    /// An idempotency key was used for another event.
    KeyReused,
    /// Something that cannot happen did.
    Internal(String),
}

/// The code of an SQLSTATE of five characters, packed as PostgreSQL packs it (utils/elog.h, MAKE_SQLSTATE).
fn code_of(sqlstate: &str) -> PgSqlErrorCode {
    let packed =
        sqlstate.bytes().rev().fold(0, |code, character| (code << 6) | i32::from(character.wrapping_sub(b'0') & 0x3f));
    PgSqlErrorCode::from(packed)
}

/// The five characters of a code, which is packed so (utils/elog.h, MAKE_SQLSTATE).
pub fn sqlstate_of(code: PgSqlErrorCode) -> String {
    let code = code as i32;
    (0..5).map(|place| char::from(b'0' + (code >> (6 * place) & 0x3f) as u8)).collect()
}

/// What our reports name as their function, which tells them from others.
pub const REPORTER: &CStr = c"pg_tenancy";

/// What an error report is made of.
struct Parts {
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

/// Characters of what a caller gave that a message repeats.
const MAX_QUOTED: usize = 100;

/// What a caller gave, short enough for a message and a log.
fn shown(given: &str) -> String {
    match given.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}...", &given[..end]),
        None => given.to_owned(),
    }
}

fn parts(code: PgSqlErrorCode, message: impl Into<String>) -> Parts {
    Parts { code, message: message.into(), detail: None, hint: None }
}

impl Parts {
    fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl Error {
    pub fn invalid(message: impl Into<String>, hint: &'static str) -> Self {
        Self::Invalid(message.into(), hint)
    }

    pub fn unknown_tenant(tenant: Uuid) -> Self {
        Self::UnknownTenant(tenant.to_string())
    }

    pub fn without_down_sql(version: &str, template: &str) -> Self {
        let message = format!("migration \"{}\" of template \"{template}\" has no down_sql", shown(version));
        Self::State(message, "Undo what it did by another migration.")
    }

    /// A constraint that rows violate, said as PostgreSQL says it.
    pub fn violation(sqlstate: &str, message: String, detail: String) -> Self {
        Self::Elsewhere { sqlstate: sqlstate.to_owned(), message, detail: Some(detail), hint: None }
    }

    /// An error that PostgreSQL raised, to be raised again.
    pub fn caught(report: &ErrorReportWithLevel) -> Self {
        let sqlstate = sqlstate_of(report.sql_error_code());
        let [detail, hint] = [report.detail(), report.hint()].map(|text| text.map(str::to_owned));
        Self::Elsewhere { sqlstate, message: report.message().to_owned(), detail, hint }
    }

    /// The same error with its SQLSTATE and texts.
    pub fn into_raised(self) -> Self {
        if let Self::Elsewhere { .. } = self {
            return self;
        }
        let Parts { code, message, detail, hint } = self.parts();
        Self::Elsewhere { sqlstate: sqlstate_of(code), message, detail, hint }
    }

    /// SQLSTATE, message, detail and hint, for an error that is written down instead of raised.
    pub fn into_parts(self) -> (PgSqlErrorCode, String, Option<String>, Option<String>) {
        let Parts { code, message, detail, hint } = self.parts();
        (code, message, detail, hint)
    }

    fn parts(self) -> Parts {
        use PgSqlErrorCode::*;
        match self {
            Self::Unbound => parts(ERRCODE_INSUFFICIENT_PRIVILEGE, "no tenant is bound in this transaction")
                .hint("Call set_tenant(), authenticate_api_key() or authenticate_jwt() after BEGIN, in the transaction that uses the tenant's data."),
            Self::TenantMismatch(named) => parts(ERRCODE_INSUFFICIENT_PRIVILEGE, mismatch(named)),
            Self::ForeignRow(found) => parts(ERRCODE_INSUFFICIENT_PRIVILEGE, mismatch(found))
                .hint("Leave the tenant column out of the statement: its default is the bound tenant."),
            Self::UnknownTenant(tenant) => {
                parts(ERRCODE_NO_DATA_FOUND, format!("tenant \"{}\" does not exist", shown(&tenant)))
            }
            Self::TenantClosed { tenant, state } => {
                parts(ERRCODE_INSUFFICIENT_PRIVILEGE, format!("tenant \"{tenant}\" is {state}"))
                    .hint("An operator can bring it back with resume_tenant() or restore_tenant().")
            }
            Self::TenantBusy { tenant, state } => {
                parts(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, format!("tenant \"{tenant}\" is {state}"))
                    .hint("Try again in a moment.")
            }
            Self::ReadOnlyTenant => parts(ERRCODE_READ_ONLY_SQL_TRANSACTION, "the bound tenant is read-only")
                .hint("An operator can lift this with resume_tenant()."),
            Self::AlreadyBound => parts(
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "another tenant was bound earlier in this transaction",
            )
            .hint("A transaction serves one tenant: end it, then bind the other one."),
            Self::NotMember { user, tenant } => parts(
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("user \"{user}\" is not a member of tenant \"{tenant}\""),
            )
            .hint("Add the user with add_member(), or bind the tenant without a user."),
            Self::InvalidCredential(what) => {
                parts(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, format!("invalid {what}"))
                    .hint("It is malformed, unknown, expired or revoked, or its tenant or member is; tenancy.failed_attempts counts why.")
            }
            Self::MissingRole(role) => {
                parts(ERRCODE_INSUFFICIENT_PRIVILEGE, format!("role \"{}\" or above is required", shown(&role)))
            }
            Self::MissingScope(scope) => {
                parts(ERRCODE_INSUFFICIENT_PRIVILEGE, format!("scope \"{}\" is required", shown(&scope)))
            }
            Self::Forbidden(message, hint) => {
                let parts = parts(ERRCODE_INSUFFICIENT_PRIVILEGE, message);
                if hint.is_empty() { parts } else { parts.hint(hint) }
            }
            Self::LastOwner => {
                parts(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "a tenant must keep an owner, and this is its last one")
                    .hint("Make another member an owner first.")
            }
            Self::State(message, hint) => {
                let parts = parts(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message);
                if hint.is_empty() { parts } else { parts.hint(hint) }
            }
            Self::BypassingRole { role, database } => parts(
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("role {role} bypasses row security, so that a bound tenant would not restrict it"),
            )
            .hint(format!(
                "Connect as a role that does not: CREATE ROLE app LOGIN PASSWORD '...'; GRANT CONNECT ON DATABASE {database} \
                 TO app; SELECT grant_access('app', 'app'); then grant it the tables. For maintenance only: SET \
                 tenancy.allow_bypass = on."
            )),
            Self::OpenCursor(name) => parts(
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot change the tenant while cursor \"{name}\" is open"),
            )
            .hint("Close it first: it would go on with the rows of both tenants."),
            Self::OpenHoldableCursor(name) => parts(
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot bind a tenant while cursor \"{name}\" WITH HOLD is open"),
            )
            .hint("Close it first: a tenant's rows must not outlive its transaction in a cursor."),
            Self::MixingStatement => parts(
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "cannot change the tenant in a statement that uses a protected table",
            )
            .hint("It would go on with the rows of both tenants. Change the tenant in a statement of its own."),
            Self::HoldableCursor(name) => parts(
                ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("cursor \"{name}\" WITH HOLD cannot be used while a tenant is bound"),
            )
            .hint("Its rows would stay in the session for the next tenant. Use a cursor without hold, and fetch before COMMIT."),
            Self::IllegalChange { state, change } => {
                parts(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, format!("a tenant that is {state} cannot {change}"))
            }
            Self::RetentionNotOver { until } => parts(
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("the tenant is kept until {until}"),
            )
            .hint("To purge it now: CALL purge_tenant(..., force => true)."),
            Self::PurgeBegun => parts(
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "a purge of this tenant has begun and cannot be undone",
            )
            .hint("CALL purge_tenant() again to finish it."),
            Self::Invalid(message, hint) => {
                let message = shown(&message);
                let parts = parts(ERRCODE_INVALID_PARAMETER_VALUE, message);
                if hint.is_empty() { parts } else { parts.hint(hint) }
            }
            Self::Null(argument) => {
                parts(ERRCODE_INVALID_PARAMETER_VALUE, format!("argument \"{argument}\" must not be null"))
            }
            Self::Duplicate(what, name) => {
                parts(ERRCODE_UNIQUE_VIOLATION, format!("{what} \"{}\" already exists", shown(&name)))
            }
            Self::Unknown(what, name) => {
                parts(ERRCODE_NO_DATA_FOUND, format!("{what} \"{}\" does not exist", shown(&name)))
            }
            Self::UnsafeRole { role, level, reasons, remedies } => parts(
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("role {role} could step around level {level}"),
            )
            .detail(reasons.join("\n"))
            .hint(if remedies.is_empty() { "Use another role.".to_owned() } else { remedies.join("\n") }),
            Self::Unprotectable(message, hint) => {
                let parts = parts(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message);
                if hint.is_empty() { parts } else { parts.hint(hint) }
            }
            Self::BackDoor { relation, owner } => parts(
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("protected table {relation} cannot be used through an object of role {owner}, which bypasses row security"),
            )
            .hint(
                "Give the view security_invoker = true or an owner without such rights, make the function SECURITY INVOKER, \
                 or let an admin exempt it with allow_definer().",
            ),
            Self::Truncate(relation) => parts(
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("TRUNCATE of protected table {relation} would remove the rows of every tenant"),
            )
            .hint("Use DELETE, which removes those of the bound tenant."),
            Self::Counts(relation) => parts(
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("EXPLAIN ANALYZE of protected table {relation} would count rows of other tenants"),
            )
            .hint("Use EXPLAIN without ANALYZE, or bind the tenant by set_tenant(), as a role of level app."),
            Self::Opened(table) => parts(
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("row security of protected table {table} cannot be changed"),
            )
            .hint("An admin takes the protection off with unprotect_table(). A tool that compares models with the database has to leave row security and policies alone."),
            Self::MaterializedView { view, table } => parts(
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("materialized view {view} would copy rows of protected table {table} out of its guard"),
            )
            .hint("Use a view WITH (security_invoker = true), or let an admin exempt it with allow_definer()."),
            Self::InTransactionBlock(name) => parts(
                ERRCODE_ACTIVE_SQL_TRANSACTION,
                format!("{name} cannot run inside a transaction block"),
            )
            .hint("It commits as it goes: call it by itself."),
            Self::Dangling { table, constraint } => parts(
                ERRCODE_FOREIGN_KEY_VIOLATION,
                format!("rows of {table} violate foreign key constraint \"{constraint}\""),
            )
            .hint("What they refer to is not there, or is another tenant's."),
            Self::Unsupported(message) => parts(ERRCODE_FEATURE_NOT_SUPPORTED, message),
            Self::Unclonable(objects) => parts(ERRCODE_FEATURE_NOT_SUPPORTED, format!("cannot be cloned: {objects}"))
                .hint("Move it to a schema that tenants share, or drop it."),
            Self::NeedsOutside { schema, objects } => parts(
                ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("schema \"{schema}\" cannot be made in a database of its own: {objects}"),
            )
            .hint("Move what it needs into the schema, or make it part of an extension."),
            Self::DependentObjects { schema, objects } => parts(
                ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
                format!("schema \"{schema}\" cannot be dropped because other objects depend on it"),
            )
            .detail(objects)
            .hint("Drop them first."),
            Self::TooManyLocks { schema, needed, room } => parts(
                ERRCODE_OUT_OF_MEMORY,
                format!("copying schema \"{schema}\" takes about {needed} locks, and the server has room for {room}"),
            )
            .hint("Raise max_locks_per_transaction and restart the server."),
            Self::NotPreloaded => parts(
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "pg_tenancy must be loaded via shared_preload_libraries",
            )
            .hint(
                "Add pg_tenancy to shared_preload_libraries in postgresql.conf (shared_preload_libraries = 'pg_tenancy') \
                 and restart the server.",
            ),
            Self::OpenSchema(schema) => parts(
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("everyone may create objects in schema {schema}, so that functions there could be shadowed"),
            )
            .hint(format!("REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC; then run CREATE EXTENSION again.")),
            Self::Serialization => {
                parts(ERRCODE_T_R_SERIALIZATION_FAILURE, "could not serialize access due to concurrent update")
                    .hint("The transaction might succeed if retried.")
            }
            Self::Encoding => parts(
                ERRCODE_FEATURE_NOT_SUPPORTED,
                "pg_tenancy needs a database whose encoding is UTF8",
            )
            .hint("CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0."),
            Self::ForeignSchema(schema) => {
                parts(ERRCODE_INSUFFICIENT_PRIVILEGE, format!("permission denied for schema \"{schema}\""))
                    .detail("It belongs to another tenant.")
                    .hint("It can be used in a transaction that is bound to its tenant.")
            }
            Self::TemplateSchema(schema) => {
                parts(ERRCODE_INSUFFICIENT_PRIVILEGE, format!("permission denied for schema \"{schema}\""))
                    .detail("It is a template of tenants' schemas.")
                    .hint("Bind a tenant to use its own. The template is for its owner, while no tenant is bound.")
            }
            Self::NoSchema(tenant) => {
                parts(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, format!("tenant \"{tenant}\" has no schema yet"))
                    .hint("An operator can make it with create_tenant_schema().")
            }
            Self::InOtherDatabase { tenant, database: Some(database) } => parts(
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("tenant \"{tenant}\" is in a database of its own"),
            )
            .hint(format!("Connect to database \"{database}\": tenant_location() says where a tenant is.")),
            Self::InOtherDatabase { tenant, database: None } => parts(
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("tenant \"{tenant}\" is to have a database of its own, which is not there yet"),
            )
            .hint("wait_for_tenant() waits for it; tenancy.provisioning says how far it is."),
            Self::Moved(tenant) => parts(
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("tenant \"{tenant}\" was moved while this transaction was under way"),
            )
            .hint("Begin the transaction again: its tables are elsewhere now."),
            Self::MovedAway { tenant, control } => parts(
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("tenant \"{tenant}\" was moved out of this database"),
            )
            .hint(format!("Connect to database \"{control}\" and try again: tenant_location() says there where a tenant is.")),
            Self::LeftRows(table) => parts(
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("{table} still holds rows that were moved to the tenant's schema"),
            )
            .hint("Try again when they are removed: tenancy.moves says how far that is, clean_move() does it."),
            Self::KeptByControl(control) => parts(
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("this database is a tenant's own, and database \"{control}\" keeps its tenant, people, keys, plans and levels"),
            )
            .hint(format!("Do it in database \"{control}\": what changes there is here within seconds.")),
            Self::Elsewhere { sqlstate, message, detail, hint } => {
                Parts { code: code_of(&sqlstate), message, detail, hint }
            }
            Self::ShowsAllSchemas(view) => parts(
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("{view} shows values of the schemas of every tenant"),
            )
            .hint("Read it as a role that bypasses row security."),
            Self::SequenceUnseen(function) => parts(
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("{function}() cannot be used here, where its sequence may be another tenant's"),
            )
            .hint(format!("Use it in a statement: SELECT {function}(...), and pass on its result.")),
            Self::NoWorkers => parts(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, "no background worker can be started")
                .hint("Try again when others have ended, or raise max_worker_processes and restart the server."),
            Self::NotVerified(what) => parts(ERRCODE_ASSERT_FAILURE, format!("verify_sql returned {what}")),
            Self::TransactionControl => {
                parts(ERRCODE_INVALID_TRANSACTION_TERMINATION, "a migration cannot begin or end a transaction")
            }
            Self::Stopped(message, detail) => parts(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message).detail(detail).hint(
                "SELECT * FROM tenancy.migration_status WHERE status = 'failed'; then mend the cause and call again.",
            ),
            Self::NoLimit { resource, plan } => parts(
                ERRCODE_NO_DATA_FOUND,
                format!("resource \"{}\" does not exist in plan \"{plan}\"", shown(&resource)),
            )
            .hint("Say how much of it the plan allows with set_plan_limit(); NULL is unlimited."),
            Self::NoRateLimit { resource, plan } => parts(
                ERRCODE_NO_DATA_FOUND,
                format!("rate limit \"{}\" does not exist in plan \"{plan}\"", shown(&resource)),
            )
            .hint("Say how often the plan allows it with set_plan_rate_limit(); NULL is unlimited."),
            Self::LimitReached { resource, max } => parts(
                ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("limit reached for {} ({max})", shown(&resource)),
            )
            .hint("Upgrade the tenant to a plan that allows more."),
            Self::RateLimited { message, retry } => {
                parts(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, message).detail(retry)
            }
            Self::UnknownMetric(metric) => {
                parts(ERRCODE_NO_DATA_FOUND, format!("metric \"{}\" does not exist", shown(&metric)))
                    .hint("An operator can create it with create_metric().")
            }
            Self::KeyReused => parts(ERRCODE_UNIQUE_VIOLATION, "the idempotency key was used before, for another event")
                .hint("A repeated call must be the same in metric, quantity, occurred_at, resource_id and properties."),
            Self::Internal(message) => parts(ERRCODE_INTERNAL_ERROR, message),
        }
    }
}

fn mismatch(tenant: Option<String>) -> String {
    let tenant = tenant.map_or_else(|| "NULL".to_owned(), |tenant| format!("\"{}\"", shown(&tenant)));
    format!("tenant mismatch: {tenant} is not the bound tenant")
}

impl From<Error> for ErrorReport {
    fn from(error: Error) -> Self {
        let Parts { code, message, detail, hint } = error.parts();
        let mut report = ErrorReport::new(code, message, REPORTER.to_str().unwrap_or_default());
        if let Some(detail) = detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = hint {
            report = report.set_hint(hint);
        }
        report
    }
}

impl From<pgrx::spi::Error> for Error {
    fn from(error: pgrx::spi::Error) -> Self {
        Self::Internal(format!("SPI: {error}"))
    }
}

/// Raises `error` as a PostgreSQL ERROR, from hooks that cannot return it.
#[cold]
pub fn raise(error: Error) -> ! {
    match SqlResult::<Infallible>::Err(error.into()).unwrap_or_report() {}
}
