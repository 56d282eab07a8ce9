//! The audit log: every operation leaves one row, in its own transaction, that nobody can change.

use crate::access::fixtures;
use harness::{
    Client, Cluster, Database, Options, Uuid, as_tenant, bind, count, fails, one, protected_table, rows, simple,
    tenant, tenants, text,
};
use serde_json::{Value, json};

/// Every operation that is written down, with `TENANT` for a tenant's id, in an order in which all succeed.
const OPERATIONS: &[(&str, &str)] = &[
    ("SELECT create_plan('pro')", "plan.create"),
    ("SELECT create_plan('pro', features => '{sso}')", "plan.update"),
    ("SELECT create_tenant('Acme', 'acme', id => 'TENANT', metadata => '{\"a\": 1}')", "tenant.create"),
    ("SELECT update_tenant('TENANT', name => 'Acme Inc.')", "tenant.update"),
    ("SELECT change_plan('TENANT', 'pro')", "tenant.change_plan"),
    ("SELECT set_plan_limit('pro', 'orders', 100)", "plan.set_limit"),
    ("SELECT unset_plan_limit('pro', 'orders')", "plan.unset_limit"),
    ("SELECT set_tenant_limit('TENANT', 'orders', NULL)", "tenant.set_limit"),
    ("SELECT unset_tenant_limit('TENANT', 'orders')", "tenant.unset_limit"),
    ("SELECT set_plan_rate_limit('pro', 'api', 100, 'minute', 10)", "plan.set_rate_limit"),
    ("SELECT unset_plan_rate_limit('pro', 'api')", "plan.unset_rate_limit"),
    ("SELECT set_tenant_rate_limit('TENANT', 'api', NULL)", "tenant.set_rate_limit"),
    ("SELECT unset_tenant_rate_limit('TENANT', 'api')", "tenant.unset_rate_limit"),
    ("SELECT suspend_tenant('TENANT', 'unpaid')", "tenant.suspend"),
    ("SELECT suspend_tenant('TENANT', 'still unpaid', 'read_only')", "tenant.suspend"),
    ("SELECT suspend_tenant('TENANT', 'closed', terminate => true)", "tenant.suspend"),
    ("SELECT resume_tenant('TENANT')", "tenant.resume"),
    ("SELECT cancel_tenant('TENANT', 'moved away')", "tenant.cancel"),
    ("SELECT restore_tenant('TENANT')", "tenant.restore"),
    ("SELECT delete_tenant('TENANT', '1 day')", "tenant.delete"),
    ("SELECT restore_tenant('TENANT')", "tenant.restore"),
    ("SELECT protect_table('orders')", "table.protect"),
    ("SELECT limit_table('orders', 'orders')", "table.limit"),
    ("SELECT recount_limits()", "limits.recount"),
    ("SELECT recount_limits('TENANT')", "tenant.recount_limits"),
    ("SELECT unlimit_table('orders', 'orders')", "table.unlimit"),
    ("SELECT unprotect_table('orders')", "table.unprotect"),
    ("SELECT grant_access('stranger', 'monitor')", "access.grant"),
    ("SELECT grant_access('stranger', 'operator')", "access.grant"),
    ("SELECT revoke_access('stranger')", "access.revoke"),
    ("SELECT allow_definer('public.totals', 'monthly figures')", "definer.allow"),
    ("SELECT disallow_definer('public.totals')", "definer.disallow"),
    ("SELECT create_metric('calls', 'call')", "metric.create"),
    ("SELECT create_metric('calls', 'calls')", "metric.create"),
    ("SELECT trim_usage_archive(12)", "usage.trim_archive"),
    ("SELECT set_subscription('TENANT', 'active', '2025-01-01', '2025-02-01')", "subscription.set"),
    ("SELECT close_billing_period('TENANT', '2025-01')", "billing.close"),
    ("SELECT trim_audit_log()", "audit.trim"),
    ("SELECT delete_tenant('TENANT', '0')", "tenant.delete"),
];

/// Calls that change nothing, and so leave no row.
const IDLE: &[&str] = &[
    "SELECT rollup_usage()",
    "SELECT trim_usage_keys()",
    "SELECT maintain_usage()",
    "SELECT apply_subscription_grace()",
    "SELECT trim_invitations()",
    "SELECT slug_available('acme')",
    "SELECT find_tenant('acme')",
    "SELECT count(*) FROM adoption_plan('public')",
    "SELECT count(*) FROM protection_advice()",
    "CALL for_each_tenant('SELECT 1')",
    "CALL sync_tenant_databases()",
    "SELECT unset_plan_limit('free', 'orders')",
    "SELECT unset_plan_rate_limit('free', 'api')",
    "SELECT unlimit_table('tenancy.memberships', 'members')",
    "SELECT unprotect_table('orders')",
    "SELECT revoke_access('stranger')",
    "SELECT disallow_definer('public.totals')",
    "SELECT count(*) FROM tenancy.audit_log",
];

/// A database with the objects that the operations name; `stranger` holds no level in it.
fn prepared(label: &str) -> Database {
    let database = Database::new(label);
    database
        .superuser()
        .batch_execute(
            "CREATE TABLE orders (id int, tenant_id uuid); ALTER TABLE orders OWNER TO owner;
             CREATE VIEW totals AS SELECT count(*) FROM orders",
        )
        .expect("create the objects");
    database
}

fn written(superuser: &mut Client) -> i64 {
    count(superuser, "tenancy.audit_log")
}

/// The newest row, as JSON.
fn newest(superuser: &mut Client) -> Value {
    one(superuser, "SELECT to_jsonb(a) FROM tenancy.audit_log a ORDER BY id DESC LIMIT 1", &[])
}

/// All that the product's tables hold, as one text.
pub fn everything(superuser: &mut Client) -> String {
    const TABLES: &str =
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'tenancy' AND c.relkind IN ('r', 'p', 'm') ORDER BY 1";
    let mut all = String::new();
    for table in rows(superuser, TABLES, &[]) {
        let table: String = table.get(0);
        let content = format!("SELECT coalesce(string_agg(to_jsonb(t)::text, chr(10)), '') FROM {table} t");
        all.push_str(&text(superuser, &content));
    }
    all
}

#[test]
fn every_operation_writes_one_row_that_says_who_and_what() {
    let database = prepared("operations");
    let mut superuser = database.superuser();
    let mut admin = database.connect("admin");
    let id = Uuid::new_v4().to_string();
    for &(operation, action) in OPERATIONS {
        let before = written(&mut superuser);
        let operation = operation.replace("TENANT", &id);
        admin.batch_execute(&operation).unwrap_or_else(|error| panic!("{operation}: {error:?}"));
        assert_eq!(written(&mut superuser), before + 1, "{operation}");
        let row = newest(&mut superuser);
        assert_eq!(row["action"], *action, "{operation}: {row}");
        assert_eq!(row["session_user_name"], "admin", "{operation}: {row}");
        assert_eq!(row["outer_user_name"], "admin", "{operation}: {row}");
        assert_eq!(row["principal"], Value::Null, "{operation}: {row}");
        let is_of_tenant = ["tenant.", "subscription.", "billing."].iter().any(|room| action.starts_with(room));
        let tenant = if is_of_tenant { json!(id) } else { Value::Null };
        assert_eq!(row["tenant_id"], tenant, "{operation}: {row}");
        assert!(
            row["before"].is_object() || row["after"].is_object() || row["target"].is_string(),
            "{operation}: {row}"
        );
    }
    let before = written(&mut superuser);
    for call in IDLE {
        admin.batch_execute(call).unwrap_or_else(|error| panic!("{call}: {error:?}"));
    }
    assert_eq!(written(&mut superuser), before);
}

/// Every change of people and credentials by a principal, in an order in which all succeed, and what it writes. `OWN` is who acts, `USER`
/// another user; `KEY` and `INVITATION` are those that an earlier row gave.
const CHANGES: [(&str, &[&str]); 17] = [
    ("SELECT create_user('ada@example.com', 'Ada', id => 'USER')", &["user.create"]),
    ("SELECT update_user('OWN', name => 'Owner')", &["user.update"]),
    ("SELECT add_role('manager', 70)", &["role.add"]),
    ("SELECT add_member('USER', 'manager')", &["member.add"]),
    ("SELECT change_role('USER', 'viewer')", &["member.change_role"]),
    ("SELECT remove_role('manager')", &["role.remove"]),
    ("SELECT key_id, api_key FROM create_api_key('ci', '{a:read,b:*}', user_id => 'USER')", &["api_key.create"]),
    ("SELECT key_id, api_key FROM rotate_api_key('KEY', '1 hour')", &["api_key.rotate"]),
    ("SELECT revoke_api_key('KEY')", &["api_key.revoke"]),
    ("SELECT remove_member('USER')", &["member.remove"]),
    ("SELECT invitation_id, token FROM create_invitation('eve@example.com', 'admin')", &["invitation.create"]),
    ("SELECT invitation_id, token FROM create_invitation('bob@example.com', 'viewer')", &["invitation.create"]),
    ("SELECT revoke_invitation('INVITATION')", &["invitation.revoke"]),
    ("SELECT add_jwt_key('k1', 'HS256', 'a secret of more than 32 characters')", &["jwt_key.add"]),
    ("SELECT remove_jwt_key('k1')", &["jwt_key.remove"]),
    ("SELECT revoke_tokens('OWN')", &["token.revoke"]),
    ("SELECT delete_user('USER')", &["user.delete"]),
];

/// Calls on people and credentials that change nothing that is written down, after [`CHANGES`].
const UNCHANGING: [&str; 15] = [
    "SELECT find_user('own@example.com')",
    "SELECT * FROM user_tenants('OWN')",
    "SELECT change_role('OWN', 'owner')",
    "SELECT remove_member('USER')",
    "SELECT delete_user('USER')",
    "SELECT revoke_api_key('KEY')",
    "SELECT revoke_invitation('INVITATION')",
    "SELECT remove_jwt_key('k1')",
    "SELECT record_login('OWN')",
    "SELECT * FROM verify_api_key('noise')",
    "SELECT has_role('owner'), has_scope('x'), current_member_role()",
    "SELECT * FROM tenancy.members, tenancy.api_keys, tenancy.invitations, tenancy.roles, tenancy.jwt_keys",
    "SELECT issue_jwt('OWN')",
    "SELECT authenticate_api_key('CREDENTIAL')",
    "SELECT 1 FROM verify_api_key('CREDENTIAL')",
];

/// What credentials of the calls above may be found by: their texts, and their hashes in the forms that they may take in a text.
fn traces_of_credentials(superuser: &mut Client, mut texts: Vec<String>) -> Vec<String> {
    const HASHES: &str = "SELECT encode(key_hash, 'hex'), encode(key_hash, 'base64') FROM tenancy.stored_api_keys
        UNION ALL SELECT encode(token_hash, 'hex'), encode(token_hash, 'base64') FROM tenancy.stored_invitations
        UNION ALL SELECT verifying_key, coalesce(signing_key, verifying_key) FROM tenancy.stored_jwt_keys";
    for hashes in rows(superuser, HASHES, &[]) {
        texts.extend([hashes.get(0), hashes.get(1)]);
    }
    texts
}

/// The whole audit log, as text.
fn log_text(superuser: &mut Client) -> String {
    text(superuser, "SELECT string_agg(to_jsonb(a)::text, chr(10) ORDER BY id) FROM tenancy.audit_log a")
}

#[test]
fn every_change_of_people_and_credentials_is_written_down_with_who_made_it_and_without_a_secret() {
    let database = Database::new("people_operations");
    let mut superuser = database.superuser();
    let mut admin = database.connect("admin");
    let id = tenant(&mut admin);
    let own: Uuid = one(&mut admin, "SELECT create_user('own@example.com')", &[]);
    as_tenant(&mut admin, id, |tx| one::<Uuid>(tx, "SELECT add_member($1, 'owner')", &[&own]));
    let key = fixtures::api_key(&mut admin, id, Some(own), &["*"]);
    text(&mut admin, "SELECT add_jwt_key('lasting', 'HS256')");
    let (user, mut last_key, mut last_invitation) = (Uuid::new_v4(), key.id.to_string(), String::new());
    let mut secrets = vec![key.text.clone(), "a secret of more than 32 characters".to_owned()];
    let mut in_tenant = |call: &str| -> Vec<Value> {
        let call = call
            .replace("USER", &user.to_string())
            .replace("OWN", &own.to_string())
            .replace("KEY", &last_key)
            .replace("INVITATION", &last_invitation)
            .replace("CREDENTIAL", &key.text);
        let before: i64 = one(&mut superuser, "SELECT max(id) FROM tenancy.audit_log", &[]);
        let mut transaction = admin.transaction().expect("begin");
        fixtures::bind_by_key(&mut transaction, &key.text);
        let result = simple(&mut transaction, &call);
        transaction.commit().expect("commit");
        if let [Some(made), Some(secret)] = result.first().map(Vec::as_slice).unwrap_or_default() {
            *(if call.contains("api_key") { &mut last_key } else { &mut last_invitation }) = made.clone();
            secrets.push(secret.clone());
        }
        secrets.extend(result.iter().flatten().flatten().filter(|value| value.starts_with("eyJ")).cloned());
        let written = "SELECT to_jsonb(a) FROM tenancy.audit_log a WHERE id > $1 ORDER BY id";
        rows(&mut superuser, written, &[&before]).iter().map(|row| row.get(0)).collect()
    };
    let principal = json!({
        "tenant_id": id.to_string(), "user_id": own.to_string(), "source": "api_key", "api_key_id": key.id.to_string()
    });
    for (call, actions) in CHANGES {
        let written = in_tenant(call);
        let found: Vec<&str> = written.iter().filter_map(|row| row["action"].as_str()).collect();
        assert_eq!(found, actions, "{call}: {written:#?}");
        for row in written {
            assert_eq!(row["principal"], principal, "{call}: {row}");
            assert_eq!(
                (&row["session_user_name"], &row["outer_user_name"]),
                (&json!("admin"), &json!("admin")),
                "{call}: {row}"
            );
            assert!(row["target"].is_string(), "{call}: {row}");
            let of_tenant = ["member", "api_key", "invitation"].iter().any(|kind| actions[0].starts_with(kind));
            let due = if of_tenant { json!(id.to_string()) } else { Value::Null };
            assert_eq!(row["tenant_id"], due, "{call}: {row}");
        }
    }
    for call in UNCHANGING {
        assert_eq!(in_tenant(call), Vec::<Value>::new(), "{call}");
    }
    assert_eq!(secrets.len(), 7, "two keys, two tokens of invitations, one signed token were given: {secrets:?}");
    let log = log_text(&mut superuser);
    for trace in traces_of_credentials(&mut superuser, secrets) {
        assert!(trace.len() >= 32 && !log.contains(&trace), "the log has a trace of a credential: {trace}");
    }
}

#[test]
fn accepting_an_invitation_and_creating_a_tenant_with_an_owner_write_down_the_member_too() {
    let database = Database::new("indirect_members");
    let mut superuser = database.superuser();
    let mut app = database.connect("app");
    let owner = fixtures::user(&mut app);
    let id: Uuid = one(&mut database.connect("operator"), "SELECT create_tenant('Owned', owner => $1)", &[&owner]);
    let invitation = fixtures::invitation(&mut app, id, "guest@example.com", "viewer");
    let guest = fixtures::user(&mut app);
    let accept = "SELECT accept_invitation($1, $2)";
    assert_eq!(one::<Uuid>(&mut database.connect("client"), accept, &[&invitation.token, &guest]), id);
    let log = rows(
        &mut superuser,
        "SELECT action, target, after ->> 'role', session_user_name::text FROM tenancy.audit_log WHERE tenant_id = $1 ORDER BY id",
        &[&id],
    );
    let log: Vec<(String, String, Option<String>, String)> =
        log.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect();
    let entry = |action: &str, target: String, role: Option<&str>, session: &str| {
        (action.to_owned(), target, role.map(str::to_owned), session.to_owned())
    };
    assert_eq!(
        log,
        [
            entry("tenant.create", "owned".to_owned(), None, "operator"),
            entry("member.add", owner.to_string(), Some("owner"), "operator"),
            entry("invitation.create", invitation.id.to_string(), Some("viewer"), "app"),
            entry("member.add", guest.to_string(), Some("viewer"), "client"),
            entry("invitation.accept", invitation.id.to_string(), Some("viewer"), "client"),
        ]
    );
    assert!(!log_text(&mut superuser).contains(&invitation.token));
}

#[test]
fn what_was_and_what_became_of_people_and_credentials_are_written_down() {
    let database = Database::new("people_before_after");
    let mut superuser = database.superuser();
    let mut app = database.connect("app");
    let id = tenant(&mut database.connect("operator"));
    let user: Uuid = one(&mut app, "SELECT create_user('Ada@Example.com', 'Ada', 'crm-1')", &[]);
    let row = newest(&mut superuser);
    assert_eq!(row["target"], user.to_string());
    assert_eq!(row["after"]["email"], "ada@example.com", "{row}");
    one::<Uuid>(&mut app, "SELECT update_user($1, name => 'Ada L.')", &[&user]);
    let row = newest(&mut superuser);
    assert_eq!((&row["before"]["name"], &row["after"]["name"]), (&json!("Ada"), &json!("Ada L.")));
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, id);
    one::<Uuid>(&mut transaction, "SELECT add_member($1)", &[&user]);
    one::<bool>(&mut transaction, "SELECT change_role($1, 'admin')", &[&user]);
    let key = rows(&mut transaction, "SELECT * FROM create_api_key('ci', '{a,b:*}', user_id => $1)", &[&user]);
    let key = fixtures::ApiKey::from(&key[0]);
    transaction.commit().expect("commit");
    let of = |superuser: &mut Client, action: &str| -> Value {
        one(superuser, "SELECT to_jsonb(a) FROM tenancy.audit_log a WHERE action = $1", &[&action])
    };
    let row = of(&mut superuser, "member.change_role");
    assert_eq!((&row["before"], &row["after"]), (&json!({ "role": "member" }), &json!({ "role": "admin" })));
    assert_eq!(row["target"], user.to_string());
    let row = of(&mut superuser, "api_key.create");
    assert_eq!(row["target"], key.id.to_string());
    assert_eq!(
        row["after"],
        json!({ "name": "ci", "key_prefix": key.prefix, "user_id": user.to_string(), "scopes": ["a", "b:*"] })
    );
    as_tenant(&mut app, id, |tx| assert!(one::<bool>(tx, "SELECT remove_member($1)", &[&user])));
    let row = of(&mut superuser, "member.remove");
    assert_eq!(row["before"], json!({ "role": "admin", "revoked_api_keys": 1 }));
}

/// A refused change of people or credentials leaves no row, nor does one that is rolled back.
#[test]
fn changes_of_people_that_did_not_happen_are_not_written_down() {
    let database = Database::new("people_undone");
    let mut superuser = database.superuser();
    let mut app = database.connect("app");
    let id = tenant(&mut database.connect("operator"));
    let owner = fixtures::member(&mut app, id, "owner");
    let before = fixtures::stored(&mut superuser);
    for (call, code) in [
        (format!("remove_member('{owner}')"), "55000"),
        (format!("change_role('{owner}', 'viewer')"), "55000"),
        (format!("add_member('{owner}')"), "23505"),
        ("create_user('no address')".to_owned(), "22023"),
        (format!("create_api_key('x', user_id => '{}')", Uuid::new_v4()), "P0002"),
        ("create_invitation('x@example.com', 'emperor')".to_owned(), "22023"),
    ] {
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, id);
        fails(transaction.batch_execute(&format!("SELECT * FROM {call}")), code);
    }
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, id);
    transaction
        .batch_execute(
            "SELECT add_member(create_user('x@example.com')); SELECT create_api_key('x'); SELECT create_invitation('y@example.com')",
        )
        .expect("change");
    transaction.rollback().expect("roll back");
    assert_eq!(fixtures::stored(&mut superuser), before);
}

/// Of a person who is deleted stays an id without a meaning, and that something was done when.
#[test]
fn a_deleted_user_is_forgotten() {
    let database = Database::new("forgotten");
    let mut superuser = database.superuser();
    let mut app = database.connect("app");
    let mut operator = database.connect("operator");
    let both = tenants(&mut operator, 2);
    let create = "SELECT create_user('zebra1@example.com', 'Zebra Name', 'crm-zebra')";
    let user: Uuid = one(&mut app, create, &[]);
    for &tenant in &both {
        fixtures::member(&mut app, tenant, "owner");
        as_tenant(&mut app, tenant, |tx| one::<Uuid>(tx, "SELECT add_member($1, 'admin')", &[&user]));
    }
    let other: Uuid = one(&mut app, "SELECT create_user('lion@example.com', 'Lion')", &[]);
    let key = fixtures::api_key(&mut app, both[0], Some(user), &["*"]);
    let kept = fixtures::api_key(&mut app, both[0], None, &["*"]);
    // Also invited, and come, under an address that was never the user's own here.
    let third = tenant(&mut operator);
    let invitation = fixtures::invitation(&mut app, third, "zebra-at-work@example.com", "member");
    one::<Uuid>(&mut app, "SELECT accept_invitation($1, $2)", &[&invitation.token, &user]);
    one::<Uuid>(&mut app, "SELECT update_user($1, 'zebra2@example.com', 'Zebra Other')", &[&user]);
    fixtures::invitation(&mut app, tenant(&mut operator), "zebra2@example.com", "member");
    let lions = fixtures::invitation(&mut app, third, "lion@example.com", "member");
    assert_eq!(everything(&mut superuser).matches("zebra").count(), 12, "what is known of the user before");
    let before = count(&mut superuser, "tenancy.audit_log");
    assert!(one::<bool>(&mut operator, "SELECT delete_user($1)", &[&user]));
    let after = everything(&mut superuser);
    let left: Vec<&str> = after.lines().filter(|line| line.to_lowercase().contains("zebra")).collect();
    assert_eq!(left, [""; 0], "what is left of the user");
    assert_eq!(count(&mut superuser, "tenancy.audit_log"), before + 4, "three memberships and the user ended");
    assert_eq!(count(&mut superuser, &format!("tenancy.memberships WHERE user_id = '{user}'")), 0);
    // Nobody else's.
    assert!(after.contains("Lion") && after.contains(&other.to_string()), "another user stays");
    assert_eq!(
        one::<String>(&mut operator, "SELECT email FROM tenancy.invitations WHERE id = $1", &[&lions.id]),
        "lion@example.com"
    );
    let mut client = database.connect("client");
    let verify = "SELECT tenant_id FROM verify_api_key($1)";
    assert!(rows(&mut client, verify, &[&key.text]).is_empty(), "the user's key");
    assert_eq!(one::<Uuid>(&mut client, verify, &[&kept.text]), both[0]);
    assert!(!one::<bool>(&mut operator, "SELECT delete_user($1)", &[&user]));
}

#[test]
fn what_was_and_what_became_are_written_down() {
    let database = Database::new("before_after");
    let mut superuser = database.superuser();
    let mut operator = database.connect("operator");
    let create = "SELECT create_tenant('Acme', 'acme', metadata => '{\"a\": 1}', external_id => 'crm-1')";
    let id: Uuid = one(&mut operator, create, &[]);
    let row = newest(&mut superuser);
    assert_eq!(row["target"], "acme");
    assert_eq!(
        row["after"],
        json!({ "name": "Acme", "slug": "acme", "plan": "free", "isolation": "row", "external_id": "crm-1", "metadata": { "a": 1 } })
    );
    operator.execute("SELECT update_tenant($1, name => 'Other')", &[&id]).expect("update");
    let row = newest(&mut superuser);
    assert_eq!((&row["before"]["name"], &row["after"]["name"]), (&json!("Acme"), &json!("Other")));
    operator.execute("SELECT suspend_tenant($1, 'it''s 100% \\ \"unpaid\"')", &[&id]).expect("suspend");
    let row = newest(&mut superuser);
    assert_eq!(row["before"]["status"], "active");
    assert_eq!(row["after"]["status"], "suspended");
    assert!(row["after"]["reason"].as_str().is_some_and(|reason| reason.contains("100%")), "{row}");
    operator.batch_execute("SELECT create_plan('pro')").expect("create a plan");
    operator.execute("SELECT change_plan($1, 'pro')", &[&id]).expect("change the plan");
    let row = newest(&mut superuser);
    assert_eq!((&row["before"]["plan"], &row["after"]["plan"]), (&json!("free"), &json!("pro")));
}

#[test]
fn a_row_is_rolled_back_with_its_operation() {
    let database = prepared("rolled_back");
    let mut superuser = database.superuser();
    let mut admin = database.connect("admin");
    let id = Uuid::new_v4().to_string();
    let before = written(&mut superuser);
    let mut transaction = admin.transaction().expect("begin");
    for (operation, _) in OPERATIONS {
        transaction.batch_execute(&operation.replace("TENANT", &id)).expect("operate");
    }
    let seen = count(&mut transaction, "tenancy.audit_log");
    assert!(seen > before);
    transaction.rollback().expect("roll back");
    assert_eq!(written(&mut superuser), before);
    admin
        .batch_execute(
            "BEGIN; SAVEPOINT s; SELECT create_tenant('Gone'); ROLLBACK TO s; SELECT create_tenant('Kept'); COMMIT",
        )
        .expect("create one of two");
    assert_eq!(written(&mut superuser), before + 1);
    assert_eq!(newest(&mut superuser)["after"]["name"], "Kept");
}

#[test]
fn a_refused_operation_writes_nothing() {
    let database = Database::new("refused");
    let mut superuser = database.superuser();
    let mut operator = database.connect("operator");
    let id = tenant(&mut operator);
    let before = written(&mut superuser);
    fails(operator.execute("SELECT resume_tenant($1)", &[&id]), "55000");
    fails(operator.batch_execute("SELECT create_tenant('x', 'www')"), "22023");
    fails(database.connect("app").batch_execute("SELECT create_tenant('x')"), "42501");
    fails(database.connect("admin").batch_execute(&format!("CALL purge_tenant('{id}')")), "55000");
    assert_eq!(written(&mut superuser), before);
}

#[test]
fn the_session_the_outer_role_and_the_principal_are_told_apart() {
    // Memberships are the whole cluster's.
    let cluster = Cluster::start(Options::new());
    let database = cluster.database("who");
    let mut superuser = database.superuser();
    let id = tenant(&mut database.connect("operator"));
    superuser
        .batch_execute(
            "CREATE FUNCTION by_definer() RETURNS uuid LANGUAGE sql SECURITY DEFINER AS $$ SELECT create_tenant('Definer') $$;
             GRANT EXECUTE ON FUNCTION by_definer() TO stranger;
             GRANT operator TO owner",
        )
        .expect("create a function");
    // A definer function of someone's own: the caller is named, not the definer.
    database.connect("stranger").batch_execute("SELECT by_definer()").expect("create through the function");
    let row = newest(&mut superuser);
    assert_eq!(row["session_user_name"], "stranger", "{row}");
    assert_eq!(row["outer_user_name"], "stranger", "{row}");
    let mut owner = database.connect("owner");
    owner.batch_execute("SET ROLE operator; SELECT create_tenant('Set role')").expect("create as another role");
    let row = newest(&mut superuser);
    assert_eq!((&row["session_user_name"], &row["outer_user_name"]), (&json!("owner"), &json!("operator")));
    // A backend that acts for a tenant's user.
    let user = Uuid::new_v4();
    let mut admin = database.connect("admin");
    let mut transaction = admin.transaction().expect("begin");
    transaction.query("SELECT set_tenant($1, $2)", &[&id, &user]).expect("bind");
    transaction.batch_execute("SELECT create_plan('pro')").expect("create a plan");
    transaction.commit().expect("commit");
    let principal = json!({ "tenant_id": id.to_string(), "user_id": user.to_string(), "source": "set_tenant" });
    assert_eq!(newest(&mut superuser)["principal"], principal);
}

#[test]
fn nobody_rewrites_the_log() {
    let database = Database::new("append_only");
    let id = tenant(&mut database.connect("operator"));
    let mut superuser = database.superuser();
    let before = simple(&mut superuser, "SELECT to_jsonb(a) FROM tenancy.audit_log a ORDER BY id");
    for role in ["client", "app", "monitor", "operator", "admin", "owner", "stranger"] {
        let mut client = database.connect(role);
        for statement in [
            "INSERT INTO tenancy.audit_log (session_user_name, action) VALUES ('postgres', 'tenant.create')".to_owned(),
            "UPDATE tenancy.audit_log SET action = 'nothing'".to_owned(),
            "DELETE FROM tenancy.audit_log".to_owned(),
            "TRUNCATE tenancy.audit_log".to_owned(),
            "MERGE INTO tenancy.audit_log a USING (VALUES (1)) v (x) ON true WHEN MATCHED THEN DELETE".to_owned(),
            "COPY tenancy.audit_log FROM STDIN".to_owned(),
            "SELECT * FROM tenancy.audit_log FOR UPDATE".to_owned(),
            "ALTER TABLE tenancy.audit_log DISABLE ROW LEVEL SECURITY".to_owned(),
            "DROP POLICY visible_tenants ON tenancy.audit_log".to_owned(),
            "CREATE TRIGGER t BEFORE INSERT ON tenancy.audit_log EXECUTE FUNCTION suppress_redundant_updates_trigger()"
                .to_owned(),
            "SELECT setval('tenancy.audit_log_id_seq', 1)".to_owned(),
            "SELECT nextval('tenancy.audit_log_id_seq')".to_owned(),
        ] {
            fails(client.batch_execute(&statement), "42501");
        }
        if ["app", "client"].contains(&role) {
            let bound = format!("BEGIN; SELECT set_tenant('{id}'); DELETE FROM tenancy.audit_log");
            fails(client.batch_execute(&bound), "42501");
        }
    }
    assert_eq!(simple(&mut superuser, "SELECT to_jsonb(a) FROM tenancy.audit_log a ORDER BY id"), before);
}

#[test]
fn an_application_reads_the_rows_of_its_bound_tenant_only() {
    let database = Database::new("own_rows");
    protected_table(&database);
    let mut operator = database.connect("operator");
    let both = tenants(&mut operator, 2);
    operator.execute("SELECT update_tenant($1, name => 'Renamed')", &[&both[0]]).expect("update");
    let mut app = database.connect("app");
    assert_eq!(count(&mut app, "tenancy.audit_log"), 0, "unbound");
    as_tenant(&mut app, both[0], |transaction| {
        let seen = rows(transaction, "SELECT tenant_id FROM tenancy.audit_log", &[]);
        assert_eq!(seen.iter().map(|row| row.get(0)).collect::<Vec<Uuid>>(), [both[0], both[0]]);
        let foreign = format!("tenancy.audit_log WHERE tenant_id = '{}' OR tenant_id IS NULL", both[1]);
        assert_eq!(count(transaction, &foreign), 0);
    });
    as_tenant(&mut app, both[1], |transaction| assert_eq!(count(transaction, "tenancy.audit_log"), 1));
    assert!(count(&mut operator, "tenancy.audit_log WHERE tenant_id IS NULL") > 0, "operators see all");
    for role in ["client", "monitor", "owner", "stranger"] {
        fails(database.connect(role).batch_execute("SELECT * FROM tenancy.audit_log"), "42501");
    }
    // A function in a condition sees no row before the policy does.
    app.batch_execute("SET client_min_messages = notice").expect("set");
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, both[1]);
    let probe = format!("tenancy.audit_log WHERE 1 / (CASE WHEN tenant_id = '{}' THEN 0 ELSE 1 END) = 1", both[0]);
    assert_eq!(count(&mut transaction, &probe), 1);
}

#[test]
fn after_a_purge_nothing_of_the_tenant_is_left_but_that_it_was_there() {
    const MARKS: [&str; 7] =
        ["Zebrafink", "zebrafink", "crm-zebra", "meta-zebra", "reason-zebra", "renamed-zebra", "zebra-slug"];
    let database = Database::new("redacted");
    protected_table(&database);
    let mut operator = database.connect("operator");
    let other: Uuid = one(&mut operator, "SELECT create_tenant('Other', metadata => '{\"keep\": \"me\"}')", &[]);
    let id: Uuid = one(
        &mut operator,
        "SELECT create_tenant('Zebrafink AG', external_id => 'crm-zebra', metadata => '{\"m\": \"meta-zebra\"}')",
        &[],
    );
    let mut superuser = database.superuser();
    operator.execute("SELECT update_tenant($1, 'renamed-zebra', 'zebra-slug')", &[&id]).expect("update");
    operator.execute("SELECT suspend_tenant($1, 'reason-zebra')", &[&id]).expect("suspend");
    operator.execute("SELECT cancel_tenant($1, 'reason-zebra')", &[&id]).expect("cancel");
    let before = everything(&mut superuser);
    for mark in MARKS {
        assert!(before.contains(mark), "{mark} is there before");
    }
    let rows_before = count(&mut superuser, &format!("tenancy.audit_log WHERE tenant_id = '{id}'"));
    operator.execute("SELECT delete_tenant($1, '0')", &[&id]).expect("delete");
    database.connect("admin").batch_execute(&format!("CALL purge_tenant('{id}')")).expect("purge");
    let after = everything(&mut superuser);
    for mark in MARKS {
        assert!(!after.contains(mark), "{mark} is left");
    }
    assert!(after.contains("\"keep\""), "the other tenant's metadata stays");
    let actions: Vec<String> =
        rows(&mut superuser, "SELECT action FROM tenancy.audit_log WHERE tenant_id = $1 ORDER BY id", &[&id])
            .iter()
            .map(|row| row.get(0))
            .collect();
    assert!(i64::try_from(actions.len()).expect("a small number") >= rows_before + 2, "{actions:?}");
    assert_eq!(actions.first().map(String::as_str), Some("tenant.create"));
    assert_eq!(actions.last().map(String::as_str), Some("tenant.purged"));
    let others = "SELECT count(*) FROM tenancy.audit_log WHERE tenant_id = $1 AND after IS NOT NULL";
    assert_eq!(one::<i64>(&mut superuser, others, &[&other]), 1);
}

/// Who did something for a tenant may have been a person of another, purged one.
#[test]
fn a_purge_forgets_the_tenants_people_in_rows_of_others_too() {
    let database = Database::new("people");
    let mut admin = database.connect("admin");
    let id = tenant(&mut admin);
    let user = Uuid::new_v4();
    let mut transaction = admin.transaction().expect("begin");
    transaction.query("SELECT set_tenant($1, $2)", &[&id, &user]).expect("bind");
    transaction.batch_execute("SELECT create_tenant('A subsidiary'); SELECT create_plan('pro')").expect("act");
    transaction.commit().expect("commit");
    let mut superuser = database.superuser();
    assert!(everything(&mut superuser).contains(&user.to_string()));
    admin.execute("SELECT delete_tenant($1, '0')", &[&id]).expect("delete");
    admin.batch_execute(&format!("CALL purge_tenant('{id}')")).expect("purge");
    assert!(!everything(&mut superuser).contains(&user.to_string()));
}

#[test]
fn trimming_removes_what_is_old_and_says_so() {
    let database = Database::new("trim");
    let mut superuser = database.superuser();
    let mut admin = database.connect("admin");
    tenants(&mut admin, 3);
    let all = written(&mut superuser);
    let first = "(SELECT min(id) FROM tenancy.audit_log)";
    superuser
        .batch_execute(&format!("UPDATE tenancy.audit_log SET at = now() - interval '401 days' WHERE id = {first}"))
        .expect("age a row");
    assert_eq!(one::<i64>(&mut admin, "SELECT trim_audit_log('402 days')", &[]), 0);
    assert_eq!(one::<i64>(&mut admin, "SELECT trim_audit_log()", &[]), 1);
    assert_eq!(written(&mut superuser), all - 1 + 2, "one trimmed, and two rows that say so");
    let row = newest(&mut superuser);
    assert_eq!((&row["action"], &row["after"]), (&json!("audit.trim"), &json!({ "removed": 1 })));
}

#[test]
fn trimming_refuses_bad_arguments_and_other_levels() {
    let database = Database::new("bad_trim");
    let mut superuser = database.superuser();
    let mut admin = database.connect("admin");
    tenants(&mut admin, 2);
    let before = written(&mut superuser);
    for keep in ["NULL", "'-1 second'", "'-400 days'", "'1 month -31 days'"] {
        fails(admin.batch_execute(&format!("SELECT trim_audit_log({keep})")), "22023");
    }
    for role in ["client", "app", "monitor", "operator", "owner", "stranger"] {
        fails(database.connect(role).batch_execute("SELECT trim_audit_log('0')"), "42501");
    }
    let error = admin.batch_execute("SELECT trim_audit_log('300000 years')").err();
    let code = error.as_ref().and_then(|error| error.code()).map(|code| code.code().to_owned());
    assert!(code.is_none_or(|code| ["22008", "22023"].contains(&code.as_str())), "{error:?}");
    assert!(written(&mut superuser) >= before, "nothing is lost");
}
