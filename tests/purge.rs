//! The end of a tenant: `purge_tenant` removes its rows from every protected table and nothing else, whatever the
//! tables' owners have put in the way.

use crate::access::fixtures;
use crate::schema::fixtures::House;
use harness::{
    Client, Cluster, Database, Options, Uuid, as_tenant, backend_pid, bind, count, fails, one, protected_table, rows,
    simple, tenant, tenants, wait_until,
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Tables of every shape whose rows depend on each other. `accounts` is what all of them lead to.
const SHAPES: &str = r#"
CREATE TABLE accounts (tenant_id uuid NOT NULL, id int NOT NULL, PRIMARY KEY (tenant_id, id));
CREATE TABLE invoices (tenant_id uuid NOT NULL, id int NOT NULL, account int NOT NULL, PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, account) REFERENCES accounts ON DELETE RESTRICT);
CREATE TABLE lines (tenant_id uuid NOT NULL, id int NOT NULL, invoice int NOT NULL, PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, invoice) REFERENCES invoices DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE discounts (tenant_id uuid NOT NULL, id int NOT NULL, line int, PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, line) REFERENCES lines ON DELETE CASCADE);
CREATE TABLE nodes (tenant_id uuid NOT NULL, id int NOT NULL, parent int, PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, parent) REFERENCES nodes ON DELETE RESTRICT);
CREATE TABLE teams (tenant_id uuid NOT NULL, id int NOT NULL, lead int, PRIMARY KEY (tenant_id, id));
CREATE TABLE people (tenant_id uuid NOT NULL, id int NOT NULL, team int NOT NULL, PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, team) REFERENCES teams ON DELETE RESTRICT);
ALTER TABLE teams ADD FOREIGN KEY (tenant_id, lead) REFERENCES people DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE badges (tenant_id uuid NOT NULL, id int NOT NULL, person int NOT NULL,
    FOREIGN KEY (tenant_id, person) REFERENCES people);
CREATE TABLE events (tenant_id uuid NOT NULL, id int NOT NULL, account int NOT NULL, PRIMARY KEY (tenant_id, id))
    PARTITION BY RANGE (id);
CREATE TABLE events_low PARTITION OF events FOR VALUES FROM (0) TO (10);
CREATE TABLE events_high PARTITION OF events FOR VALUES FROM (10) TO (1000) PARTITION BY HASH (tenant_id);
CREATE TABLE events_high_0 PARTITION OF events_high FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE events_high_1 PARTITION OF events_high FOR VALUES WITH (MODULUS 2, REMAINDER 1);
ALTER TABLE events_low ADD FOREIGN KEY (tenant_id, account) REFERENCES accounts;
ALTER TABLE events_high_1 ADD FOREIGN KEY (tenant_id, account) REFERENCES accounts;
CREATE TABLE attachments (tenant_id uuid NOT NULL, id int NOT NULL, event int NOT NULL,
    FOREIGN KEY (tenant_id, event) REFERENCES events);
CREATE TABLE docs (tenant_id uuid NOT NULL, id int NOT NULL);
CREATE TABLE contracts (account int NOT NULL, FOREIGN KEY (tenant_id, account) REFERENCES accounts) INHERITS (docs);
CREATE TABLE "Mixed Case"."Order Items" ("Tenant Id" text NOT NULL, "Id" int NOT NULL, PRIMARY KEY ("Tenant Id", "Id"));
CREATE TABLE "Mixed Case"."Select" ("Tenant Id" varchar(40) NOT NULL, "Id" int NOT NULL,
    FOREIGN KEY ("Tenant Id", "Id") REFERENCES "Mixed Case"."Order Items");
CREATE TABLE bulk (tenant_id uuid NOT NULL, id int NOT NULL);
CREATE TABLE counters (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id uuid NOT NULL, n int);
"#;

/// The tables to be protected, with their tenant columns; partitions and children follow.
const PROTECTED: [(&str, &str); 17] = [
    ("accounts", "tenant_id"),
    ("invoices", "tenant_id"),
    ("lines", "tenant_id"),
    ("discounts", "tenant_id"),
    ("nodes", "tenant_id"),
    ("teams", "tenant_id"),
    ("people", "tenant_id"),
    ("badges", "tenant_id"),
    ("events", "tenant_id"),
    ("attachments", "tenant_id"),
    ("docs", "tenant_id"),
    ("\"Mixed Case\".\"Order Items\"", "Tenant Id"),
    ("\"Mixed Case\".\"Select\"", "Tenant Id"),
    ("bulk", "tenant_id"),
    ("counters", "tenant_id"),
    ("level_0", "tenant_id"),
    ("level_19", "tenant_id"),
];

/// One tenant's rows, with the tenant as `$1` and how many rows `bulk` gets as `$2`.
const ROWS: [&str; 18] = [
    "INSERT INTO accounts SELECT $1, n FROM generate_series(1, 5) n WHERE $2::int > 0",
    "INSERT INTO invoices SELECT $1, n, n % 5 + 1 FROM generate_series(1, 20) n WHERE $2::int > 0",
    "INSERT INTO lines SELECT $1, n, n % 20 + 1 FROM generate_series(1, $2::int) n",
    "INSERT INTO discounts SELECT $1, n, n FROM generate_series(1, 10) n WHERE $2::int > 0",
    "INSERT INTO nodes SELECT $1, n, nullif(n / 2, 0) FROM generate_series(1, 50) n WHERE $2::int > 0",
    "INSERT INTO teams SELECT $1, n, NULL FROM generate_series(1, 4) n WHERE $2::int > 0",
    "INSERT INTO people SELECT $1, n, n % 4 + 1 FROM generate_series(1, 12) n WHERE $2::int > 0",
    "UPDATE teams SET lead = id WHERE tenant_id = $1 AND $2::int > 0",
    "INSERT INTO badges SELECT $1, n, n FROM generate_series(1, 12) n WHERE $2::int > 0",
    "INSERT INTO events SELECT $1, n, n % 5 + 1 FROM generate_series(1, 30) n WHERE $2::int > 0",
    "INSERT INTO attachments SELECT $1, n, n FROM generate_series(1, 30) n WHERE $2::int > 0",
    "INSERT INTO docs SELECT $1, n FROM generate_series(1, 3) n WHERE $2::int > 0",
    "INSERT INTO contracts (tenant_id, id, account) SELECT $1, n, n FROM generate_series(1, 5) n WHERE $2::int > 0",
    "INSERT INTO \"Mixed Case\".\"Order Items\" SELECT $1::uuid::text, n FROM generate_series(1, 7) n WHERE $2::int > 0",
    "INSERT INTO \"Mixed Case\".\"Select\" SELECT $1::uuid::text, n FROM generate_series(1, 7) n WHERE $2::int > 0",
    "INSERT INTO bulk SELECT $1, n FROM generate_series(1, $2::int) n",
    "INSERT INTO counters (tenant_id, n) SELECT $1, n FROM generate_series(1, 3) n WHERE $2::int > 0",
    "INSERT INTO level_0 SELECT $1, n FROM generate_series(1, 3) n WHERE $2::int > 0",
];

/// A chain of tables, each of which refers to the one before it.
const LEVELS: usize = 20;

/// Creates the tables of [`SHAPES`] and a chain of [`LEVELS`], and protects all of them, the referenced ones last.
fn shapes(database: &Database) {
    let mut superuser = database.superuser();
    superuser
        .batch_execute(
            "CREATE SCHEMA \"Mixed Case\" AUTHORIZATION owner; GRANT USAGE ON SCHEMA \"Mixed Case\" TO admin",
        )
        .expect("create a schema");
    let mut owner = database.connect("owner");
    owner.batch_execute(SHAPES).expect("create the tables");
    let mut admin = database.connect("admin");
    for level in 0..LEVELS {
        let reference = match level.checked_sub(1) {
            Some(before) => format!(", FOREIGN KEY (tenant_id, id) REFERENCES level_{before} ON DELETE RESTRICT"),
            None => String::new(),
        };
        owner
            .batch_execute(&format!(
                "CREATE TABLE level_{level} (tenant_id uuid NOT NULL, id int NOT NULL, PRIMARY KEY (tenant_id, id){reference})"
            ))
            .expect("create a level");
        if level != 0 && level + 1 != LEVELS {
            admin.batch_execute(&format!("SELECT protect_table('level_{level}')")).expect("protect a level");
        }
    }
    for (table, column) in PROTECTED {
        let protected: bool = one(&mut admin, "SELECT protect_table($1::text::regclass, $2)", &[&table, &column]);
        assert!(protected, "{table}");
    }
}

/// Gives a tenant rows in every table of [`SHAPES`].
fn fill(superuser: &mut Client, tenant: Uuid, bulk: i32) {
    let mut transaction = superuser.transaction().expect("begin");
    for insert in ROWS {
        if let Err(error) = transaction.execute(insert, &[&tenant, &bulk]) {
            panic!("{insert}: {error:?}");
        }
    }
    for level in 1..LEVELS {
        let before = level - 1;
        let insert = format!("INSERT INTO level_{level} SELECT * FROM level_{before} WHERE tenant_id = $1");
        transaction.execute(&insert, &[&tenant]).expect("fill a level");
    }
    transaction.commit().expect("commit");
}

/// Every protected table that holds rows itself, with its tenant column.
fn leaves(superuser: &mut Client) -> Vec<(String, String)> {
    const LEAVES: &str = "SELECT format('%I.%I', n.nspname, c.relname), format('%I', p.tenant_column)
        FROM tenancy.protected_tables p JOIN pg_class c ON c.oid = p.table_name JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' ORDER BY 1";
    rows(superuser, LEAVES, &[]).iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// How many rows a tenant has, by table, without those where it has none.
fn counts(superuser: &mut Client, tenant: Uuid) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for (table, column) in leaves(superuser) {
        let found = count(superuser, &format!("ONLY {table} WHERE {column}::text = '{tenant}'"));
        if found > 0 {
            counts.insert(table, found);
        }
    }
    counts
}

/// A checksum of every row of every other tenant, by table.
fn others(superuser: &mut Client, tenant: Uuid) -> BTreeMap<String, (i64, String)> {
    let mut sums = BTreeMap::new();
    for (table, column) in leaves(superuser) {
        let sql = format!(
            "SELECT count(*), coalesce(md5(string_agg(t::text, ',' ORDER BY t::text)), '')
             FROM ONLY {table} t WHERE {column}::text <> '{tenant}'"
        );
        let row = &rows(superuser, &sql, &[])[0];
        sums.insert(table, (row.get(0), row.get(1)));
    }
    sums
}

/// The counts of the one `tenant.purged` row of the audit log.
#[track_caller]
fn audited(superuser: &mut Client, tenant: Uuid) -> BTreeMap<String, i64> {
    const PURGED: &str =
        "SELECT after -> 'rows' FROM tenancy.audit_log WHERE tenant_id = $1 AND action = 'tenant.purged'";
    let purged: Value = one(superuser, PURGED, &[&tenant]);
    let object = purged.as_object().expect("an object of counts");
    object.iter().map(|(table, rows)| (table.clone(), rows.as_i64().expect("a count"))).collect()
}

fn exists(superuser: &mut Client, tenant: Uuid) -> bool {
    one(superuser, "SELECT EXISTS (SELECT FROM tenancy.tenants WHERE id = $1)", &[&tenant])
}

fn delete(operator: &mut Client, tenant: Uuid) {
    operator.execute("SELECT delete_tenant($1, '0')", &[&tenant]).expect("delete the tenant");
}

fn purge(admin: &mut Client, tenant: Uuid) -> Result<(), harness::postgres::Error> {
    admin.batch_execute(&format!("CALL purge_tenant('{tenant}')"))
}

/// A database with the protected table notes and tenants that have a note each; all are active.
fn noted(label: &str, n: usize) -> (Database, Vec<Uuid>) {
    let database = Database::new(label);
    protected_table(&database);
    let tenants = tenants(&mut database.connect("operator"), n);
    for &tenant in &tenants {
        as_tenant(&mut database.connect("app"), tenant, |transaction| {
            transaction.execute("INSERT INTO notes (body) VALUES ('note')", &[]).expect("insert");
        });
    }
    (database, tenants)
}

// ---------------------------------------------------------------------------------------------- what is removed

#[test]
fn a_purge_removes_every_row_of_the_tenant_and_no_other() {
    const BULK: i32 = 25_000;
    let database = Database::new("shapes");
    shapes(&database);
    let mut operator = database.connect("operator");
    let mut superuser = database.superuser();
    let ids = tenants(&mut operator, 3);
    for (id, bulk) in ids.iter().zip([300, BULK, 200]) {
        fill(&mut superuser, *id, bulk);
    }
    let purged = ids[1];
    let before = counts(&mut superuser, purged);
    assert!(before.len() > 30, "rows in every table: {before:?}");
    let untouched = others(&mut superuser, purged);
    delete(&mut operator, purged);
    let (mut admin, notices) = database.connect_with_notices("admin");
    purge(&mut admin, purged).expect("purge");
    assert_eq!(counts(&mut superuser, purged), BTreeMap::new());
    assert_eq!(others(&mut superuser, purged), untouched);
    assert!(!exists(&mut superuser, purged));
    assert_eq!(audited(&mut superuser, purged), before);
    for (table, rows) in &before {
        let said = format!("purged {rows} rows of tenant \"{purged}\" from {table}");
        assert!(notices.contains(&said), "{said}: {:?}", notices.messages());
    }
    assert!(notices.contains(&format!("purged tenant \"{purged}\"")));
    fails(purge(&mut admin, purged), "P0002");
    // Nothing is left over in the session or in the tables.
    delete(&mut operator, ids[2]);
    purge(&mut admin, ids[2]).expect("purge another one in the same session");
    assert_eq!(counts(&mut superuser, ids[2]), BTreeMap::new());
    assert_eq!(count(&mut superuser, "bulk"), 300);
}

#[test]
fn a_tenant_without_rows_and_a_database_without_tables_are_purged_too() {
    let database = Database::new("nothing");
    let mut operator = database.connect("operator");
    let id = tenant(&mut operator);
    delete(&mut operator, id);
    purge(&mut database.connect("admin"), id).expect("purge");
    let mut superuser = database.superuser();
    assert!(!exists(&mut superuser, id));
    assert_eq!(audited(&mut superuser, id), BTreeMap::new());
}

#[test]
fn the_slug_and_external_id_of_a_purged_tenant_are_free_again() {
    let database = Database::new("reuse");
    let mut operator = database.connect("operator");
    let create = "SELECT create_tenant('Acme', 'acme', external_id => 'crm-1')";
    let id: Uuid = one(&mut operator, create, &[]);
    delete(&mut operator, id);
    fails(operator.batch_execute(create), "23505");
    purge(&mut database.connect("admin"), id).expect("purge");
    let again: Uuid = one(&mut operator, create, &[]);
    assert_ne!(again, id);
}

#[test]
fn a_table_that_references_the_registry_is_emptied_first() {
    let database = Database::new("registry_key");
    let mut operator = database.connect("operator");
    database.connect("owner").batch_execute("CREATE TABLE orders (id int, tenant_id uuid)").expect("create a table");
    database.connect("admin").batch_execute("SELECT protect_table('orders', foreign_key => true)").expect("protect");
    let both = tenants(&mut operator, 2);
    let mut superuser = database.superuser();
    for id in &both {
        superuser.execute("INSERT INTO orders VALUES (1, $1)", &[id]).expect("insert");
    }
    delete(&mut operator, both[0]);
    purge(&mut database.connect("admin"), both[0]).expect("purge");
    assert_eq!(count(&mut superuser, &format!("orders WHERE tenant_id = '{}'", both[1])), 1);
    assert_eq!(count(&mut superuser, "orders"), 1);
}

/// An audit trigger of the user's writes for the tenant while its rows go.
#[test]
fn rows_that_triggers_write_during_a_purge_go_too() {
    let (database, ids) = noted("log_trigger", 2);
    database
        .connect("owner")
        .batch_execute(
            "CREATE TABLE history (id bigint GENERATED ALWAYS AS IDENTITY, tenant_id uuid, body text);
             CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN INSERT INTO public.history (body) VALUES (OLD.body); RETURN OLD; END $$;
             CREATE TRIGGER log BEFORE DELETE ON notes FOR EACH ROW EXECUTE FUNCTION log()",
        )
        .expect("create the trigger");
    let mut admin = database.connect("admin");
    admin.batch_execute("SELECT protect_table('history')").expect("protect");
    delete(&mut database.connect("operator"), ids[0]);
    purge(&mut admin, ids[0]).expect("purge");
    let mut superuser = database.superuser();
    assert_eq!(count(&mut superuser, "history"), 0);
    assert_eq!(count(&mut superuser, "notes"), 1);
    assert!(!exists(&mut superuser, ids[0]));
}

#[test]
fn a_purge_touches_no_unprotected_table() {
    let (database, ids) = noted("unprotected", 1);
    let mut superuser = database.superuser();
    superuser.batch_execute("CREATE TABLE plain (tenant_id uuid, body text)").expect("create a table");
    superuser.execute("INSERT INTO plain VALUES ($1, 'x')", &[&ids[0]]).expect("insert");
    delete(&mut database.connect("operator"), ids[0]);
    purge(&mut database.connect("admin"), ids[0]).expect("purge");
    assert_eq!(count(&mut superuser, "plain"), 1);
}

/// The people and credentials of a tenant: `shared` belongs to other tenants, too; `home` to this one alone.
struct People {
    home: Uuid,
    keys: Vec<String>,
    token: String,
    invitation: String,
}

/// Gives a tenant people and credentials of every kind, each of them named after `mark`.
fn people(database: &Database, tenant: Uuid, shared: Uuid, mark: &str) -> People {
    let mut app = database.connect("app");
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, tenant);
    let create = "SELECT create_user($1 || '@home.example', $1, $1 || '-external', $2)";
    let home: Uuid = one(&mut transaction, create, &[&mark, &tenant]);
    for (user, role) in [(home, "admin"), (shared, "owner")] {
        one::<Uuid>(&mut transaction, "SELECT add_member($1, $2)", &[&user, &role]);
    }
    let mut keys = Vec::new();
    for user in [Some(home), Some(shared), None] {
        let made = rows(&mut transaction, "SELECT * FROM create_api_key($1, '{*}', NULL, $2)", &[&mark, &user]);
        let key = fixtures::ApiKey::from(&made[0]);
        let made = rows(&mut transaction, "SELECT * FROM rotate_api_key($1, '1 hour')", &[&key.id]);
        keys.extend([key.text, fixtures::ApiKey::from(&made[0]).text]);
    }
    let token = one(&mut transaction, "SELECT issue_jwt($1)", &[&home]);
    let invite = "SELECT * FROM create_invitation($1 || $2, 'viewer', metadata => jsonb_build_object('note', $1))";
    let revoked = &rows(&mut transaction, invite, &[&mark, &"-revoked@away.example"])[0];
    one::<bool>(&mut transaction, "SELECT revoke_invitation($1)", &[&fixtures::Invitation::from(revoked).id]);
    let open = fixtures::Invitation::from(&rows(&mut transaction, invite, &[&mark, &"@away.example"])[0]);
    transaction.commit().expect("commit");
    let people = People { home, keys, token, invitation: open.token };
    let mut client = database.connect("client");
    for key in &people.keys {
        assert_eq!(verified(&mut client, key), Some(tenant), "each key is in use");
    }
    people
}

/// The tenant that a key is verified for.
fn verified(client: &mut Client, key: &str) -> Option<Uuid> {
    harness::optional(client, "SELECT tenant_id FROM verify_api_key($1)", &[&key])
}

/// What is kept of everyone's people and credentials but the tenant's.
fn other_people(superuser: &mut Client, tenant: Uuid) -> Vec<Vec<Option<String>>> {
    simple(
        superuser,
        &format!(
            "SELECT u::text FROM tenancy.users u WHERE tenant_id IS DISTINCT FROM '{tenant}' ORDER BY 1;
             SELECT m::text FROM tenancy.memberships m WHERE tenant_id <> '{tenant}' ORDER BY 1;
             SELECT i::text FROM tenancy.stored_invitations i WHERE tenant_id <> '{tenant}' ORDER BY 1;
             SELECT k::text, u::text FROM tenancy.stored_api_keys k JOIN tenancy.api_key_usage u ON u.key_id = k.id
                 WHERE tenant_id <> '{tenant}' ORDER BY 1;
             SELECT to_jsonb(a) FROM tenancy.audit_log a WHERE tenant_id IS DISTINCT FROM '{tenant}' AND action NOT LIKE 'tenant.%' ORDER BY id;
             TABLE tenancy.stored_jwt_keys; TABLE tenancy.added_roles"
        ),
    )
}

#[test]
fn a_purge_removes_the_tenants_people_and_credentials_and_nobody_elses() {
    let database = Database::new("people");
    let mut operator = database.connect("operator");
    let mut admin = database.connect("admin");
    let mut app = database.connect("app");
    let mut client = database.connect("client");
    let mut superuser = database.superuser();
    fixtures::signing_key(&mut admin, "k1");
    let ids = tenants(&mut operator, 2);
    let shared: Uuid = one(&mut app, "SELECT create_user('shared@example.com', 'Shared')", &[]);
    let purged = people(&database, ids[0], shared, "zebra");
    let kept = people(&database, ids[1], shared, "lion");
    let before = other_people(&mut superuser, ids[0]);
    let everything = crate::audit::everything(&mut superuser);
    for mark in ["zebra@home.example", "zebra@away.example", "zebra-revoked@away.example", "zebra-external"] {
        assert!(everything.contains(mark), "{mark} is there before");
    }
    delete(&mut operator, ids[0]);
    purge(&mut admin, ids[0]).expect("purge");
    assert_eq!(other_people(&mut superuser, ids[0]), before);
    let left = crate::audit::everything(&mut superuser);
    for mark in ["zebra", &purged.home.to_string()] {
        let left: Vec<&str> = left.lines().filter(|line| line.contains(mark)).collect();
        assert_eq!(left, [""; 0], "what is left of {mark}");
    }
    for key in purged.keys.iter().map(String::as_str) {
        assert_eq!(verified(&mut client, key), None);
        fails(client.query("SELECT authenticate_api_key($1)", &[&key]), "28000");
    }
    fails(client.query("SELECT authenticate_jwt($1)", &[&purged.token]), "28000");
    fails(client.query("SELECT accept_invitation($1, $2)", &[&purged.invitation, &shared]), "28000");
    assert_eq!(
        count(&mut superuser, "tenancy.api_key_usage WHERE key_id NOT IN (SELECT id FROM tenancy.stored_api_keys)"),
        0
    );
    // The other tenant goes on, its shared owner included.
    for key in &kept.keys {
        assert_eq!(verified(&mut client, key), Some(ids[1]));
    }
    let mut transaction = client.transaction().expect("begin");
    assert_eq!(one::<Uuid>(&mut transaction, "SELECT tenant_id FROM authenticate_jwt($1)", &[&kept.token]), ids[1]);
    transaction.commit().expect("commit");
    let guest = fixtures::user(&mut app);
    assert_eq!(one::<Uuid>(&mut client, "SELECT accept_invitation($1, $2)", &[&kept.invitation, &guest]), ids[1]);
    let of_shared = rows(&mut app, "SELECT tenant_id FROM user_tenants($1)", &[&shared]);
    assert_eq!(of_shared.iter().map(|row| row.get(0)).collect::<Vec<Uuid>>(), [ids[1]]);
    // Addresses and external ids of the purged tenant's own users are free again, also for users of many tenants.
    one::<Uuid>(&mut app, "SELECT create_user('zebra@home.example', external_id => 'zebra-external')", &[]);
}

/// People go in the last transaction, with the registry row: a purge that stops before keeps them, and a restored tenant has them.
#[test]
fn a_deleted_tenant_keeps_its_people_until_it_is_purged() {
    let database = Database::new("people_kept");
    let mut operator = database.connect("operator");
    fixtures::signing_key(&mut database.connect("admin"), "k1");
    let id = tenant(&mut operator);
    let shared = fixtures::user(&mut database.connect("app"));
    let people = people(&database, id, shared, "zebra");
    let mut client = database.connect("client");
    delete(&mut operator, id);
    for key in &people.keys {
        assert_eq!(verified(&mut client, key), None, "not while it is deleted");
    }
    fails(client.query("SELECT authenticate_jwt($1)", &[&people.token]), "28000");
    fails(client.query("SELECT accept_invitation($1, $2)", &[&people.invitation, &shared]), "28000");
    operator.execute("SELECT restore_tenant($1)", &[&id]).expect("restore");
    for key in &people.keys {
        assert_eq!(verified(&mut client, key), Some(id));
    }
    assert_eq!(count(&mut operator, &format!("tenancy.members WHERE tenant_id = '{id}'")), 2);
}

// ---------------------------------------------------------------------------------------------- who, when and how

#[test]
fn only_a_deleted_tenant_is_purged() {
    const PUT: &str = "UPDATE tenancy.tenants SET status = $2 WHERE id = $1";
    let (database, ids) = noted("not_deleted", 1);
    let mut admin = database.connect("admin");
    let mut superuser = database.superuser();
    for state in ["provisioning", "active", "read_only", "suspended", "moving", "cancelled"] {
        superuser.execute(PUT, &[&ids[0], &state]).expect("put the tenant into a state");
        for force in ["false", "true"] {
            let fault = fails(admin.batch_execute(&format!("CALL purge_tenant('{}', {force})", ids[0])), "55000");
            assert!(fault.message().contains(state) && fault.message().contains("purged"), "{fault}");
        }
        admin.batch_execute("CALL purge_expired_tenants()").expect("nothing to do");
    }
    assert_eq!(count(&mut superuser, "notes"), 1);
    assert_eq!(count(&mut superuser, "tenancy.audit_log WHERE action LIKE 'tenant.purge%'"), 0);
}

#[test]
fn a_retention_holds_until_it_is_over_or_forced() {
    let (database, ids) = noted("retained", 2);
    let mut operator = database.connect("operator");
    let mut admin = database.connect("admin");
    let mut superuser = database.superuser();
    operator.execute("SELECT delete_tenant($1, '1 hour')", &[&ids[0]]).expect("delete");
    let fault = fails(purge(&mut admin, ids[0]), "55000");
    assert!(fault.message().contains("kept until"), "{fault}");
    assert!(fault.hint().is_some_and(|hint| hint.contains("force")), "{fault:?}");
    admin.batch_execute("CALL purge_expired_tenants()").expect("none has expired");
    assert!(exists(&mut superuser, ids[0]));
    assert_eq!(count(&mut superuser, "notes"), 2);
    operator.execute("SELECT restore_tenant($1)", &[&ids[0]]).expect("restore, for the purge has not begun");
    operator.execute("SELECT delete_tenant($1, '1 hour')", &[&ids[0]]).expect("delete again");
    admin.batch_execute(&format!("CALL purge_tenant('{}', force => true)", ids[0])).expect("force");
    assert!(!exists(&mut superuser, ids[0]));
    assert_eq!(count(&mut superuser, "notes"), 1);
    delete(&mut operator, ids[1]);
    admin.batch_execute("CALL purge_expired_tenants()").expect("purge the expired one");
    assert!(!exists(&mut superuser, ids[1]));
}

#[test]
fn only_admins_purge() {
    let (database, ids) = noted("purgers", 1);
    delete(&mut database.connect("operator"), ids[0]);
    for role in ["operator", "app", "client", "monitor", "owner", "stranger"] {
        let mut client = database.connect(role);
        fails(purge(&mut client, ids[0]), "42501");
        fails(client.batch_execute("CALL purge_expired_tenants()"), "42501");
    }
    assert_eq!(count(&mut database.superuser(), "notes"), 1);
}

#[test]
fn a_purge_refuses_bad_arguments() {
    let database = Database::new("bad_purge");
    let mut admin = database.connect("admin");
    let id = tenant(&mut database.connect("operator"));
    for (call, sqlstate) in [
        (format!("CALL purge_tenant('{}')", Uuid::new_v4()), "P0002"),
        (format!("CALL purge_tenant('{}', true)", Uuid::nil()), "P0002"),
        ("CALL purge_tenant(NULL)".to_owned(), "22023"),
        (format!("CALL purge_tenant('{id}', NULL)"), "22023"),
        ("CALL purge_tenant('x; DROP TABLE tenancy.tenants')".to_owned(), "22P02"),
    ] {
        fails(admin.batch_execute(&call), sqlstate);
        assert_eq!(one::<i32>(&mut admin, "SELECT 1", &[]), 1);
    }
}

/// It commits as it goes, which would take the caller's own work with it.
#[test]
fn a_purge_inside_a_transaction_block_is_refused() {
    let (database, ids) = noted("block", 1);
    let id = ids[0];
    delete(&mut database.connect("operator"), id);
    let mut superuser = database.superuser();
    superuser
        .batch_execute(&format!(
            "CREATE FUNCTION by_function() RETURNS int LANGUAGE plpgsql AS $$ BEGIN CALL purge_tenant('{id}'); RETURN 1; END $$;
             CREATE PROCEDURE by_procedure() LANGUAGE plpgsql AS $$ BEGIN CALL purge_tenant('{id}'); END $$;
             CREATE PROCEDURE by_definer() LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN CALL purge_tenant('{id}'); END $$;
             CREATE PROCEDURE by_setting() LANGUAGE plpgsql SET work_mem = '4MB' AS $$ BEGIN CALL purge_tenant('{id}'); END $$;
             CREATE FUNCTION by_sql() RETURNS void LANGUAGE sql AS $$ CALL purge_tenant('{id}') $$;
             CREATE FUNCTION expired() RETURNS int LANGUAGE plpgsql AS $$ BEGIN CALL purge_expired_tenants(); RETURN 1; END $$"
        ))
        .expect("create the callers");
    let mut admin = database.connect("admin");
    for call in [
        format!("BEGIN; CALL purge_tenant('{id}')"),
        "BEGIN; CALL purge_expired_tenants()".to_owned(),
        format!("BEGIN; DO $$ BEGIN CALL purge_tenant('{id}'); END $$"),
        "BEGIN; CALL by_procedure()".to_owned(),
        format!("BEGIN; SAVEPOINT s; CALL purge_tenant('{id}')"),
        // Several statements in one message are one transaction.
        format!("SELECT 1; CALL purge_tenant('{id}'); SELECT 1"),
        "SELECT by_function()".to_owned(),
        "SELECT by_sql()".to_owned(),
        "SELECT expired()".to_owned(),
        "CALL by_definer()".to_owned(),
        "CALL by_setting()".to_owned(),
        "DO $$ BEGIN PERFORM by_function(); END $$".to_owned(),
    ] {
        let error = admin.batch_execute(&call).err();
        let code = error.as_ref().and_then(|error| error.code()).map(|code| code.code().to_owned());
        assert_eq!(code.as_deref(), Some("25001"), "{call}: {error:?}");
        admin.batch_execute("ROLLBACK").expect("roll back");
        assert_eq!(count(&mut superuser, "notes"), 1, "{call}");
        assert!(exists(&mut superuser, id), "{call}");
    }
    assert_eq!(count(&mut superuser, "tenancy.audit_log WHERE action LIKE 'tenant.purge%'"), 0);
}

/// PostgreSQL cannot commit inside an exception block: an error, and the session goes on.
#[test]
fn a_purge_inside_an_exception_block_fails_and_hurts_nobody() {
    let (database, ids) = noted("exception", 1);
    delete(&mut database.connect("operator"), ids[0]);
    let mut admin = database.connect("admin");
    let block = format!(
        "DO $$ BEGIN BEGIN CALL purge_tenant('{}'); EXCEPTION WHEN division_by_zero THEN NULL; END; END $$",
        ids[0]
    );
    for _ in 0..3 {
        assert!(admin.batch_execute(&block).is_err());
        assert_eq!(one::<i32>(&mut admin, "SELECT 1", &[]), 1);
    }
    purge(&mut admin, ids[0]).expect("purge in the same session");
    assert_eq!(count(&mut database.superuser(), "notes"), 0);
}

/// Outside a transaction block a DO block or a procedure may call it, as any procedure that commits.
#[test]
fn a_purge_from_a_procedure_outside_a_transaction_goes_through() {
    let (database, ids) = noted("nested", 3);
    let mut operator = database.connect("operator");
    for id in &ids[..2] {
        delete(&mut operator, *id);
    }
    let mut admin = database.connect("admin");
    admin
        .batch_execute(&format!("DO $$ BEGIN CALL purge_tenant('{}'); CALL purge_tenant('{}'); END $$", ids[0], ids[1]))
        .expect("purge two in a DO block");
    let mut superuser = database.superuser();
    assert_eq!(count(&mut superuser, "notes"), 1);
    assert_eq!(count(&mut superuser, "tenancy.tenants"), 1);
}

// ---------------------------------------------------------------------------------------------- failures

#[test]
fn a_purge_that_failed_in_the_middle_goes_on_when_called_again() {
    let (database, ids) = noted("failed", 3);
    let id = ids[0];
    let mut superuser = database.superuser();
    database
        .connect("owner")
        .batch_execute("CREATE TABLE extra (tenant_id uuid, note bigint REFERENCES notes)")
        .expect("create a table that refers to notes");
    let mut admin = database.connect("admin");
    admin.batch_execute("SELECT protect_table('extra')").expect("protect");
    superuser
        .batch_execute(
            "INSERT INTO extra SELECT tenant_id, id FROM notes;
             CREATE TABLE outside (note bigint REFERENCES notes);
             INSERT INTO outside SELECT id FROM notes",
        )
        .expect("refer to the notes from a table that is not protected");
    let untouched = others(&mut superuser, id);
    let mut operator = database.connect("operator");
    delete(&mut operator, id);
    for _ in 0..2 {
        let fault = fails(purge(&mut admin, id), "23503");
        assert!(fault.message().contains("on table \"outside\""), "{fault:?}");
        assert_eq!(others(&mut superuser, id), untouched);
        assert!(exists(&mut superuser, id));
    }
    let fault = fails(operator.execute("SELECT restore_tenant($1)", &[&id]), "55000");
    assert!(fault.message().contains("purge"), "{fault}");
    for call in ["delete_tenant($1)", "suspend_tenant($1)", "resume_tenant($1)", "cancel_tenant($1)"] {
        fails(operator.execute(&format!("SELECT {call}"), &[&id]), "55000");
    }
    fails(database.connect("app").query("SELECT set_tenant($1)", &[&id]), "42501");
    superuser.batch_execute("DELETE FROM outside").expect("remove the reference");
    purge(&mut admin, id).expect("go on");
    assert!(!exists(&mut superuser, id));
    assert_eq!(counts(&mut superuser, id), BTreeMap::new());
    assert_eq!(others(&mut superuser, id), untouched);
    assert_eq!(count(&mut superuser, "tenancy.audit_log WHERE action = 'tenant.purged'"), 1);
}

/// The log would otherwise say less than what was removed.
#[test]
fn a_purge_that_goes_on_reports_what_it_removed_before() {
    let (database, ids) = noted("total", 1);
    let mut superuser = database.superuser();
    let mut admin = database.connect("admin");
    database.connect("owner").batch_execute("CREATE TABLE kept (tenant_id uuid, n int)").expect("create a table");
    admin.batch_execute("SELECT protect_table('kept')").expect("protect");
    superuser
        .execute("INSERT INTO notes (tenant_id) SELECT $1 FROM generate_series(1, 25000)", &[&ids[0]])
        .expect("insert");
    superuser.execute("INSERT INTO kept VALUES ($1, 1)", &[&ids[0]]).expect("insert");
    let rule = "CREATE RULE keep AS ON DELETE TO kept DO INSTEAD NOTHING";
    database.connect("owner").batch_execute(rule).expect("create a rule");
    delete(&mut database.connect("operator"), ids[0]);
    fails(purge(&mut admin, ids[0]), "55000");
    assert!(count(&mut superuser, "notes") < 25_001, "some batches are gone for good");
    database.connect("owner").batch_execute("DROP RULE keep ON kept").expect("clear the way");
    purge(&mut admin, ids[0]).expect("go on");
    let total = BTreeMap::from([("public.kept".to_owned(), 1), ("public.notes".to_owned(), 25_001)]);
    assert_eq!(audited(&mut superuser, ids[0]), total);
}

#[test]
fn what_keeps_rows_is_named() {
    for (label, obstacle) in [
        (
            "soft_delete",
            "CREATE FUNCTION soft() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
             CREATE TRIGGER soft BEFORE DELETE ON notes FOR EACH ROW EXECUTE FUNCTION soft()",
        ),
        (
            "soft_update",
            "CREATE FUNCTION soft() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN UPDATE public.notes SET body = 'gone' WHERE id = OLD.id; RETURN NULL; END $$;
             CREATE TRIGGER soft BEFORE DELETE ON notes FOR EACH ROW EXECUTE FUNCTION soft()",
        ),
        ("rule", "CREATE RULE keep AS ON DELETE TO notes DO INSTEAD NOTHING"),
        ("policy", "CREATE POLICY keep ON notes AS RESTRICTIVE FOR DELETE USING (false)"),
        (
            "zombie",
            "CREATE FUNCTION zombie() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN INSERT INTO public.notes (body) VALUES (OLD.body); RETURN OLD; END $$;
             CREATE TRIGGER zombie AFTER DELETE ON notes FOR EACH ROW EXECUTE FUNCTION zombie()",
        ),
    ] {
        let (database, ids) = noted(label, 2);
        database.connect("owner").batch_execute(obstacle).expect("put an obstacle in the way");
        delete(&mut database.connect("operator"), ids[0]);
        let mut admin = database.connect("admin");
        let fault = fails(purge(&mut admin, ids[0]), "55000");
        assert!(fault.message().contains("public.notes"), "{label}: {fault}");
        let mut superuser = database.superuser();
        assert!(exists(&mut superuser, ids[0]), "{label}");
        assert_eq!(count(&mut superuser, "notes"), 2, "{label}");
        superuser
            .batch_execute(
                "DROP TRIGGER IF EXISTS soft ON notes; DROP TRIGGER IF EXISTS zombie ON notes;
                 DROP RULE IF EXISTS keep ON notes; DROP POLICY IF EXISTS keep ON notes",
            )
            .expect("clear the way");
        purge(&mut admin, ids[0]).expect("go on");
        assert_eq!(count(&mut superuser, "notes"), 1, "{label}");
    }
}

#[test]
fn tables_in_a_circle_with_different_owners_are_named() {
    let database = Database::new("two_owners");
    let mut superuser = database.superuser();
    superuser
        .batch_execute(
            "CREATE TABLE hens (tenant_id uuid, id int, egg int, PRIMARY KEY (tenant_id, id));
             CREATE TABLE eggs (tenant_id uuid, id int, hen int, PRIMARY KEY (tenant_id, id),
                FOREIGN KEY (tenant_id, hen) REFERENCES hens);
             ALTER TABLE hens ADD FOREIGN KEY (tenant_id, egg) REFERENCES eggs;
             ALTER TABLE hens OWNER TO owner; ALTER TABLE eggs OWNER TO stranger",
        )
        .expect("create a circle");
    let mut admin = database.connect("admin");
    admin.batch_execute("SELECT protect_table('hens'); SELECT protect_table('eggs')").expect("protect");
    let id = tenant(&mut database.connect("operator"));
    superuser
        .batch_execute(&format!(
            "INSERT INTO hens VALUES ('{id}', 1, NULL); INSERT INTO eggs VALUES ('{id}', 1, 1); UPDATE hens SET egg = 1"
        ))
        .expect("insert");
    delete(&mut database.connect("operator"), id);
    let fault = fails(purge(&mut admin, id), "55000");
    assert!(fault.message().contains("hens") && fault.message().contains("eggs"), "{fault}");
    superuser.batch_execute("ALTER TABLE eggs OWNER TO owner").expect("one owner");
    purge(&mut admin, id).expect("go on");
    assert_eq!(count(&mut superuser, "hens"), 0);
    assert_eq!(count(&mut superuser, "eggs"), 0);
}

/// What fails at commit fails no less clearly.
#[test]
fn a_reference_that_is_checked_at_commit_stops_the_purge_of_its_tenant_only() {
    let (database, ids) = noted("deferred", 3);
    let mut superuser = database.superuser();
    superuser
        .batch_execute(
            "CREATE TABLE invoices_of_ours (tenant uuid REFERENCES tenancy.tenants DEFERRABLE INITIALLY DEFERRED)",
        )
        .expect("create a table");
    superuser.execute("INSERT INTO invoices_of_ours VALUES ($1)", &[&ids[0]]).expect("insert");
    let mut operator = database.connect("operator");
    for id in &ids[..2] {
        delete(&mut operator, *id);
    }
    let (mut admin, notices) = database.connect_with_notices("admin");
    let fault = fails(purge(&mut admin, ids[0]), "23503");
    assert!(fault.message().contains("on table \"invoices_of_ours\""), "{fault:?}");
    assert!(exists(&mut superuser, ids[0]));
    admin.batch_execute("CALL purge_expired_tenants()").expect("one cannot be purged, the other can");
    assert!(notices.contains(&ids[0].to_string()), "{:?}", notices.messages());
    assert!(exists(&mut superuser, ids[0]));
    assert!(!exists(&mut superuser, ids[1]));
    superuser.batch_execute("DELETE FROM invoices_of_ours").expect("remove the reference");
    admin.batch_execute("CALL purge_expired_tenants()").expect("go on");
    assert!(!exists(&mut superuser, ids[0]));
    assert_eq!(count(&mut superuser, "notes"), 1);
}

#[test]
fn purging_the_expired_goes_on_after_one_fails() {
    let (database, ids) = noted("expired", 6);
    let (bad, kept) = (ids[1], ids[5]);
    database
        .connect("owner")
        .batch_execute(&format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF OLD.tenant_id = '{bad}' THEN RAISE EXCEPTION 'not this one'; END IF;
                IF OLD.tenant_id = '{}' THEN RETURN NULL; END IF;
                RETURN OLD;
             END $$;
             CREATE TRIGGER refuse BEFORE DELETE ON notes FOR EACH ROW EXECUTE FUNCTION refuse()",
            ids[3]
        ))
        .expect("create a trigger that refuses two tenants");
    let mut operator = database.connect("operator");
    for id in &ids[..5] {
        delete(&mut operator, *id);
    }
    let (mut admin, notices) = database.connect_with_notices("admin");
    admin.batch_execute("CALL purge_expired_tenants()").expect("purge");
    let mut superuser = database.superuser();
    let left: Vec<Uuid> =
        rows(&mut superuser, "SELECT id FROM tenancy.tenants", &[]).iter().map(|row| row.get(0)).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    for id in [bad, ids[3], kept] {
        assert!(left.contains(&id));
    }
    let messages = notices.messages();
    for (id, reason) in [(bad, "not this one"), (ids[3], "public.notes")] {
        let id = id.to_string();
        assert!(messages.iter().any(|message| message.contains(&id) && message.contains(reason)), "{messages:?}");
    }
    assert_eq!(count(&mut superuser, "notes"), 3);
    database.connect("owner").batch_execute("DROP TRIGGER refuse ON notes").expect("clear the way");
    admin.batch_execute("CALL purge_expired_tenants()").expect("go on in the same session");
    assert_eq!(count(&mut superuser, "tenancy.tenants"), 1);
    assert_eq!(count(&mut superuser, "notes"), 1);
}

// ---------------------------------------------------------------------------------------------- at once

/// The first is held up by a row that someone has locked; the second one comes meanwhile.
#[test]
fn two_purges_of_one_tenant_do_its_work_once() {
    let database = Database::new("two_purges");
    protected_table(&database);
    let mut operator = database.connect("operator");
    let mut superuser = database.superuser();
    let ids = tenants(&mut operator, 2);
    let insert = "INSERT INTO notes (tenant_id, body) SELECT $1, n::text FROM generate_series(1, 12000) n";
    for id in &ids {
        superuser.execute(insert, &[id]).expect("insert");
    }
    delete(&mut operator, ids[0]);
    let mut blocker = database.superuser();
    blocker
        .batch_execute(&format!(
            "BEGIN; SELECT FROM notes WHERE tenant_id = '{}' AND body = '11000' FOR UPDATE",
            ids[0]
        ))
        .expect("lock a row of the second batch");
    let mut first = database.connect("admin");
    let mut second = database.connect("admin");
    let pids = [backend_pid(&mut first), backend_pid(&mut second)];
    const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'";
    let results = std::thread::scope(|scope| {
        let first = scope.spawn(|| purge(&mut first, ids[0]));
        wait_until("the first purge waits", || one::<i64>(&mut superuser, WAITING, &[&pids[0]]) == 1);
        let second = scope.spawn(|| purge(&mut second, ids[0]));
        wait_until("the second purge waits or has given up", || {
            second.is_finished() || one::<i64>(&mut superuser, WAITING, &[&pids[1]]) == 1
        });
        blocker.batch_execute("ROLLBACK").expect("let them go on");
        [first.join().expect("the first purge"), second.join().expect("the second purge")]
    });
    for result in &results {
        if let Err(error) = result {
            let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
            assert!(["55000", "P0002"].contains(&code.as_str()), "{error:?}");
        }
    }
    assert!(results.iter().any(Result::is_ok), "{results:?}");
    assert!(!exists(&mut superuser, ids[0]));
    assert_eq!(audited(&mut superuser, ids[0]), BTreeMap::from([("public.notes".to_owned(), 12_000)]));
    assert_eq!(count(&mut superuser, "notes"), 12_000);
}

#[test]
fn a_writer_that_bound_before_a_purge_writes_nothing_after_it() {
    let (database, ids) = noted("late_writer", 2);
    let mut operator = database.connect("operator");
    let mut admin = database.connect("admin");
    let mut apps = [database.connect("app"), database.connect("app")];
    let [deleted, purged] = &mut apps;
    let mut deleted = deleted.transaction().expect("begin");
    bind(&mut deleted, ids[0]);
    let mut purged = purged.transaction().expect("begin");
    bind(&mut purged, ids[0]);
    delete(&mut operator, ids[0]);
    fails(deleted.execute("INSERT INTO notes (body) VALUES ('late')", &[]), "42501");
    purge(&mut admin, ids[0]).expect("purge without waiting for a reader");
    assert_eq!(count(&mut purged, "notes"), 0);
    let error = purged.execute("INSERT INTO notes (body) VALUES ('late')", &[]).expect_err("too late");
    let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
    assert!(["42501", "P0002"].contains(&code.as_str()), "{error:?}");
    deleted.rollback().expect("roll back");
    purged.rollback().expect("roll back");
    assert_eq!(count(&mut database.superuser(), "notes"), 1);
}

/// Whatever isolation level the administrator's sessions have by default.
#[test]
fn a_purge_works_at_every_isolation_level() {
    let (database, ids) = noted("levels", 3);
    let mut operator = database.connect("operator");
    let mut admin = database.connect("admin");
    for (id, level) in ids.iter().zip(["read committed", "repeatable read", "serializable"]) {
        delete(&mut operator, *id);
        admin.batch_execute(&format!("SET default_transaction_isolation = '{level}'")).expect("set the level");
        purge(&mut admin, *id).unwrap_or_else(|error| panic!("{level}: {error:?}"));
    }
    assert_eq!(count(&mut database.superuser(), "notes"), 0);
}

// ---------------------------------------------------------------------------------------------- hostile owners

/// What an owner would do if its code ran as a superuser: it tries all of it, and writes down as whom it ran.
const ATTACK: &str = r#"
CREATE TABLE seen (who text, as_superuser boolean, place text);
CREATE FUNCTION attack(place text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $f$
DECLARE
    command text;
BEGIN
    INSERT INTO public.seen SELECT current_user, rolsuper, place FROM pg_catalog.pg_roles WHERE rolname = current_user;
    FOREACH command IN ARRAY ARRAY[
        'ALTER ROLE owner SUPERUSER', 'ALTER ROLE stranger BYPASSRLS', 'GRANT admin TO owner', 'RESET ROLE', 'SET ROLE postgres',
        'SET SESSION AUTHORIZATION postgres', 'RESET SESSION AUTHORIZATION', 'SET LOCAL ROLE postgres',
        'INSERT INTO public.treasure VALUES (''stolen'')', 'UPDATE tenancy.tenants SET status = ''active''',
        'DELETE FROM tenancy.audit_log', 'SELECT grant_access(''owner'', ''admin'')', 'COPY public.seen TO PROGRAM ''true''',
        'CREATE TEMPORARY TABLE notes (id int)', 'PREPARE evil AS SELECT 1', 'LISTEN evil', 'SELECT clear_tenant()',
        'DECLARE evil CURSOR WITH HOLD FOR SELECT attack(''cursor'')',
        'SET tenancy.allow_bypass = on', 'SET session_replication_role = replica', 'SET tenancy.allow_rebind = on'
    ] LOOP
        BEGIN
            EXECUTE command;
            INSERT INTO public.seen VALUES (current_user, NULL, 'did: ' || command);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
    RETURN true;
END $f$;
-- An immutable function may not write, but may call what does.
CREATE FUNCTION innocent(x text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    $f$ DECLARE yes boolean; BEGIN SELECT public.attack(x) INTO yes; RETURN yes; END $f$;
CREATE FUNCTION attack_trigger() RETURNS trigger LANGUAGE plpgsql AS
    $f$ BEGIN PERFORM public.attack(TG_WHEN || ' ' || TG_LEVEL || ' ' || TG_NAME); RETURN OLD; END $f$;
"#;

/// Puts the attack wherever the owner's code may run.
const TRAPS: &str = r#"
CREATE TRIGGER before_row BEFORE DELETE ON notes FOR EACH ROW EXECUTE FUNCTION attack_trigger();
CREATE TRIGGER after_row AFTER DELETE ON notes FOR EACH ROW EXECUTE FUNCTION attack_trigger();
CREATE TRIGGER before_statement BEFORE DELETE ON notes FOR EACH STATEMENT EXECUTE FUNCTION attack_trigger();
CREATE TRIGGER after_statement AFTER DELETE ON notes FOR EACH STATEMENT EXECUTE FUNCTION attack_trigger();
CREATE CONSTRAINT TRIGGER deferred AFTER DELETE ON notes DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION attack_trigger();
CREATE RULE also AS ON DELETE TO notes DO ALSO SELECT attack('rule');
CREATE DOMAIN trap AS text DEFAULT (attack('domain default'))::text CHECK (attack('domain check'));
CREATE TABLE deleted_notes (tenant_id uuid, body trap, extra boolean DEFAULT attack('default'),
    CHECK (innocent('check')), CHECK (innocent(body)));
CREATE INDEX ON deleted_notes ((innocent(body)));
CREATE INDEX ON deleted_notes (tenant_id) WHERE innocent('predicate');
CREATE INDEX ON notes ((innocent(body)));
CREATE INDEX ON notes (tenant_id) WHERE innocent('predicate of notes');
ALTER TABLE notes ADD CHECK (innocent('check of notes')) NOT VALID;
CREATE POLICY trap ON notes AS RESTRICTIVE USING (attack('policy'));
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
    $f$ BEGIN INSERT INTO public.deleted_notes (tenant_id, body) VALUES (OLD.tenant_id, OLD.body); RETURN OLD; END $f$;
CREATE TRIGGER keep AFTER DELETE ON notes FOR EACH ROW EXECUTE FUNCTION keep();
"#;

/// What of the catalog an attack would change.
fn valuables(superuser: &mut Client) -> Vec<Vec<Option<String>>> {
    simple(
        superuser,
        "SELECT rolname, rolsuper, rolbypassrls, rolcreaterole FROM pg_roles ORDER BY 1;
         SELECT member::regrole, roleid::regrole FROM pg_auth_members ORDER BY 1, 2;
         SELECT role, level FROM tenancy.access ORDER BY 1, 2;
         SELECT * FROM treasure;
         SELECT count(*) FROM tenancy.audit_log WHERE action = 'tenant.create'",
    )
}

/// A database whose owner has trapped the table notes in every way, and its tenants.
///
/// Roles belong to the whole cluster, hence one of its own. Until [`disarm`], no superuser may so much as read the
/// tables: planning alone runs the owner's functions as whoever plans.
fn trapped(label: &str) -> (Cluster, Database, Vec<Uuid>) {
    let cluster = Cluster::start(Options::new());
    let database = cluster.database(label);
    protected_table(&database);
    database.superuser().batch_execute("CREATE TABLE treasure (what text)").expect("create a superuser's table");
    let mut owner = database.connect("owner");
    owner.batch_execute(ATTACK).expect("arm");
    // While the traps are laid, their functions are innocent.
    owner
        .batch_execute("ALTER FUNCTION attack(text) RENAME TO attack_kept; CREATE FUNCTION attack(place text) RETURNS boolean LANGUAGE sql AS 'SELECT true'")
        .expect("hide");
    owner.batch_execute(TRAPS).expect("lay the traps");
    database.connect("admin").batch_execute("SELECT protect_table('deleted_notes')").expect("protect");
    let ids = tenants(&mut database.connect("operator"), 3);
    for id in &ids {
        as_tenant(&mut database.connect("app"), *id, |transaction| {
            transaction.execute("INSERT INTO notes (body) VALUES ('note')", &[]).expect("insert");
        });
    }
    owner
        .batch_execute(
            "DO $$ DECLARE source text; BEGIN
                SELECT pg_get_functiondef(oid) INTO source FROM pg_proc WHERE proname = 'attack_kept';
                EXECUTE replace(source, 'attack_kept', 'attack');
             END $$",
        )
        .expect("spring the traps");
    (cluster, database, ids)
}

/// Makes the owner's function harmless, so that the tables can be looked at.
fn disarm(database: &Database) {
    database
        .connect("owner")
        .batch_execute("CREATE OR REPLACE FUNCTION attack(place text) RETURNS boolean LANGUAGE sql AS 'SELECT true'")
        .expect("disarm");
}

/// What the owner's code left behind must be its own, and ordinary.
fn assert_nothing_gained(superuser: &mut Client, before: &[Vec<Option<String>>], places: &[&str]) {
    assert_eq!(valuables(superuser), before);
    let seen = simple(superuser, "SELECT DISTINCT who, as_superuser, place FROM seen WHERE place NOT LIKE 'did: %'");
    for row in &seen {
        assert_eq!(row[0].as_deref(), Some("owner"), "{row:?}");
        assert_eq!(row[1].as_deref(), Some("f"), "{row:?}");
    }
    for place in places {
        let ran = seen.iter().any(|row| row[2].as_deref().is_some_and(|seen| seen.contains(place)));
        assert!(ran, "the attack was tried at {place}: {seen:?}");
    }
    let done = simple(superuser, "SELECT DISTINCT place FROM seen WHERE place LIKE 'did: %'");
    assert_eq!(done, Vec::<Vec<_>>::new(), "the owner's code had its way");
}

#[test]
fn an_owners_code_gains_nothing_by_a_purge() {
    const PLACES: [&str; 11] = [
        "before_row",
        "after_row",
        "before_statement",
        "after_statement",
        "deferred",
        "rule",
        "domain check",
        "default",
        "check",
        "predicate",
        "policy",
    ];
    let (_cluster, database, ids) = trapped("hostile");
    let mut superuser = database.superuser();
    let mut operator = database.connect("operator");
    for id in &ids[..2] {
        delete(&mut operator, *id);
    }
    let before = valuables(&mut superuser);
    // The caller is a superuser: the most that there is to gain.
    purge(&mut superuser, ids[0]).expect("purge as superuser");
    superuser.batch_execute("CALL purge_expired_tenants()").expect("purge the other one");
    disarm(&database);
    assert_nothing_gained(&mut superuser, &before, &PLACES);
    for id in &ids[..2] {
        assert_eq!(counts(&mut superuser, *id), BTreeMap::new());
        assert!(!exists(&mut superuser, *id));
    }
    assert_eq!(count(&mut superuser, "notes"), 1);
    assert_eq!(
        simple(&mut superuser, "SELECT * FROM pg_prepared_statements WHERE name = 'evil'"),
        Vec::<Vec<_>>::new()
    );
    assert_eq!(simple(&mut superuser, "SELECT pg_listening_channels()"), Vec::<Vec<_>>::new());
}

#[test]
fn an_owners_trigger_cannot_put_its_work_off_until_the_purge_commits() {
    let (_cluster, database, ids) = trapped("put_off");
    database
        .connect("owner")
        .batch_execute(
            "CREATE FUNCTION put_off() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN SET CONSTRAINTS ALL DEFERRED; RETURN OLD; END $$;
             CREATE TRIGGER a_first BEFORE DELETE ON notes FOR EACH ROW EXECUTE FUNCTION put_off()",
        )
        .expect("create the trigger");
    delete(&mut database.connect("operator"), ids[0]);
    let mut superuser = database.superuser();
    let before = valuables(&mut superuser);
    let fault = fails(purge(&mut superuser, ids[0]), "42501");
    assert!(fault.message().contains("deferred trigger"), "{fault}");
    superuser.batch_execute("CALL purge_expired_tenants()").expect("goes on");
    assert!(exists(&mut superuser, ids[0]));
    disarm(&database);
    assert_nothing_gained(&mut superuser, &before, &[]);
    database.connect("owner").batch_execute("DROP TRIGGER a_first ON notes").expect("clear the way");
    purge(&mut superuser, ids[0]).expect("purge");
    assert_eq!(count(&mut superuser, "notes"), 2);
}

/// A later statement of the administrator would find its functions where the owner says.
#[test]
fn an_owners_trigger_leaves_no_setting_in_the_callers_session() {
    let (database, ids) = noted("settings", 3);
    database
        .connect("owner")
        .batch_execute(
            "CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                PERFORM set_config('search_path', 'evil, public', false);
                PERFORM set_config('statement_timeout', '250s', false);
                PERFORM set_config('default_transaction_read_only', 'on', false);
                SET SESSION work_mem = '64kB';
                SET LOCAL lock_timeout = '250s';
                RETURN OLD;
             END $$;
             CREATE TRIGGER change BEFORE DELETE ON notes FOR EACH ROW EXECUTE FUNCTION change()",
        )
        .expect("create the trigger");
    const SETTINGS: &str = "SELECT name, setting FROM pg_settings
        WHERE name IN ('search_path', 'statement_timeout', 'default_transaction_read_only', 'work_mem', 'lock_timeout')
        ORDER BY name";
    let mut operator = database.connect("operator");
    for id in &ids[..2] {
        delete(&mut operator, *id);
    }
    let mut superuser = database.superuser();
    let before = simple(&mut superuser, SETTINGS);
    let purged = purge(&mut superuser, ids[0]);
    assert_eq!(simple(&mut superuser, SETTINGS), before, "after {purged:?}");
    purged.expect("purge");
    superuser.batch_execute("CALL purge_expired_tenants()").expect("purge the other one");
    assert_eq!(simple(&mut superuser, SETTINGS), before);
}

#[test]
fn a_trigger_that_deletes_everything_deletes_the_tenants_rows_only() {
    let (database, ids) = noted("delete_all", 3);
    database
        .connect("owner")
        .batch_execute(
            "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY, tenant_id uuid, body text);
             CREATE FUNCTION sweep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                DELETE FROM public.orders; UPDATE public.orders SET body = 'changed'; RETURN NULL;
             END $$;
             CREATE TRIGGER sweep AFTER DELETE ON notes FOR EACH STATEMENT EXECUTE FUNCTION sweep();
             CREATE TABLE copies (tenant_id uuid, other uuid);
             CREATE FUNCTION smuggle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO public.copies SELECT tenant_id, tenant_id FROM public.orders; RETURN OLD;
             END $$;
             CREATE TRIGGER smuggle BEFORE DELETE ON notes FOR EACH ROW EXECUTE FUNCTION smuggle()",
        )
        .expect("create the triggers");
    let mut admin = database.connect("admin");
    admin.batch_execute("SELECT protect_table('orders')").expect("protect");
    let mut superuser = database.superuser();
    for id in &ids {
        let insert = "INSERT INTO orders (tenant_id, body) SELECT $1, n::text FROM generate_series(1, 10) n";
        superuser.execute(insert, &[id]).expect("insert");
    }
    let untouched = others(&mut superuser, ids[0]);
    delete(&mut database.connect("operator"), ids[0]);
    purge(&mut admin, ids[0]).expect("purge");
    assert_eq!(others(&mut superuser, ids[0]), untouched);
    assert_eq!(counts(&mut superuser, ids[0]), BTreeMap::new());
    let strangers = format!("copies WHERE tenant_id <> '{}'", ids[0]);
    assert_eq!(count(&mut superuser, &strangers), 0, "the trigger saw the purged tenant's rows only");
}

#[test]
fn a_trigger_cannot_move_rows_to_another_tenant() {
    let (database, ids) = noted("smuggle", 2);
    database
        .connect("owner")
        .batch_execute(&format!(
            "CREATE FUNCTION smuggle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO public.notes (tenant_id, body) VALUES ('{}', OLD.body); RETURN OLD;
             END $$;
             CREATE TRIGGER smuggle BEFORE DELETE ON notes FOR EACH ROW EXECUTE FUNCTION smuggle()",
            ids[1]
        ))
        .expect("create the trigger");
    delete(&mut database.connect("operator"), ids[0]);
    let mut admin = database.connect("admin");
    fails(purge(&mut admin, ids[0]), "42501");
    admin.batch_execute("CALL purge_expired_tenants()").expect("goes on");
    let mut superuser = database.superuser();
    assert_eq!(count(&mut superuser, &format!("notes WHERE tenant_id = '{}'", ids[1])), 1);
    assert_eq!(count(&mut superuser, &format!("notes WHERE tenant_id = '{}'", ids[0])), 1);
    assert_eq!(simple(&mut admin, "SELECT current_tenant_or_null()"), [[None]]);
}

#[test]
fn a_purge_leaves_no_tenant_bound() {
    let (database, ids) = noted("unbound", 2);
    delete(&mut database.connect("operator"), ids[0]);
    let mut admin = database.connect("admin");
    purge(&mut admin, ids[0]).expect("purge");
    assert_eq!(simple(&mut admin, "SELECT current_tenant_or_null(), current_user"), [[None, Some("admin".to_owned())]]);
    assert_eq!(count(&mut database.connect("monitor"), "tenancy.activity WHERE tenant_id IS NOT NULL AND pid = 0"), 0);
    as_tenant(&mut admin, ids[1], |transaction| {
        assert_eq!(one::<Uuid>(transaction, "SELECT current_tenant()", &[]), ids[1]);
    });
}

// ---------------------------------------------------------------------------------------------- schemas of tenants

/// One tenant's schema cannot be dropped, another's rows can: each failure is its own, and both can be gone on with.
#[test]
fn purging_the_expired_goes_on_past_a_schema_that_others_depend_on() {
    let house = House::new("purge_schemas");
    protected_table(&house.database);
    let tenants = ["a", "b", "c"].map(|slug| house.tenant(slug));
    for tenant in tenants {
        as_tenant(&mut house.connect("app"), tenant, |transaction| {
            let fill = "INSERT INTO accounts (name) VALUES ('x'); INSERT INTO public.notes (body) VALUES ('x')";
            transaction.batch_execute(fill).expect("fill");
        });
        delete(&mut house.connect("operator"), tenant);
    }
    let mut superuser = house.superuser();
    superuser.batch_execute("CREATE VIEW public.seen AS SELECT name FROM of_b.accounts").expect("a view");
    let (mut admin, notices) = house.database.connect_with_notices("admin");
    admin.batch_execute("CALL purge_expired_tenants()").expect("purge");
    assert!(notices.contains("was not purged") && notices.contains("of_b"), "{:?}", notices.messages());
    assert!(
        exists(&mut superuser, tenants[1])
            && !exists(&mut superuser, tenants[0])
            && !exists(&mut superuser, tenants[2])
    );
    let left = "SELECT string_agg(nspname, ' ') FROM pg_namespace WHERE nspname LIKE 'of\\_%'";
    assert_eq!(one::<String>(&mut superuser, left, &[]), "of_b");
    assert_eq!(count(&mut superuser, "public.seen"), 1);
    assert_eq!(count(&mut superuser, "notes"), 1, "nothing of a tenant goes before its schema");
    fails(house.connect("operator").query("SELECT restore_tenant($1)", &[&tenants[1]]), "55000");
    superuser.batch_execute("DROP VIEW public.seen").expect("drop the view");
    admin.batch_execute("CALL purge_expired_tenants()").expect("purge");
    assert_eq!(count(&mut superuser, "tenancy.tenants"), 0);
    assert_eq!(count(&mut superuser, "notes"), 0);
    assert_eq!(one::<Option<String>>(&mut superuser, left, &[]), None);
    house.assert_legal();
}

/// The schema is dropped by the product, and none of the code in it runs.
#[test]
fn a_purge_runs_no_code_of_the_tenants_schema() {
    let house = House::new("purge_trapped");
    let tenant = house.tenant("a");
    let mut superuser = house.superuser();
    superuser
        .batch_execute(
            "CREATE TABLE public.ran (who text); GRANT INSERT ON public.ran TO PUBLIC;
             CREATE FUNCTION of_a.trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.ran VALUES (current_user); RETURN NULL; END $$;
             CREATE TRIGGER row BEFORE DELETE ON of_a.accounts FOR EACH ROW EXECUTE FUNCTION of_a.trap();
             CREATE TRIGGER statement BEFORE DELETE ON of_a.accounts EXECUTE FUNCTION of_a.trap();
             CREATE TRIGGER emptied BEFORE TRUNCATE ON of_a.accounts EXECUTE FUNCTION of_a.trap();
             CREATE RULE gone AS ON DELETE TO of_a.entries DO ALSO INSERT INTO public.ran VALUES ('rule');
             INSERT INTO of_a.accounts (name) VALUES ('x')",
        )
        .expect("traps");
    delete(&mut house.connect("operator"), tenant);
    purge(&mut house.connect("admin"), tenant).expect("purge");
    assert_eq!(count(&mut superuser, "public.ran"), 0);
    assert_eq!(count(&mut superuser, "pg_namespace WHERE nspname = 'of_a'"), 0);
    assert_eq!(count(&mut superuser, "tenancy.audit_log WHERE action = 'tenant.purged'"), 1);
}
