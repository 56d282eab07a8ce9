//! A control database and the database of one of its tenants, put together by hand.

use harness::*;

/// The template of the tenants, and a table in each tenant's schema.
const TEMPLATE: &str = "CREATE SCHEMA crm_template AUTHORIZATION owner;
    SET ROLE owner;
    CREATE TABLE crm_template.contacts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
    CREATE TABLE crm_template.log (entry text);
    RESET ROLE;
    SELECT register_template('crm', 'crm_template')";
const PLANS: &str =
    "SELECT create_plan('enterprise', 'database'), set_plan_limit('enterprise', 'calls', 1000, 'month'),
    set_plan_limit('free', 'members', 100), set_plan_limit('enterprise', 'members', 100)";

/// What the tenant's schema is in its own database.
const SCHEMA: &str = "CREATE SCHEMA acme AUTHORIZATION owner;
    SET ROLE owner;
    CREATE TABLE acme.contacts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
    CREATE TABLE acme.log (entry text);
    GRANT USAGE ON SCHEMA acme TO app, client;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA acme TO app, client;
    RESET ROLE;";

/// A server whose workers look around every second.
pub fn eager() -> Cluster {
    Cluster::start(Options::new().set("tenancy.workers_enabled", "on").set("tenancy.worker_naptime", "1"))
}

/// A database that keeps tenants, with the template `crm` and the plan `enterprise`.
pub fn control(cluster: &Cluster) -> Database {
    let control = cluster.database("control");
    let mut superuser = control.superuser();
    superuser.batch_execute(TEMPLATE).expect("make the template");
    superuser.batch_execute(PLANS).expect("make a plan");
    control
}

/// The own database of a tenant.
pub struct Own {
    pub tenant: Uuid,
    pub database: Database,
}

impl Own {
    /// A tenant in a database of its own, which has not been told anything but whose it is.
    #[track_caller]
    pub fn make(cluster: &Cluster, control: &Database, slug: &str) -> Self {
        const MOVE: &str = "UPDATE tenancy.tenants SET isolation = 'database', database_name = $2::text::name,
            schema_name = ('acme_' || $3)::name, template = 'crm' WHERE id = $1";
        let tenant: Uuid = one(
            &mut control.connect("operator"),
            "SELECT create_tenant('Acme', slug => $1, plan => 'enterprise', isolation => 'row')",
            &[&slug],
        );
        let database = cluster.database("own");
        let mut superuser = database.superuser();
        let schema = SCHEMA.replace("acme", &format!("acme_{}", slug.replace('-', "_")));
        superuser.batch_execute(&schema).expect("make the schema");
        let schema = format!("acme_{}", slug.replace('-', "_"));
        let label = |object: &str, label: &str| format!("SECURITY LABEL FOR pg_tenancy ON {object} IS '{label}'");
        superuser.batch_execute(&label(&format!("SCHEMA {schema}"), &format!("tenant: {tenant}"))).expect("label");
        let home = format!("tenant: {tenant} active of {}", control.name());
        superuser.batch_execute(&label(&format!("DATABASE {}", database.name()), &home)).expect("label");
        let name = database.name().to_owned();
        control.superuser().execute(MOVE, &[&tenant, &name, &slug.replace('-', "_")]).expect("move");
        Self { tenant, database }
    }

    /// The same, told everything.
    #[track_caller]
    pub fn new(cluster: &Cluster, control: &Database, slug: &str) -> Self {
        let own = Self::make(cluster, control, slug);
        sync(control);
        own
    }

    pub fn app(&self) -> Client {
        self.database.connect("app")
    }

    pub fn superuser(&self) -> Client {
        self.database.superuser()
    }
}

/// Tells every database everything now.
#[track_caller]
pub fn sync(control: &Database) {
    let (mut admin, notices) = control.connect_with_notices("admin");
    admin.batch_execute("CALL sync_tenant_databases()").expect("sync");
    assert!(notices.contains(", 0 failed"), "{:?}", notices.messages());
}

/// Makes a user who is a member of the tenant, and a key of theirs.
#[track_caller]
pub fn member(control: &Database, tenant: Uuid, email: &str) -> (Uuid, String) {
    as_tenant(&mut control.connect("app"), tenant, |tx| {
        let user: Uuid = one(tx, "SELECT create_user($1)", &[&email]);
        one::<Uuid>(tx, "SELECT add_member($1, 'admin')", &[&user]);
        let key = one(tx, "SELECT api_key FROM create_api_key('test', user_id => $1)", &[&user]);
        (user, key)
    })
}

/// Whether a key binds its tenant in a database.
pub fn authenticates(database: &Database, key: &str) -> Result<Uuid, postgres::Error> {
    let mut client = database.connect("client");
    let mut transaction = client.transaction()?;
    let row = transaction.query_one("SELECT tenant_id FROM authenticate_api_key($1)", &[&key])?;
    Ok(row.get(0))
}

/// Rows of a table as one text, without columns that a copy has of its own.
#[track_caller]
pub fn content(database: &Database, from: &str) -> String {
    let sql = format!(
        "SELECT coalesce(string_agg(r, E'\\n' ORDER BY r), '') FROM (
        SELECT (to_jsonb(x) - '{{last_login_at,signing_key}}'::text[])::text AS r FROM {from}) AS rows"
    );
    one(&mut database.superuser(), &sql, &[])
}
