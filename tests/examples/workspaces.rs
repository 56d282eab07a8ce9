//! `examples/workspaces`: its story, and one test for each line of the checklist of system 2.

use super::Examples;
use crate::access::fixtures::{self, stored};
use harness::postgres::Error;
use harness::*;
use serde_json::{Value, json};
use std::process::Command;
use std::thread;

const TABLES: [&str; 3] = ["agents", "tasks", "messages"];

/// A key of the application's tokens that the tests know, to sign what the application would not.
const KID: &str = "of-the-tests";
const SECRET: &str = "a secret that only these tests know";

/// The application with two workspaces. Ada owns Acme and is a viewer in Globex, which Mallory owns; each has an agent, a task and
/// a message that bear its name.
struct Application {
    database: Database,
    acme: Uuid,
    globex: Uuid,
    ada: Uuid,
    mallory: Uuid,
}

impl Application {
    fn new() -> Application {
        Application::in_database(Database::new("workspaces"))
    }

    fn in_database(database: Database) -> Application {
        Examples::copy().run("workspaces", "install.sql", &database);
        let (mut app, mut operator) = (database.connect("app"), database.connect("operator"));
        let [ada, mallory] = [fixtures::user(&mut app), fixtures::user(&mut app)];
        let [acme, globex] = [("acme", ada), ("globex", mallory)].map(|(slug, owner)| {
            one(&mut operator, "SELECT create_tenant($1, slug => $1, plan => 'pro', owner => $2)", &[&slug, &owner])
        });
        as_tenant(&mut app, globex, |tx| one::<Uuid>(tx, "SELECT add_member($1, 'viewer')", &[&ada]));
        let application = Application { database, acme, globex, ada, mallory };
        for (workspace, owner, name) in [(acme, ada, "acme"), (globex, mallory, "globex")] {
            let token = application.token(workspace, owner);
            let fill = format!(
                "INSERT INTO agents (name) VALUES ('{name} agent');
                INSERT INTO tasks (agent_id, title) SELECT id, '{name} task' FROM agents;
                INSERT INTO messages (task_id, author, body) SELECT id, 'person', '{name} message' FROM tasks"
            );
            application.request(&token, |tx| tx.batch_execute(&fill).expect("fill a workspace"));
        }
        application
    }

    /// A token as the log-in service hands it out.
    fn token(&self, workspace: Uuid, user: Uuid) -> String {
        let mut app = self.database.connect("app");
        let mut transaction = app.transaction().expect("begin");
        one::<Uuid>(&mut transaction, "SELECT set_tenant($1, $2)", &[&workspace, &user]);
        let token = one(&mut transaction, "SELECT issue_jwt($1, scopes => '{*}')", &[&user]);
        transaction.commit().expect("commit");
        token
    }

    /// Mallory's token of Globex.
    fn mallorys(&self) -> String {
        self.token(self.globex, self.mallory)
    }

    /// One request to the API server, by a token or an API key.
    fn request<T>(&self, credential: &str, work: impl FnOnce(&mut Transaction<'_>) -> T) -> T {
        let mut client = self.database.connect("client");
        let mut transaction = client.transaction().expect("begin");
        authenticate(&mut transaction, credential).expect("a credential that is valid");
        let result = work(&mut transaction);
        transaction.commit().expect("commit");
        result
    }

    /// All that there is, as the superuser sees it.
    fn everything(&self) -> Vec<Vec<Option<String>>> {
        let mut superuser = self.database.superuser();
        let own: String = TABLES.map(|table| format!("SELECT * FROM {table} ORDER BY id;")).concat();
        let mut all = simple(&mut superuser, &format!("{own} SELECT * FROM passwords ORDER BY user_id"));
        all.extend(stored(&mut superuser));
        all
    }

    /// An API key of a user's own, made as the application does.
    fn key(&self, workspace: Uuid, user: Uuid) -> String {
        self.request(&self.token(workspace, user), |tx| one(tx, "SELECT create_key('a key', '{*}')", &[]))
    }

    /// The claims of a valid token for Ada in Acme.
    fn claims(&self) -> Value {
        let end: i64 = one(&mut self.database.superuser(), "SELECT extract(epoch FROM now())::bigint + 600", &[]);
        json!({ "sub": self.ada.to_string(), "tenant_id": self.acme.to_string(), "scope": "*", "iss": "workspaces", "aud": "workspaces-api", "exp": end })
    }
}

/// Binds an open transaction by whatever a caller sent.
fn authenticate(transaction: &mut Transaction<'_>, credential: &str) -> Result<(), Error> {
    let function = if credential.starts_with("ptk_") { "authenticate_api_key" } else { "authenticate_jwt" };
    transaction.query_one(&format!("SELECT tenant_id FROM {function}($1)"), &[&credential]).map(drop)
}

/// A token of this header and these claims, signed by HMAC with SHA-256 as pgcrypto computes it.
fn sign(superuser: &mut Client, header: &Value, claims: &Value, secret: &str) -> String {
    const SIGN: &str = r"
        WITH parts AS (
            SELECT string_agg(translate(encode(convert_to(part, 'UTF8'), 'base64'), E'+/=\n', '-_'), '.') AS signed
            FROM unnest(ARRAY[$1, $2]) AS part)
        SELECT signed || '.' || translate(encode(hmac(signed, $3, 'sha256'), 'base64'), E'+/=\n', '-_') FROM parts";
    one(superuser, SIGN, &[&header.to_string(), &claims.to_string(), &secret])
}

#[test]
fn workspaces_keeps_every_promise_of_its_story() {
    let database = Database::new("workspaces");
    let told = Examples::copy().run("workspaces", "run.sql", &database);
    assert!(told.matches('✓').count() >= 52, "{told}");
}

#[test]
fn checklist_every_query_is_filtered_by_workspace() {
    let application = Application::new();
    let mut superuser = application.database.superuser();
    let open = "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'workspaces'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
            AND has_table_privilege('client', oid, 'SELECT, INSERT, UPDATE, DELETE')
        EXCEPT SELECT table_name::text FROM tenancy.protection_status WHERE intact";
    let open: Vec<String> = rows(&mut superuser, open, &[]).iter().map(|row| row.get(0)).collect();
    assert!(open.is_empty(), "the API server reaches unprotected tables: {open:?}");

    let mallorys = application.mallorys();
    let filter = "(workspace_id = current_tenant())";
    for table in TABLES {
        for statement in [
            format!("SELECT * FROM {table}"),
            format!("SELECT * FROM {table} WHERE true OR id IS NULL"),
            format!("SELECT a.* FROM {table} a JOIN {table} b ON a.created_at IS NOT NULL"),
            format!("SELECT 1 WHERE EXISTS (SELECT FROM {table})"),
            format!("UPDATE {table} SET created_at = now() RETURNING 1"),
            format!("DELETE FROM {table} RETURNING 1"),
        ] {
            // Each in a request of its own that is rolled back: the last one cascades.
            let mut client = application.database.connect("client");
            let mut transaction = client.transaction().expect("begin");
            authenticate(&mut transaction, &mallorys).expect("Mallory's token");
            let plan: Vec<String> =
                rows(&mut transaction, &format!("EXPLAIN {statement}"), &[]).iter().map(|row| row.get(0)).collect();
            let scans = plan.iter().filter(|line| line.contains("Scan") && line.contains(" on ")).count();
            let filtered = plan.iter().filter(|line| line.contains(filter)).count();
            assert!(scans > 0 && filtered >= scans, "{statement}: {plan:#?}");
            assert_eq!(rows(&mut transaction, &statement, &[]).len(), 1, "{statement}");
        }
    }
}

#[test]
fn checklist_a_token_is_validated() {
    let application = Application::new();
    let (mut superuser, mut admin) = (application.database.superuser(), application.database.connect("admin"));
    let add = "SELECT add_jwt_key($1, 'HS256', $2, issuer => 'workspaces', audience => 'workspaces-api')";
    one::<String>(&mut admin, add, &[&KID, &SECRET]);
    let header = json!({ "alg": "HS256", "kid": KID });
    let valid = application.claims();
    let good = sign(&mut superuser, &header, &valid, SECRET);
    application.request(&good, |tx| assert_eq!(one::<Uuid>(tx, "SELECT current_tenant()", &[]), application.acme));

    let with = |claim: &str, value: Value| {
        let mut claims = valid.clone();
        claims[claim] = value;
        claims
    };
    let without = |claim: &str| {
        let mut claims = valid.clone();
        claims.as_object_mut().expect("claims").remove(claim);
        claims
    };
    let now = valid["exp"].as_i64().expect("an end") - 600;
    let wrong_claims = [
        ("expired", with("exp", json!(now - 60))),
        ("without an end", without("exp")),
        ("not valid yet", with("nbf", json!(now + 300))),
        ("of another issuer", with("iss", json!("somebody"))),
        ("for another audience", with("aud", json!("something"))),
        ("for no audience", without("aud")),
        ("of no workspace", without("tenant_id")),
        ("of an unknown workspace", with("tenant_id", json!(Uuid::new_v4().to_string()))),
        ("of no user", without("sub")),
        ("of an unknown user", with("sub", json!(Uuid::new_v4().to_string()))),
        ("of somebody who is no member", with("sub", json!(application.mallory.to_string()))),
        ("of a user that is a number", with("sub", json!(1))),
        ("that says nothing", json!("claims")),
    ];
    let mut forged: Vec<(&str, String)> =
        wrong_claims.iter().map(|(what, claims)| (*what, sign(&mut superuser, &header, claims, SECRET))).collect();
    let unsigned = sign(&mut superuser, &json!({ "alg": "none", "kid": KID }), &valid, "");
    forged.extend([
        ("unsigned", unsigned.clone()),
        ("unsigned, its signature left out", unsigned[..=unsigned.rfind('.').expect("a dot")].to_owned()),
        ("signed with another secret", sign(&mut superuser, &header, &valid, "another secret of this length or so")),
        ("of another algorithm", sign(&mut superuser, &json!({ "alg": "HS512", "kid": KID }), &valid, SECRET)),
        ("of an unknown key", sign(&mut superuser, &json!({ "alg": "HS256", "kid": "none" }), &valid, SECRET)),
        ("of no key, where there are two", sign(&mut superuser, &json!({ "alg": "HS256" }), &valid, SECRET)),
        ("cut short", good[..good.len() - 1].to_owned()),
        ("with something behind", format!("{good}.{good}")),
        ("a megabyte of it", good.repeat(1_000_000 / good.len())),
        ("nothing", String::new()),
        ("something else", "' OR true --".to_owned()),
    ]);
    let mut client = application.database.connect("client");
    for (what, token) in &forged {
        let mut transaction = client.transaction().expect("begin");
        let mut attempt = transaction.transaction().expect("a savepoint");
        assert!(
            authenticate(&mut attempt, token)
                .is_err_and(|error| error.code().is_some_and(|code| code.code() == "28000")),
            "a token {what}"
        );
        attempt.rollback().expect("go back");
        assert_eq!(
            one::<Option<Uuid>>(&mut transaction, "SELECT current_tenant_or_null()", &[]),
            None,
            "a token {what}"
        );
        fails(transaction.batch_execute("SELECT * FROM agents"), "42501");
    }
}

#[test]
fn checklist_workspaces_are_isolated() {
    let application = Application::new();
    let acme = application.acme;
    let agent: Uuid =
        one(&mut application.database.superuser(), "SELECT id FROM agents WHERE workspace_id = $1", &[&acme]);
    let mallorys = application.mallorys();
    let before = application.everything();
    let attempt = |statement: &str| {
        let mut client = application.database.connect("client");
        let mut transaction = client.transaction().expect("begin");
        authenticate(&mut transaction, &mallorys).expect("Mallory's token");
        let rows = transaction.query(statement, &[])?;
        transaction.commit().expect("commit");
        Ok::<usize, Error>(rows.len())
    };
    for statement in [
        format!("INSERT INTO agents (workspace_id, name) VALUES ('{acme}', 'mole')"),
        format!(
            "INSERT INTO agents (workspace_id, id, name) VALUES ('{acme}', '{agent}', 'mole') ON CONFLICT (workspace_id, id) DO UPDATE SET name = 'mole'"
        ),
        format!("UPDATE agents SET workspace_id = '{acme}'"),
    ] {
        let fault = fails(attempt(&statement), "42501");
        assert!(fault.message().starts_with("tenant mismatch"), "{statement}: {fault:?}");
    }
    fails(attempt(&format!("INSERT INTO tasks (agent_id, title) VALUES ('{agent}', 'of a foreign agent')")), "23503");
    for statement in [
        format!("UPDATE agents SET name = 'mole' WHERE id = '{agent}' RETURNING 1"),
        format!("DELETE FROM agents WHERE workspace_id = '{acme}' RETURNING 1"),
        format!("SELECT FROM agents WHERE id = '{agent}' FOR UPDATE"),
        format!("SELECT FROM tasks WHERE workspace_id = '{acme}'"),
        "SELECT FROM messages WHERE body LIKE 'acme%'".to_owned(),
        format!("SELECT FROM tenancy.members WHERE tenant_id = '{acme}'"),
        format!("SELECT FROM tenancy.tenants WHERE id = '{acme}'"),
    ] {
        assert_eq!(attempt(&statement).expect("a statement that finds nothing"), 0, "{statement}");
    }
    for table in TABLES {
        fails(application.database.connect("client").batch_execute(&format!("SELECT * FROM {table}")), "42501");
    }
    assert_eq!(application.everything(), before);
}

#[test]
fn checklist_a_key_serves_one_workspace() {
    let application = Application::new();
    let (acme, globex, ada) = (application.acme, application.globex, application.ada);
    // A viewer makes no keys, so that Ada becomes a member of Globex.
    application.request(&application.mallorys(), |tx| one::<bool>(tx, "SELECT set_role($1, 'member')", &[&ada]));
    let [of_acme, of_globex] = [acme, globex].map(|workspace| application.key(workspace, ada));
    for (key, name) in [(&of_acme, "acme agent"), (&of_globex, "globex agent")] {
        application.request(key, |tx| {
            assert_eq!(one::<String>(tx, "SELECT string_agg(name, ', ') FROM agents", &[]), name);
            assert_eq!(count(tx, "tenancy.api_keys WHERE tenant_id <> current_tenant()"), 0);
            assert_eq!(count(tx, "tenancy.api_keys"), 1, "the key itself");
        });
    }
    // The key of one workspace opens no other, beside that of another one neither.
    application.request(&of_acme, |tx| {
        let mut inner = tx.transaction().expect("a savepoint");
        fails(authenticate(&mut inner, &of_globex), "55000");
        inner.rollback().expect("go back");
        let mut inner = tx.transaction().expect("a savepoint");
        fails(inner.query("SELECT set_tenant($1)", &[&globex]), "42501");
        inner.rollback().expect("go back");
        assert_eq!(one::<Uuid>(tx, "SELECT current_tenant()", &[]), acme);
    });
    // Nor does it outlive the membership that it is of, while the other one goes on.
    application.request(&application.mallorys(), |tx| one::<bool>(tx, "SELECT expel($1)", &[&ada]));
    let mut client = application.database.connect("client");
    fails(authenticate(&mut client.transaction().expect("begin"), &of_globex), "28000");
    application.request(&of_acme, |tx| assert_eq!(count(tx, "agents"), 1));
}

#[test]
fn checklist_the_rate_limit_is_per_workspace() {
    let application = Application::new();
    let adas = application.token(application.acme, application.ada);
    let limit = "SELECT set_tenant_rate_limit($1, 'api_calls', 3, 'hour')";
    one::<String>(&mut application.database.connect("operator"), limit, &[&application.acme]);
    // Whoever calls for the workspace, by token or key, and whatever becomes of the request.
    let key = application.key(application.acme, application.ada);
    for credential in [&adas, &key, &adas] {
        let mut client = application.database.connect("client");
        let mut transaction = client.transaction().expect("begin");
        authenticate(&mut transaction, credential).expect("Ada's credential");
        assert!(one::<bool>(&mut transaction, "SELECT admit()", &[]));
        transaction.rollback().expect("roll back");
    }
    for credential in [&adas, &key] {
        let mut client = application.database.connect("client");
        let mut transaction = client.transaction().expect("begin");
        authenticate(&mut transaction, credential).expect("Ada's credential");
        fails(transaction.query("SELECT admit()", &[]), "53400");
    }
    application.request(&application.mallorys(), |tx| {
        for _ in 0..10 {
            assert!(one::<bool>(tx, "SELECT admit()", &[]));
        }
    });
}

#[test]
fn checklist_usage_is_per_workspace_and_not_the_api_servers_to_write() {
    let application = Application::new();
    let adas = application.token(application.acme, application.ada);
    application.request(&adas, |tx| {
        tx.batch_execute("UPDATE tasks SET status = 'running'").expect("start the task");
    });
    let backdate = "UPDATE tasks SET started_at = started_at - interval '2 minutes 1 second' WHERE status = 'running'";
    application.database.superuser().batch_execute(backdate).expect("set the clock back");
    application.request(&adas, |tx| {
        tx.batch_execute("UPDATE tasks SET status = 'completed', ended_at = '2000-01-01'").expect("end the task");
        assert_eq!(text(tx, "SELECT trim_scale(quantity) FROM usage() WHERE metric = 'agent_minutes'"), "3");
        assert_eq!(text(tx, "SELECT trim_scale(take_minutes(97))"), "99900");
    });
    application.request(&application.mallorys(), |tx| {
        assert_eq!(count(tx, "usage() WHERE quantity > 0"), 0);
        assert_eq!(text(tx, "SELECT trim_scale(used) FROM check_limit('agent_minutes')"), "0");
    });
    for statement in [
        format!("SELECT * FROM tenant_usage('{}')", application.acme),
        "SELECT record_usage('agent_minutes', 0)".to_owned(),
        "SELECT consume_quota('agent_minutes', 0)".to_owned(),
        "SELECT * FROM tenancy.usage_inbox".to_owned(),
        "SELECT * FROM tenancy.usage_buckets".to_owned(),
        "DELETE FROM tenancy.usage_inbox".to_owned(),
        format!("SELECT set_tenant_limit('{}', 'agent_minutes', NULL, 'month')", application.globex),
        format!("SELECT change_plan('{}', 'enterprise')", application.globex),
    ] {
        let mut client = application.database.connect("client");
        let mut transaction = client.transaction().expect("begin");
        authenticate(&mut transaction, &application.mallorys()).expect("Mallory's token");
        fails(transaction.batch_execute(&statement), "42501");
    }
}

#[test]
fn a_free_workspace_runs_one_task_however_many_ask_at_once() {
    let application = Application::new();
    let mut operator = application.database.connect("operator");
    let plan = "SELECT change_plan($1, 'free')";
    one::<Uuid>(&mut operator, plan, &[&application.acme]);
    let adas = application.token(application.acme, application.ada);
    application.request(&adas, |tx| {
        let fill =
            "INSERT INTO tasks (agent_id, title) SELECT id, 'Task ' || n FROM agents, generate_series(1, 12) AS n";
        tx.batch_execute(fill).expect("tasks to do");
    });
    let started: usize = thread::scope(|scope| {
        let attempts: Vec<_> = (1..=12)
            .map(|number| {
                let (application, adas) = (&application, &adas);
                scope.spawn(move || {
                    let mut client = application.database.connect("client");
                    let mut transaction = client.transaction().expect("begin");
                    authenticate(&mut transaction, adas).expect("Ada's token");
                    let start = format!("UPDATE tasks SET status = 'running' WHERE title = 'Task {number}'");
                    match transaction.execute(&start, &[]) {
                        Ok(started) => transaction.commit().map(|()| started as usize).expect("commit"),
                        Err(error) => {
                            assert_eq!(error.code().map(|code| code.code()), Some("54000"), "{error:?}");
                            0
                        }
                    }
                })
            })
            .collect();
        attempts.into_iter().map(|attempt| attempt.join().expect("an attempt")).sum()
    });
    assert_eq!(started, 1);
    application.request(&adas, |tx| assert_eq!(count(tx, "tasks WHERE status = 'running'"), 1));
}

#[test]
fn the_last_place_in_a_workspace_goes_to_one_and_is_free_again_when_they_leave() {
    let application = Application::new();
    let (acme, ada) = (application.acme, application.ada);
    one::<Uuid>(&mut application.database.connect("operator"), "SELECT change_plan($1, 'starter')", &[&acme]);
    fixtures::member(&mut application.database.connect("app"), acme, "member");
    let adas = application.token(acme, ada);
    let mut app = application.database.connect("app");
    let invited: Vec<(Uuid, String)> = (0..6)
        .map(|number| {
            let email = format!("guest{number}@example.com");
            let user = one(&mut app, "SELECT sign_up($1, 'Guest', 'correct horse battery')", &[&email]);
            (user, application.request(&adas, |tx| one(tx, "SELECT invite($1)", &[&email])))
        })
        .collect();
    let accept = |(user, token): &(Uuid, String)| {
        let mut app = application.database.connect("app");
        match app.query_one("SELECT accept_invitation($1, $2)", &[token, user]) {
            Ok(_) => Some(*user),
            Err(error) => {
                assert_eq!(error.code().map(|code| code.code()), Some("54000"), "{error:?}");
                None
            }
        }
    };
    let came: Vec<Uuid> = thread::scope(|scope| {
        let attempts: Vec<_> = invited.iter().map(|invitation| scope.spawn(move || accept(invitation))).collect();
        attempts.into_iter().filter_map(|attempt| attempt.join().expect("an attempt")).collect()
    });
    let [guest] = came[..] else { panic!("{} of six got the last place", came.len()) };
    let next = invited.iter().find(|(user, _)| *user != guest).expect("somebody who did not");
    assert_eq!(accept(next), None);
    application.request(&adas, |tx| one::<bool>(tx, "SELECT expel($1)", &[&guest]));
    assert_eq!(accept(next), Some(next.0));
    application.request(&adas, |tx| assert_eq!(count(tx, "tenancy.members"), 3));
    assert_eq!(count(&mut application.database.connect("admin"), "verify_limits()"), 0);
}

/// Whether some file under the data directory, or the log, holds a text.
fn is_stored(cluster: &Cluster, text: &str) -> bool {
    let found = Command::new("grep").args(["-r", "-q", "-a", "-F", "-e", text]).arg(cluster.data()).status();
    found.expect("run grep").success() || cluster.log_contains(text)
}

#[test]
fn checklist_secrets_are_encrypted_at_rest() {
    const CREDENTIAL: &str = "sk-live-the-agents-log-in-elsewhere";
    const VAULT_KEY: &str = "the-key-that-the-application-passes";
    const PASSWORD: &str = "a-password-to-be-hashed";
    let cluster = Cluster::start(Options::new());
    let application = Application::in_database(cluster.database("workspaces"));
    let adas = application.token(application.acme, application.ada);
    let (key, invitation): (String, String) = application.request(&adas, |tx| {
        let put = "UPDATE agents SET credential = pgp_sym_encrypt($1, $2), instructions = 'instructions in the clear'";
        tx.execute(put, &[&CREDENTIAL, &VAULT_KEY]).expect("store a credential");
        let key = one(tx, "SELECT create_key('a key', '{*}')", &[]);
        (key, one(tx, "SELECT invite('bob@example.com')", &[]))
    });
    application.request(&key, |tx| {
        let get = "SELECT pgp_sym_decrypt(credential, $1) FROM agents";
        assert_eq!(one::<String>(tx, get, &[&VAULT_KEY]), CREDENTIAL);
    });
    let mut app = application.database.connect("app");
    let eve: Uuid = one(&mut app, "SELECT sign_up('eve@example.com', 'Eve', $1)", &[&PASSWORD]);
    let log_in = "SELECT log_in('eve@example.com', $1)";
    assert_eq!(one::<Option<Uuid>>(&mut app, log_in, &[&PASSWORD]), Some(eve));
    assert_eq!(one::<Option<Uuid>>(&mut app, log_in, &[&"another-password"]), None);

    application.database.superuser().batch_execute("CHECKPOINT").expect("write everything to disk");
    let dump = run(&mut application.database.tool("pg_dump", "postgres"));
    assert!(is_stored(&cluster, "instructions in the clear") && dump.contains("instructions in the clear"));
    let signature = adas.rsplit('.').next().expect("a signature");
    for secret in
        [CREDENTIAL, VAULT_KEY, PASSWORD, &key["ptk_12345678".len()..], &invitation["pti_12345678".len()..], signature]
    {
        assert!(!is_stored(&cluster, secret), "{secret} is on disk");
        assert!(!dump.contains(secret), "{secret} is in a dump");
    }
}

#[test]
fn checklist_injected_sql_reaches_no_other_workspace() {
    let application = Application::new();
    let (acme, ada) = (application.acme, application.ada);
    let key = application.key(acme, ada);
    let vera = fixtures::member(&mut application.database.connect("app"), acme, "viewer");
    let veras: String =
        one(&mut application.database.superuser(), "SELECT email FROM tenancy.users WHERE id = $1", &[&vera]);
    let mallorys = application.mallorys();
    let before = application.everything();
    let mut served = 0;
    for input in [
        "' OR true --".to_owned(),
        format!("' OR workspace_id = '{acme}"),
        "' UNION SELECT body FROM messages --".to_owned(),
        "' UNION SELECT password_hash FROM passwords --".to_owned(),
        "' UNION SELECT email FROM tenancy.users --".to_owned(),
        "' UNION SELECT email FROM tenancy.members --".to_owned(),
        "' UNION SELECT key_prefix FROM tenancy.api_keys --".to_owned(),
        "' UNION SELECT encode(key_hash, 'hex') FROM tenancy.stored_api_keys --".to_owned(),
        "' UNION SELECT verifying_key FROM tenancy.stored_jwt_keys --".to_owned(),
        format!("'; SELECT set_tenant('{acme}'); SELECT name FROM agents --"),
        format!("'; COMMIT; BEGIN; SELECT set_tenant('{acme}'); SELECT name FROM agents --"),
        format!("'; SET tenancy.context = '{acme}'; SELECT name FROM agents --"),
        format!("'; SELECT set_config('tenancy.context', '{acme}', false); COMMIT; SELECT name FROM agents --"),
        "'; SET row_security = off; SELECT name FROM agents --".to_owned(),
        "'; RESET ALL; SELECT name FROM agents --".to_owned(),
        "'; DISCARD ALL; SELECT name FROM agents --".to_owned(),
        "'; SET ROLE app; SELECT name FROM agents --".to_owned(),
        "'; SET SESSION AUTHORIZATION owner; SELECT name FROM agents --".to_owned(),
        format!("'; SELECT issue_jwt('{ada}') --"),
        format!("'; SELECT api_key FROM create_api_key('mine', '{{*}}', user_id => '{ada}') --"),
        format!("'; SELECT rebind_tenant('{acme}') --"),
        "'; CREATE TEMPORARY TABLE agents (name text) --".to_owned(),
        "'; DROP TABLE agents --".to_owned(),
        "'; ALTER TABLE agents DISABLE ROW LEVEL SECURITY; SELECT name FROM agents --".to_owned(),
        "'; TRUNCATE agents --".to_owned(),
        "'; COPY agents TO STDOUT --".to_owned(),
        "'; DO $$ BEGIN EXECUTE 'SELECT clear_tenant()'; END $$; SELECT name FROM agents --".to_owned(),
    ] {
        // A handler as nobody should write it, by the protocol that lets several statements through.
        let mut client = application.database.connect("client");
        let sql = format!(
            "BEGIN; SELECT tenant_id FROM authenticate_jwt('{mallorys}'); SELECT name FROM agents WHERE name = '{input}'"
        );
        let seen =
            client.simple_query(&sql).map_or_else(|error| format!("{error:?}"), |messages| format!("{messages:?}"));
        for foreign in ["acme agent", "acme task", "acme message", "$2a$", &key[..12], &veras] {
            assert!(!seen.contains(foreign), "{input}: {seen}");
        }
        served += usize::from(seen.contains("globex agent"));
        let _ = client.simple_query("COMMIT");
    }
    assert!(served > 0, "no input was read as SQL, so that nothing is proven");
    assert_eq!(application.everything(), before);
    // As it should be written, nothing of it is SQL.
    let hostile = "'); DROP TABLE agents; --";
    application.request(&mallorys, |tx| {
        tx.execute("INSERT INTO agents (name) VALUES ($1)", &[&hostile]).expect("a name like any other");
        assert_eq!(count(tx, "agents"), 2);
    });
    let mut app = application.database.connect("app");
    let user: Uuid = one(&mut app, "SELECT sign_up('o''hara@example.com', $1, 'correct horse battery')", &[&hostile]);
    let name: String =
        one(&mut application.database.superuser(), "SELECT name FROM tenancy.users WHERE id = $1", &[&user]);
    assert_eq!(name, hostile);
}

#[test]
fn checklist_input_is_validated() {
    let application = Application::new();
    let ada = application.ada;
    let mallorys = application.mallorys();
    let before = application.everything();
    let mut app = application.database.connect("app");
    for (call, sqlstate) in [
        ("sign_up(NULL, 'Eve', 'correct horse battery')", "22023"),
        ("sign_up('', 'Eve', 'correct horse battery')", "22023"),
        ("sign_up('not an address', 'Eve', 'correct horse battery')", "22023"),
        ("sign_up(repeat('e', 1000) || '@example.com', 'Eve', 'correct horse battery')", "22023"),
        ("sign_up('eve@example.com', '', 'correct horse battery')", "22023"),
        ("sign_up('eve@example.com', repeat('e', 100000), 'correct horse battery')", "22023"),
        ("sign_up('eve@example.com', 'Eve', 'too short')", "23514"),
        ("sign_up('eve@example.com', 'Eve', repeat('x', 73))", "23514"),
        ("sign_up('eve@example.com', 'Eve', NULL)", "23502"),
        ("log_in(NULL, 'correct horse battery')", "22023"),
    ] {
        fails(app.batch_execute(&format!("SELECT {call}")), sqlstate);
    }
    let agent = "INSERT INTO agents (name) VALUES";
    let task = "INSERT INTO tasks (agent_id, title, status, started_at, ended_at) SELECT id,";
    let message = "INSERT INTO messages (task_id, author, body) SELECT id,";
    let mut client = application.database.connect("client");
    for (statement, sqlstate) in [
        (format!("{agent} (NULL)"), "23502"),
        (format!("{agent} ('')"), "23514"),
        (format!("{agent} (repeat('a', 101))"), "23514"),
        (format!("{agent} ('globex agent')"), "23505"),
        (format!("{task} '', 'queued', NULL, NULL FROM agents"), "23514"),
        (format!("{task} 'a task', 'done', NULL, NULL FROM agents"), "23514"),
        (format!("{task} 'a task', 'completed', now(), now() - interval '1 minute' FROM agents"), "23514"),
        (format!("{message} 'robot', 'hello' FROM tasks"), "23514"),
        (format!("{message} 'person', '' FROM tasks"), "23514"),
        (format!("{message} 'person', repeat('m', 10001) FROM tasks"), "23514"),
        ("SELECT invite(NULL)".to_owned(), "22023"),
        ("SELECT invite('nobody')".to_owned(), "22023"),
        ("SELECT invite('eve@example.com', 'emperor')".to_owned(), "22023"),
        (format!("SELECT set_role('{ada}', 'emperor')"), "22023"),
        (format!("SELECT set_role('{ada}', NULL)"), "22023"),
        (format!("SELECT set_role('{}', 'member')", Uuid::new_v4()), "P0002"),
        ("SELECT set_role('Ada', 'member')".to_owned(), "22P02"),
        ("SELECT expel(NULL)".to_owned(), "22023"),
        ("SELECT create_key('', '{*}')".to_owned(), "22023"),
        ("SELECT create_key(repeat('k', 100000), '{*}')".to_owned(), "22023"),
        ("SELECT create_key('a key', NULL)".to_owned(), "22023"),
        ("SELECT create_key('a key', '{\"two words\"}')".to_owned(), "22023"),
        ("SELECT create_key('a key', '{*}', '-1 day')".to_owned(), "22023"),
        (format!("SELECT end_key('{}')", Uuid::new_v4()), "P0002"),
    ] {
        let mut transaction = client.transaction().expect("begin");
        authenticate(&mut transaction, &mallorys).expect("Mallory's token");
        fails(transaction.batch_execute(&statement), sqlstate);
        transaction.commit().expect("end the transaction");
    }
    assert_eq!(application.everything(), before);
}
