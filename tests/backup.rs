//! One tenant's backup and restore by `tools/tenant-backup.sh` and `tools/tenant-restore.sh`: back into the same tenant, into another
//! database, and not at all where something is wrong.

use crate::row::without_restrict;
use harness::*;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// A template with what a restore can lose: sequences of both kinds, constraints, a trigger, a type, a view and what it keeps of one,
/// and privileges.
const TEMPLATE: &str = "
    CREATE SCHEMA shop AUTHORIZATION owner;
    GRANT USAGE ON SCHEMA shop TO app, backup_readonly;
    SET ROLE owner;
    SET search_path = shop;
    CREATE TYPE state AS ENUM ('new', 'paid');
    CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL UNIQUE, changes integer NOT NULL DEFAULT 0);
    CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id integer NOT NULL REFERENCES customers,
        state state NOT NULL DEFAULT 'new', amount numeric(10,2) CONSTRAINT amounts CHECK (amount > 0),
        twice numeric GENERATED ALWAYS AS (amount * 2) STORED);
    CREATE INDEX unpaid ON orders (customer_id) WHERE state = 'new';
    CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.changes := OLD.changes + 1; RETURN NEW; END';
    CREATE TRIGGER changed BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION changed();
    CREATE VIEW totals AS SELECT name, sum(amount) AS total FROM customers JOIN orders ON customer_id = customers.id GROUP BY name;
    CREATE MATERIALIZED VIEW kept AS SELECT * FROM totals;
    COMMENT ON TABLE orders IS 'It''s ünïcödé';
    GRANT ALL ON ALL TABLES IN SCHEMA shop TO app;
    GRANT SELECT ON customers TO backup_readonly;
    GRANT USAGE ON ALL SEQUENCES IN SCHEMA shop TO app;
    RESET ROLE;
    RESET search_path;
    SELECT register_template('shop', 'shop');
    SELECT add_migration('shop', '001', 'ALTER TABLE customers ADD COLUMN phone text', down_sql => 'ALTER TABLE customers DROP COLUMN phone');";

const LATER: &str = "SELECT add_migration('shop', '002', 'ALTER TABLE orders ADD COLUMN note text', down_sql => 'ALTER TABLE orders DROP COLUMN note')";

const FILL: &str = "
    INSERT INTO customers (name, phone) SELECT 'customer ' || i || ' of ' || current_tenant(), '+41\t\\' || i FROM generate_series(1, 20) AS i;
    UPDATE customers SET phone = NULL WHERE id % 2 = 0;
    INSERT INTO orders (customer_id, amount) SELECT i, 10 * i FROM generate_series(1, 20) AS i;
    DELETE FROM orders WHERE id > 15";

/// What everybody would like a schema to be called.
const HOSTILE: &str = "Ten'an\"t. *?|(x)[y] $1 %s {%} \\ ; -- /*\nключ \u{202e}`id`$(id)";

/// A database with the template and two tenants of it, with rows.
struct World {
    database: Database,
    acme: Uuid,
    globex: Uuid,
}

impl World {
    fn new(label: &str) -> World {
        World::named(label, HOSTILE)
    }

    /// The first tenant's schema has this name.
    fn named(label: &str, schema: &str) -> World {
        let database = with_template(label);
        let [acme, globex] = [("acme", schema), ("globex", "tenant_globex")].map(|(slug, schema)| {
            let tenant = provision(&database, slug, schema);
            as_tenant(&mut database.connect("app"), tenant, |tx| tx.batch_execute(FILL).expect("fill a tenant"));
            tenant
        });
        World { database, acme, globex }
    }

    /// All that a dump and the registry say of a tenant.
    #[track_caller]
    fn picture(&self, tenant: Uuid) -> String {
        picture(&self.database, tenant)
    }

    /// Statements in a tenant's schema, as the superuser.
    #[track_caller]
    fn damage(&self, tenant: Uuid, statements: &str) {
        let mut superuser = self.database.superuser();
        let path =
            "SELECT set_config('search_path', quote_ident(schema_name), false) FROM tenancy.tenants WHERE id = $1";
        one::<String>(&mut superuser, path, &[&tenant]);
        superuser.batch_execute(statements).unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    #[track_caller]
    fn back_up(&self, slug: &str) -> Backup {
        let backup = Backup::nowhere();
        succeeds(&backup.take(&self.database, "backup_reader", slug));
        backup
    }
}

/// A database with the template, and a migration that it has.
fn with_template(label: &str) -> Database {
    create_roles();
    let database = Database::new(label);
    let mut superuser = database.superuser();
    superuser.batch_execute(TEMPLATE).unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
    database.connect("admin").batch_execute("CALL migrate_tenants('shop')").expect("migrate the template");
    database
}

#[track_caller]
fn provision(database: &Database, slug: &str, schema: &str) -> Uuid {
    const CREATE: &str =
        "SELECT create_tenant('It''s \"' || $1::text || '\"', slug => $1, isolation => 'schema', template => 'shop',
        schema_name => $2::text::name, external_id => 'crm:' || $1, metadata => '{\"ring\": [0, \"ü''\\\\\"]}')";
    one(&mut database.connect("operator"), CREATE, &[&slug, &schema])
}

#[track_caller]
fn picture(database: &Database, tenant: Uuid) -> String {
    const REGISTRY: &str = "SELECT jsonb_pretty(jsonb_build_array(to_jsonb(t) - '{updated_at}'::text[],
            (SELECT jsonb_agg(to_jsonb(a) ORDER BY version) FROM tenancy.applied_migrations AS a WHERE tenant_id = t.id),
            (SELECT jsonb_agg(to_jsonb(d) ORDER BY object) FROM tenancy.allowed_drift AS d WHERE tenant_id = t.id)))
        FROM tenancy.tenants AS t WHERE id = $1";
    const PATTERN: &str =
        "SELECT '\"' || replace(schema_name, '\"', '\"\"') || '\"' FROM tenancy.tenants WHERE id = $1";
    let mut superuser = database.superuser();
    let registry: String = one(&mut superuser, REGISTRY, &[&tenant]);
    let pattern: String = one(&mut superuser, PATTERN, &[&tenant]);
    let mut pg_dump = database.tool("pg_dump", "postgres");
    registry + &without_restrict(&run(pg_dump.args(["--strict-names", "-n", &pattern])))
}

/// Fails, and shows where, unless both pictures are the same.
#[track_caller]
fn assert_same(found: &str, expected: &str) {
    let lines = |of: &str, other: &str, sign: char| -> Vec<String> {
        let others: HashSet<&str> = other.lines().collect();
        of.lines().filter(|line| !others.contains(line)).map(|line| format!("{sign} {line}")).collect()
    };
    let differing = [lines(expected, found, '-'), lines(found, expected, '+')].concat();
    assert!(found == expected, "{} (if nothing, the order of lines)", differing.join("\n"));
}

/// Roles that only these tests have; they belong to the cluster.
fn create_roles() {
    const CREATE: &str =
        "CREATE ROLE backup_readonly; CREATE ROLE backup_reader LOGIN BYPASSRLS IN ROLE pg_read_all_data;
        CREATE ROLE backup_bypasses LOGIN BYPASSRLS; CREATE ROLE backup_reads LOGIN IN ROLE pg_read_all_data";
    static ONCE: Once = Once::new();
    ONCE.call_once(|| cluster().server().superuser().batch_execute(CREATE).expect("create the roles"));
}

/// A directory to back up into, removed at the end.
struct Backup {
    home: PathBuf,
    directory: PathBuf,
}

impl Backup {
    fn nowhere() -> Backup {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let home = std::env::temp_dir().join(format!("pg_tenancy_backup_{}_{number}", std::process::id()));
        fs::create_dir(&home).expect("make a directory");
        let directory = home.join("a \"backup\" of 'acme' $(touch injected) `touch injected` \\ :x");
        Backup { home, directory }
    }

    fn take(&self, database: &Database, role: &str, slug: &str) -> Output {
        tool(database, role, "tenant-backup.sh", &[slug, self.path()])
    }

    fn restore(&self, database: &Database, options: &[&str]) -> Output {
        self.restore_as("postgres", database, options)
    }

    fn restore_as(&self, role: &str, database: &Database, options: &[&str]) -> Output {
        tool(database, role, "tenant-restore.sh", &[options, &[self.path()]].concat())
    }

    fn path(&self) -> &str {
        self.directory.to_str().expect("a path in UTF-8")
    }

    fn dump(&self) -> PathBuf {
        self.directory.join("schema.dump")
    }

    /// Puts a shell script in the place of a program of PostgreSQL, which is `{real}` in it.
    fn replace_program(&self, command: &mut Command, database: &Database, name: &str, script: &str) {
        let real = database.tool(name, "postgres");
        let script = script.replace("{real}", &Path::new(real.get_program()).display().to_string());
        let program = self.home.join(name);
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("write a program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("make it one");
        let path = command.get_envs().find_map(|(name, value)| (name == "PATH").then_some(value)).flatten();
        let path = path.and_then(OsStr::to_str).expect("a PATH in UTF-8");
        let path = format!("{}:{path}", self.home.display());
        command.env("PATH", path);
    }

    /// The archive as a script.
    #[track_caller]
    fn script(&self, database: &Database) -> String {
        run(database.tool("pg_restore", "postgres").args(["-f", "-"]).arg(self.dump()))
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// A script of `tools/` with the environment of a program of PostgreSQL.
fn script(database: &Database, role: &str, name: &str) -> Command {
    let psql = database.tool("psql", role);
    let programs = Path::new(psql.get_program()).parent().expect("a directory of programs");
    let path = std::env::var("PATH").expect("PATH");
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools").join(name));
    for (name, value) in psql.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("PATH", format!("{}:{path}", programs.display()));
    command
}

pub fn tool(database: &Database, role: &str, name: &str, arguments: &[&str]) -> Output {
    script(database, role, name).args(arguments).output().expect("run a script")
}

#[track_caller]
fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// Fails unless the script failed and complained of this.
#[track_caller]
fn refuses(output: &Output, complaint: &str) {
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaints}");
    assert!(complaints.contains(complaint), "{complaint:?} was due: {complaints}");
}

#[test]
fn a_tenant_comes_back_as_it_was_backed_up() {
    let world = World::new("backed_up");
    let mut admin = world.database.connect("admin");
    world.damage(world.acme, "CREATE INDEX its_own ON orders (amount)");
    let object: String = one(&mut admin, "SELECT object FROM tenancy.schema_drift", &[]);
    one::<bool>(&mut admin, "SELECT allow_schema_drift($1, $2, 'a report of theirs')", &[&world.acme, &object]);
    let before = world.picture(world.acme);
    let backup = world.back_up("acme");
    assert_same(&world.picture(world.acme), &before);

    one::<String>(&mut admin, LATER, &[]);
    admin.batch_execute("CALL migrate_tenants('shop')").expect("migrate");
    one::<bool>(&mut admin, "SELECT disallow_schema_drift($1, $2)", &[&world.acme, &object]);
    world.damage(
        world.acme,
        "DROP TABLE orders CASCADE; DELETE FROM customers WHERE id < 5; UPDATE customers SET name = 'damaged ' || id;
         ALTER TABLE customers DROP COLUMN phone; DROP TRIGGER changed ON customers; REVOKE ALL ON customers FROM app;
         SELECT setval('customers_id_seq', 1000); CREATE TABLE rubbish (); CREATE TYPE litter AS ENUM ()",
    );
    as_tenant(&mut world.database.connect("app"), world.globex, |tx| {
        tx.batch_execute("INSERT INTO customers (name) VALUES ('came after the backup')").expect("insert");
    });
    let other = world.picture(world.globex);

    succeeds(&backup.restore(&world.database, &[]));
    assert_same(&world.picture(world.acme), &before);
    assert_same(&world.picture(world.globex), &other);
    let drift = "SELECT string_agg(kind || ' ' || object, ', ') FROM tenancy.schema_drift";
    assert_eq!(text(&mut admin, drift), "column orders.note", "its own index is allowed again, and a migration is due");

    // It is the tenant's, and goes on where it was.
    let mut app = world.database.connect("app");
    as_tenant(&mut app, world.acme, |tx| {
        let insert = "INSERT INTO orders (customer_id, amount) VALUES (20, 1) RETURNING id";
        assert_eq!(one::<i64>(tx, insert, &[]), 21);
        assert_eq!(one::<i32>(tx, "INSERT INTO customers (name) VALUES ('next') RETURNING id", &[]), 21);
        assert_eq!(one::<i32>(tx, "UPDATE customers SET name = 'more' WHERE id = 21 RETURNING changes", &[]), 1);
    });
    for (statement, sqlstate) in [
        ("SELECT * FROM tenant_globex.customers", "42501"),
        ("INSERT INTO orders (customer_id, amount) VALUES (20, -1)", "23514"),
        ("INSERT INTO orders (customer_id, amount) VALUES (99, 1)", "23503"),
        ("INSERT INTO customers (name) SELECT name FROM customers", "23505"),
    ] {
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, world.acme);
        fails(transaction.batch_execute(statement), sqlstate);
    }

    // Its migrations go on from the backup's; what was done by whom is on record.
    admin.batch_execute("CALL migrate_tenants('shop')").expect("migrate again");
    let pending = "tenancy.migration_status WHERE status <> 'applied'";
    assert_eq!(count(&mut admin, pending), 0);
    as_tenant(&mut app, world.acme, |tx| assert_eq!(count(tx, "orders WHERE note IS NULL"), 16));
    let recorded = format!("tenancy.audit_log WHERE tenant_id = '{}' AND action = 'tenant.restore_schema'", world.acme);
    assert_eq!(count(&mut admin, &recorded), 1);
    assert!(!backup.home.join("injected").exists() && !Path::new("injected").exists());
}

#[test]
fn a_schema_that_is_gone_comes_back() {
    let world = World::new("schema_gone");
    let before = world.picture(world.acme);
    let backup = world.back_up("acme");
    for gone in [
        "SELECT delete_tenant_schema('{}')",
        "DO $$ BEGIN EXECUTE (SELECT format('DROP SCHEMA %I CASCADE', schema_name) FROM tenancy.tenants WHERE id = '{}'); END $$",
    ] {
        let gone = gone.replace("{}", &world.acme.to_string());
        world.database.superuser().batch_execute(&gone).expect("drop the schema");
        let schemas: i64 = count(&mut world.database.superuser(), "tenancy.tenants WHERE schema_name IS NOT NULL");
        assert_eq!(schemas, 1, "{gone}");
        succeeds(&backup.restore(&world.database, &[]));
        assert_same(&world.picture(world.acme), &before);
    }
}

#[test]
fn what_the_registry_says_besides_stays() {
    let world = World::new("registry_stays");
    let backup = world.back_up("acme");
    let mut operator = world.database.connect("operator");
    let change =
        "SELECT update_tenant($1, name => 'Renamed', slug => 'renamed'), suspend_tenant($1, 'unpaid', 'read_only')";
    operator.query(change, &[&world.acme]).expect("change the tenant");
    let before = world.picture(world.acme);
    world.damage(world.acme, "DROP TABLE orders CASCADE");
    succeeds(&backup.restore(&world.database, &[]));
    assert_same(&world.picture(world.acme), &before);
}

#[test]
fn a_restore_that_fails_leaves_everything_as_it_was() {
    let world = World::new("restore_fails");
    let mut superuser = world.database.superuser();
    let gone = format!("gone_{}", world.database.name());
    superuser.batch_execute(&format!("CREATE ROLE {gone}")).expect("create a role");
    world.damage(world.acme, &format!("GRANT SELECT ON orders TO {gone}"));
    world.damage(world.acme, "CREATE TABLE much AS SELECT md5(i::text) FROM generate_series(1, 10000) AS i");
    let backup = world.back_up("acme");
    let others = world.back_up("globex");
    world.damage(
        world.acme,
        &format!("REVOKE SELECT ON orders FROM {gone}; DROP ROLE {gone}; DELETE FROM orders WHERE id = 1"),
    );
    let audited = "tenancy.audit_log";
    let before = (world.picture(world.acme), world.picture(world.globex), count(&mut superuser, audited));
    let unchanged = |world: &World| {
        let now =
            (world.picture(world.acme), world.picture(world.globex), count(&mut world.database.superuser(), audited));
        assert!(now == before, "a restore that failed left something");
        as_tenant(&mut world.database.connect("app"), world.acme, |tx| assert_eq!(count(tx, "orders"), 14));
    };

    // Privileges come last of all.
    refuses(&backup.restore(&world.database, &[]), &format!("role \"{gone}\" does not exist"));
    unchanged(&world);
    superuser.batch_execute(&format!("CREATE ROLE {gone}")).expect("create the role again");

    // An archive that ends somewhere, or in the middle of the rows.
    let whole = fs::read(backup.dump()).expect("read the archive");
    for percent in [1, 60, 80, 95] {
        fs::write(backup.dump(), &whole[..whole.len() * percent / 100]).expect("cut the archive");
        let complaint = if percent < 50 { "schema.dump cannot be read" } else { "nothing was restored" };
        refuses(&backup.restore(&world.database, &[]), complaint);
        unchanged(&world);
    }
    // A pg_restore that ends between two statements.
    let mut command = script(&world.database, "postgres", "tenant-restore.sh");
    let half = r#"{real} "$@" | sed '/^.restrict/d; /^ALTER TABLE ONLY/,$d'; [ "$1" = -l ]"#;
    backup.replace_program(&mut command, &world.database, "pg_restore", half);
    fs::write(backup.dump(), &whole).expect("mend the archive");
    refuses(&command.arg(backup.path()).output().expect("restore"), "nothing was restored");
    unchanged(&world);
    fs::write(backup.dump(), "no archive").expect("spoil the archive");
    refuses(&backup.restore(&world.database, &[]), "schema.dump cannot be read");
    // Another tenant's archive: with its schema there, and without.
    fs::copy(others.dump(), backup.dump()).expect("mix two backups");
    refuses(&backup.restore(&world.database, &[]), "schema \"tenant_globex\" already exists");
    unchanged(&world);
    fs::write(backup.dump(), &whole).expect("mend the archive");
    let registry = backup.directory.join("registry.json");
    let told = fs::read_to_string(&registry).expect("read the registry's part");
    for spoilt in ["", "{}", "nonsense", &told[..told.len() / 2], &told.replace("\"format\": 1", "\"format\": 2")] {
        fs::write(&registry, spoilt).expect("spoil the registry's part");
        refuses(&backup.restore(&world.database, &[]), "nothing was restored");
        unchanged(&world);
    }
    fs::write(&registry, &told).expect("mend the registry's part");

    // What hangs on the schema from outside would go with it.
    let view = "SELECT format('CREATE VIEW public.outside AS SELECT id FROM %I.orders', schema_name) FROM tenancy.tenants WHERE slug = 'acme'";
    let view = text(&mut superuser, view);
    superuser.batch_execute(&view).expect("a view outside");
    refuses(&backup.restore(&world.database, &[]), "outside");
    unchanged(&world);
    superuser.batch_execute("DROP VIEW public.outside").expect("drop it");

    refuses(&backup.restore_as("backup_reader", &world.database, &[]), "no superuser");
    refuses(&backup.restore_as("admin", &world.database, &[]), "no superuser");
    superuser.batch_execute("SELECT delete_tenant(id) FROM tenancy.tenants WHERE slug = 'acme'").expect("delete");
    refuses(&backup.restore(&world.database, &[]), "restore_tenant()");
    superuser.batch_execute("SELECT restore_tenant(id) FROM tenancy.tenants WHERE slug = 'acme'").expect("restore");

    // And then nothing is wrong any more.
    succeeds(&backup.restore(&world.database, &[]));
    as_tenant(&mut world.database.connect("app"), world.acme, |tx| assert_eq!(count(tx, "orders"), 15));
    world.damage(world.acme, &format!("REVOKE SELECT ON orders FROM {gone}; DROP ROLE {gone}"));
}

#[test]
fn a_tenant_moves_into_another_database() {
    let world = World::new("moves_from");
    let mut operator = world.database.connect("operator");
    let plan = "SELECT create_plan('pro'), change_plan($1, 'pro'), suspend_tenant($1, 'unpaid')";
    operator.query(plan, &[&world.acme]).expect("a plan and a state");
    let before = world.picture(world.acme);
    let backup = world.back_up("acme");

    let other = with_template("moves_to");
    refuses(&backup.restore(&other, &[]), "plan \"pro\" does not exist");
    one::<String>(&mut other.connect("operator"), "SELECT create_plan('pro')", &[]);
    one::<String>(&mut other.connect("admin"), LATER, &[]);
    other.connect("admin").batch_execute("CALL migrate_tenants('shop')").expect("migrate the template");
    let native = provision(&other, "native", "tenant_native");
    let there_before = picture(&other, native);

    succeeds(&backup.restore(&other, &[]));
    assert_same(&picture(&other, world.acme), &before);
    assert_same(&picture(&other, native), &there_before);
    fails(other.connect("app").execute("SELECT set_tenant($1)", &[&world.acme]), "42501");
    one::<Uuid>(&mut other.connect("operator"), "SELECT resume_tenant($1)", &[&world.acme]);

    let mut app = other.connect("app");
    as_tenant(&mut app, world.acme, |tx| {
        assert_eq!(count(tx, "orders"), 15);
        assert_eq!(one::<i64>(tx, "INSERT INTO orders (customer_id, amount) VALUES (1, 5) RETURNING id", &[]), 21);
    });
    let quoted =
        text(&mut other.superuser(), "SELECT quote_ident(schema_name) FROM tenancy.tenants WHERE slug = 'acme'");
    let reach = format!("SELECT * FROM {quoted}.orders");
    fails(app.batch_execute(&reach), "42501");
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, native);
    fails(transaction.batch_execute(&reach), "42501");
    drop(transaction);

    let mut admin = other.connect("admin");
    let pending = "SELECT slug || ' ' || version FROM tenancy.migration_status WHERE status = 'pending'";
    assert_eq!(text(&mut admin, pending), "acme 002");
    admin.batch_execute("CALL migrate_tenants('shop')").expect("migrate");
    as_tenant(&mut app, world.acme, |tx| assert_eq!(count(tx, "orders WHERE note IS NULL"), 16));
    assert_eq!(count(&mut admin, "tenancy.schema_drift"), 0);
}

#[test]
fn a_tenant_that_was_purged_comes_back_closed() {
    let world = World::new("purged");
    one::<String>(&mut world.database.connect("operator"), "SELECT delete_tenant($1, '0')::text", &[&world.acme]);
    let backup = world.back_up("acme");
    world.database.connect("admin").batch_execute(&format!("CALL purge_tenant('{}')", world.acme)).expect("purge");
    assert_eq!(count(&mut world.database.superuser(), "tenancy.tenants"), 1);
    succeeds(&backup.restore(&world.database, &[]));
    fails(world.database.connect("app").execute("SELECT set_tenant($1)", &[&world.acme]), "42501");
    assert_eq!(
        text(&mut world.database.superuser(), "SELECT status FROM tenancy.tenants WHERE slug = 'acme'"),
        "cancelled"
    );
    one::<Uuid>(&mut world.database.connect("operator"), "SELECT restore_tenant($1)", &[&world.acme]);
    as_tenant(&mut world.database.connect("app"), world.acme, |tx| assert_eq!(count(tx, "orders"), 15));
}

#[test]
fn a_template_that_differs_is_refused_or_left_out() {
    let world = World::new("other_template_from");
    let backup = world.back_up("acme");
    create_roles();
    let other = Database::new("other_template_to");
    let nothing = |complaint: &str| {
        refuses(&backup.restore(&other, &[]), complaint);
        assert_eq!(count(&mut other.superuser(), "tenancy.tenants"), 0);
    };
    nothing("there is no template \"shop\"");
    other
        .superuser()
        .batch_execute("CREATE SCHEMA shop AUTHORIZATION owner; SELECT register_template('shop', 'shop')")
        .expect("a template");
    nothing("migrations that template \"shop\" here has not, or not with this content: 001");
    other
        .superuser()
        .batch_execute("SELECT add_migration('shop', '001', 'CREATE TABLE something_else ()')")
        .expect("a migration");
    nothing("migrations that template \"shop\" here has not, or not with this content: 001");
    one::<Uuid>(&mut other.connect("operator"), "SELECT create_tenant('Acme', isolation => 'row')", &[]);
    refuses(&backup.restore(&other, &["--no-template"]), "slug \"acme\" is another tenant's here");
    other
        .superuser()
        .batch_execute("SELECT update_tenant(id, slug => 'taken') FROM tenancy.tenants")
        .expect("make room");
    succeeds(&backup.restore(&other, &["--no-template"]));
    as_tenant(&mut other.connect("app"), world.acme, |tx| assert_eq!(count(tx, "orders"), 15));
    let mut admin = other.connect("admin");
    assert_eq!(count(&mut admin, &format!("tenancy.tenants WHERE id = '{}' AND template IS NULL", world.acme)), 1);
    assert_eq!(count(&mut admin, "tenancy.applied_migrations"), 0);
}

#[test]
fn the_least_role_that_backs_up_bypasses_row_security_and_reads_all_data() {
    let world = World::new("least_role");
    let backup = Backup::nowhere();
    for role in ["backup_bypasses", "backup_reads", "app", "operator", "admin", "owner", "stranger"] {
        let output = backup.take(&world.database, role, "acme");
        let complaint = if role == "backup_bypasses" { "permission denied" } else { "needs BYPASSRLS" };
        refuses(&output, complaint);
        assert!(!backup.directory.exists(), "{role} left something");
    }
    let levels: i64 = count(&mut world.database.superuser(), "tenancy.access WHERE role::text LIKE 'backup%'");
    assert_eq!(levels, 0, "no level is needed");
    succeeds(&backup.take(&world.database, "backup_reader", "acme"));
    // Nobody else may read it.
    for path in [backup.directory.clone(), backup.dump(), backup.directory.join("registry.json")] {
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
}

#[test]
fn what_is_in_no_schema_takes_level_admin() {
    let world = World::new("no_backup");
    let mut operator = world.database.connect("operator");
    one::<Uuid>(&mut operator, "SELECT create_tenant('Rows', slug => 'rows', isolation => 'row')", &[]);
    let backup = Backup::nowhere();
    let refuses_slug = |slug: &str, complaint: &str| {
        refuses(&backup.take(&world.database, "backup_reader", slug), complaint);
        assert!(!backup.directory.exists(), "{slug} left something");
    };
    refuses_slug("rows", "needs level admin");
    for nobody in [
        "nobody",
        "Acme",
        "acme ",
        "acme' OR slug = 'acme",
        "'; DROP SCHEMA shop CASCADE; --",
        "\\q",
        ":'slug'",
        "%",
        "*",
    ] {
        refuses_slug(nobody, "there is no tenant");
    }
    world.damage(
        world.acme,
        "DO $$ BEGIN EXECUTE format('SECURITY LABEL FOR pg_tenancy ON SCHEMA %I IS NULL', current_schema()); END $$",
    );
    refuses_slug("acme", "is not labelled");
    let bare = cluster().empty_database("bare");
    refuses(&backup.take(&bare, "postgres", "acme"), "has no pg_tenancy");
    let globex = world.back_up("globex");
    refuses(&globex.restore(&bare, &[]), "has no pg_tenancy");
    // A directory that is there is not written to.
    fs::create_dir(&backup.directory).expect("make it");
    refuses(&backup.take(&world.database, "backup_reader", "globex"), "exists already");
    assert_eq!(fs::read_dir(&backup.directory).expect("read it").count(), 0);
    refuses(&backup.restore(&world.database, &[]), "is no backup");
    for (script, arguments) in [
        ("tenant-backup.sh", &["acme"][..]),
        ("tenant-backup.sh", &[]),
        ("tenant-backup.sh", &["acme", ""]),
        ("tenant-backup.sh", &["", "directory"]),
        ("tenant-backup.sh", &["acme", "directory", "more"]),
        ("tenant-restore.sh", &[]),
        ("tenant-restore.sh", &["--into"]),
        ("tenant-restore.sh", &["one", "two"]),
    ] {
        let output = tool(&world.database, "postgres", script, arguments);
        assert_eq!(output.status.code(), Some(2), "{script} {arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with(&format!("usage: tools/{script}")), "{script}");
    }
}

#[test]
fn exactly_one_schema_is_in_a_backup_whatever_its_name() {
    // Each is a pattern that other schemas' names fit.
    for name in [
        "a*",
        "a?",
        "a.b",
        "a|b",
        "^a",
        "a$",
        "\"a\"",
        "a\"\"b",
        "A b",
        "(a)",
        "[ab]",
        "a\\",
        "a'b",
        "a\nb",
        "a+",
        "tenant_.*",
    ] {
        let world = World::named("names", name);
        let mut superuser = world.database.superuser();
        for decoy in ["a", "b", "ab", "aa", "abc", "a b", "a\"b", "tenant_x"] {
            let quoted = decoy.replace('"', "\"\"");
            superuser
                .batch_execute(&format!("CREATE SCHEMA \"{quoted}\"; CREATE TABLE \"{quoted}\".decoy (a integer)"))
                .expect("a decoy");
        }
        let backup = world.back_up("acme");
        let saved = backup.script(&world.database);
        assert!(saved.contains("customer 20 of") && !saved.contains("decoy"), "{name}");
        let before = world.picture(world.acme);
        world.damage(world.acme, "DROP TABLE orders CASCADE");
        succeeds(&backup.restore(&world.database, &[]));
        assert_same(&world.picture(world.acme), &before);
    }
}

#[test]
fn a_backup_is_of_one_moment() {
    let world = World::new("one_moment");
    let mut admin = world.database.connect("admin");
    one::<String>(&mut admin, LATER, &[]);
    // Between the registry's part and the schema's, somebody adds rows and a migration.
    let backup = Backup::nowhere();
    let meanwhile = format!(
        "PGUSER=admin psql -X -q -v ON_ERROR_STOP=1 -c \"CALL migrate_tenants('shop')\" >&2 || exit 1
         PGUSER=app psql -X -q -v ON_ERROR_STOP=1 -1 -o /dev/null -c \"SELECT set_tenant('{}')\" -c \"INSERT INTO customers (id, name) VALUES (500, 'meanwhile')\" || exit 1
         touch '{}'; exec {{real}} \"$@\"",
        world.acme,
        backup.home.join("meanwhile").display(),
    );
    let before = world.picture(world.acme);
    let mut command = script(&world.database, "backup_reader", "tenant-backup.sh");
    backup.replace_program(&mut command, &world.database, "pg_dump", &meanwhile);
    succeeds(&command.args(["acme", backup.path()]).output().expect("back up"));
    assert!(backup.home.join("meanwhile").exists());
    let after = world.picture(world.acme);
    assert!(after.contains("meanwhile") && after.contains("note text"));
    succeeds(&backup.restore(&world.database, &[]));
    assert_same(&world.picture(world.acme), &before);
}

#[test]
fn a_restore_waits_for_the_tenants_writers_and_their_sessions_go_on() {
    let world = World::new("while_working");
    let backup = world.back_up("acme");
    let mut session = world.database.connect("app");
    let mut transaction = session.transaction().expect("begin");
    bind(&mut transaction, world.acme);
    let count_them = transaction.prepare("SELECT count(*) FROM customers").expect("prepare");
    transaction.batch_execute("INSERT INTO customers (name) VALUES ('written meanwhile')").expect("write");
    std::thread::scope(|scope| {
        let restore = scope.spawn(|| backup.restore(&world.database, &[]));
        let waits = format!(
            "pg_locks AS l JOIN pg_stat_activity AS a USING (pid) WHERE NOT l.granted AND a.datname = '{}' AND a.usename = 'postgres'",
            world.database.name()
        );
        let mut superuser = world.database.superuser();
        wait_until("the restore waits", || count(&mut superuser, &waits) == 1);
        // Others do not.
        as_tenant(&mut world.database.connect("app"), world.globex, |tx| {
            tx.batch_execute("UPDATE customers SET phone = 'another'").expect("write");
        });
        assert_eq!(transaction.query_one(&count_them, &[]).expect("read on").get::<_, i64>(0), 21);
        transaction.commit().expect("commit");
        succeeds(&restore.join().expect("restore"));
    });
    as_tenant(&mut session, world.acme, |tx| {
        assert_eq!(tx.query_one(&count_them, &[]).expect("the schema that is there now").get::<_, i64>(0), 20);
        tx.batch_execute("INSERT INTO customers (name) VALUES ('written now')").expect("write");
    });
}
