//! A control database with a template, and tenants with databases of their own.

use harness::postgres::{self, NoTls};
use harness::{Client, Cluster, Database, Options, Uuid, one, optional};
use std::time::{Duration, Instant};

/// Tables with most of what a copy must bring along.
pub const TEMPLATE: &str = "
    CREATE SCHEMA shop;
    CREATE TYPE shop.mood AS ENUM ('good', 'bad');
    CREATE DOMAIN shop.price AS numeric CHECK (VALUE >= 0);
    CREATE TABLE shop.stages (id integer PRIMARY KEY, name text NOT NULL, mood shop.mood);
    INSERT INTO shop.stages VALUES (1, 'new', 'good'), (2, E'tab\\tand \\\\ \\n and ''quote''', NULL);
    CREATE TABLE shop.orders (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        stage integer NOT NULL DEFAULT 1 REFERENCES shop.stages,
        total shop.price, doubled numeric GENERATED ALWAYS AS (total * 2) STORED, body text);
    CREATE INDEX orders_stage ON shop.orders (stage);
    CREATE FUNCTION shop.shout() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN NEW.body := upper(NEW.body); RETURN NEW; END';
    CREATE TRIGGER shout BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.shout();
    CREATE VIEW shop.totals WITH (security_invoker = true) AS SELECT stage, sum(total) AS total FROM shop.orders GROUP BY stage;
    GRANT USAGE ON SCHEMA shop TO app, client;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop TO app, client;";

/// A server whose workers look around every second.
pub fn eager() -> Options {
    Options::new().set("tenancy.workers_enabled", "on").set("tenancy.worker_naptime", "1")
}

/// A control database with the template `shop`.
pub fn shop(cluster: &Cluster, label: &str) -> Database {
    let database = cluster.database(label);
    add_template(&database);
    database
}

pub fn add_template(database: &Database) {
    let mut superuser = database.superuser();
    let grant = format!("GRANT CREATE ON DATABASE {} TO owner", database.name());
    superuser.batch_execute(&grant).expect("let the owner make schemas");
    database.connect("owner").batch_execute(TEMPLATE).expect("make the template");
    let mut admin = database.connect("admin");
    admin.batch_execute("SELECT register_template('shop', 'shop', '{stages}')").expect("register the template");
}

/// Registers a tenant with a database of its own.
pub fn register(operator: &mut Client, name: &str) -> Uuid {
    one(operator, "SELECT create_tenant($1, isolation => 'database')", &[&name])
}

/// Registers a tenant and makes its database by hand.
pub fn provisioned(control: &Database, name: &str) -> Uuid {
    let tenant = register(&mut control.connect("operator"), name);
    provision(control);
    assert_eq!(state(control, tenant), "active", "{}", problem(control, tenant));
    tenant
}

/// Makes the databases that are due, as an administrator.
pub fn provision(control: &Database) {
    control.connect("admin").batch_execute("CALL provision_tenants()").expect("provision");
}

pub fn state(control: &Database, tenant: Uuid) -> String {
    one(&mut control.superuser(), "SELECT status FROM tenancy.tenants WHERE id = $1", &[&tenant])
}

/// What stood against a database last.
pub fn problem(control: &Database, tenant: Uuid) -> String {
    const SHOWN: &str = "SELECT row_to_json(p)::text FROM tenancy.provisioning p WHERE tenant_id = $1";
    optional(&mut control.connect("operator"), SHOWN, &[&tenant]).unwrap_or_default()
}

/// The name of a tenant's database.
pub fn home(tenant: Uuid) -> String {
    format!("tenant_{tenant}")
}

/// A session in a tenant's database.
#[track_caller]
pub fn connect(control: &Database, tenant: Uuid, role: &str) -> Client {
    try_connect(control, tenant, role).expect("connect to the tenant's database")
}

pub fn try_connect(control: &Database, tenant: Uuid, role: &str) -> Result<Client, postgres::Error> {
    control.config(role).dbname(&home(tenant)).connect(NoTls)
}

/// Every database of the server that is a tenant's, by its name.
pub fn homes(superuser: &mut Client) -> Vec<String> {
    harness::rows(superuser, "SELECT datname::text FROM pg_database WHERE datname LIKE 'tenant\\_%' ORDER BY 1", &[])
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// Directories of databases that are in no catalog.
pub fn strays(superuser: &mut Client) -> Vec<String> {
    const STRAYS: &str = "SELECT d FROM pg_ls_dir('base') d WHERE d <> 'pgsql_tmp' AND NOT EXISTS (SELECT FROM pg_database WHERE oid::text = d)
        UNION ALL SELECT d FROM pg_ls_dir('base/pgsql_tmp', true, false) d ORDER BY 1";
    harness::rows(superuser, STRAYS, &[]).iter().map(|row| row.get(0)).collect()
}

/// Waits until the tenant has this state, as long as a worker may take.
#[track_caller]
pub fn wait_for_state(control: &Database, tenant: Uuid, wanted: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let found = state(control, tenant);
        if found == wanted {
            return;
        }
        assert!(Instant::now() < end, "{found} instead of {wanted}: {}", problem(control, tenant));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Binds a tenant for one statement.
#[allow(dead_code, reason = "the soak test binds as applications do")]
pub fn try_bind(client: &mut Client, tenant: Uuid) -> Result<u64, postgres::Error> {
    client.execute("SELECT set_tenant($1)", &[&tenant])
}
