//! Dumps and restores: what pg_dump writes makes the same database in a new cluster, as closed as it was.

mod schemas;

use crate::access::fixtures::{self, ApiKey};
use crate::advice::advice;
use crate::row::{column_as, read_as, refused_as, touched_as, without_restrict};
use harness::{
    Client, Cluster, Database, Options, Uuid, as_tenant, bind, cluster, count, fails, one, rows, simple, tenants, text,
};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Everything that a dump has to carry: tables of every kind, tenants in every state, plans, levels, exemptions.
const WORLD: &str = "
CREATE SCHEMA \"Sch ema\" AUTHORIZATION owner;
GRANT USAGE ON SCHEMA \"Sch ema\" TO app, client, admin;
SET ROLE owner;
CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id uuid, body text);
CREATE TABLE \"Sch ema\".\"Text 'table\" (id serial PRIMARY KEY, \"Ten ant\" text, body text);
CREATE TABLE events (id int, tenant_id uuid, at int) PARTITION BY RANGE (at);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10) PARTITION BY HASH (id);
CREATE TABLE events_1_0 PARTITION OF events_1 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE \"Events 1/1\" PARTITION OF events_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE heirs (extra text) INHERITS (notes);
CREATE TABLE orders (id int, tenant_id uuid, UNIQUE (tenant_id, id));
CREATE TABLE lines (order_id int, tenant_id uuid, FOREIGN KEY (tenant_id, order_id) REFERENCES orders (tenant_id, id));
CREATE TABLE registered (id int, tenant_id uuid);
CREATE TABLE detached PARTITION OF events FOR VALUES FROM (10) TO (20);
CREATE TABLE plain (id int);
CREATE VIEW filtered AS SELECT body FROM notes;
GRANT ALL ON ALL TABLES IN SCHEMA public, \"Sch ema\" TO app, client;
GRANT ALL ON ALL SEQUENCES IN SCHEMA \"Sch ema\" TO app;
RESET ROLE;
CREATE VIEW totals AS SELECT count(*) AS n FROM notes;
CREATE RULE refused AS ON INSERT TO totals DO INSTEAD NOTHING;
CREATE VIEW greedy AS TABLE notes;
CREATE FUNCTION total(named int DEFAULT 0) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM public.notes';
CREATE MATERIALIZED VIEW copied AS SELECT 1 AS one;
GRANT SELECT ON totals, greedy, copied TO app, client;
";

const PROTECT: &str = "
SELECT protect_table('notes'), protect_table('\"Sch ema\".\"Text ''table\"', 'Ten ant'), protect_table('events'),
       protect_table('orders'), protect_table('lines'), protect_table('registered', foreign_key => true);
SELECT allow_definer('public.totals', 'monthly'), allow_definer('public.total(int)', 'monthly'), allow_definer('public.copied', 'old');
";

/// Queries whose answers the restored database gives, too.
const SAME: [&str; 40] = [
    "SELECT * FROM tenancy.tenants ORDER BY id",
    "SELECT * FROM tenancy.tenant_databases ORDER BY tenant_id",
    "SELECT * FROM tenancy.plans ORDER BY plan",
    "SELECT * FROM tenancy.plan_rate_limits ORDER BY plan, resource",
    "SELECT * FROM tenancy.tenant_rate_limits ORDER BY tenant_id, resource",
    "SELECT * FROM tenancy.plan_limits ORDER BY plan, resource, period",
    "SELECT * FROM tenancy.tenant_limits ORDER BY tenant_id, resource, period",
    "SELECT * FROM tenancy.metrics ORDER BY metric",
    "SELECT * FROM tenancy.usage_buckets ORDER BY tenant_id, metric, bucket_start",
    "SELECT * FROM tenancy.usage_uniques ORDER BY tenant_id, metric, bucket_start, resource_id",
    "SELECT tableoid::regclass::text, * FROM tenancy.usage_keys ORDER BY tenant_id, key_hash",
    "SELECT tableoid::regclass::text, * FROM tenancy_archive.usage_events ORDER BY tenant_id, metric, occurred_at",
    "SELECT * FROM tenancy.subscriptions ORDER BY tenant_id",
    "SELECT * FROM tenancy.billing_periods ORDER BY tenant_id, period_start",
    "SELECT * FROM tenancy.billing_lines ORDER BY line_id",
    "SELECT * FROM tenancy.audit_log ORDER BY id",
    "SELECT table_name::text, root::text, tenant_column, tenant_type, had_row_security, had_force, protected_at \
     FROM tenancy.protected_tables ORDER BY 1",
    "SELECT table_name::text, tenant_id, tenant_column, keys, steps, steps_done, rows_filled, started_at, finished_at \
     FROM tenancy.adoptions ORDER BY 1",
    "SELECT table_name::text, root::text, tenant_column, intact, owner FROM tenancy.protection_status ORDER BY 1",
    "SELECT * FROM tenancy.definer_exemptions ORDER BY 1",
    "SELECT role, level FROM tenancy.access ORDER BY 1, 2",
    "SELECT evtname, evtevent, evtenabled, evttags, evtfoid::regproc FROM pg_event_trigger ORDER BY 1",
    "SELECT polrelid::regclass::text, polname, polcmd, polpermissive, polroles::regrole[], pg_get_expr(polqual, polrelid), \
     pg_get_expr(polwithcheck, polrelid) FROM pg_policy ORDER BY 1, 2",
    "SELECT oid::regclass::text, relrowsecurity, relforcerowsecurity, relacl FROM pg_class \
     WHERE relnamespace IN ('public'::regnamespace, 'tenancy'::regnamespace, '\"Sch ema\"'::regnamespace) ORDER BY 1",
    "SELECT oid::regprocedure::text, prosecdef, proconfig, \
            array(SELECT acl::text FROM unnest(proacl) acl ORDER BY 1), obj_description(oid) FROM pg_proc \
     WHERE pronamespace IN ('public'::regnamespace, 'tenancy'::regnamespace) ORDER BY 1",
    "SELECT * FROM tenancy.users ORDER BY id",
    "SELECT * FROM tenancy.memberships ORDER BY tenant_id, user_id",
    "SELECT * FROM tenancy.added_roles ORDER BY role",
    "SELECT resource, is_counted FROM tenancy.limited_resources ORDER BY resource",
    "SELECT * FROM tenancy.limited_memberships ORDER BY resource",
    "SELECT table_name::text, resource, condition, intact FROM tenancy.limited_tables ORDER BY 1, 2",
    "SELECT * FROM tenancy.stored_invitations ORDER BY id",
    "SELECT * FROM tenancy.stored_api_keys ORDER BY id",
    "SELECT * FROM tenancy.api_key_usage ORDER BY key_id",
    "SELECT * FROM tenancy.stored_jwt_keys ORDER BY kid",
    "SELECT tgname, tgenabled, tgrelid::regclass FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
    "SELECT * FROM notes ORDER BY id",
    "SELECT * FROM \"Sch ema\".\"Text 'table\" ORDER BY id",
    "SELECT tableoid::regclass::text, * FROM events ORDER BY 2, 3, 4",
    "SELECT objid::regprocedure::text FROM pg_depend WHERE deptype = 'e' AND classid = 'pg_proc'::regclass ORDER BY 1",
];

/// A database with everything, and its tenants: two active ones with rows and people, one that is deleted, one that is read-only.
struct World {
    database: Database,
    tenants: Vec<Uuid>,
    given: Credentials,
}

fn world() -> World {
    let database = Database::new("dumped");
    let mut superuser = database.superuser();
    superuser.batch_execute(WORLD).unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
    database.connect("admin").batch_execute(PROTECT).unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
    let mut operator = database.connect("operator");
    operator
        .batch_execute("SELECT create_plan('pro', settings => '{\"a\": [1, \"é\"]}', features => '{sso,api}')")
        .expect("plan");
    let all = tenants(&mut operator, 4);
    operator.execute("SELECT change_plan($1, 'pro')", &[&all[0]]).expect("change the plan");
    operator.batch_execute("SELECT set_plan_rate_limit('pro', 'api', 100, 'minute', 7)").expect("a rate limit");
    operator.execute("SELECT set_tenant_rate_limit($1, 'api', NULL)", &[&all[0]]).expect("a tenant's rate limit");
    operator.execute("SELECT update_tenant($1, metadata => '{\"k\": \"Ü'':\"}')", &[&all[1]]).expect("update");
    operator.execute("SELECT delete_tenant($1)", &[&all[2]]).expect("delete");
    operator.execute("SELECT suspend_tenant($1, 'unpaid', 'read_only')", &[&all[3]]).expect("suspend");
    let mut app = database.connect("app");
    for &tenant in &all[..2] {
        as_tenant(&mut app, tenant, |transaction| {
            transaction
                .batch_execute(
                    "INSERT INTO notes (body) SELECT 'note ' || i || ' of ' || current_tenant() FROM generate_series(1, 20) i;
                     INSERT INTO \"Sch ema\".\"Text 'table\" (body) VALUES ('x'), ('y'); INSERT INTO orders (id) VALUES (1);
                     INSERT INTO events (id, at) SELECT i, i FROM generate_series(0, 19) i; INSERT INTO lines (order_id) VALUES (1);
                     INSERT INTO heirs (id, body) VALUES (1000, 'heir'); INSERT INTO registered (id) VALUES (1)",
                )
                .unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
        });
    }
    database.connect("owner").batch_execute("ALTER TABLE events DETACH PARTITION detached").expect("detach");
    metered(&database, &all);
    let given = credentials(&database, &all);
    World { database, tenants: all, given }
}

/// Gives the tenants limits, usage that is rolled up, a subscription and a closed period.
fn metered(database: &Database, tenants: &[Uuid]) {
    let mut operator = database.connect("operator");
    operator
        .batch_execute(&format!(
            "SELECT set_plan_limit(plan, 'orders', 2), set_plan_limit(plan, 'calls', 1000, 'month'), set_plan_limit(plan, 'members', NULL)
             FROM unnest('{{free,pro}}'::text[]) AS plan;
             SELECT create_metric('readers', 'people', 'unique'), set_tenant_limit('{0}', 'calls', 5, 'month'),
                    set_subscription('{0}', 'past_due', '2025-10-15 08:00Z', '2025-11-15 08:00Z', 'cus''1', 'sub_1', follows_period => true)",
            tenants[0]
        ))
        .unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
    let mut admin = database.connect("admin");
    admin
        .batch_execute(
            "SELECT limit_table('orders', 'orders', 'id > 0'), limit_table('tenancy.memberships', 'members')",
        )
        .unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
    let mut app = database.connect("app");
    for &tenant in &tenants[..2] {
        as_tenant(&mut app, tenant, |transaction| {
            transaction
                .batch_execute(
                    "SELECT record_usage('calls', 2.50, 'key ''1', '2025-10-20 12:00Z', properties => '{\"é\": 1}'), consume_quota('calls', 3);
                     SELECT record_usage('readers', resource_id => gen_random_uuid()) FROM generate_series(1, 3)",
                )
                .unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
        });
    }
    admin.batch_execute("SELECT rollup_usage()").expect("roll up");
    operator.execute("SELECT close_billing_period($1, '2025-10')", &[&tenants[0]]).expect("close a period");
}

/// What was limited and used before the dump is so after the restore, by counters that are made anew.
fn metering_holds(database: &Database, tenants: &[Uuid]) {
    let (a, b) = (tenants[0], tenants[1]);
    let mut app = database.connect("app");
    for tenant in [a, b] {
        assert_eq!(touched_as(&mut app, tenant, "INSERT INTO orders (id) VALUES (2)"), 1);
        refused_as(&mut app, tenant, "INSERT INTO orders (id) VALUES (3)", "54000");
        assert_eq!(column_as(&mut app, tenant, "SELECT used::text FROM check_limit('orders')"), ["2"]);
        let again =
            "SELECT record_usage('calls', 2.5, 'key ''1', '2025-10-20 12:00Z', properties => '{\"é\": 1}')::text";
        assert_eq!(column_as(&mut app, tenant, again), ["false"]);
        refused_as(&mut app, tenant, "SELECT record_usage('calls', 3, 'key ''1')", "23505");
    }
    refused_as(&mut app, a, "SELECT consume_quota('calls', 3)", "54000");
    assert_eq!(column_as(&mut app, a, "SELECT consume_quota('calls', 2)::text"), ["0"]);
    assert_eq!(column_as(&mut app, b, "SELECT consume_quota('calls', 2)::text"), ["995"]);
    assert_eq!(rows(&mut database.connect("admin"), "SELECT * FROM verify_limits()", &[]).len(), 0);
    let closed = rows(&mut database.connect("operator"), "SELECT * FROM close_billing_period($1, '2025-10')", &[&a]);
    assert_eq!(closed.len(), 1);
}

/// Credentials of the second tenant, as its people hold them.
struct Credentials {
    /// A member with an added role; the key is theirs.
    user: Uuid,
    key: String,
    /// A key that was rotated, and still has its grace; and the one that replaced it.
    rotated: [String; 2],
    revoked: String,
    /// One for each signing key.
    tokens: [String; 2],
    invitation: String,
}

/// Gives each of two tenants people, and the second one credentials of every kind.
fn credentials(database: &Database, tenants: &[Uuid]) -> Credentials {
    const KEYS: &str = "
        SELECT add_role('manager', 70), add_jwt_key('k1', 'HS256'), add_jwt_key('k2', 'HS256', issuer => 'https://x''', audience => 'a\"\\'),
               add_jwt_key('spent', 'HS256', expires_at => now() - interval '1 day')";
    let mut admin = database.connect("admin");
    admin.batch_execute(KEYS).unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
    let mut app = database.connect("app");
    fixtures::member(&mut app, tenants[0], "owner");
    fixtures::api_key(&mut app, tenants[0], None, &["*"]);
    let user = fixtures::member(&mut app, tenants[1], "manager");
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, tenants[1]);
    let home = "SELECT create_user('Änne@Example.com', 'Änne \"\\', 'crm:''1', $1)";
    let home: Uuid = one(&mut transaction, home, &[&tenants[1]]);
    one::<Uuid>(&mut transaction, "SELECT add_member($1, 'owner')", &[&home]);
    let mut key = |sql: &str, id: Option<Uuid>| ApiKey::from(&rows(&mut transaction, sql, &[&id])[0]);
    let own =
        key("SELECT * FROM create_api_key('own', '{a:read,\"b|c:*\"}', now() + interval '1 year', $1)", Some(user));
    let [old, revoked] =
        ["old", "revoked"].map(|name| key(&format!("SELECT * FROM create_api_key('{name}', user_id => $1)"), None));
    let new = key("SELECT * FROM rotate_api_key($1, '1 day')", Some(old.id));
    let tokens =
        ["k1", "k2"].map(|kid| one(&mut transaction, "SELECT issue_jwt($1, '1 day', NULL, $2)", &[&user, &kid]));
    assert!(one::<bool>(&mut transaction, "SELECT revoke_api_key($1)", &[&revoked.id]));
    let invite = "SELECT * FROM create_invitation($1, 'manager', metadata => '{\"a\": [1, \"é\"]}')";
    let [open, closed] = ["open@example.com", "closed@example.com"]
        .map(|email| fixtures::Invitation::from(&rows(&mut transaction, invite, &[&email])[0]));
    assert!(one::<bool>(&mut transaction, "SELECT revoke_invitation($1)", &[&closed.id]));
    transaction.commit().expect("commit");
    let verify = "SELECT tenant_id FROM verify_api_key($1)";
    assert_eq!(one::<Uuid>(&mut database.connect("client"), verify, &[&own.text]), tenants[1], "used once");
    let rotated = [old.text, new.text];
    Credentials { user, key: own.text, rotated, revoked: revoked.text, tokens, invitation: open.token }
}

/// What was given to people before the dump opens the same tenant after the restore, and nothing else.
fn credentials_hold(database: &Database, tenant: Uuid, given: &Credentials) {
    let mut client = database.connect("client");
    let mut transaction = client.transaction().expect("begin");
    assert_eq!(fixtures::bind_by_key(&mut transaction, &given.key).as_deref(), Some("manager"));
    let principal = rows(&mut transaction, "SELECT * FROM current_principal()", &[]);
    assert_eq!(principal[0].get::<_, Uuid>("tenant_id"), tenant);
    assert_eq!(principal[0].get::<_, Uuid>("user_id"), given.user);
    assert_eq!(principal[0].get::<_, Vec<String>>("scopes"), ["a:read", "b|c:*"]);
    let rights =
        "SELECT has_role('manager') AND NOT has_role('admin') AND has_scope('b|c:d') AND NOT has_scope('a:write')";
    assert!(one::<bool>(&mut transaction, rights, &[]));
    assert_eq!(count(&mut transaction, "tenancy.members"), 2);
    fails(transaction.batch_execute("TABLE tenancy.stored_api_keys"), "42501");
    transaction.rollback().expect("roll back");
    for key in &given.rotated {
        assert_eq!(one::<Uuid>(&mut client, "SELECT tenant_id FROM verify_api_key($1)", &[key]), tenant);
    }
    fails(client.query("SELECT authenticate_api_key($1)", &[&given.revoked]), "28000");
    for token in &given.tokens {
        let mut transaction = client.transaction().expect("begin");
        assert_eq!(one::<Uuid>(&mut transaction, "SELECT tenant_id FROM authenticate_jwt($1)", &[token]), tenant);
    }
    // What signs is there, too; and an invitation waits for its one guest.
    let mut app = database.connect("app");
    let token = fixtures::token(&mut app, tenant, given.user);
    assert_eq!(one::<Uuid>(&mut client, "SELECT user_id FROM authenticate_jwt($1)", &[&token]), given.user);
    let guest = fixtures::user(&mut app);
    assert_eq!(one::<Uuid>(&mut client, "SELECT accept_invitation($1, $2)", &[&given.invitation, &guest]), tenant);
    let mut operator = database.connect("operator");
    assert_eq!(fixtures::role_of(&mut operator, tenant, guest).as_deref(), Some("manager"));
    let another = fixtures::user(&mut app);
    fails(client.query("SELECT accept_invitation($1, $2)", &[&given.invitation, &another]), "28000");
    // Sessions go on to hear of a tenant's states.
    for (change, code) in [("suspend_tenant", "28000"), ("resume_tenant", "00000")] {
        one::<Uuid>(&mut operator, &format!("SELECT {change}($1)"), &[&tenant]);
        let bound = client.query("SELECT authenticate_api_key($1)", &[&given.key]);
        assert_eq!(fixtures::sqlstate(&bound), code, "{change}");
    }
}

fn answers(database: &Database) -> Vec<Vec<Vec<Option<String>>>> {
    let mut superuser = database.superuser();
    SAME.iter().map(|query| simple(&mut superuser, query)).collect()
}

/// A file in the system's temporary directory that goes with the value.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new(database: &Database, extension: &str) -> TemporaryFile {
        TemporaryFile(std::env::temp_dir().join(format!("{}.{}.{extension}", database.name(), std::process::id())))
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs a program, which must succeed and complain of nothing.
#[track_caller]
fn without_complaint(command: &mut Command) -> String {
    let output: Output = command.stdin(Stdio::null()).output().expect("run");
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && complaints.is_empty(), "{command:?}: {}\n{complaints}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn dump(database: &Database, format: &str) -> TemporaryFile {
    let file = TemporaryFile::new(database, format);
    without_complaint(database.tool("pg_dump", "postgres").args(["-F", format, "-f"]).arg(&file.0));
    file
}

/// What a dump of the whole database says, without what names the database, and without the version of the resource `orders`, which
/// is another after each restore: it makes counters void.
fn dump_text(database: &Database) -> String {
    let text = without_restrict(&without_complaint(&mut database.tool("pg_dump", "postgres")));
    let is_version =
        |line: &&str| line.starts_with("orders\t") && line.ends_with("\tt") && line.split('\t').count() == 3;
    text.split_inclusive('\n').filter(|line| !is_version(&line.trim_end())).collect()
}

fn restore(database: &Database, arguments: &[&str], file: &Path) {
    let name = database.name().to_owned();
    let mut command = database.tool("pg_restore", "postgres");
    without_complaint(command.args(["--dbname", &name]).args(arguments).arg(file));
}

/// As a DBA makes the database that a dump is restored into. Rights on the database itself are not in the dump.
fn empty_target(cluster: &Cluster) -> Database {
    let database = cluster.empty_database("restored");
    let revoke = format!("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC", database.name());
    database.superuser().batch_execute(&revoke).expect("revoke");
    database
}

/// Whether the restored database is the same and as closed as the dumped one.
fn is_the_same(source: &World, target: &Database) {
    let World { database: source, tenants, given } = source;
    for ((query, expected), found) in SAME.iter().zip(answers(source)).zip(answers(target)) {
        assert_eq!(found, expected, "{query}");
    }
    let (expected, found) = (dump_text(source), dump_text(target));
    if found != expected {
        let difference: Vec<&str> =
            found.lines().filter(|line| !expected.lines().any(|other| other == *line)).take(20).collect();
        panic!("the dump of the restored database differs: {difference:#?}");
    }
    credentials_hold(target, tenants[1], given);
    metering_holds(target, tenants);
    isolation_holds(target, tenants);
}

fn isolation_holds(database: &Database, tenants: &[Uuid]) {
    let (a, b) = (tenants[0], tenants[1]);
    let mut app = database.connect("app");
    for table in [
        "notes",
        "\"Sch ema\".\"Text 'table\"",
        "events",
        "\"Events 1/1\"",
        "heirs",
        "orders",
        "registered",
        "detached",
    ] {
        let column = if table.contains("Text") { "\"Ten ant\"" } else { "tenant_id" };
        for role in ["app", "client", "owner"] {
            fails(database.connect(role).batch_execute(&format!("TABLE {table}")), "42501");
        }
        let seen = column_as(&mut app, b, &format!("SELECT DISTINCT {column} FROM {table}"));
        assert_eq!(seen, [b.to_string()], "{table}");
        refused_as(&mut app, b, &format!("UPDATE {table} SET {column} = '{a}'"), "42501");
        fails(database.connect("owner").batch_execute(&format!("TRUNCATE {table} CASCADE")), "42501");
    }
    refused_as(&mut app, b, "TABLE greedy", "42501");
    assert_eq!(column_as(&mut app, b, "TABLE totals"), column_as(&mut app, b, "SELECT total()"));
    assert_eq!(read_as(&mut app, b, "TABLE filtered").len(), 21);
    // Identity columns go on where they were, and new partitions are protected.
    assert_eq!(touched_as(&mut app, b, "INSERT INTO notes (body) VALUES ('new')"), 1);
    let mut owner = database.connect("owner");
    owner
        .batch_execute(
            "CREATE TABLE events_9 PARTITION OF events FOR VALUES FROM (90) TO (99); GRANT ALL ON events_9 TO app",
        )
        .unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
    fails(app.batch_execute("TABLE events_9"), "42501");
    assert_eq!(touched_as(&mut app, b, "INSERT INTO events_9 (id, at) VALUES (1, 90)"), 1);
    fails(database.superuser().batch_execute("CREATE MATERIALIZED VIEW m AS TABLE notes"), "42501");
    refused_as(&mut app, b, &format!("SELECT set_tenant('{a}')"), "55000");
    levels_hold(database, tenants);
}

fn levels_hold(database: &Database, tenants: &[Uuid]) {
    let (a, deleted, read_only) = (tenants[0], tenants[2], tenants[3]);
    let mut app = database.connect("app");
    fails(app.execute("SELECT set_tenant($1)", &[&deleted]), "42501");
    refused_as(&mut app, read_only, "INSERT INTO notes (body) VALUES ('x')", "25006");
    for role in ["client", "monitor", "operator", "owner", "stranger"] {
        fails(database.connect(role).execute("SELECT set_tenant($1)", &[&a]), "42501");
    }
    fails(app.batch_execute("SELECT create_tenant('x')"), "42501");
    let mut operator = database.connect("operator");
    fails(operator.batch_execute(&format!("CALL purge_tenant('{deleted}', true)")), "42501");
    let created: Uuid = one(&mut operator, "SELECT create_tenant('Restored Ltd')", &[]);
    as_tenant(&mut app, created, |transaction| assert_eq!(count(transaction, "notes"), 0));
    let mut admin = database.connect("admin");
    operator.execute("SELECT delete_tenant($1)", &[&a]).expect("delete");
    for tenant in [deleted, a] {
        admin
            .batch_execute(&format!("CALL purge_tenant('{tenant}', true)"))
            .unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
    }
    let left = format!("SELECT count(*) FROM notes WHERE tenant_id = '{a}'");
    let mut superuser = database.superuser();
    assert_eq!(text(&mut superuser, &left), "0");
    assert_eq!(count(&mut superuser, &format!("tenancy.tenants WHERE id IN ('{a}', '{deleted}')")), 0);
    assert_eq!(count(&mut superuser, "notes"), 22);
    assert!(!one::<bool>(&mut admin, "SELECT protect_table('notes')", &[]));
}

#[test]
fn a_custom_dump_restores_into_a_new_cluster() {
    let source = world();
    let file = dump(&source.database, "custom");
    let new = Cluster::start(Options::new());
    for arguments in [vec![], vec!["-j", "4"], vec!["--single-transaction"]] {
        let target = empty_target(&new);
        restore(&target, &arguments, &file.0);
        is_the_same(&source, &target);
    }
}

#[test]
fn a_plain_dump_restores_into_a_new_cluster() {
    let source = world();
    let file = dump(&source.database, "plain");
    let new = Cluster::start(Options::new());
    let target = empty_target(&new);
    let mut psql = target.tool("psql", "postgres");
    without_complaint(psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f"]).arg(&file.0));
    is_the_same(&source, &target);
}

#[test]
fn a_dump_of_inserts_restores() {
    let source = world();
    let file = TemporaryFile::new(&source.database, "inserts");
    let mut command = source.database.tool("pg_dump", "postgres");
    without_complaint(command.args(["--column-inserts", "--rows-per-insert=7", "-f"]).arg(&file.0));
    let target = empty_target(cluster());
    let mut psql = target.tool("psql", "postgres");
    without_complaint(psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f"]).arg(&file.0));
    is_the_same(&source, &target);
}

/// Between its sections a restore may take hours, with the grants in place and the policies still to come.
#[test]
fn a_half_done_restore_shows_nothing() {
    let source = world();
    let file = dump(&source.database, "custom");
    let target = empty_target(cluster());
    restore(&target, &["--section=pre-data"], &file.0);
    restore(&target, &["--section=data"], &file.0);
    assert_eq!(count(&mut target.superuser(), "ONLY notes"), 40, "the rows are there");
    for role in ["app", "client", "owner"] {
        for table in [
            "notes",
            "ONLY notes",
            "\"Sch ema\".\"Text 'table\"",
            "events",
            "events_1_0",
            "heirs",
            "greedy",
            "filtered",
        ] {
            let seen = seen_by(&mut target.connect(role), table);
            assert_eq!(seen, 0, "{role} reads {table} before its policies are there");
        }
        let mut client = target.connect(role);
        if let Ok(changed) = client.execute("UPDATE notes SET body = 'x'", &[]) {
            assert_eq!(changed, 0, "{role} writes before the policies are there");
        }
    }
    let mut app = target.connect("app");
    for table in ["notes", "events", "greedy"] {
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, source.tenants[1]);
        let foreign = transaction.query(&format!("SELECT 1 FROM {table} WHERE tenant_id = $1"), &[&source.tenants[0]]);
        assert_eq!(foreign.map_or(0, |rows| rows.len()), 0, "B reads A's rows of {table}");
    }
    restore(&target, &["--section=post-data"], &file.0);
    is_the_same(&source, &target);
}

/// How many rows of a table a role sees; an error is none.
fn seen_by(client: &mut Client, table: &str) -> usize {
    client.query(&format!("SELECT 1 FROM {table}"), &[]).map_or(0, |rows| rows.len())
}

/// A dump by a role that row security binds fails; it never writes one tenant's rows, or none, in silence.
#[test]
fn a_dump_by_a_guarded_role_fails() {
    let source = world().database;
    for role in ["owner", "app"] {
        let mut command = source.tool("pg_dump", role);
        let output = command.args(["--table", "notes", "--data-only"]).output().expect("run");
        assert!(!output.status.success(), "{role} dumps");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("note 1"), "{role} dumps rows");
    }
}

/// A role that bypasses row security dumps all, as backups do.
#[test]
fn a_dump_of_one_table_has_every_tenants_rows() {
    let source = world().database;
    let dumped = without_complaint(source.tool("pg_dump", "postgres").args(["--table", "notes", "--data-only"]));
    assert_eq!(dumped.lines().filter(|line| line.contains("note ")).count(), 40);
}

/// A real application's schema and rows (Chinook), taken over into one tenant each.
#[test]
fn a_real_schema_is_protected_with_its_rows() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/chinook.sql");
    let Ok(script) = std::fs::read_to_string(&script) else {
        eprintln!("skipped: {} is not there", script.display());
        return;
    };
    let (_, script) = script.split_once("\\c chinook_serial;").expect("the script connects to its database");
    let database = Database::new("chinook");
    let loaded = database.psql("owner", script);
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    let tenants = tenants(&mut database.connect("operator"), 2);
    let mut superuser = database.superuser();
    let tables: Vec<String> = rows(
        &mut superuser,
        "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1",
        &[],
    )
    .iter()
    .map(|row| row.get(0))
    .collect();
    assert_eq!(tables.len(), 11);
    let (mut admin, notices) = database.connect_with_notices("admin");
    for table in &tables {
        fails(admin.batch_execute(&format!("SELECT protect_table('{table}')")), "55000");
        let fill = format!(
            "ALTER TABLE {table} ADD COLUMN tenant_id uuid; UPDATE {table} SET tenant_id = '{}'; GRANT ALL ON {table} TO app",
            tenants[0]
        );
        superuser.batch_execute(&fill).expect("fill");
    }
    let sizes: Vec<i64> = tables.iter().map(|table| count(&mut superuser, table)).collect();
    for table in &tables {
        assert!(one::<bool>(&mut admin, &format!("SELECT protect_table('{table}')"), &[]));
    }
    // The references between the tables leave the tenant out: the advice that the notices point to closes them.
    assert!(notices.contains("can refer to a row of another tenant"), "{:?}", notices.messages());
    for step in advice(&database) {
        let statement = step.statement.as_deref().expect("a statement");
        superuser.batch_execute(statement).unwrap_or_else(|error| panic!("{step:#?}: {:?}", error.as_db_error()));
    }
    assert_eq!(advice(&database), []);
    let open = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND confrelid <> 'tenancy.tenants'::regclass \
                AND array_length(conkey, 1) < 2";
    assert_eq!(text(&mut superuser, open), "0");
    let mut app = database.connect("app");
    for (table, size) in tables.iter().zip(sizes) {
        let own: i64 = as_tenant(&mut app, tenants[0], |transaction| count(transaction, table));
        let other: i64 = as_tenant(&mut app, tenants[1], |transaction| count(transaction, table));
        assert_eq!((own, other), (size, 0), "{table}");
    }
    let track = "INSERT INTO invoice_line (invoice_id, track_id, unit_price, quantity) VALUES (1, 1, 1, 1)";
    superuser.batch_execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app").expect("grant");
    refused_as(&mut app, tenants[1], track, "23503");
}
