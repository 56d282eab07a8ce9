//! API keys: what they look like, what is stored of them, and whom they let in, for how long.

use super::fixtures::{ApiKey, all_fail, api_key, attempt, bind_by_key, member, stored};
use super::key_fuzz::{self, digits, random, with_checksum};
use harness::postgres::IsolationLevel;
use harness::{
    Client, Cluster, Database, GenericClient, Options, Transaction, Uuid, as_tenant, backend_pid, bind, count, fails,
    one, optional, protected_table, rows, simple, tenant, tenants, text, wait_for_lock, wait_until,
};

/// A database with the protected table notes and one tenant.
fn prepared(label: &str) -> (Database, Uuid) {
    let database = Database::new(label);
    protected_table(&database);
    let tenant = tenant(&mut database.connect("operator"));
    (database, tenant)
}

/// Whether the key is somebody's, as `verify_api_key` tells.
#[track_caller]
fn is_valid(client: &mut impl GenericClient, key: &str) -> bool {
    let found: Option<Uuid> = optional(client, "SELECT key_id FROM verify_api_key($1)", &[&key]);
    found.is_some()
}

/// The key is nobody's, whichever way it is presented, and the session goes on.
#[track_caller]
fn assert_refused(client: &mut Client, key: &str) {
    assert!(!is_valid(client, key));
    let error = fails(client.query("SELECT authenticate_api_key($1)", &[&key]), "28000");
    assert_eq!(error.message(), "invalid API key");
    // The same for every reason, which would help whoever guesses.
    assert!(error.hint().is_some_and(|hint| hint.starts_with("It is malformed, unknown, expired or revoked")));
    assert_eq!(one::<Option<Uuid>>(client, "SELECT current_tenant_or_null()", &[]), None);
}

/// Binds by a key, does `work` and commits.
#[track_caller]
fn as_key<T>(client: &mut Client, key: &str, work: impl FnOnce(&mut Transaction<'_>) -> T) -> T {
    let mut transaction = client.transaction().expect("begin");
    bind_by_key(&mut transaction, key);
    let result = work(&mut transaction);
    transaction.commit().expect("commit");
    result
}

/// How often a credential that may be shown as `prefix` was refused for this reason; NULL counts what may not.
fn attempts(monitor: &mut Client, prefix: Option<&str>, reason: &str) -> i64 {
    const ATTEMPTS: &str = "SELECT coalesce(sum(attempts), 0)::bigint FROM tenancy.failed_attempts
        WHERE credential = 'api_key' AND prefix IS NOT DISTINCT FROM $1 AND reason = $2";
    one(monitor, ATTEMPTS, &[&prefix, &reason])
}

fn revoke(app: &mut Client, tenant: Uuid, key: &ApiKey) {
    let revoked = attempt(app, tenant, None, "SELECT revoke_api_key($1)", &[&key.id]).expect("revoke");
    assert!(revoked[0].get::<_, bool>(0));
}

fn rotate(app: &mut Client, tenant: Uuid, key: &ApiKey, grace: &str) -> ApiKey {
    let rotated = format!("SELECT * FROM rotate_api_key($1, '{grace}')");
    ApiKey::from(&attempt(app, tenant, None, &rotated, &[&key.id]).expect("rotate")[0])
}

/// Ends the key in the past, which no function allows.
fn expire(database: &Database, key: &ApiKey) {
    let expire = "UPDATE tenancy.stored_api_keys SET expires_at = clock_timestamp() WHERE id = $1";
    assert_eq!(database.superuser().execute(expire, &[&key.id]).expect("expire"), 1);
}

#[test]
fn a_key_is_a_prefix_and_43_random_letters_and_digits_with_a_checksum() {
    let (database, tenant) = prepared("key_form");
    let mut app = database.connect("app");
    let keys: Vec<ApiKey> = (0..50).map(|_| api_key(&mut app, tenant, None, &[])).collect();
    let mut digits = std::collections::BTreeSet::new();
    for key in &keys {
        let random = key.text.strip_prefix("ptk_").expect("the default prefix");
        assert_eq!(random.len(), 43 + 6, "{}", key.text);
        assert!(random.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{}", key.text);
        assert_eq!(with_checksum(&key.text[..4 + 43]), key.text);
        assert_eq!(key.prefix, key.text[..4 + 8]);
        digits.extend(random[..43].bytes());
    }
    assert_eq!(digits.len(), 62, "every digit occurs in two thousand");
    let distinct: std::collections::BTreeSet<_> = keys.iter().map(|key| &key.text[4..20]).collect();
    assert_eq!(distinct.len(), keys.len());
}

#[test]
fn the_prefix_of_new_keys_is_the_installations_choice() {
    let (database, tenant) = prepared("key_prefix");
    let mut superuser = database.superuser();
    let old = api_key(&mut database.connect("app"), tenant, None, &[]);
    let set = |value: &str| format!("ALTER DATABASE {} SET tenancy.api_key_prefix = '{value}'", database.name());
    for malformed in ["", "_", "acme", "Acme_", "ac me_", "ac-me_", "ac_me_", "é_", "twelveletter_", "a_b", "%_"] {
        fails(superuser.batch_execute(&set(malformed)), "22023");
    }
    for prefix in ["acme_", "a_", "elevenchars_", "pti_", "7_"] {
        superuser.batch_execute(&set(prefix)).expect("set the prefix");
        let (mut app, mut client) = (database.connect("app"), database.connect("client"));
        let key = api_key(&mut app, tenant, None, &[]);
        assert!(key.text.starts_with(prefix), "{}", key.text);
        assert_eq!(key.text.len(), prefix.len() + 49);
        assert_eq!(key.prefix, key.text[..prefix.len() + 8]);
        assert!(is_valid(&mut client, &key.text));
        assert!(is_valid(&mut client, &old.text), "keys that were made before stay valid");
        let other = with_checksum(&key.text[..key.text.len() - 6].replacen(prefix, "ptk_", 1));
        assert_refused(&mut client, &other);
    }
    for role in ["client", "app", "operator", "admin"] {
        fails(database.connect(role).batch_execute("SET tenancy.api_key_prefix = 'mine_'"), "42501");
    }
}

/// Whoever looks a key up waits for this lock.
#[test]
fn a_typo_and_noise_are_refused_without_a_look_up() {
    let (database, tenant) = prepared("key_noise");
    let key = api_key(&mut database.connect("app"), tenant, None, &[]).text;
    let mut client = database.connect("client");
    assert!(is_valid(&mut client, &key));
    let mut monitor = database.connect("monitor");
    let before = ["checksum", "malformed"].map(|reason| attempts(&mut monitor, None, reason));
    let mut superuser = database.superuser();
    let mut lock = superuser.transaction().expect("begin");
    lock.batch_execute("LOCK TABLE tenancy.stored_api_keys IN ACCESS EXCLUSIVE MODE").expect("lock");
    client.batch_execute("SET statement_timeout = '20s'").expect("do not wait for ever");
    let swapped = format!("{}{}{}{}", &key[..20], &key[21..22], &key[20..21], &key[22..]);
    let typo = key.replacen(|character: char| character.is_ascii_digit(), "x", 1);
    let moved = key.replacen("ptk_", "pti_", 1);
    for mistyped in [swapped, typo, moved] {
        if mistyped != key {
            assert_refused(&mut client, &mistyped);
        }
    }
    let long = "ptk_".repeat(300_000);
    let noise: [&str; 14] = [
        "",
        " ",
        "_",
        "ptk_",
        "ptk",
        &key[..52],
        &key[4..],
        &key[3..],
        &format!("{key} "),
        &format!("{key}\n"),
        &format!("'{key}'"),
        &format!("Bearer {key}"),
        "héllo_wörld",
        &long,
    ];
    for noise in noise {
        assert_refused(&mut client, noise);
    }
    assert!(!is_valid_null(&mut client));
    let pid = backend_pid(&mut client);
    std::thread::scope(|scope| {
        let looked_up = scope.spawn(|| is_valid(&mut client, &key));
        wait_for_lock(&mut database.superuser(), pid);
        lock.rollback().expect("unlock");
        assert!(looked_up.join().expect("the key is looked up"));
    });
    let after = ["checksum", "malformed"].map(|reason| attempts(&mut monitor, None, reason));
    assert!(after[0] >= before[0] + 4 && after[1] >= before[1] + 28, "{before:?} {after:?}");
}

fn is_valid_null(client: &mut Client) -> bool {
    fails(client.batch_execute("SELECT authenticate_api_key(NULL)"), "28000");
    !simple(client, "SELECT * FROM verify_api_key(NULL)").is_empty()
}

#[test]
fn only_the_sha256_of_a_key_is_stored() {
    let (database, tenant) = prepared("key_hash");
    let key = api_key(&mut database.connect("app"), tenant, None, &[]);
    let mut superuser = database.superuser();
    const HASHED: &str = "SELECT key_hash = sha256(convert_to($2, 'UTF8')) FROM tenancy.stored_api_keys WHERE id = $1";
    assert!(one::<bool>(&mut superuser, HASHED, &[&key.id, &key.text]));
}

/// Every row of every table of schema tenancy, as text.
fn everything(superuser: &mut Client) -> String {
    const TABLES: &str = "SELECT c.oid::regclass::text FROM pg_class c
        WHERE c.relnamespace = 'tenancy'::regnamespace AND c.relkind IN ('r', 'm')";
    let tables = rows(superuser, TABLES, &[]);
    assert!(tables.len() > 10, "the tables of schema tenancy");
    let all = tables
        .iter()
        .flat_map(|table| simple(superuser, &format!("SELECT t::text FROM {} t", table.get::<_, String>(0))));
    all.flatten().flatten().collect::<Vec<_>>().join("\n")
}

#[test]
fn no_table_holds_a_key_an_invitation_or_a_token() {
    let (database, tenant) = prepared("key_plain");
    let (mut app, mut client, mut admin) =
        (database.connect("app"), database.connect("client"), database.connect("admin"));
    admin.batch_execute("SELECT add_jwt_key('first', 'HS256')").expect("add a key of tokens");
    let user = member(&mut app, tenant, "owner");
    let first = api_key(&mut app, tenant, Some(user), &["a:*"]);
    let second = rotate(&mut app, tenant, &first, "1 hour");
    let revoked = api_key(&mut app, tenant, None, &[]);
    revoke(&mut app, tenant, &revoked);
    let invite = "SELECT token FROM create_invitation('bob@example.com', metadata => '{\"team\": 1}')";
    let invitation: String = as_tenant(&mut app, tenant, |tx| one(tx, invite, &[]));
    let token: String = as_tenant(&mut app, tenant, |tx| one(tx, "SELECT issue_jwt($1)", &[&user]));
    let bob: Uuid = one(&mut app, "SELECT create_user('bob@example.com')", &[]);
    for key in [&first, &second] {
        as_key(&mut client, &key.text, |tx| {
            tx.execute("INSERT INTO notes (body) VALUES ('x')", &[]).expect("insert");
            one::<i64>(tx, "SELECT count(*) FROM tenancy.api_keys", &[]);
        });
    }
    assert_refused(&mut client, &revoked.text);
    rows(&mut client, "SELECT authenticate_jwt($1)", &[&token]);
    rows(&mut client, "SELECT accept_invitation($1, $2)", &[&invitation, &bob]);
    let everything = everything(&mut database.superuser());
    assert!(everything.contains(&first.prefix) && everything.contains(&tenant.to_string()));
    for key in [&first, &second, &revoked] {
        assert!(!everything.contains(&key.text[12..28]), "a key is stored");
        assert!(!everything.contains(&key.text[37..]), "a key's end is stored");
    }
    assert!(!everything.contains(&invitation[4..20]), "an invitation's token is stored");
    let signature = token.rsplit_once('.').expect("a signature").1;
    assert!(!everything.contains(signature), "a token is stored");
}

/// Makes a running server read its configuration again, and waits until new and old sessions have.
fn set_pepper(cluster: &Cluster, pepper: &str) {
    cluster.configure("tenancy.api_key_pepper", pepper);
    let mut superuser = cluster.server().superuser();
    superuser.batch_execute("SELECT pg_reload_conf()").expect("reload");
    wait_until("the pepper is there", || text(&mut superuser, "SHOW tenancy.api_key_pepper") == pepper);
    // The postmaster reads the file first, so that sessions from here on have it.
    wait_until("a new session has the pepper", || {
        text(&mut cluster.server().superuser(), "SHOW tenancy.api_key_pepper") == pepper
    });
}

#[test]
fn a_pepper_keys_the_hashes_of_new_keys_and_keeps_the_older_ones() {
    const PEPPERS: [&str; 2] = ["first pepper of thirty-two letters!", "second pepper of thirty-two letters"];
    const HASHED: &str = "SELECT key_hash = hmac($2, $3, 'sha256') FROM tenancy.stored_api_keys WHERE id = $1";
    let cluster = Cluster::start(Options::new());
    let database = cluster.database("pepper");
    database.superuser().batch_execute("CREATE EXTENSION pgcrypto").expect("create pgcrypto");
    let tenant = tenant(&mut database.connect("operator"));
    let make = || api_key(&mut database.connect("app"), tenant, None, &[]);
    let valid = |key: &ApiKey| is_valid(&mut database.connect("client"), &key.text);
    let hashed_with =
        |key: &ApiKey, pepper: &str| one::<bool>(&mut database.superuser(), HASHED, &[&key.id, &key.text, &pepper]);
    let plain = make();
    set_pepper(&cluster, PEPPERS[0]);
    let first = make();
    assert!(hashed_with(&first, PEPPERS[0]) && !hashed_with(&plain, PEPPERS[0]));
    assert!(valid(&plain) && valid(&first));
    let rotated = rotate(&mut database.connect("app"), tenant, &plain, "1 hour");
    assert!(hashed_with(&rotated, PEPPERS[0]), "rotation makes the new key with the pepper");
    set_pepper(&cluster, PEPPERS[1]);
    let second = make();
    assert!(hashed_with(&second, PEPPERS[1]));
    assert!(valid(&plain) && valid(&second), "made without a pepper, or with this one");
    assert!(!valid(&first) && !valid(&rotated), "made with another pepper");
    set_pepper(&cluster, "");
    assert!(
        valid(&plain) && !valid(&first) && !valid(&second),
        "without a pepper a copy of the table is worth nothing"
    );
    set_pepper(&cluster, PEPPERS[0]);
    assert!(valid(&plain) && valid(&first) && !valid(&second));
    for role in ["client", "app", "operator", "monitor", "admin", "owner"] {
        let mut session = database.connect(role);
        for peek in ["SHOW tenancy.api_key_pepper", "SELECT current_setting('tenancy.api_key_pepper')"] {
            fails(session.batch_execute(peek), "42501");
        }
        let peek = "pg_settings WHERE setting LIKE '%pepper of%' OR boot_val LIKE '%pepper of%'";
        assert_eq!(count(&mut session, peek), 0);
        assert!(session.batch_execute("SET tenancy.api_key_pepper = 'mine'").is_err());
    }
}

#[test]
fn a_pepper_that_is_too_short_is_refused() {
    let cluster = Cluster::start(Options::new());
    let mut superuser = cluster.server().superuser();
    fails(superuser.batch_execute("ALTER SYSTEM SET tenancy.api_key_pepper = 'salt'"), "22023");
}

#[test]
fn scopes_match_exactly_or_by_wildcard() {
    const CASES: [(&[&str], &[&str], &[&str]); 6] = [
        (
            &["workflows:read"],
            &["workflows:read"],
            &["workflows:*", "workflows:readall", "workflows", "Workflows:read", "*"],
        ),
        (
            &["workflows:*"],
            &["workflows:read", "workflows:run:now", "workflows:*", "workflows:"],
            &["workflows", "workflowsx:read", "other:read", "*", "work"],
        ),
        (&["*"], &["anything", "a:b", "*"], &[]),
        (&[], &[], &["a", "*", "a:b"]),
        (&["a:b:*", "c"], &["a:b:c", "c", "a:b:c:d"], &["a:b", "a:c", "c:d", "a:*"]),
        // A star elsewhere is a letter like another.
        (&["read*", "a*:b", "*:b", "**"], &["read*", "a*:b"], &["reading", "ab:b", "x:b", "a:b", "anything"]),
    ];
    let (database, tenant) = prepared("key_scopes");
    let (mut app, mut client) = (database.connect("app"), database.connect("client"));
    for (granted, held, missing) in CASES {
        let key = api_key(&mut app, tenant, None, granted);
        let stored: Vec<String> = one(&mut client, "SELECT scopes FROM verify_api_key($1)", &[&key.text]);
        assert_eq!(stored, granted);
        let mut transaction = client.transaction().expect("begin");
        let bound: Vec<String> = one(&mut transaction, "SELECT scopes FROM authenticate_api_key($1)", &[&key.text]);
        assert_eq!(bound, granted);
        for scope in held {
            assert!(one::<bool>(&mut transaction, "SELECT has_scope($1) AND require_scope($1)", &[scope]), "{scope}");
        }
        for scope in missing {
            assert!(!one::<bool>(&mut transaction, "SELECT has_scope($1)", &[scope]), "{granted:?} has {scope}");
            let mut savepoint = transaction.transaction().expect("savepoint");
            fails(savepoint.query("SELECT require_scope($1)", &[scope]), "42501");
        }
        transaction.rollback().expect("roll back");
        assert!(!one::<bool>(&mut client, "SELECT has_scope('a')", &[]), "a scope ends with the transaction");
    }
}

#[test]
fn malformed_scopes_names_and_expiries_are_refused() {
    let (database, tenant) = prepared("key_bad");
    let long = "a".repeat(256);
    let many = "'{".to_owned() + &vec!["a"; 101].join(",") + "}'";
    let calls: Vec<(String, &str)> = [
        "'{\"\"}'",
        "'{NULL}'",
        "NULL",
        "ARRAY['a b']",
        "ARRAY['a\"b']",
        "ARRAY['a\\b']",
        "ARRAY[E'a\\nb']",
        "ARRAY['é']",
        &format!("ARRAY['{long}']"),
        &many,
        "'{a,{b}}'",
    ]
    .into_iter()
    .map(|scopes| (format!("create_api_key('test', {scopes})"), if scopes.contains("{b}") { "22P02" } else { "22023" }))
    .chain([
        ("create_api_key(NULL)".to_owned(), "22023"),
        ("create_api_key('')".to_owned(), "22023"),
        (format!("create_api_key('{}')", "n".repeat(5000)), "22023"),
        ("create_api_key('test', '{}', now() - interval '1 second')".to_owned(), "22023"),
        ("create_api_key('test', '{}', '-infinity')".to_owned(), "22023"),
        (format!("create_api_key('test', user_id => '{}')", Uuid::new_v4()), "P0002"),
        ("revoke_api_key(NULL)".to_owned(), "22023"),
        ("rotate_api_key(NULL)".to_owned(), "22023"),
        (format!("revoke_api_key('{}')", Uuid::new_v4()), "P0002"),
        (format!("rotate_api_key('{}')", Uuid::new_v4()), "P0002"),
        ("has_scope(NULL)".to_owned(), "22023"),
        ("has_scope('')".to_owned(), "22023"),
        ("has_scope('a b')".to_owned(), "22023"),
        ("require_scope('a b')".to_owned(), "22023"),
    ])
    .collect();
    let calls: Vec<(&str, &str)> = calls.iter().map(|(call, sqlstate)| (call.as_str(), *sqlstate)).collect();
    all_fail(&database, "app", Some(tenant), &calls);
    let unbound = ["create_api_key('x')", "revoke_api_key(gen_random_uuid())", "rotate_api_key(gen_random_uuid())"];
    all_fail(&database, "app", None, &unbound.map(|call| (call, "42501")));
    all_fail(&database, "client", None, &unbound.map(|call| (call, "42501")));
}

#[test]
fn a_key_ends_at_its_expiry_also_within_a_transaction_that_began_before() {
    let (database, tenant) = prepared("key_expiry");
    let (mut app, mut client) = (database.connect("app"), database.connect("client"));
    let make = "SELECT * FROM create_api_key('short', expires_at => clock_timestamp() + '250 ms')";
    let key = ApiKey::from(&attempt(&mut app, tenant, None, make, &[]).expect("create")[0]);
    let mut transaction =
        client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().expect("begin");
    assert!(is_valid(&mut transaction, &key.text));
    wait_until("the key has expired", || !is_valid(&mut transaction, &key.text));
    fails(transaction.query("SELECT authenticate_api_key($1)", &[&key.text]), "28000");
    transaction.rollback().expect("roll back");
    assert_refused(&mut client, &key.text);
    assert!(attempts(&mut database.connect("monitor"), Some(&key.prefix), "expired") >= 4);
    let for_good = "SELECT * FROM create_api_key('long', expires_at => 'infinity')";
    let key = ApiKey::from(&attempt(&mut app, tenant, None, for_good, &[]).expect("create")[0]);
    assert!(is_valid(&mut client, &key.text));
}

#[test]
fn a_revocation_counts_for_every_session_at_commit() {
    let (database, tenant) = prepared("key_revoke");
    let (mut app, mut client) = (database.connect("app"), database.connect("client"));
    let key = api_key(&mut app, tenant, None, &[]);
    let mut others: Vec<Client> = (0..3).map(|_| database.connect("client")).collect();
    let [reading, repeating, serial] = others.get_disjoint_mut([0, 1, 2]).expect("three sessions");
    let levels = [IsolationLevel::ReadCommitted, IsolationLevel::RepeatableRead, IsolationLevel::Serializable];
    let mut transactions: Vec<Transaction<'_>> = [reading, repeating, serial]
        .into_iter()
        .zip(levels)
        .map(|(session, level)| {
            let mut transaction = session.build_transaction().isolation_level(level).start().expect("begin");
            // Takes the snapshot.
            assert!(is_valid(&mut transaction, &key.text));
            transaction
        })
        .collect();
    let mut revoking = app.transaction().expect("begin");
    bind(&mut revoking, tenant);
    assert!(one::<bool>(&mut revoking, "SELECT revoke_api_key($1)", &[&key.id]));
    assert!(!is_valid(&mut revoking, &key.text), "for its own transaction at once");
    for transaction in &mut transactions {
        assert!(is_valid(transaction, &key.text), "not before the commit");
    }
    revoking.commit().expect("commit");
    for mut transaction in transactions {
        assert!(!is_valid(&mut transaction, &key.text));
        fails(transaction.query("SELECT authenticate_api_key($1)", &[&key.text]), "28000");
    }
    assert_refused(&mut client, &key.text);
    assert!(attempts(&mut database.connect("monitor"), Some(&key.prefix), "revoked") >= 6);
    let again = attempt(&mut app, tenant, None, "SELECT revoke_api_key($1)", &[&key.id]).expect("revoke again");
    assert!(!again[0].get::<_, bool>(0));
}

#[test]
fn a_revocation_that_rolls_back_revokes_nothing() {
    let (database, tenant) = prepared("key_unrevoke");
    let mut app = database.connect("app");
    let key = api_key(&mut app, tenant, None, &[]);
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, tenant);
    assert!(one::<bool>(&mut transaction, "SELECT revoke_api_key($1)", &[&key.id]));
    transaction.rollback().expect("roll back");
    assert!(is_valid(&mut database.connect("client"), &key.text));
}

#[test]
fn a_long_transaction_that_used_the_key_delays_no_revocation() {
    let (database, tenant) = prepared("key_long");
    let (mut app, mut client, mut other) =
        (database.connect("app"), database.connect("client"), database.connect("client"));
    let user = member(&mut app, tenant, "member");
    app.batch_execute("SET lock_timeout = '5s'").expect("do not wait");
    for user in [None, Some(user)] {
        let key = api_key(&mut app, tenant, user, &[]);
        let mut business = client.transaction().expect("begin");
        bind_by_key(&mut business, &key.text);
        business.execute("INSERT INTO notes (body) VALUES ('before')", &[]).expect("write");
        revoke(&mut app, tenant, &key);
        assert!(!is_valid(&mut other, &key.text));
        assert!(!is_valid(&mut business, &key.text), "also in the long transaction");
        business.execute("INSERT INTO notes (body) VALUES ('after')", &[]).expect("the transaction goes on");
        assert_eq!(one::<Uuid>(&mut business, "SELECT current_tenant()", &[]), tenant);
        business.commit().expect("commit");
        assert_refused(&mut client, &key.text);
    }
    let written: i64 = as_tenant(&mut app, tenant, |tx| count(tx, "notes"));
    assert_eq!(written, 4);
    let key = api_key(&mut app, tenant, Some(user), &[]);
    let mut business = client.transaction().expect("begin");
    bind_by_key(&mut business, &key.text);
    business.execute("INSERT INTO notes (body) VALUES ('before')", &[]).expect("write");
    let rotated = rotate(&mut app, tenant, &key, "0");
    assert!(!is_valid(&mut other, &key.text) && is_valid(&mut other, &rotated.text));
    attempt(&mut app, tenant, None, "SELECT remove_member($1)", &[&user]).expect("remove the member");
    assert!(!is_valid(&mut other, &rotated.text));
    business.commit().expect("commit");
}

#[test]
fn rotation_keeps_name_user_scopes_and_expiry() {
    let (database, tenant) = prepared("key_rotate");
    let (mut app, mut client) = (database.connect("app"), database.connect("client"));
    let user = member(&mut app, tenant, "member");
    let make = "SELECT * FROM create_api_key('nightly', '{a:*,b}', now() + '30 days', $1)";
    let old = ApiKey::from(&attempt(&mut app, tenant, None, make, &[&user]).expect("create")[0]);
    let new = rotate(&mut app, tenant, &old, "1 hour");
    assert_ne!(new.id, old.id);
    const KEPT: &str = "SELECT old.name = new.name AND old.user_id = new.user_id AND old.scopes = new.scopes
            AND old.tenant_id = new.tenant_id AND old.replaced_by = new.id AND old.revoked_at IS NULL
            AND new.expires_at BETWEEN now() + '29 days' AND now() + '30 days'
            AND old.expires_at BETWEEN now() + '59 minutes' AND now() + '1 hour'
        FROM tenancy.api_keys old, tenancy.api_keys new WHERE old.id = $1 AND new.id = $2";
    assert!(as_tenant(&mut app, tenant, |tx| one::<bool>(tx, KEPT, &[&old.id, &new.id])));
    for key in [&old, &new] {
        as_key(&mut client, &key.text, |tx| {
            assert_eq!(one::<Option<Uuid>>(tx, "SELECT current_user_id()", &[]), Some(user));
            assert!(one::<bool>(tx, "SELECT has_scope('a:x') AND has_scope('b') AND NOT has_scope('c')", &[]));
        });
    }
    // The grace ends.
    expire(&database, &old);
    assert!(!is_valid(&mut client, &old.text) && is_valid(&mut client, &new.text));
    let explicit = "SELECT * FROM rotate_api_key($1, expires_at => now() + '1 day')";
    let newest = ApiKey::from(&attempt(&mut app, tenant, None, explicit, &[&new.id]).expect("rotate")[0]);
    assert!(!is_valid(&mut client, &new.text) && is_valid(&mut client, &newest.text), "no grace: at once");
    const SHORTER: &str = "SELECT expires_at < now() + '1 day 1 minute' FROM tenancy.api_keys WHERE id = $1";
    assert!(as_tenant(&mut app, tenant, |tx| one::<bool>(tx, SHORTER, &[&newest.id])));
}

#[test]
fn a_grace_never_outlives_the_old_keys_own_expiry() {
    let (database, tenant) = prepared("key_grace");
    let mut app = database.connect("app");
    let make = "SELECT * FROM create_api_key('short', expires_at => now() + '1 hour')";
    const ENDS: &str = "SELECT expires_at BETWEEN now() + '55 minutes' AND now() + '1 hour'
        FROM tenancy.api_keys WHERE id = $1";
    for grace in ["2 hours", "100 years", "59 minutes"] {
        let old = ApiKey::from(&attempt(&mut app, tenant, None, make, &[]).expect("create")[0]);
        let new = rotate(&mut app, tenant, &old, grace);
        for key in [&old, &new] {
            assert!(as_tenant(&mut app, tenant, |tx| one::<bool>(tx, ENDS, &[&key.id])), "{grace}");
        }
    }
    let key = api_key(&mut app, tenant, None, &[]);
    let calls = ["'-1 hour'", "'1 month -31 days'", "NULL", "'1 day', now() - interval '1 second'"]
        .map(|grace| format!("rotate_api_key('{}', {grace})", key.id));
    let calls: Vec<(&str, &str)> = calls.iter().map(|call| (call.as_str(), "22023")).collect();
    all_fail(&database, "app", Some(tenant), &calls);
}

#[test]
fn a_key_that_has_ended_or_was_rotated_cannot_be_rotated() {
    let (database, tenant) = prepared("key_ended");
    let mut app = database.connect("app");
    let [revoked, rotated, in_grace, expired] = [(); 4].map(|()| api_key(&mut app, tenant, None, &[]));
    revoke(&mut app, tenant, &revoked);
    rotate(&mut app, tenant, &rotated, "0");
    rotate(&mut app, tenant, &in_grace, "1 hour");
    expire(&database, &expired);
    let calls = [revoked, rotated, in_grace, expired].map(|key| format!("rotate_api_key('{}', '1 day')", key.id));
    let calls: Vec<(&str, &str)> = calls.iter().map(|call| (call.as_str(), "55000")).collect();
    all_fail(&database, "app", Some(tenant), &calls);
}

#[test]
fn of_two_sessions_that_rotate_one_key_one_wins() {
    let (database, tenant) = prepared("key_race");
    let mut sessions = [database.connect("app"), database.connect("app")];
    let pid = backend_pid(&mut sessions[1]);
    let mut observer = database.superuser();
    for grace in ["0", "1 hour"] {
        let old = api_key(&mut sessions[0], tenant, None, &["a"]);
        let rotation = format!("SELECT * FROM rotate_api_key($1, '{grace}')");
        let [first, second] = &mut sessions;
        let mut transaction = first.transaction().expect("begin");
        bind(&mut transaction, tenant);
        let winner = ApiKey::from(&rows(&mut transaction, &rotation, &[&old.id])[0]);
        std::thread::scope(|scope| {
            let loser = scope.spawn(|| attempt(second, tenant, None, &rotation, &[&old.id]));
            wait_for_lock(&mut observer, pid);
            transaction.commit().expect("commit");
            fails(loser.join().expect("the other session goes on"), "55000");
        });
        let mut client = database.connect("client");
        assert!(is_valid(&mut client, &winner.text));
        assert_eq!(is_valid(&mut client, &old.text), grace != "0");
    }
    assert_eq!(as_tenant(&mut sessions[0], tenant, |tx| count(tx, "tenancy.api_keys")), 4);
}

#[test]
fn of_a_rotation_and_a_revocation_at_once_none_leaves_the_old_key_alive() {
    let (database, tenant) = prepared("key_both");
    let [mut first, mut second] = [database.connect("app"), database.connect("app")];
    let old = api_key(&mut first, tenant, None, &[]);
    let pid = backend_pid(&mut second);
    let mut transaction = first.transaction().expect("begin");
    bind(&mut transaction, tenant);
    let new = ApiKey::from(&rows(&mut transaction, "SELECT * FROM rotate_api_key($1, '1 day')", &[&old.id])[0]);
    std::thread::scope(|scope| {
        let revocation = scope.spawn(|| revoke(&mut second, tenant, &old));
        wait_for_lock(&mut database.superuser(), pid);
        transaction.commit().expect("commit");
        revocation.join().expect("revoked");
    });
    let mut client = database.connect("client");
    assert!(!is_valid(&mut client, &old.text) && is_valid(&mut client, &new.text));
}

/// When the key was used last, and how often that was written: the row's own version tells.
fn last_use(superuser: &mut Client, key: &ApiKey) -> (Option<String>, String) {
    const USE: &str = "SELECT last_used_at::text, ctid::text FROM tenancy.api_key_usage WHERE key_id = $1";
    let row = &rows(superuser, USE, &[&key.id])[0];
    (row.get(0), row.get(1))
}

#[test]
fn the_last_use_is_noted_once_however_many_sessions_use_the_key() {
    let (database, tenant) = prepared("key_used");
    let (mut app, mut superuser) = (database.connect("app"), database.superuser());
    let key = api_key(&mut app, tenant, None, &[]);
    let unused = api_key(&mut app, tenant, None, &[]);
    assert_eq!(last_use(&mut superuser, &key).0, None);
    let versions = |superuser: &mut Client| {
        const UPDATES: &str = "SELECT pg_stat_get_xact_tuples_updated('tenancy.api_key_usage'::regclass) + pg_stat_get_tuples_updated('tenancy.api_key_usage'::regclass)";
        one::<i64>(superuser, UPDATES, &[])
    };
    let sessions: Vec<Client> = (0..8).map(|_| database.connect("client")).collect();
    std::thread::scope(|scope| {
        for mut session in sessions {
            let key = &key;
            scope.spawn(move || {
                for turn in 0..40 {
                    assert!(is_valid(&mut session, &key.text));
                    as_key(&mut session, &key.text, |tx| assert_eq!(turn, one::<i32>(tx, "SELECT $1::int", &[&turn])));
                }
                // Sends the statistics.
                drop(session);
            });
        }
    });
    wait_until("the use is counted", || versions(&mut superuser) >= 1);
    let (used, version) = last_use(&mut superuser, &key);
    assert!(used.is_some());
    assert_eq!(versions(&mut superuser), 1);
    assert!(is_valid(&mut database.connect("client"), &key.text));
    assert_eq!(last_use(&mut superuser, &key), (used.clone(), version));
    assert_eq!(last_use(&mut superuser, &unused).0, None);
    const SEEN: &str = "SELECT last_used_at::text FROM tenancy.api_keys WHERE id = $1";
    assert_eq!(as_tenant(&mut app, tenant, |tx| one::<Option<String>>(tx, SEEN, &[&key.id])), used);
}

/// A server that starts remembers no use, so that the table alone decides.
#[test]
fn the_last_use_is_noted_again_after_a_minute_and_not_before() {
    let mut cluster = Cluster::start(Options::new());
    let database = cluster.database("key_minute");
    let tenant = tenant(&mut database.connect("operator"));
    let key = api_key(&mut database.connect("app"), tenant, None, &[]);
    for (age, noted) in [("50 seconds", false), ("61 seconds", true), ("1 year", true)] {
        let used = format!("UPDATE tenancy.api_key_usage SET last_used_at = clock_timestamp() - interval '{age}'");
        database.superuser().batch_execute(&used).expect("set the last use");
        let before = last_use(&mut database.superuser(), &key);
        cluster.restart();
        assert!(is_valid(&mut database.connect("client"), &key.text));
        assert_eq!(last_use(&mut database.superuser(), &key) != before, noted, "{age}");
    }
}

#[test]
fn a_use_waits_for_nobody() {
    let (database, tenant) = prepared("key_wait");
    let (mut app, mut client, mut superuser) =
        (database.connect("app"), database.connect("client"), database.superuser());
    client.batch_execute("SET lock_timeout = '5s'").expect("do not wait for ever");
    for lock in [
        "SELECT FROM tenancy.api_key_usage WHERE key_id = $1 FOR UPDATE",
        "SELECT FROM tenancy.api_key_usage WHERE key_id = $1 FOR KEY SHARE",
        "UPDATE tenancy.api_key_usage SET last_used_at = NULL WHERE key_id = $1",
        "DELETE FROM tenancy.api_key_usage WHERE key_id = $1",
        "SELECT FROM tenancy.stored_api_keys WHERE id = $1 FOR UPDATE",
    ] {
        let key = api_key(&mut app, tenant, None, &[]);
        let mut transaction = superuser.transaction().expect("begin");
        transaction.execute(lock, &[&key.id]).expect("lock");
        assert!(is_valid(&mut client, &key.text), "{lock}");
        transaction.rollback().expect("roll back");
    }
}

/// What REINDEX and CREATE INDEX take.
#[test]
fn a_use_does_not_wait_for_the_tables_maintenance() {
    let (database, tenant) = prepared("key_reindex");
    let (mut client, mut superuser) = (database.connect("client"), database.superuser());
    let key = api_key(&mut database.connect("app"), tenant, None, &[]);
    client.batch_execute("SET lock_timeout = '2s'").expect("do not wait for ever");
    let mut transaction = superuser.transaction().expect("begin");
    transaction.batch_execute("LOCK TABLE tenancy.api_key_usage IN SHARE MODE").expect("lock");
    let found = client.query("SELECT key_id FROM verify_api_key($1)", &[&key.text]);
    assert_eq!(found.expect("the key is verified").len(), 1);
}

#[test]
fn a_use_fails_in_no_transaction_that_cannot_write() {
    let (database, tenant) = prepared("key_ro");
    let (mut app, mut client, mut superuser) =
        (database.connect("app"), database.connect("client"), database.superuser());
    let levels = [IsolationLevel::ReadCommitted, IsolationLevel::RepeatableRead, IsolationLevel::Serializable];
    for level in levels {
        for read_only in [true, false] {
            let key = api_key(&mut app, tenant, None, &[]);
            let mut transaction =
                client.build_transaction().isolation_level(level).read_only(read_only).start().expect("begin");
            assert_eq!(count(&mut transaction, "tenancy.api_keys"), 0);
            // Another session's use, after this one's snapshot.
            superuser
                .execute("UPDATE tenancy.api_key_usage SET last_used_at = '2000-01-01' WHERE key_id = $1", &[&key.id])
                .expect("update");
            assert!(is_valid(&mut transaction, &key.text));
            bind_by_key(&mut transaction, &key.text);
            assert_eq!(count(&mut transaction, "notes"), 0);
            assert!(is_valid(&mut transaction, &key.text));
            transaction.commit().expect("commit");
        }
    }
}

#[test]
fn the_callers_search_path_and_functions_are_not_used() {
    const TRAP: &str = "
        CREATE SCHEMA trap;
        CREATE TABLE trap.sprung (who text);
        GRANT ALL ON trap.sprung TO PUBLIC;
        CREATE FUNCTION trap.earlier(timestamptz, timestamptz) RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO trap.sprung VALUES (current_user); RETURN true; END $$;
        CREATE OPERATOR trap.< (FUNCTION = trap.earlier, LEFTARG = timestamptz, RIGHTARG = timestamptz);
        CREATE FUNCTION trap.same(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO trap.sprung VALUES (current_user); RETURN true; END $$;
        CREATE OPERATOR trap.= (FUNCTION = trap.same, LEFTARG = uuid, RIGHTARG = uuid);
        GRANT USAGE ON SCHEMA trap TO PUBLIC";
    let (database, tenant) = prepared("key_trap");
    database.superuser().batch_execute(TRAP).expect("set the trap");
    let mut app = database.connect("app");
    app.batch_execute("SET search_path = trap, pg_catalog, public").expect("set the search path");
    for _ in 0..3 {
        let key = api_key(&mut app, tenant, None, &["a"]);
        as_key(&mut app, &key.text, |tx| one::<bool>(tx, "SELECT has_scope('a')", &[]));
        assert_eq!(text(&mut app, "SHOW search_path"), "trap, pg_catalog, public");
        let rotated = rotate(&mut app, tenant, &key, "1 hour");
        revoke(&mut app, tenant, &rotated);
    }
    assert_eq!(count(&mut database.superuser(), "trap.sprung"), 0);
}

#[test]
fn keys_of_a_tenant_that_is_closed_let_nobody_in() {
    let database = Database::new("key_closed");
    let mut operator = database.connect("operator");
    let (mut app, mut client, mut monitor) =
        (database.connect("app"), database.connect("client"), database.connect("monitor"));
    let tenants = tenants(&mut operator, 2);
    let [closed, open] = [tenants[0], tenants[1]].map(|tenant| api_key(&mut app, tenant, None, &[]));
    let mut turns = 0;
    for (close, reopen) in [
        ("suspend_tenant($1)", "resume_tenant($1)"),
        ("cancel_tenant($1)", "restore_tenant($1)"),
        ("delete_tenant($1)", "restore_tenant($1)"),
    ] {
        rows(&mut operator, &format!("SELECT {close}"), &[&tenants[0]]);
        assert_refused(&mut client, &closed.text);
        turns += 2;
        assert_eq!(attempts(&mut monitor, Some(&closed.prefix), "tenant"), turns, "{close}");
        assert!(is_valid(&mut client, &open.text));
        rows(&mut operator, &format!("SELECT {reopen}"), &[&tenants[0]]);
        assert!(is_valid(&mut client, &closed.text), "{reopen}");
    }
    rows(&mut operator, "SELECT delete_tenant($1, '0')", &[&tenants[0]]);
    database.connect("admin").batch_execute(&format!("CALL purge_tenant('{}')", tenants[0])).expect("purge");
    assert_refused(&mut client, &closed.text);
    let mut superuser = database.superuser();
    assert_eq!(count(&mut superuser, "tenancy.stored_api_keys"), 1, "a purge leaves no key");
    assert_eq!(count(&mut superuser, "tenancy.api_key_usage"), 1);
    assert!(is_valid(&mut client, &open.text));
}

#[test]
fn keys_of_a_tenant_that_is_not_ready_are_tried_again() {
    let database = Database::new("key_busy");
    let tenant = tenant(&mut database.connect("operator"));
    let key = api_key(&mut database.connect("app"), tenant, None, &[]);
    let mut client = database.connect("client");
    let set = |state| {
        database.superuser().batch_execute(&format!("UPDATE tenancy.tenants SET status = '{state}'")).expect("set")
    };
    set("provisioning");
    fails(client.query("SELECT * FROM verify_api_key($1)", &[&key.text]), "55000");
    fails(client.query("SELECT * FROM authenticate_api_key($1)", &[&key.text]), "55000");
    set("moving");
    assert!(is_valid(&mut client, &key.text), "readers stay while a tenant moves");
}

#[test]
fn a_key_of_a_read_only_tenant_reads_and_does_not_write() {
    let (database, tenant) = prepared("key_readonly");
    let (mut app, mut client) = (database.connect("app"), database.connect("client"));
    let key = api_key(&mut app, tenant, None, &[]);
    as_tenant(&mut app, tenant, |tx| tx.batch_execute("INSERT INTO notes (body) VALUES ('x')").expect("insert"));
    let mut operator = database.connect("operator");
    rows(&mut operator, "SELECT suspend_tenant($1, mode => 'read_only')", &[&tenant]);
    assert!(is_valid(&mut client, &key.text));
    for write in [
        "INSERT INTO notes (body) VALUES ('y')",
        "UPDATE notes SET body = 'y'",
        "DELETE FROM notes",
        "SET LOCAL transaction_read_only = off; INSERT INTO notes (body) VALUES ('y')",
    ] {
        let mut transaction = client.transaction().expect("begin");
        bind_by_key(&mut transaction, &key.text);
        assert_eq!(count(&mut transaction, "notes"), 1);
        let error = transaction.batch_execute(write).expect_err("a read-only tenant");
        let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
        assert!(["25006", "25001"].contains(&code.as_str()), "{write}: {error:?}");
    }
    all_fail(&database, "app", Some(tenant), &[("create_api_key('x')", "25006")]);
    // To lock a thief out there must be a way.
    rows(&mut operator, "SELECT resume_tenant($1)", &[&tenant]);
    revoke(&mut app, tenant, &key);
    assert_refused(&mut client, &key.text);
}

#[test]
fn keys_of_a_removed_member_or_deleted_user_let_nobody_in() {
    let database = Database::new("key_member");
    let mut operator = database.connect("operator");
    let (mut app, mut client) = (database.connect("app"), database.connect("client"));
    let tenants = tenants(&mut operator, 2);
    let user = member(&mut app, tenants[0], "admin");
    attempt(&mut app, tenants[1], None, "SELECT add_member($1)", &[&user]).expect("add");
    let [here, there] = [tenants[0], tenants[1]].map(|tenant| api_key(&mut app, tenant, Some(user), &[]));
    let bound = |client: &mut Client, key: &ApiKey| {
        let mut transaction = client.transaction().expect("begin");
        bind_by_key(&mut transaction, &key.text)
    };
    assert_eq!(bound(&mut client, &here).as_deref(), Some("admin"));
    attempt(&mut app, tenants[0], None, "SELECT change_role($1, 'viewer')", &[&user]).expect("demote");
    assert_eq!(bound(&mut client, &here).as_deref(), Some("viewer"), "the role is that of now");
    attempt(&mut app, tenants[0], None, "SELECT remove_member($1)", &[&user]).expect("remove");
    assert_refused(&mut client, &here.text);
    assert_eq!(bound(&mut client, &there).as_deref(), Some("member"), "the other membership is another matter");
    attempt(&mut app, tenants[0], None, "SELECT add_member($1)", &[&user]).expect("add again");
    assert_refused(&mut client, &here.text);
    let again = api_key(&mut app, tenants[0], Some(user), &[]);
    // Whoever takes the row out by hand has removed the member, too.
    let delete = "DELETE FROM tenancy.memberships WHERE tenant_id = $1 AND user_id = $2";
    database.superuser().execute(delete, &[&tenants[0], &user]).expect("delete the membership");
    assert_refused(&mut client, &again.text);
    assert_eq!(attempts(&mut database.connect("monitor"), Some(&again.prefix), "member"), 2);
    rows(&mut operator, "SELECT delete_user($1)", &[&user]);
    assert_refused(&mut client, &there.text);
}

#[test]
fn a_second_credential_of_another_tenant_fails_in_the_same_transaction() {
    let (database, tenant) = prepared("key_second");
    let other = harness::tenant(&mut database.connect("operator"));
    let (mut app, mut client) = (database.connect("app"), database.connect("client"));
    let [ours, ours_too, theirs] = [tenant, tenant, other].map(|tenant| api_key(&mut app, tenant, None, &["a"]));
    as_tenant(&mut app, other, |tx| tx.batch_execute("INSERT INTO notes (body) VALUES ('theirs')").expect("insert"));
    let authenticate = |key: &ApiKey| format!("SELECT authenticate_api_key('{}')", key.text);
    for detour in [
        "SELECT 1",
        "SELECT clear_tenant()",
        "RESET ALL",
        "SAVEPOINT s",
        "SELECT clear_tenant(); SET LOCAL search_path = public",
        "SET CONSTRAINTS ALL IMMEDIATE",
    ] {
        let mut transaction = client.transaction().expect("begin");
        bind_by_key(&mut transaction, &ours.text);
        transaction.batch_execute(detour).expect("the detour");
        fails(transaction.batch_execute(&authenticate(&theirs)), "55000");
    }
    let mut transaction = client.transaction().expect("begin");
    let mut savepoint = transaction.transaction().expect("savepoint");
    bind_by_key(&mut savepoint, &ours.text);
    savepoint.rollback().expect("roll back");
    fails(transaction.batch_execute(&authenticate(&theirs)), "55000");
    transaction.rollback().expect("roll back");
    let mut transaction = client.transaction().expect("begin");
    bind_by_key(&mut transaction, &ours.text);
    bind_by_key(&mut transaction, &ours_too.text);
    assert_eq!(one::<Uuid>(&mut transaction, "SELECT current_tenant()", &[]), tenant);
    fails(transaction.batch_execute(&authenticate(&theirs)), "55000");
    transaction.rollback().expect("roll back");
    // In one statement.
    let both = "SELECT count(*) FROM unnest(ARRAY[$1, $2]) key, authenticate_api_key(key)";
    fails(client.query(both, &[&ours.text, &theirs.text]), "55000");
    let mixed = "SELECT a.tenant_id, n.body FROM authenticate_api_key($1) a, notes n, authenticate_api_key($2) b";
    fails(client.query(mixed, &[&ours.text, &theirs.text]), "42501");
    as_key(&mut client, &theirs.text, |tx| assert_eq!(count(tx, "notes"), 1));
}

/// Everything that a client may call or read, and what it must not: the tenant of its key is all there is.
#[test]
fn as_client_no_statement_reaches_another_tenant() {
    let (database, tenant) = prepared("key_attack");
    let mut operator = database.connect("operator");
    let other = harness::tenant(&mut operator);
    let (mut app, mut client) = (database.connect("app"), database.connect("client"));
    let ours = api_key(&mut app, tenant, None, &["*"]);
    let their_user = member(&mut app, other, "owner");
    let theirs = api_key(&mut app, other, Some(their_user), &[]);
    for tenant in [tenant, other] {
        as_tenant(&mut app, tenant, |tx| {
            tx.execute("INSERT INTO notes (body) VALUES ($1)", &[&tenant.to_string()]).expect("insert");
            rows(tx, "SELECT create_invitation('guest@example.com')", &[]);
        });
    }
    let slug: String = one(&mut operator, "SELECT slug FROM tenancy.tenants WHERE id = $1", &[&other]);
    let before = stored(&mut database.superuser());
    let refused = [
        format!("SELECT set_tenant('{other}')"),
        format!("SELECT set_tenant_by_slug('{slug}')"),
        format!("SELECT rebind_tenant('{other}')"),
        format!("SELECT find_tenant('{slug}')"),
        format!("SELECT user_tenants('{their_user}')"),
        "SELECT find_user('guest@example.com')".to_owned(),
        "SELECT create_user('x@example.com')".to_owned(),
        format!("SELECT add_member('{their_user}')"),
        format!("SELECT change_role('{their_user}', 'viewer')"),
        format!("SELECT remove_member('{their_user}')"),
        "SELECT create_api_key('x')".to_owned(),
        format!("SELECT rotate_api_key('{}')", theirs.id),
        format!("SELECT revoke_api_key('{}')", theirs.id),
        format!("SELECT revoke_api_key('{}')", ours.id),
        "SELECT create_invitation('x@example.com')".to_owned(),
        format!("SELECT issue_jwt('{their_user}')"),
        format!("SELECT revoke_tokens('{their_user}')"),
        format!("SELECT suspend_tenant('{other}')"),
        format!("CALL purge_tenant('{other}', true)"),
        "SELECT protect_table('notes')".to_owned(),
        "SELECT unprotect_table('notes')".to_owned(),
        "SELECT grant_access('client', 'app')".to_owned(),
        "SELECT add_jwt_key('mine', 'HS256')".to_owned(),
        "SELECT * FROM tenancy.stored_api_keys".to_owned(),
        "SELECT * FROM tenancy.api_key_usage".to_owned(),
        "SELECT * FROM tenancy.stored_invitations".to_owned(),
        "SELECT * FROM tenancy.stored_jwt_keys".to_owned(),
        "SELECT * FROM tenancy.jwt_keys".to_owned(),
        "SELECT * FROM tenancy.users".to_owned(),
        "SELECT * FROM tenancy.memberships".to_owned(),
        "SELECT * FROM tenancy.added_roles".to_owned(),
        "SELECT * FROM tenancy.audit_log".to_owned(),
        "SELECT * FROM tenancy.failed_attempts".to_owned(),
        "SELECT * FROM tenancy.failed()".to_owned(),
        "SELECT * FROM tenancy.activity".to_owned(),
        format!("UPDATE tenancy.tenants SET name = 'mine' WHERE id = '{other}'"),
        format!("SET tenancy.context = '{other}'"),
        format!("SELECT set_config('tenancy.context', '{other}||api_key', true)"),
        "SET tenancy.allow_rebind = on".to_owned(),
        "SET tenancy.allow_bypass = on".to_owned(),
        "SET ROLE app".to_owned(),
        "SET SESSION AUTHORIZATION app".to_owned(),
        "ALTER TABLE notes DISABLE ROW LEVEL SECURITY".to_owned(),
        "SET row_security = off; SELECT * FROM notes".to_owned(),
        "TRUNCATE notes".to_owned(),
        "CREATE TEMP TABLE notes (body text)".to_owned(),
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'".to_owned(),
        format!("INSERT INTO notes (tenant_id, body) VALUES ('{other}', 'x')"),
        format!("UPDATE notes SET tenant_id = '{other}'"),
        format!("SELECT assert_tenant('{other}')"),
    ];
    for attack in &refused {
        let mut transaction = client.transaction().expect("begin");
        bind_by_key(&mut transaction, &ours.text);
        let Err(error) = transaction.batch_execute(attack) else { panic!("a client may: {attack}") };
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{attack}: {error:?}");
    }
    for write in ["UPDATE tenancy.members SET role = 'owner'", "DELETE FROM tenancy.api_keys"] {
        let mut transaction = client.transaction().expect("begin");
        bind_by_key(&mut transaction, &ours.text);
        assert!(transaction.batch_execute(write).is_err(), "a client may: {write}");
    }
    let allowed = [
        format!("SELECT * FROM notes WHERE tenant_id = '{other}' OR true"),
        format!("UPDATE notes SET body = body WHERE tenant_id = '{other}' RETURNING *"),
        format!("DELETE FROM notes WHERE tenant_id = '{other}' RETURNING *"),
        "SELECT * FROM tenancy.members".to_owned(),
        "SELECT * FROM tenancy.api_keys".to_owned(),
        "SELECT * FROM tenancy.invitations".to_owned(),
        "SELECT * FROM tenancy.tenants".to_owned(),
        "RESET tenancy.context; SELECT * FROM tenancy.api_keys".to_owned(),
        "RESET ALL; SELECT * FROM tenancy.members".to_owned(),
        "SELECT clear_tenant(); SELECT * FROM tenancy.invitations".to_owned(),
        "SELECT * FROM current_principal()".to_owned(),
        "EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM tenancy.api_keys".to_owned(),
        "SELECT * FROM pg_stats WHERE tablename IN ('notes', 'stored_api_keys', 'memberships', 'users')".to_owned(),
        // A function that costs next to nothing and tells what it sees.
        "SELECT * FROM tenancy.api_keys WHERE 1 / (length(name) - 4) > 0 OR name::int > 0".to_owned(),
    ];
    let secrets = [other.to_string(), theirs.id.to_string(), theirs.prefix.clone(), their_user.to_string()];
    for look in &allowed {
        let mut transaction = client.transaction().expect("begin");
        bind_by_key(&mut transaction, &ours.text);
        let told = match transaction.simple_query(look) {
            Ok(seen) => format!("{seen:?}"),
            Err(error) => format!("{error:?}"),
        };
        for secret in &secrets {
            assert!(!told.contains(secret), "{look} shows {secret}: {told}");
        }
    }
    // The attempts were counted, so the audit log and the tables are what must not have changed.
    assert_eq!(stored(&mut database.superuser()), before);
    as_tenant(&mut app, other, |tx| {
        assert_eq!(one::<String>(tx, "SELECT body FROM notes", &[]), other.to_string());
    });
}

#[test]
fn a_key_of_another_tenant_does_not_exist_for_an_app() {
    let database = Database::new("key_foreign");
    let tenants = tenants(&mut database.connect("operator"), 2);
    let mut app = database.connect("app");
    let theirs = api_key(&mut app, tenants[1], None, &[]);
    let user = member(&mut app, tenants[1], "member");
    let calls = [
        format!("revoke_api_key('{}')", theirs.id),
        format!("rotate_api_key('{}')", theirs.id),
        format!("rotate_api_key('{}', '1 day')", theirs.id),
        format!("create_api_key('x', user_id => '{user}')"),
    ];
    let calls: Vec<(&str, &str)> = calls.iter().map(|call| (call.as_str(), "P0002")).collect();
    all_fail(&database, "app", Some(tenants[0]), &calls);
    assert!(is_valid(&mut database.connect("client"), &theirs.text));
    assert_eq!(as_tenant(&mut app, tenants[0], |tx| count(tx, "tenancy.api_keys")), 0);
    assert_eq!(count(&mut app, "tenancy.api_keys"), 0, "nothing is seen unbound");
    for role in ["operator", "admin"] {
        assert_eq!(count(&mut database.connect(role), "tenancy.api_keys"), 1);
    }
    for role in ["monitor", "stranger", "owner"] {
        fails(database.connect(role).batch_execute("SELECT * FROM tenancy.api_keys"), "42501");
    }
}

#[test]
fn a_credential_makes_no_credential_that_may_more() {
    let (database, tenant) = prepared("key_escalate");
    let mut app = database.connect("app");
    let [owner, admin, viewer] = ["owner", "admin", "viewer"].map(|role| member(&mut app, tenant, role));
    let tenants_own = api_key(&mut app, tenant, None, &["*"]);
    let limited = api_key(&mut app, tenant, Some(admin), &["workflows:read", "keys:*", "tenancy:manage"]);
    let unmanaging = api_key(&mut app, tenant, Some(owner), &["workflows:*", "tenancy", "manage", "tenancy:read"]);
    let owners = api_key(&mut app, tenant, Some(owner), &["*"]);
    let admins_own = api_key(&mut app, tenant, Some(admin), &["*"]);
    let before = stored(&mut database.superuser());
    let by_key = |key: &ApiKey, calls: &[String]| {
        for call in calls {
            let mut session = database.connect("app");
            let mut transaction = session.transaction().expect("begin");
            bind_by_key(&mut transaction, &key.text);
            fails(transaction.batch_execute(&format!("SELECT * FROM {call}")), "42501");
        }
    };
    let create = |scopes: &str, user: Uuid| format!("create_api_key('x', '{scopes}', user_id => '{user}')");
    // A key of no user acts on no credential.
    by_key(
        &tenants_own,
        &[
            "create_api_key('x')".to_owned(),
            create("{}", viewer),
            format!("rotate_api_key('{}')", limited.id),
            format!("rotate_api_key('{}')", tenants_own.id),
            format!("revoke_api_key('{}')", limited.id),
        ],
    );
    by_key(
        &limited,
        &[
            create("{*}", admin),
            create("{workflows:*}", admin),
            create("{workflows:write}", viewer),
            create("{keys:read,other}", admin),
            "create_api_key('x', '{*}')".to_owned(),
            create("{}", owner),
            format!("rotate_api_key('{}')", owners.id),
            format!("rotate_api_key('{}')", admins_own.id),
            format!("rotate_api_key('{}')", tenants_own.id),
            format!("revoke_api_key('{}')", owners.id),
        ],
    );
    by_key(
        &unmanaging,
        &[
            create("{}", viewer),
            create("{workflows:read}", owner),
            format!("rotate_api_key('{}')", unmanaging.id),
            format!("revoke_api_key('{}')", limited.id),
            format!("add_member('{viewer}')"),
            format!("change_role('{admin}', 'viewer')"),
            "create_invitation('x@example.com', 'viewer')".to_owned(),
            format!("issue_jwt('{viewer}')"),
        ],
    );
    by_key(&admins_own, &[create("{}", owner), format!("rotate_api_key('{}', '1 day')", owners.id)]);
    assert_eq!(stored(&mut database.superuser()), before);
    let mut session = database.connect("app");
    as_key(&mut session, &limited.text, |tx| {
        rows(tx, "SELECT create_api_key('less', '{workflows:read,keys:read}', user_id => $1)", &[&admin]);
        rows(tx, "SELECT create_api_key('less', '{keys:*}', user_id => $1)", &[&viewer]);
    });
}

/// A key of no user outlives whoever made it.
#[test]
fn a_member_who_is_no_admin_makes_and_ends_no_key_of_the_tenant_itself() {
    let (database, tenant) = prepared("key_outlive");
    let mut app = database.connect("app");
    let tenants_own = api_key(&mut app, tenant, None, &["*"]);
    for (role, may) in [("viewer", false), ("member", false), ("admin", true), ("owner", true)] {
        let user = member(&mut app, tenant, role);
        let before = stored(&mut database.superuser());
        let made = attempt(&mut app, tenant, Some(user), "SELECT * FROM create_api_key('mine')", &[]);
        if may {
            assert_eq!(made.expect("create").len(), 1);
            continue;
        }
        fails(made, "42501");
        for call in ["rotate_api_key($1)", "rotate_api_key($1, '1 day')", "revoke_api_key($1)"] {
            let sql = format!("SELECT * FROM {call}");
            fails(attempt(&mut app, tenant, Some(user), &sql, &[&tenants_own.id]), "42501");
        }
        assert_eq!(stored(&mut database.superuser()), before);
    }
    assert!(is_valid(&mut database.connect("client"), &tenants_own.text));
}

#[test]
fn refused_keys_are_counted_by_reason_also_when_the_transaction_rolls_back() {
    let (database, tenant) = prepared("key_counts");
    let (mut app, mut client, mut monitor) =
        (database.connect("app"), database.connect("client"), database.connect("monitor"));
    let [revoked, expired] = [(); 2].map(|()| api_key(&mut app, tenant, None, &[]));
    revoke(&mut app, tenant, &revoked);
    expire(&database, &expired);
    for (key, reason) in [(&revoked, "revoked"), (&expired, "expired")] {
        for turn in 1..=3 {
            let mut transaction = client.transaction().expect("begin");
            assert!(!is_valid(&mut transaction, &key.text));
            transaction.rollback().expect("roll back");
            fails(client.query("SELECT authenticate_api_key($1)", &[&key.text]), "28000");
            assert_eq!(attempts(&mut monitor, Some(&key.prefix), reason), 2 * turn);
        }
        const LAST: &str = "SELECT bool_and(last_attempt_at BETWEEN now() - '1 minute'::interval AND now())
            FROM tenancy.failed_attempts WHERE prefix = $1";
        assert!(one::<bool>(&mut monitor, LAST, &[&key.prefix]));
    }
    let unknown = with_checksum(&format!("ptk_{}", digits(&mut random(), 43)));
    let before = attempts(&mut monitor, Some("ptk_"), "unknown");
    assert_refused(&mut client, &unknown);
    assert!(attempts(&mut monitor, Some("ptk_"), "unknown") >= before + 2);
    assert_eq!(attempts(&mut monitor, Some(&unknown[..12]), "unknown"), 0, "only what exists is counted apart");
    let valid = api_key(&mut app, tenant, None, &[]);
    assert!(is_valid(&mut client, &valid.text));
    assert_eq!(count(&mut monitor, &format!("tenancy.failed_attempts WHERE prefix = '{}'", valid.prefix)), 0);
    assert_eq!(count(&mut database.connect("operator"), "tenancy.failed_attempts WHERE attempts < 1"), 0);
    for role in ["client", "app", "owner", "stranger"] {
        let mut session = database.connect(role);
        fails(session.batch_execute("SELECT * FROM tenancy.failed_attempts"), "42501");
        fails(session.batch_execute("SELECT * FROM tenancy.failed()"), "42501");
    }
}

/// The checksum is no secret: anyone can make keys of the right form, with any prefix.
#[test]
fn made_up_keys_do_not_crowd_out_the_counters_of_genuine_ones() {
    let cluster = Cluster::start(Options::new());
    let database = cluster.database("key_crowd");
    let tenant = tenant(&mut database.connect("operator"));
    let (mut app, mut client) = (database.connect("app"), database.connect("client"));
    let mut random = random();
    let mut made_up =
        |prefix: usize| with_checksum(&format!("{}_{}", digits(&mut random, prefix), digits(&mut random, 43)));
    let keys: Vec<String> = (0..6000).map(|number| made_up(3 + number % 11)).collect();
    let found = one::<i64>(&mut client, "SELECT count(*) FROM unnest($1::text[]) k, verify_api_key(k)", &[&keys]);
    assert_eq!(found, 0);
    let mut monitor = database.connect("monitor");
    assert!(count(&mut monitor, "tenancy.failed_attempts") < 100, "made-up keys fill the counters");
    let key = api_key(&mut app, tenant, None, &[]);
    revoke(&mut app, tenant, &key);
    assert_refused(&mut client, &key.text);
    assert_eq!(attempts(&mut monitor, Some(&key.prefix), "revoked"), 2);
}

/// Wherever SQL lets a function stand, and however the key is stored.
#[test]
fn a_key_is_verified_in_every_place_of_a_statement() {
    let (database, tenant) = prepared("key_places");
    let (mut app, mut client, mut superuser) =
        (database.connect("app"), database.connect("client"), database.superuser());
    let key = api_key(&mut app, tenant, None, &["a", "b:*"]);
    superuser
        .batch_execute(
            "CREATE TABLE presented (t text, v varchar(100), c char(80), d text);
             ALTER TABLE presented ALTER d SET STORAGE EXTERNAL;
             GRANT SELECT ON presented TO client;
             CREATE FUNCTION wrapped(k text) RETURNS SETOF tenancy.verified_api_key LANGUAGE plpgsql STABLE AS
                 $$ BEGIN RETURN QUERY SELECT * FROM verify_api_key(k); END $$",
        )
        .expect("create");
    // Short, compressed and out of line.
    let (megabyte, noise) = ("ptk_".repeat(250_000), digits(&mut random(), 100_000));
    for value in [&key.text, &megabyte, &noise] {
        let short = value.chars().take(80).collect::<String>();
        superuser
            .execute("INSERT INTO presented VALUES ($1, $2::text, $2::text, $1)", &[value, &short])
            .expect("insert");
    }
    for places in [
        "SELECT v.key_id FROM presented, verify_api_key(t) v",
        "SELECT v.key_id FROM presented, verify_api_key(d) v",
        "SELECT v.key_id FROM presented p, verify_api_key(p.v) v",
        "SELECT v.key_id FROM presented p, verify_api_key(trim(c::text)) v",
        "SELECT (verify_api_key(t)).key_id FROM presented",
        "SELECT key_id FROM (SELECT (verify_api_key(t)).* FROM presented) v",
        "SELECT v.key_id FROM presented LEFT JOIN LATERAL verify_api_key(t) v ON true WHERE v.key_id IS NOT NULL",
        "SELECT v.key_id FROM ROWS FROM (verify_api_key($1), generate_series(1, 3)) v WHERE v.key_id IS NOT NULL",
        "SELECT v.key_id FROM verify_api_key($1) WITH ORDINALITY v WHERE v.ordinality = 1",
        "SELECT v.key_id FROM verify_api_key($1) v LIMIT 1",
        "SELECT v.key_id FROM wrapped($1) v",
        "WITH v AS MATERIALIZED (SELECT * FROM verify_api_key($1)) SELECT key_id FROM v",
        "SELECT (ARRAY(SELECT key_id FROM verify_api_key($1)))[1]",
    ] {
        let parameters: &[&(dyn harness::postgres::types::ToSql + Sync)] =
            if places.contains("$1") { &[&key.text] } else { &[] };
        assert_eq!(one::<Uuid>(&mut client, places, parameters), key.id, "{places}");
    }
    let mut transaction = client.transaction().expect("begin");
    let declare =
        format!("DECLARE c CURSOR FOR SELECT key_id FROM presented, verify_api_key(t) WHERE t = '{}'", key.text);
    transaction.batch_execute(&declare).expect("declare");
    assert_eq!(one::<Uuid>(&mut transaction, "FETCH c", &[]), key.id);
    assert!(rows(&mut transaction, "FETCH ALL FROM c", &[]).is_empty());
    for bind in
        ["SELECT (authenticate_api_key($1)).tenant_id", "SELECT tenant_id FROM authenticate_api_key($1) LIMIT 1"]
    {
        assert_eq!(one::<Uuid>(&mut transaction, bind, &[&key.text]), tenant);
    }
    assert!(one::<bool>(&mut transaction, "SELECT has_scope('b:x') AND current_tenant() = $1", &[&tenant]));
    assert!(rows(&mut transaction, "SELECT * FROM verify_api_key($1) WHERE false", &[&key.text]).is_empty());
    transaction.commit().expect("commit");
}

#[test]
fn three_thousand_damaged_keys_let_nobody_in() {
    key_fuzz::run(3000);
}

/// While a key's grace lasts both keys are valid, at every moment of the rotation.
#[test]
fn verification_at_once_with_rotation_always_finds_a_key() {
    let (database, tenant) = prepared("key_storm");
    let mut app = database.connect("app");
    let first = api_key(&mut app, tenant, None, &[]);
    let current = std::sync::Mutex::new((first.text.clone(), false));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let mut client = database.connect("client");
            scope.spawn({
                let current = &current;
                move || loop {
                    let (key, done) = current.lock().expect("no thread panicked").clone();
                    assert!(is_valid(&mut client, &key));
                    if done {
                        break;
                    }
                }
            });
        }
        let mut key = first;
        for turn in 1..=30 {
            key = rotate(&mut app, tenant, &key, "1 hour");
            *current.lock().expect("no thread panicked") = (key.text.clone(), turn == 30);
        }
    });
}
