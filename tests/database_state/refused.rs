//! In a tenant's own database nobody but the control database changes what it was told, and there is no other tenant.

use crate::database_state::fixtures::*;
use harness::*;

/// What would change the copy, as the level that may call it: bound where it has to be.
const CALLS: [(&str, &str); 36] = [
    ("app", "SELECT create_user('mallory@example.com')"),
    ("app", "SELECT update_user('USER', name => 'Mallory')"),
    ("operator", "SELECT delete_user('USER')"),
    ("app", "SELECT add_member('HOME', 'owner')"),
    ("app", "SELECT change_role('USER', 'owner')"),
    ("app", "SELECT remove_member('USER')"),
    ("app", "SELECT create_invitation('bob@example.com')"),
    ("app", "SELECT * FROM create_api_key('mine')"),
    ("app", "SELECT rotate_api_key(id) FROM tenancy.api_keys"),
    ("app", "SELECT revoke_api_key(id) FROM tenancy.api_keys"),
    ("app", "SELECT revoke_tokens('USER')"),
    ("admin", "SELECT add_role('king', 99)"),
    ("admin", "SELECT add_jwt_key('mine', 'HS256')"),
    ("admin", "SELECT remove_jwt_key('one')"),
    ("operator", "SELECT create_tenant('Another')"),
    ("operator", "SELECT update_tenant('TENANT', name => 'Mallory')"),
    ("operator", "SELECT suspend_tenant('TENANT')"),
    ("operator", "SELECT cancel_tenant('TENANT')"),
    ("operator", "SELECT delete_tenant('TENANT', '0')"),
    ("operator", "SELECT change_plan('TENANT', 'free')"),
    ("operator", "SELECT create_plan('mine', features => '{all}')"),
    ("operator", "SELECT set_plan_limit('enterprise', 'calls', NULL, 'month')"),
    ("operator", "SELECT unset_plan_limit('enterprise', 'calls')"),
    ("operator", "SELECT set_plan_rate_limit('enterprise', 'api', 1000000)"),
    ("operator", "SELECT set_tenant_limit('TENANT', 'calls', NULL, 'month')"),
    ("operator", "SELECT set_tenant_rate_limit('TENANT', 'api', 1000000)"),
    ("operator", "SELECT load_plans('hybrid')"),
    ("operator", "SELECT create_metric('mine', 'sum')"),
    ("operator", "SELECT set_subscription('TENANT', 'active')"),
    ("operator", "SELECT * FROM close_billing_period('TENANT', '2020-01')"),
    ("admin", "SELECT grant_access('app', 'admin')"),
    ("admin", "SELECT revoke_access('client')"),
    ("admin", "SELECT register_template('mine', 'crm_own')"),
    ("admin", "SELECT limit_table('tenancy.memberships', 'people')"),
    ("admin", "SELECT limit_table(CONTACTS, 'contacts')"),
    ("operator", "SELECT delete_tenant('TENANT')"),
];

#[test]
fn what_the_control_database_keeps_cannot_be_changed_in_a_tenants_own() {
    let control = control(cluster());
    let own = Own::make(cluster(), &control, "acme");
    let (user, _) = member(&control, own.tenant, "ada@example.com");
    let home: Uuid =
        one(&mut control.connect("app"), "SELECT create_user('home@example.com', tenant => $1)", &[&own.tenant]);
    control.connect("admin").batch_execute("SELECT add_jwt_key('one', 'HS256')").expect("key");
    sync(&control);
    own.superuser().batch_execute("CREATE SCHEMA crm_own AUTHORIZATION owner").expect("a schema");
    let everything = || {
        let tables = rows(
            &mut own.superuser(),
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'tenancy' AND c.relkind = 'r' AND c.relname NOT IN ('worker_runs', 'audit_log') ORDER BY 1",
            &[],
        );
        tables
            .iter()
            .map(|row| content(&own.database, &format!("{} x", row.get::<_, &str>(0))))
            .collect::<Vec<String>>()
    };
    let before = everything();
    let contacts: u32 = one(&mut own.superuser(), "SELECT 'acme_acme.contacts'::regclass::oid", &[]);
    for (role, call) in CALLS {
        let call = call
            .replace("TENANT", &own.tenant.to_string())
            .replace("USER", &user.to_string())
            .replace("HOME", &home.to_string())
            .replace("CONTACTS", &contacts.to_string());
        let mut session = own.database.connect(role);
        let result = if call.starts_with("CALL") {
            session.batch_execute(&call)
        } else {
            let mut transaction = session.transaction().expect("begin");
            if role == "app" && !call.contains("_user(") && !call.contains("tokens") {
                bind(&mut transaction, own.tenant);
            }
            transaction.batch_execute(&call)
        };
        let error = fails(result, "55000");
        assert!(
            error.message().contains(control.name()) || error.hint().unwrap_or_default().contains(control.name()),
            "{call}: {error:?}"
        );
    }
    assert_eq!(everything(), before);
    // Nor by SQL of those who have been given the tables.
    let mut superuser = own.superuser();
    superuser.batch_execute("GRANT ALL ON ALL TABLES IN SCHEMA tenancy TO app").expect("grant");
    for statement in [
        "DELETE FROM tenancy.plan_limits",
        "UPDATE tenancy.plans SET features = '{all}'",
        "INSERT INTO tenancy.added_roles (role, rank) VALUES ('king', 99)",
        "TRUNCATE tenancy.memberships",
    ] {
        fails(own.app().batch_execute(statement), "55000");
    }
    // Nor by label.
    let label = format!(
        "SECURITY LABEL FOR pg_tenancy ON DATABASE {} IS 'tenant: {} active of postgres'",
        own.database.name(),
        own.tenant
    );
    for role in ["app", "client", "operator", "admin", "owner"] {
        fails(own.database.connect(role).batch_execute(&label), "42501");
    }
    let orders = own.superuser().batch_execute(&format!("ALTER DATABASE {} OWNER TO owner", own.database.name()));
    orders.expect("give the database away");
    fails(own.database.connect("owner").batch_execute(&label), "42501");
}

#[test]
fn no_other_tenant_can_be_bound_in_a_tenants_own_database() {
    let control = control(cluster());
    let own = Own::make(cluster(), &control, "acme");
    let other = Own::make(cluster(), &control, "other");
    let shared = tenant(&mut control.connect("operator"));
    control.connect("admin").batch_execute("SELECT add_jwt_key('one', 'HS256')").expect("key");
    let people =
        [own.tenant, other.tenant, shared].map(|tenant| member(&control, tenant, &format!("{tenant}@example.com")));
    let tokens: Vec<String> = [own.tenant, other.tenant, shared]
        .into_iter()
        .zip(&people)
        .map(|(tenant, (user, _))| {
            as_tenant(&mut control.connect("app"), tenant, |tx| one(tx, "SELECT issue_jwt($1)", &[user]))
        })
        .collect();
    sync(&control);
    assert_eq!(authenticates(&own.database, &people[0].1).expect("own key"), own.tenant);
    let by_token = |token: &str| {
        own.database
            .connect("client")
            .query_one("SELECT tenant_id FROM authenticate_jwt($1)", &[&token])
            .map(|row| row.get::<_, Uuid>(0))
    };
    assert_eq!(by_token(&tokens[0]).expect("own token"), own.tenant);
    // Even where someone has put its rows there.
    for foreign in [other.tenant, shared] {
        fails(own.app().query_one("SELECT set_tenant($1)", &[&foreign]), "P0002");
    }
    for ((_, key), token) in people[1..].iter().zip(&tokens[1..]) {
        fails(authenticates(&own.database, key), "28000");
        fails(by_token(token), "28000");
    }
    fails(own.app().query_one("SELECT set_tenant_by_slug('other')", &[]), "P0002");
    let rows: Vec<String> = ["tenants WHERE id", "memberships WHERE tenant_id", "stored_api_keys WHERE tenant_id"]
        .map(|from| content(&control, &format!("tenancy.{} = '{shared}'", from.replacen(" WHERE", " x WHERE", 1))))
        .to_vec();
    let mut superuser = own.superuser();
    for (table, row) in ["tenants", "memberships", "stored_api_keys"].into_iter().zip(&rows) {
        let insert = format!(
            "INSERT INTO tenancy.{table} SELECT * FROM jsonb_populate_record(NULL::tenancy.{table}, $1::text::jsonb)"
        );
        superuser.execute(&insert, &[row]).expect("insert");
    }
    fails(own.app().query_one("SELECT set_tenant($1)", &[&shared]), "P0002");
    fails(authenticates(&own.database, &people[2].1), "28000");
    fails(by_token(&tokens[2]), "28000");
    fails(own.database.connect("admin").query_one("SELECT rebind_tenant($1)", &[&shared]), "P0002");
}

/// In the control database the tenant can be bound, for its people and keys; its tables are not there.
#[test]
fn shared_tables_are_closed_to_a_tenant_that_has_a_database() {
    let control = control(cluster());
    protected_table(&control);
    let mut operator = control.connect("operator");
    let mover = tenant(&mut operator);
    as_tenant(&mut control.connect("app"), mover, |app| {
        app.batch_execute("INSERT INTO notes (body) VALUES ('left')").expect("write")
    });
    let own = Own::new(cluster(), &control, "acme");
    control.superuser().execute("UPDATE notes SET tenant_id = $1", &[&own.tenant]).expect("a row that was left behind");
    let mut app = control.connect("app");
    for statement in [
        "SELECT * FROM notes",
        "SELECT count(*) FROM public.notes",
        "INSERT INTO notes (body) VALUES ('lost')",
        "UPDATE notes SET body = 'changed'",
        "DELETE FROM notes",
        "COPY notes (body) TO STDOUT",
        "SELECT record_usage('calls')",
        "SELECT consume_quota('calls')",
        "SELECT check_limit('calls')",
    ] {
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, own.tenant);
        let error = fails(transaction.batch_execute(statement), "55000");
        assert!(error.hint().is_some_and(|hint| hint.contains(own.database.name())), "{statement}: {error:?}");
    }
    let mut superuser = control.superuser();
    assert_eq!(count(&mut superuser, "notes WHERE body = 'left'"), 1);
    assert_eq!(count(&mut superuser, "tenancy.usage_inbox"), 0);
    as_tenant(&mut app, own.tenant, |tx| {
        assert_eq!(one::<Uuid>(tx, "SELECT current_tenant()", &[]), own.tenant);
        one::<Uuid>(tx, "SELECT create_user('ada@example.com')", &[]);
    });
}
