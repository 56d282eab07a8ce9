//! Credentials stay out of what others read: the server's log at its noisiest, `pg_stat_activity`, statistics. And what is no credential
//! stays as it is.

use crate::access::fixtures::{api_key, attempt, member};
use harness::{
    Client, Cluster, Database, Options, Uuid, as_tenant, backend_pid, cluster, count, fails, one, protected_table,
    rows, simple, tenant, text, wait_for_lock, wait_until,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

/// Everything that PostgreSQL and its contrib modules can write about a statement.
const NOISE: [(&str, &str); 19] = [
    ("log_statement", "all"),
    ("log_min_duration_statement", "0"),
    ("log_duration", "on"),
    ("log_min_messages", "debug5"),
    ("log_min_error_statement", "debug5"),
    ("log_error_verbosity", "verbose"),
    ("log_parameter_max_length", "-1"),
    ("log_parameter_max_length_on_error", "-1"),
    ("log_lock_waits", "on"),
    ("deadlock_timeout", "20ms"),
    ("debug_print_parse", "on"),
    ("debug_print_rewritten", "on"),
    ("debug_print_plan", "on"),
    ("debug_pretty_print", "off"),
    ("auto_explain.log_min_duration", "0"),
    ("auto_explain.log_nested_statements", "on"),
    ("auto_explain.log_analyze", "on"),
    ("auto_explain.log_verbose", "on"),
    ("auto_explain.log_settings", "on"),
];

/// A server that logs all of it, in all formats.
static TALKATIVE: LazyLock<Cluster> = LazyLock::new(|| {
    let cluster = Cluster::start(
        Options::new()
            .set("shared_preload_libraries", "pg_stat_statements, auto_explain, pg_tenancy")
            .set("logging_collector", "on")
            .set("log_destination", "stderr, csvlog, jsonlog")
            .set("log_directory", "log")
            .set("log_filename", "server.log")
            .set("log_rotation_age", "0")
            .set("log_rotation_size", "0")
            .set("log_file_mode", "0644"),
    );
    // What the template database is made of needs no noise.
    drop(cluster.database("quiet"));
    for (name, value) in NOISE {
        cluster.configure(name, value);
    }
    let mut superuser = cluster.server().superuser();
    superuser.batch_execute("SELECT pg_reload_conf()").expect("reload");
    wait_until("the server is talkative", || text(&mut cluster.server().superuser(), "SHOW debug_print_plan") == "on");
    cluster
});

/// What the talkative server writes from here on.
struct Log(BTreeMap<PathBuf, usize>);

impl Log {
    fn files() -> Vec<PathBuf> {
        let collected = fs::read_dir(TALKATIVE.data().join("log")).expect("the log directory");
        let collected = collected.map(|file| file.expect("a log file").path());
        collected.chain([TALKATIVE.server().log().to_owned()]).collect()
    }

    fn begin() -> Log {
        let length = |path: &PathBuf| fs::metadata(path).map_or(0, |file| file.len());
        let files = Log::files().into_iter();
        Log(files.map(|path| (path.clone(), usize::try_from(length(&path)).expect("a length"))).collect())
    }

    fn read(&self) -> Vec<String> {
        let from = |path: &PathBuf| self.0.get(path).copied().unwrap_or_default();
        let read = |path: PathBuf| {
            let content = fs::read(&path).expect("read a log");
            String::from_utf8_lossy(&content[from(&path)..]).into_owned()
        };
        Log::files().into_iter().map(read).collect()
    }

    /// All that was written until now, in the three formats.
    fn text(&self) -> String {
        let mark = Uuid::new_v4().to_string();
        TALKATIVE.server().superuser().batch_execute(&format!("SELECT '{mark}'")).expect("leave a mark");
        wait_until("the log is written", || self.read().iter().filter(|file| file.contains(&mark)).count() == 3);
        let text = self.read().concat();
        assert!(!text.contains("was terminated by signal"), "a backend crashed");
        text
    }
}

/// Parts of a secret that nobody may see; the whole is long enough that a part of it gives nothing away.
fn parts(secret: &str) -> Vec<&str> {
    let part = |from: usize| &secret[from..from + 14];
    match (secret.rfind('.'), secret.find('_')) {
        // Without its signature a token is none, and many begin alike.
        (Some(dot), _) => vec![part(dot + 1), part(secret.len() - 14)],
        (None, Some(underscore)) => vec![part(underscore + 9), part(underscore + 24), part(secret.len() - 14)],
        (None, None) => vec![part(4), part(secret.len() / 2), part(secret.len() - 14)],
    }
}

/// Panics where a text shows a secret: as it is, or as a list of bytes in the dump of a tree. Lists the places, one of each kind.
#[track_caller]
fn assert_hidden(text: &str, secrets: &[&str]) {
    const BEFORE: usize = 120;
    let flat = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    let mut places = BTreeMap::new();
    for part in secrets.iter().flat_map(|secret| parts(secret)) {
        let bytes: Vec<String> = part.bytes().map(|byte| byte.to_string()).collect();
        for shape in [part.to_owned(), format!(" {} ", bytes.join(" "))] {
            for (place, _) in flat.match_indices(&shape) {
                let before = &flat.as_bytes()[place.saturating_sub(BEFORE)..place];
                let kind: Vec<u8> =
                    before.iter().rev().filter(|byte| byte.is_ascii_alphabetic()).take(25).copied().collect();
                let window = place.saturating_sub(BEFORE)..(place + 80).min(flat.len());
                places.entry(kind).or_insert_with(|| String::from_utf8_lossy(&flat.as_bytes()[window]).into_owned());
            }
        }
    }
    let places: Vec<String> = places.into_values().collect();
    assert!(places.is_empty(), "secrets are shown in {} places:\n{}", places.len(), places.join("\n"));
}

/// Runs statements as a user would who does not look at errors.
fn run_anyway(client: &mut Client, statements: &str) {
    let _ = client.simple_query(statements);
    client.batch_execute("ROLLBACK; DEALLOCATE ALL").expect("the session goes on");
}

/// A database with one credential of each kind, none of which has been in a statement.
struct Credentials {
    database: Database,
    tenant: Uuid,
    user: Uuid,
    key: String,
    custom_key: String,
    invitation: String,
    token: String,
}

impl Credentials {
    fn new(cluster: &Cluster, label: &str) -> Credentials {
        let database = cluster.database(label);
        protected_table(&database);
        let tenant = tenant(&mut database.connect("operator"));
        let mut app = database.connect("app");
        let user = member(&mut app, tenant, "owner");
        let key = api_key(&mut app, tenant, Some(user), &["a:*"]).text;
        let prefix = |value: &str| format!("ALTER DATABASE {} SET tenancy.api_key_prefix = '{value}'", database.name());
        let mut superuser = database.superuser();
        superuser.batch_execute(&prefix("acme_")).expect("set the prefix");
        let custom_key = api_key(&mut database.connect("app"), tenant, None, &[]).text;
        // It was the prefix once.
        superuser.batch_execute(&prefix("other_")).expect("set the prefix");
        database.connect("admin").batch_execute("SELECT add_jwt_key('first', 'HS256')").expect("add a key");
        let invite = "SELECT token FROM create_invitation('guest@example.com')";
        let invitation = as_tenant(&mut app, tenant, |tx| one(tx, invite, &[]));
        let token = as_tenant(&mut app, tenant, |tx| one(tx, "SELECT issue_jwt($1)", &[&user]));
        Credentials { database, tenant, user, key, custom_key, invitation, token }
    }

    fn all(&self) -> [&str; 4] {
        [&self.key, &self.custom_key, &self.invitation, &self.token]
    }
}

/// Statements that hold a credential as a literal; most fail, in each phase of a statement.
const LITERAL: [&str; 40] = [
    "SELECT * FROM verify_api_key('KEY')",
    "BEGIN; SELECT * FROM authenticate_api_key('KEY'); SELECT * FROM notes; COMMIT",
    "BEGIN; SELECT * FROM authenticate_jwt('KEY'); COMMIT",
    "BEGIN; SELECT accept_invitation('KEY', gen_random_uuid()); COMMIT",
    "SELECT 1; SELECT * FROM verify_api_key('KEY'); SELECT 2",
    "PREPARE p AS SELECT * FROM verify_api_key($1); EXECUTE p('KEY')",
    "PREPARE p AS SELECT * FROM verify_api_key('KEY'); EXECUTE p",
    "PREPARE p(text) AS SELECT $1::int; EXECUTE p('KEY')",
    "DO $$ BEGIN PERFORM verify_api_key('KEY'); END $$",
    "DO $$ BEGIN EXECUTE 'SELECT verify_api_key($1)' USING 'KEY'; END $$",
    "DO $$ BEGIN EXECUTE 'SELECT verify_api_key(''KEY'')'; END $$",
    "DO $$ BEGIN EXECUTE 'SELEC ''KEY'''; END $$",
    "DO $$ BEGIN RAISE NOTICE 'the key is %', 'KEY'; END $$",
    "DO $$ BEGIN RAISE LOG 'the key is %', 'KEY' USING DETAIL = 'KEY', HINT = 'KEY'; END $$",
    "DO $$ BEGIN RAISE EXCEPTION 'the key is %', 'KEY' USING DETAIL = 'KEY', HINT = 'KEY'; END $$",
    "DO $$ DECLARE k text := 'KEY'; BEGIN ASSERT false, k; END $$",
    "DO $x$ BEGIN PERFORM authenticate_jwt('KEY'), 1 / 0; END $x$",
    "SELEC * FROM verify_api_key('KEY')",
    "SELECT * FROM verify_api_key('KEY'",
    "SELECT * FROM verify_api_key('KEY",
    "SELECT 'KEY'::int",
    "SELECT 'KEY'::text::int",
    "SELECT '{\"authorization\": \"Bearer KEY\"'::jsonb",
    "SELECT \"KEY\"",
    "SELECT * FROM \"KEY\"",
    "SELECT verify_api_key('KEY', 1)",
    "SELECT verify_api_key('KEY') FROM no_such_table",
    "SELECT *, 1 / 0 FROM verify_api_key('KEY')",
    "SELECT * FROM verify_api_key($$KEY$$), verify_api_key(E'KEY'), verify_api_key(U&'KEY')",
    "EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM verify_api_key('KEY')",
    "BEGIN; DECLARE c CURSOR FOR SELECT * FROM verify_api_key('KEY'); FETCH c; CLOSE c; COMMIT",
    "SELECT 1 /* KEY */ -- KEY",
    "SET my.key = 'KEY'; SHOW my.key; SELECT set_config('my.key', 'KEY', false); RESET my.key",
    "NOTIFY channel, 'KEY'",
    "CREATE TABLE k (k text DEFAULT 'KEY')",
    "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT 'KEY' $$",
    "INSERT INTO seen VALUES ('KEY'), ('KEY')",
    "INSERT INTO checked VALUES ('KEY')",
    "INSERT INTO seen VALUES ('https://example.com/?api_key=KEY&page=1'), ('x,KEY;KEY|KEY')",
    "UPDATE seen SET k = 'KEY' WHERE k = 'KEY' RETURNING k::int",
];

const USERS_TABLES: &str = "
    CREATE TABLE seen (k text PRIMARY KEY);
    CREATE TABLE checked (k text CONSTRAINT short CHECK (length(k) < 10));
    CREATE TABLE numbers (n int);
    GRANT ALL ON seen, checked, numbers TO app, client";

#[test]
fn the_log_shows_no_credential_that_a_statement_holds() {
    let credentials = Credentials::new(&TALKATIVE, "log_literal");
    credentials.database.superuser().batch_execute(USERS_TABLES).expect("create tables");
    let log = Log::begin();
    let mut client = credentials.database.connect("client");
    for secret in credentials.all() {
        for statement in LITERAL {
            run_anyway(&mut client, &statement.replace("KEY", secret));
        }
        run_anyway(&mut client, &format!("SELECT * FROM verify_api_key('{secret}x')"));
        // Of a token that is no string literal, PostgreSQL shows the word where it gives up.
        if !secret.contains('.') {
            run_anyway(&mut client, secret);
            run_anyway(&mut client, &format!("SELECT * FROM verify_api_key({secret})"));
        }
    }
    client.batch_execute("SET debug_pretty_print = on").expect("set");
    for secret in credentials.all() {
        run_anyway(&mut client, &format!("SELECT *, length('{secret}') FROM verify_api_key('{secret}')"));
    }
    let text = log.text();
    assert_hidden(&text, &credentials.all());
    for secret in [&credentials.key, &credentials.custom_key, &credentials.invitation] {
        let shown = &secret[..secret.find('_').expect("a prefix") + 9];
        assert!(text.matches(&format!("{shown}***")).count() > 100, "{shown} is recognised");
    }
    for due in ["Query Text: ", "parse tree", "plan:", "statement: ", "syntax error at", "duration: "] {
        assert!(text.contains(due), "the log has {due}");
    }
}

#[test]
fn the_log_shows_no_credential_that_is_a_parameter() {
    let credentials = Credentials::new(&TALKATIVE, "log_params");
    let database = &credentials.database;
    database.superuser().batch_execute(USERS_TABLES).expect("create tables");
    let log = Log::begin();
    for length in [-1, 0, 12, 20, 40, 60, 100, 200] {
        let mut client = database.superuser();
        let limit = format!(
            "SET log_parameter_max_length = {length}; SET log_parameter_max_length_on_error = {length};
             SET SESSION AUTHORIZATION client"
        );
        client.batch_execute(&limit).expect("limit the length");
        for secret in credentials.all() {
            for statement in [
                "SELECT FROM verify_api_key($1)",
                "SELECT FROM authenticate_api_key($1)",
                "SELECT FROM authenticate_jwt($1)",
                "SELECT accept_invitation($1, gen_random_uuid())",
                "SELECT FROM verify_api_key($1), (SELECT 1 / 0) x",
                "SELECT $1::text::int",
                "SELECT FROM verify_api_key('Bearer ' || $1)",
                "INSERT INTO checked VALUES ($1)",
                "INSERT INTO seen VALUES ($1), ($1)",
            ] {
                let _ = client.execute(statement, &[&secret]);
            }
        }
    }
    let text = log.text();
    assert_hidden(&text, &credentials.all());
    assert!(text.contains("parameters: $1 = 'ptk_") && text.contains("unnamed portal with parameters: $1 = 'ptk_"));
    let made = "SELECT api_key FROM create_api_key('other')";
    assert_eq!(attempt(&mut database.connect("app"), credentials.tenant, None, made, &[]).expect("create").len(), 1);
}

#[test]
fn the_log_shows_no_credential_that_is_copied_or_called_for() {
    let credentials = Credentials::new(&TALKATIVE, "log_copy");
    let database = &credentials.database;
    database.superuser().batch_execute(USERS_TABLES).expect("create tables");
    let log = Log::begin();
    let mut made = Vec::new();
    for secret in credentials.all() {
        for script in [
            "COPY (SELECT * FROM verify_api_key('KEY')) TO STDOUT;",
            "COPY (SELECT 'KEY'::int) TO STDOUT;",
            "COPY numbers FROM STDIN;\nKEY\n\\.\n",
            "COPY checked FROM STDIN;\nKEY\n\\.\n",
            "COPY seen FROM STDIN;\nKEY\nKEY\n\\.\n",
            "COPY seen FROM STDIN;\nKEY\tKEY\n\\.\n",
            "\\set key KEY\nSELECT * FROM verify_api_key(:'key');",
            "SELECT verify_api_key('KEY') \\gset\n",
        ] {
            database.psql("client", &script.replace("KEY", secret));
        }
    }
    let mut app = database.connect("app");
    let set_tenant = format!("BEGIN; SELECT set_tenant('{}');", credentials.tenant);
    for call in [
        "SELECT api_key FROM create_api_key('one')",
        "SELECT api_key FROM create_api_key('two', '{a}'), pg_sleep(0)",
        "SELECT token FROM create_invitation('new@example.com')",
        &format!("SELECT issue_jwt('{}')", credentials.user),
        "SELECT api_key FROM rotate_api_key((SELECT id FROM tenancy.api_keys WHERE name = 'one'), '1 day')",
    ] {
        made.push(simple(&mut app, &format!("{set_tenant} {call}; COMMIT"))[1][0].clone().expect("a credential"));
    }
    let text = log.text();
    assert_hidden(&text, &credentials.all());
    assert_hidden(&text, &made.iter().map(String::as_str).collect::<Vec<_>>());
    let everything = simple(&mut database.superuser(), "SELECT a::text FROM tenancy.audit_log a");
    assert_hidden(&everything.into_iter().flatten().flatten().collect::<String>(), &credentials.all());
    assert!(text.contains("COPY numbers, line 1"));
}

const SECRET: &str = "a-shared-secret/of+forty-three=letters-more";
/// RFC 8410, section 10.3.
const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
const PRIVATE_PART: &str = "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC";

#[test]
fn the_log_shows_no_key_that_signs_tokens() {
    let database = TALKATIVE.database("log_signing");
    let mut admin = database.connect("admin");
    let log = Log::begin();
    for (algorithm, key) in [("HS256", SECRET), ("EdDSA", PRIVATE_KEY)] {
        let argument = if algorithm == "HS256" { "key" } else { "private_key" };
        for statement in [
            "SELECT add_jwt_key('KID', 'ALG', ARG => 'VALUE')",
            "SELECT ADD_JWT_KEY('KID', 'ALG', ARG => 'VALUE')",
            "SELECT public.\"add_jwt_key\"('KID', 'ALG', ARG => E'VALUE')",
            "SELECT add_jwt_key(ARG => $$VALUE$$, kid => 'KID', algorithm => 'ALG')",
            "WITH given AS (SELECT 'VALUE'::text AS key) SELECT add_jwt_key('KID', 'ALG', ARG => given.key) FROM given",
            "SELECT add_jwt_key('KID', 'ALG', ARG => k) FROM (VALUES ('VALUE')) v(k)",
            "PREPARE p AS SELECT add_jwt_key($1, 'ALG', ARG => $2); EXECUTE p('KID', 'VALUE')",
            "DO $$ BEGIN PERFORM add_jwt_key('KID', 'ALG', ARG => 'VALUE'); END $$",
            "DO $$ DECLARE k text := 'VALUE'; BEGIN PERFORM add_jwt_key('KID', 'ALG', ARG => k); END $$",
            "SELECT add_jwt_key('KID', 'ALG', ARG => 'VALUE'), 1 / 0",
            "SELECT add_jwt_key('KID', 'ALG', ARG => 'VALUE'",
            "SELECT add_jwt_key('KID', 'nonsense', ARG => 'VALUE')",
            "SELECT add_jwt_key('KID', 'ALG', ARG => 'VALUE', no_such => 1)",
            "SELECT add_jwt_key('first', 'ALG', ARG => 'VALUE'); SELECT add_jwt_key('first', 'ALG', ARG => 'VALUE')",
        ] {
            let kid = Uuid::new_v4().to_string();
            let statement = statement.replace("KID", &kid).replace("ALG", algorithm).replace("ARG", argument);
            run_anyway(&mut admin, &statement.replace("VALUE", key));
        }
        for statement in [
            "SELECT add_jwt_key(gen_random_uuid()::text, 'ALG', ARG => $1)",
            "SELECT Add_JWT_Key(gen_random_uuid()::text, 'ALG', ARG => $1)",
            "SELECT add_jwt_key(gen_random_uuid()::text, 'ALG', ARG => $1), 1 / (SELECT 0)",
            "SELECT add_jwt_key('first', 'ALG', ARG => $1)",
            "SELECT add_jwt_key('x', 'none', ARG => $1)",
        ] {
            let statement = statement.replace("ALG", algorithm).replace("ARG", argument);
            let _ = admin.execute(&statement, &[&key]);
        }
    }
    let text = log.text();
    assert_hidden(&text, &[SECRET, PRIVATE_PART]);
    assert!(text.contains("add_jwt_key"));
    let kept = count(&mut admin, "tenancy.jwt_keys");
    assert!(kept >= 20, "most statements succeeded: {kept}");
}

#[test]
fn the_log_shows_no_pepper() {
    const PEPPER: &str = "a-pepper-of-quite-some-letters-and-more";
    let mut superuser = TALKATIVE.server().superuser();
    let log = Log::begin();
    for statement in [
        "ALTER SYSTEM SET tenancy.api_key_pepper = 'VALUE'",
        "ALTER SYSTEM SET TENANCY.API_KEY_PEPPER TO 'VALUE'",
        "ALTER SYSTEM SET \"tenancy\".\"api_key_pepper\" TO 'VALUE'",
        "SET tenancy.api_key_pepper = 'VALUE'",
        "SELECT set_config('tenancy.api_key_pepper', 'VALUE', false)",
        "SELECT set_config(name, 'VALUE', false) FROM (VALUES ('tenancy.api_key_pepper')) v(name)",
        "SELECT set_config(setting_name => 'tenancy.api_key_pepper', new_value => 'VALUE', is_local => false)",
        "SELECT set_config(new_value => 'VALUE', setting_name => 'tenancy.api_key_pepper', is_local => false)",
        "ALTER ROLE app SET tenancy.api_key_pepper = 'VALUE'",
        "ALTER SYSTEM SET tenancy.api_key_pepper = 'VALUE",
    ] {
        run_anyway(&mut superuser, &statement.replace("VALUE", PEPPER));
    }
    superuser.batch_execute("SELECT pg_reload_conf()").expect("reload");
    wait_until("the pepper is there", || text(&mut superuser, "SHOW tenancy.api_key_pepper") == PEPPER);
    superuser.batch_execute("ALTER SYSTEM RESET tenancy.api_key_pepper").expect("reset");
    superuser.batch_execute("SELECT pg_reload_conf()").expect("reload");
    wait_until("the pepper is gone", || text(&mut superuser, "SHOW tenancy.api_key_pepper").is_empty());
    let text = log.text();
    assert_hidden(&text, &[PEPPER]);
    assert!(text.contains("parameter \"***"), "the reload is told of");
}

/// Sessions that wait for each other are shown with their statements.
#[test]
fn the_log_of_a_deadlock_shows_no_credential() {
    let credentials = Credentials::new(&TALKATIVE, "log_deadlock");
    let database = &credentials.database;
    let log = Log::begin();
    let mut sessions = [database.connect("client"), database.connect("client")];
    let locks = [(1, 2), (2, 1)];
    for (session, (own, _)) in sessions.iter_mut().zip(locks) {
        session.batch_execute(&format!("SELECT pg_advisory_lock({own})")).expect("lock");
    }
    let cross = |session: &mut Client, other: i32| {
        let statement = format!("SELECT pg_advisory_lock({other}), verify_api_key('{}')", credentials.key);
        let failed = session.batch_execute(&statement).is_err();
        session.batch_execute("SELECT pg_advisory_unlock_all()").expect("unlock");
        failed
    };
    let failed = std::thread::scope(|scope| {
        let (cross, pairs) = (&cross, sessions.iter_mut().zip(locks));
        let threads: Vec<_> = pairs.map(|(session, (_, other))| scope.spawn(move || cross(session, other))).collect();
        threads.into_iter().map(|thread| thread.join().expect("ends")).filter(|failed| *failed).count()
    });
    assert_eq!(failed, 1);
    let text = log.text();
    assert!(text.contains("deadlock detected") && text.contains("Process holding the lock"));
    assert_hidden(&text, &credentials.all());
}

/// The header of a token may carry a chain of certificates (RFC 7515, section 4.1.6).
#[test]
fn the_log_shows_no_token_however_long_its_header_is() {
    const PAYLOAD: &str = "eyJzdWIiOiJhZGEiLCJ0ZW5hbnRfaWQiOiJhY21lIiwiZXhwIjo0MTAyNDQ0ODAwfQ";
    const SIGNATURE: &str = "c2lnbmF0dXJlLXRoYXQtbm9ib2R5LW1heS1zZWUtYXQtYWxs";
    const ENCODE: &str = "SELECT translate(encode(convert_to($1, 'UTF8'), 'base64'), E'+/=\\n', '-_')";
    let database = TALKATIVE.database("log_header");
    let mut superuser = database.superuser();
    let headers = [10, 500, 1000, 4000, 10_000].map(|length| {
        let certificate = "M".repeat(length);
        one::<String>(&mut superuser, ENCODE, &[&format!(r#"{{"alg":"RS256","kid":"1","x5c":["{certificate}"]}}"#)])
    });
    let log = Log::begin();
    let mut client = database.connect("client");
    for header in &headers {
        let token = format!("{header}.{PAYLOAD}.{SIGNATURE}");
        let _ = client.execute("SELECT FROM authenticate_jwt($1)", &[&token]);
        run_anyway(&mut client, &format!("SELECT FROM authenticate_jwt('{token}')"));
        run_anyway(&mut client, &format!("SELECT 'access_token={token}'::int"));
    }
    assert_hidden(&log.text(), &[PAYLOAD, SIGNATURE]);
}

/// What another session of the same role sees a backend do.
fn shown(observer: &mut Client, pid: i32) -> (String, String) {
    let row = &rows(observer, "SELECT state, query FROM pg_stat_activity WHERE pid = $1", &[&pid])[0];
    (row.get(0), row.get(1))
}

/// What another session sees a backend have done, once it is idle: a client hears of an error a moment before.
fn shown_idle(observer: &mut Client, pid: i32) -> String {
    let mut seen = (String::new(), String::new());
    wait_until("the session is idle", || {
        seen = shown(observer, pid);
        seen.0.starts_with("idle")
    });
    seen.1
}

/// Runs `work` in a session of the role client while it waits for the lock that `lock` takes; gives what the others of its role see
/// of it then, and afterwards.
fn seen_while(
    database: &Database,
    lock: &str,
    prepare: impl FnOnce(&mut Client),
    work: impl FnOnce(&mut Client) + Send,
) -> [String; 2] {
    let (mut superuser, mut observer, mut client) =
        (database.superuser(), database.connect("client"), database.connect("client"));
    let pid = backend_pid(&mut client);
    prepare(&mut client);
    let mut holder = database.superuser();
    let mut transaction = holder.transaction().expect("begin");
    transaction.batch_execute(lock).expect("lock");
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| work(&mut client));
        wait_for_lock(&mut superuser, pid);
        let during = shown(&mut observer, pid);
        transaction.rollback().expect("unlock");
        worker.join().expect("the statement ends");
        [during.1, shown_idle(&mut observer, pid)]
    })
}

const ADVISORY: &str = "SELECT pg_advisory_xact_lock(7)";

#[test]
fn other_sessions_see_no_credential_while_its_statement_runs_and_afterwards() {
    let credentials = Credentials::new(cluster(), "seen_running");
    for secret in credentials.all() {
        for statement in [
            "SELECT pg_advisory_xact_lock(7), verify_api_key('KEY')",
            "SELECT verify_api_key('KEY'), pg_advisory_xact_lock(7)",
            "SELECT 1; SELECT verify_api_key('KEY'); SELECT pg_advisory_xact_lock(7)",
            "SELECT pg_advisory_xact_lock(7); SELECT verify_api_key('KEY')",
            "DO $$ BEGIN PERFORM verify_api_key('KEY'), pg_advisory_xact_lock(7); END $$",
            "EXPLAIN ANALYZE SELECT pg_advisory_xact_lock(7), 'KEY'::text",
            "PREPARE p AS SELECT $1, pg_advisory_xact_lock(7); EXECUTE p('KEY')",
            "PREPARE p AS SELECT 'KEY', pg_advisory_xact_lock(7); EXECUTE p",
            "/* KEY */ SELECT pg_advisory_xact_lock(7)",
            "SELECT ('KEY' || count(*))::int FROM pg_advisory_xact_lock(7)",
        ] {
            let statement = statement.replace("KEY", secret);
            let seen = seen_while(&credentials.database, ADVISORY, |_| (), |client| run_simple(client, &statement));
            assert!(seen[0].contains("***") && seen[0].contains("pg_advisory_xact_lock"), "{seen:?}");
            assert_eq!(seen[0], seen[1]);
            assert_hidden(&seen[0], &[secret]);
        }
    }
}

fn run_simple(client: &mut Client, statement: &str) {
    let _ = client.simple_query(statement);
}

#[test]
fn other_sessions_see_no_credential_of_a_prepared_statement() {
    let credentials = Credentials::new(cluster(), "seen_prepared");
    for secret in credentials.all() {
        let sql =
            format!("SELECT pg_advisory_xact_lock(7)::text, ARRAY(SELECT v::text FROM verify_api_key('{secret}') v)");
        let mut prepared = None;
        let database = &credentials.database;
        let mut other = database.connect("client");
        let pid = backend_pid(&mut other);
        let statement = other.prepare(&sql).expect("prepare");
        assert_hidden(&shown_idle(&mut database.connect("client"), pid), &[secret]);
        drop(statement);
        for _ in 0..2 {
            let seen = seen_while(
                database,
                ADVISORY,
                |client| prepared = Some(client.prepare(&sql).expect("prepare")),
                |client| {
                    rows(client, &sql, &[]);
                },
            );
            assert!(seen[0].contains("***"), "{seen:?}");
            assert_hidden(&seen.concat(), &[secret]);
        }
    }
}

/// What comes before a statement, which then fails in another state of the transaction.
const BEFORE: [&str; 4] = ["SELECT 1", "BEGIN", "BEGIN; SAVEPOINT s", "BEGIN; SAVEPOINT s; SAVEPOINT t"];
/// Statements that fail when they are read, analysed, planned.
const FAILING: [&str; 4] = ["SELEC 'KEY'", "SELECT 'KEY", "SELECT verify_api_key('KEY', 1)", "SELECT 'KEY'::text::int"];

#[test]
fn other_sessions_see_no_credential_of_a_statement_that_failed() {
    let credentials = Credentials::new(cluster(), "seen_failed");
    let database = &credentials.database;
    database.superuser().batch_execute(USERS_TABLES).expect("create tables");
    // A session that began as superuser is shown to superusers only.
    let mut observer = database.superuser();
    // Where errors are not logged, too.
    for level in ["warning", "fatal", "panic"] {
        let mut client = database.superuser();
        let quiet = format!("SET log_min_messages = {level}; SET SESSION AUTHORIZATION client");
        client.batch_execute(&quiet).expect("set the level");
        let pid = backend_pid(&mut client);
        let mut seen = String::new();
        let mut look = |client: &mut Client| {
            seen = format!("{seen}\n{}", shown_idle(&mut observer, pid));
            client.batch_execute("ROLLBACK; DEALLOCATE ALL").expect("the session goes on");
        };
        for secret in credentials.all() {
            for statement in LITERAL {
                run_simple(&mut client, &statement.replace("KEY", secret));
                look(&mut client);
            }
            for (before, statement) in BEFORE.iter().flat_map(|before| FAILING.map(|statement| (before, statement))) {
                let statement = statement.replace("KEY", secret);
                client.batch_execute(before).expect("begin");
                run_simple(&mut client, &statement);
                look(&mut client);
                client.batch_execute(before).expect("begin");
                let _ = client.query(&statement, &[]);
                look(&mut client);
            }
        }
        assert!(seen.contains("***"));
        assert_hidden(&seen, &credentials.all());
    }
}

#[test]
fn statistics_of_statements_hold_no_credential() {
    let credentials = Credentials::new(&TALKATIVE, "seen_stats");
    let database = &credentials.database;
    database.superuser().batch_execute("CREATE EXTENSION pg_stat_statements").expect("create the extension");
    let mut client = database.connect("client");
    for secret in credentials.all() {
        for _ in 0..2 {
            rows(&mut client, "SELECT * FROM verify_api_key($1)", &[&secret]);
        }
        let _ = client.query("SELECT * FROM authenticate_jwt($1)", &[&secret]);
        run_anyway(&mut client, &format!("SELECT * FROM verify_api_key('{secret}')"));
        run_anyway(&mut client, &format!("BEGIN; SELECT * FROM authenticate_api_key('{secret}')"));
        run_anyway(&mut client, &format!("PREPARE p AS SELECT * FROM verify_api_key($1); EXECUTE p('{secret}')"));
    }
    let statements = simple(
        &mut database.superuser(),
        "SELECT query FROM pg_stat_statements
        WHERE query ~ '_api_key|_jwt' AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
    );
    let statements: Vec<String> = statements.into_iter().flatten().flatten().collect();
    assert!(statements.iter().any(|statement| statement == "SELECT * FROM verify_api_key($1)"), "{statements:?}");
    assert_hidden(&statements.concat(), &credentials.all());
}

/// What looks a little like a credential, and is none.
const ORDINARY: [&str; 14] = [
    "hello world",
    "snake_case_identifier_with_many_words",
    "ptk_short",
    "ptk_",
    "task_0123456789abcdefABCDEF",
    "v1.2.3.eyJ.x.y",
    "eyJhbGciOiJub25lIn",
    "eyJub3QiOiJhIHRva2VuIn0.body",
    "sha_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLM",
    "-----BEGIN PUBLIC KEY-----MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=-----END PUBLIC KEY-----",
    "naïve — 日本語 ✓ _ß_",
    "8e3f5a60-0000-4000-8000-00000000000a",
    "www.example.com/a.b.c?d_e=f.g",
    "aGVsbG8gd29ybGQ.aGVsbG8gd29ybGQ.aGVsbG8gd29ybGQ",
];

#[test]
fn ordinary_statements_are_logged_and_shown_as_they_are() {
    let database = TALKATIVE.database("ordinary");
    database.superuser().batch_execute(USERS_TABLES).expect("create tables");
    let log = Log::begin();
    let (mut client, mut observer) = (database.connect("client"), database.connect("client"));
    let pid = backend_pid(&mut client);
    let mut statements = Vec::new();
    for value in ORDINARY {
        for statement in ["SELECT 'VALUE' AS value", "SELECT 1 /* VALUE */", "DO $$ BEGIN PERFORM 'VALUE'; END $$"] {
            let statement = statement.replace("VALUE", value);
            client.batch_execute(&statement).expect("an ordinary statement");
            assert_eq!(shown_idle(&mut observer, pid), statement);
            statements.push(statement);
        }
        rows(&mut client, "SELECT $1::text AS parameter", &[&value]);
        let failing = format!("SELECT '{value}'::int AS number");
        let error = fails(client.batch_execute(&failing), "22P02");
        assert_eq!(error.message(), format!("invalid input syntax for type integer: \"{value}\""));
        assert_eq!(shown_idle(&mut observer, pid), failing);
        statements.push(failing);
    }
    let text = log.text();
    for statement in &statements {
        assert!(text.contains(&format!("statement: {statement}\n")), "{statement} is logged as it is");
    }
    for statement in statements.iter().filter(|statement| statement.contains("number")) {
        assert!(text.contains(&format!("STATEMENT:  {statement}\n")), "{statement} is logged with its error");
    }
    for value in ORDINARY {
        assert!(text.contains(&format!("parameters: $1 = '{value}'")), "{value} is logged as a parameter");
        let message = format!("invalid input syntax for type integer: \"{value}\"");
        assert!(text.contains(&format!("22P02: {message}")), "{message}");
    }
}

#[test]
fn errors_reach_their_user_with_all_that_belongs_to_them() {
    let database = TALKATIVE.database("errors");
    database.superuser().batch_execute(USERS_TABLES).expect("create tables");
    let mut client = database.connect("client");
    client.batch_execute("INSERT INTO seen VALUES ('once')").expect("insert");
    let error = fails(client.batch_execute("INSERT INTO seen VALUES ('once')"), "23505");
    assert_eq!(error.message(), "duplicate key value violates unique constraint \"seen_pkey\"");
    assert_eq!(error.detail(), Some("Key (k)=(once) already exists."));
    assert_eq!((error.schema(), error.table(), error.constraint()), (Some("public"), Some("seen"), Some("seen_pkey")));
    let error = fails(client.execute("INSERT INTO checked VALUES ($1)", &[&"much too long for it"]), "23514");
    assert_eq!(error.detail(), Some("Failing row contains (much too long for it)."));
    assert_eq!((error.table(), error.constraint()), (Some("checked"), Some("short")));
    let error = fails(client.batch_execute("INSERT INTO seen VALUES (NULL)"), "23502");
    assert_eq!((error.table(), error.column()), (Some("seen"), Some("k")));
    let error = fails(client.batch_execute("SELECT no_such FROM seen"), "42703");
    assert_eq!(error.position(), Some(&harness::postgres::error::ErrorPosition::Original(8)));
    let raise =
        "DO $$ BEGIN RAISE EXCEPTION 'own % message', 1 USING ERRCODE = 'PT404', DETAIL = 'd', HINT = 'h'; END $$";
    let error = fails(client.batch_execute(raise), "PT404");
    assert_eq!((error.message(), error.detail(), error.hint()), ("own 1 message", Some("d"), Some("h")));
    assert!(error.where_().is_some_and(|context| context.contains("inline_code_block line 1 at RAISE")));
    let raise = "DO $$ BEGIN RAISE EXCEPTION 'internationalization... of counterrevolutionaries...'; END $$";
    assert_eq!(
        fails(client.batch_execute(raise), "P0001").message(),
        "internationalization... of counterrevolutionaries..."
    );
    let (mut client, notices) = database.connect_with_notices("client");
    client.batch_execute("DO $$ BEGIN RAISE NOTICE 'plain _ notice 100 %%'; END $$").expect("raise a notice");
    assert_eq!(notices.messages(), ["plain _ notice 100 %"]);
}
