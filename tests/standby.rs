//! On a streaming hot standby credentials are checked and data is read as on the primary, and nothing is written.

use crate::access::fixtures::{ApiKey, api_key, attempt, bind_by_key, member, signing_key, token};
use crate::schema::arguments;
use harness::postgres::{IsolationLevel, NoTls};
use harness::{
    Client, Cluster, Database, GenericClient, Options, Uuid, as_tenant, bind, count, fails, one, optional,
    protected_table, rows, simple, tenant, tenants, wait_until,
};

/// A primary with a database, and its standby.
struct Pair {
    // Dropped in this order: the standby first.
    standby: Cluster,
    database: Database,
    primary: Cluster,
}

impl Pair {
    /// `prepare` works on the primary before the standby is made.
    fn new(label: &str, prepare: impl FnOnce(&Database)) -> Pair {
        let primary = Cluster::start(Options::new());
        let database = primary.database(label);
        prepare(&database);
        let standby = primary.standby();
        standby.catch_up_with(&primary);
        Pair { standby, database, primary }
    }

    /// A session on the standby.
    fn connect(&self, role: &str) -> Client {
        let config = self.standby.server().config(self.database.name(), role);
        config.connect(NoTls).unwrap_or_else(|error| panic!("cannot connect to the standby as {role}: {error:?}"))
    }

    fn catch_up(&self) {
        self.standby.catch_up_with(&self.primary);
    }
}

fn is_valid(client: &mut impl GenericClient, key: &str) -> bool {
    optional::<Uuid>(client, "SELECT key_id FROM verify_api_key($1)", &[&key]).is_some()
}

/// A tenant with a member who is an owner, their key and a token, and a row of the table notes.
struct Residents {
    tenant: Uuid,
    user: Uuid,
    key: ApiKey,
    token: String,
}

impl Residents {
    fn new(database: &Database) -> Residents {
        let tenant = tenant(&mut database.connect("operator"));
        let mut app = database.connect("app");
        let user = member(&mut app, tenant, "owner");
        let key = api_key(&mut app, tenant, Some(user), &["a:*"]);
        let token = token(&mut app, tenant, user);
        as_tenant(&mut app, tenant, |tx| {
            tx.execute("INSERT INTO notes (body) VALUES ($1)", &[&tenant.to_string()]).expect("insert")
        });
        Residents { tenant, user, key, token }
    }
}

fn furnish(database: &Database) -> [Residents; 2] {
    protected_table(database);
    signing_key(&mut database.connect("admin"), "first");
    [Residents::new(database), Residents::new(database)]
}

#[test]
fn a_standby_checks_credentials_and_reads_and_writes_nothing() {
    let mut residents = None;
    let pair = Pair::new("standby", |database| residents = Some(furnish(database)));
    let [ours, theirs] = residents.expect("furnished");
    let mut client = pair.connect("client");
    assert!(one::<bool>(&mut client, "SELECT pg_is_in_recovery()", &[]));
    const VERIFIED: &str =
        "SELECT (tenant_id, key_id, user_id, scopes) = ($2, $3, $4, '{a:*}') FROM verify_api_key($1)";
    assert!(one::<bool>(&mut client, VERIFIED, &[&ours.key.text, &ours.tenant, &ours.key.id, &ours.user]));
    for round in 0..3 {
        for (own, other) in [(&ours, &theirs), (&theirs, &ours)] {
            let mut transaction = client.transaction().expect("begin");
            if round == 1 {
                let authenticated = "SELECT tenant_id FROM authenticate_jwt($1)";
                assert_eq!(one::<Uuid>(&mut transaction, authenticated, &[&own.token]), own.tenant);
            } else {
                assert_eq!(bind_by_key(&mut transaction, &own.key.text).as_deref(), Some("owner"));
                assert!(one::<bool>(&mut transaction, "SELECT has_scope('a:b') AND NOT has_scope('b')", &[]));
            }
            assert_eq!(one::<Uuid>(&mut transaction, "SELECT current_tenant()", &[]), own.tenant);
            assert_eq!(one::<Option<Uuid>>(&mut transaction, "SELECT current_user_id()", &[]), Some(own.user));
            assert!(one::<bool>(&mut transaction, "SELECT has_role('owner')", &[]));
            assert_eq!(one::<String>(&mut transaction, "SELECT body FROM notes", &[]), own.tenant.to_string());
            assert_eq!(one::<Uuid>(&mut transaction, "SELECT id FROM tenancy.api_keys", &[]), own.key.id);
            assert_eq!(one::<Uuid>(&mut transaction, "SELECT user_id FROM tenancy.members", &[]), own.user);
            assert_eq!(count(&mut transaction, "tenancy.tenants"), 1);
            fails(transaction.query("SELECT authenticate_api_key($1)", &[&other.key.text]), "55000");
        }
    }
    assert!(rows(&mut client, "SELECT FROM verify_api_key($1)", &[&ours.key.text.replace("ptk_", "ptk_x")]).is_empty());
    fails(client.query("SELECT authenticate_jwt($1)", &[&ours.token.replacen('.', ".e", 1)]), "28000");
    fails(client.batch_execute("SELECT * FROM notes"), "42501");
    assert!(count(&mut pair.connect("monitor"), "tenancy.failed_attempts") >= 1);
    reads_of_an_app(&mut pair.connect("app"), &ours);
    writes_fail(&pair, &ours);
    // A standby notes no use; the primary does.
    const USED: &str = "SELECT last_used_at IS NOT NULL FROM tenancy.api_key_usage WHERE key_id = $1";
    assert!(!one::<bool>(&mut pair.database.superuser(), USED, &[&ours.key.id]));
    assert!(is_valid(&mut pair.database.connect("client"), &ours.key.text));
    assert!(one::<bool>(&mut pair.database.superuser(), USED, &[&ours.key.id]));
    pair.catch_up();
    assert!(one::<bool>(&mut pair.connect("postgres"), USED, &[&ours.key.id]));
}

fn reads_of_an_app(app: &mut Client, ours: &Residents) {
    as_tenant(app, ours.tenant, |tx| {
        assert_eq!(count(tx, "notes"), 1);
        assert_eq!(count(tx, "tenancy.members"), 1);
    });
    let email: String = as_tenant(app, ours.tenant, |tx| one(tx, "SELECT email FROM tenancy.members", &[]));
    assert_eq!(one::<Uuid>(app, "SELECT find_user($1)", &[&email]), ours.user);
    assert_eq!(one::<Uuid>(app, "SELECT tenant_id FROM user_tenants($1)", &[&ours.user]), ours.tenant);
    let mut transaction = app.transaction().expect("begin");
    rows(&mut transaction, "SELECT set_tenant($1, $2)", &[&ours.tenant, &ours.user]);
    assert!(one::<bool>(&mut transaction, "SELECT require_role('admin')", &[]));
}

/// Each write fails as PostgreSQL's own would, and the session goes on.
fn writes_fail(pair: &Pair, ours: &Residents) {
    let mut admin = pair.connect("admin");
    let bound = [
        "INSERT INTO notes (body) VALUES ('x')".to_owned(),
        "SELECT create_api_key('x')".to_owned(),
        format!("SELECT rotate_api_key('{}')", ours.key.id),
        format!("SELECT revoke_api_key('{}')", ours.key.id),
        format!("SELECT change_role('{}', 'viewer')", ours.user),
        format!("SELECT remove_member('{}')", ours.user),
        "SELECT create_invitation('x@example.com')".to_owned(),
        "SELECT create_user('x@example.com')".to_owned(),
        format!("SELECT revoke_tokens('{}')", ours.user),
    ];
    let mut app = pair.connect("app");
    for write in &bound {
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, ours.tenant);
        fails(transaction.batch_execute(write), "25006");
    }
    let unbound = [
        format!("SELECT suspend_tenant('{}')", ours.tenant),
        "SELECT create_tenant('x')".to_owned(),
        "SELECT add_jwt_key('second', 'HS256')".to_owned(),
        "SELECT remove_jwt_key('first')".to_owned(),
        "SELECT add_role('manager', 70)".to_owned(),
    ];
    for write in &unbound {
        fails(admin.batch_execute(write), "25006");
        assert_eq!(one::<i32>(&mut admin, "SELECT 1", &[]), 1, "the session goes on");
    }
}

#[test]
fn what_ends_on_the_primary_ends_on_its_standby() {
    let pair = Pair::new("standby_end", |database| {
        protected_table(database);
        signing_key(&mut database.connect("admin"), "first");
    });
    let database = &pair.database;
    let (mut app, mut operator) = (database.connect("app"), database.connect("operator"));
    let residents: Vec<Residents> = (0..4).map(|_| Residents::new(database)).collect();
    let [revoked, removed, suspended, unsigned] = &residents[..] else { panic!("four tenants") };
    pair.catch_up();
    let mut client = pair.connect("client");
    // One that reads all the while, with the oldest of snapshots.
    let mut reader = pair.connect("client");
    let mut long = reader.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().expect("begin");
    assert_eq!(bind_by_key(&mut long, &revoked.key.text).as_deref(), Some("owner"));
    let authenticate_jwt = "SELECT tenant_id FROM authenticate_jwt($1)";
    for resident in &residents {
        assert!(is_valid(&mut client, &resident.key.text));
        assert_eq!(one::<Uuid>(&mut client, authenticate_jwt, &[&resident.token]), resident.tenant);
    }
    attempt(&mut app, revoked.tenant, None, "SELECT revoke_api_key($1)", &[&revoked.key.id]).expect("revoke");
    let other = as_tenant(&mut app, removed.tenant, |tx| {
        let other: Uuid = one(tx, "SELECT create_user('next@example.com')", &[]);
        rows(tx, "SELECT add_member($1, 'owner')", &[&other]);
        rows(tx, "SELECT remove_member($1)", &[&removed.user]);
        other
    });
    rows(&mut operator, "SELECT suspend_tenant($1)", &[&suspended.tenant]);
    rows(&mut app, "SELECT revoke_tokens($1)", &[&unsigned.user]);
    pair.catch_up();
    assert!(!is_valid(&mut client, &revoked.key.text));
    assert!(!is_valid(&mut long, &revoked.key.text), "whatever the snapshot");
    assert_eq!(count(&mut long, "notes"), 1, "what is bound goes on");
    long.rollback().expect("roll back");
    for ended in [&removed.key.text, &suspended.key.text, &revoked.key.text] {
        fails(client.query("SELECT authenticate_api_key($1)", &[ended]), "28000");
    }
    for ended in [&removed.token, &suspended.token, &unsigned.token] {
        fails(client.query(authenticate_jwt, &[ended]), "28000");
    }
    assert!(is_valid(&mut client, &unsigned.key.text));
    fails(pair.connect("app").query("SELECT set_tenant($1)", &[&suspended.tenant]), "42501");
    fails(pair.connect("app").query("SELECT set_tenant($1, $2)", &[&removed.tenant, &removed.user]), "42501");
    let next = as_tenant(&mut app, removed.tenant, |tx| {
        ApiKey::from(&rows(tx, "SELECT * FROM create_api_key('new', user_id => $1)", &[&other])[0])
    });
    rows(&mut operator, "SELECT resume_tenant($1)", &[&suspended.tenant]);
    pair.catch_up();
    assert!(is_valid(&mut client, &next.text) && is_valid(&mut client, &suspended.key.text));
    database.connect("admin").batch_execute("SELECT remove_jwt_key('first')").expect("remove the key");
    pair.catch_up();
    fails(client.query(authenticate_jwt, &[&revoked.token]), "28000");
}

#[test]
fn a_promoted_standby_writes_and_knows_every_credential() {
    let mut residents = None;
    let pair = Pair::new("standby_promote", |database| residents = Some(furnish(database)));
    let [ours, theirs] = residents.expect("furnished");
    let mut client = pair.connect("client");
    assert!(is_valid(&mut client, &ours.key.text));
    simple(&mut pair.connect("postgres"), "SELECT pg_promote()");
    wait_until("the standby is promoted", || !one::<bool>(&mut client, "SELECT pg_is_in_recovery()", &[]));
    let mut transaction = client.transaction().expect("begin");
    bind_by_key(&mut transaction, &ours.key.text);
    transaction.batch_execute("INSERT INTO notes (body) VALUES ('after')").expect("write");
    assert_eq!(count(&mut transaction, "notes"), 2);
    transaction.commit().expect("commit");
    let mut app = pair.connect("app");
    attempt(&mut app, ours.tenant, None, "SELECT revoke_api_key($1)", &[&ours.key.id]).expect("revoke");
    assert!(!is_valid(&mut client, &ours.key.text) && is_valid(&mut client, &theirs.key.text));
    let made = tenants(&mut pair.connect("operator"), 1);
    let key = api_key(&mut app, made[0], None, &[]);
    assert!(is_valid(&mut client, &key.text));
    assert!(is_valid(&mut pair.database.connect("client"), &ours.key.text), "the former primary goes its own way");
}

#[test]
fn on_a_standby_schemas_are_guarded_read_and_not_made() {
    let mut made = None;
    let pair = Pair::new("standby_schemas", |database| {
        crate::schema::fixtures::install(database);
        let [a, b] = ["a", "b"]
            .map(|slug| -> Uuid { one(&mut database.connect("operator"), crate::schema::fixtures::CREATE, &[&slug]) });
        for tenant in [a, b] {
            as_tenant(&mut database.connect("app"), tenant, |tx| {
                tx.batch_execute("INSERT INTO accounts (name) VALUES (current_schema)").expect("insert")
            });
        }
        database.superuser().batch_execute("CREATE INDEX own ON of_b.accounts (name)").expect("drift");
        made = Some([a, b]);
    });
    let [a, b] = made.expect("made");
    let mut app = pair.connect("app");
    for (tenant, own, other) in [(a, "of_a", "of_b"), (b, "of_b", "of_a"), (a, "of_a", "of_b")] {
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, tenant);
        assert_eq!(one::<String>(&mut transaction, "SELECT name FROM accounts", &[]), own);
        assert_eq!(one::<i64>(&mut transaction, "SELECT how_many()", &[]), 1);
        fails(transaction.batch_execute(&format!("SELECT * FROM {other}.accounts")), "42501");
        transaction.rollback().expect("roll back");
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, tenant);
        fails(transaction.batch_execute("INSERT INTO accounts (name) VALUES ('x')"), "25006");
    }
    fails(app.batch_execute("SELECT * FROM of_a.accounts"), "42501");
    fails(pair.connect("owner").batch_execute("SELECT * FROM of_a.accounts"), "42501");
    let mut admin = pair.connect("admin");
    for read in arguments::READS {
        rows(&mut admin, &format!("SELECT * FROM {read}"), &[]);
    }
    assert_eq!(
        simple(&mut admin, "SELECT slug, object FROM tenancy.schema_drift"),
        [[Some("b".to_owned()), Some("own".to_owned())]]
    );
    let counted = "SELECT sum(row_count)::bigint FROM tenant_statistics(true) WHERE table_name = 'accounts'";
    assert_eq!(one::<i64>(&mut admin, counted, &[]), 2);
    let pid = harness::backend_pid(&mut admin);
    for write in arguments::WRITES {
        let call = write.replace("{x}", &format!("'{a}'::uuid")).replace("{r}", &format!("'{b}'::uuid"));
        fails(admin.batch_execute(&format!("SELECT * FROM {call}")), "25006");
    }
    fails(admin.batch_execute("CALL migrate_tenants('t')"), "25006");
    assert_eq!(harness::backend_pid(&mut admin), pid, "the session goes on");
    // A schema that is dropped and one that is made on the primary are so here.
    let database = &pair.database;
    rows(&mut database.connect("admin"), "SELECT delete_tenant_schema($1)", &[&a]);
    let c: Uuid = one(&mut database.connect("operator"), crate::schema::fixtures::CREATE, &[&"c"]);
    pair.catch_up();
    fails(app.query("SELECT set_tenant($1)", &[&a]), "55000");
    as_tenant(&mut app, c, |tx| assert_eq!(count(tx, "accounts"), 0));
    fails(app.batch_execute("SELECT * FROM of_c.accounts"), "42501");
}
