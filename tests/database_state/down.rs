//! From the control database to the tenant's own: people, keys, plans, limits and levels.

use crate::database_state::fixtures::*;
use harness::*;
use std::time::{Duration, Instant};

/// What is copied: tables, and which rows concern a tenant.
const COPIED: [(&str, &str); 14] = [
    ("plans", "true"),
    ("plan_limits", "true"),
    ("plan_rate_limits", "true"),
    ("metrics", "true"),
    ("added_roles", "true"),
    ("stored_jwt_keys", "true"),
    ("limited_memberships", "true"),
    ("tenants", "id = 'TENANT'"),
    ("subscriptions", "tenant_id = 'TENANT'"),
    ("tenant_limits", "tenant_id = 'TENANT'"),
    ("tenant_rate_limits", "tenant_id = 'TENANT'"),
    ("users", "tenant_id = 'TENANT' OR id IN (SELECT user_id FROM tenancy.memberships WHERE tenant_id = 'TENANT')"),
    ("memberships", "tenant_id = 'TENANT'"),
    ("stored_api_keys", "tenant_id = 'TENANT'"),
];

/// Everything that is kept of the tenant in the control database is in its own, and nothing else.
#[track_caller]
fn assert_told(control: &Database, own: &Own) {
    for (table, rows) in COPIED {
        let rows = rows.replace("TENANT", &own.tenant.to_string());
        let expected = content(control, &format!("tenancy.{table} x WHERE {rows}"));
        assert_eq!(content(&own.database, &format!("tenancy.{table} x")), expected, "{table}");
    }
    let levels = "(SELECT role, level FROM tenancy.access) x";
    assert_eq!(content(&own.database, levels), content(control, levels));
}

/// Something in every table that is copied, of this tenant and of another.
fn fill(control: &Database, tenants: [Uuid; 2]) {
    let mut admin = control.connect("admin");
    admin
        .batch_execute(
            "SELECT add_role('manager', 70), set_plan_rate_limit('enterprise', 'api', 100, 'hour'), create_metric('tokens', 'sum'),
                add_jwt_key('one', 'HS256'), limit_table('tenancy.memberships', 'members'), set_plan_limit('enterprise', 'members', 10);
             SELECT create_plan('odd', 'row', '{\"n\": 12345678901234567890123456789.000000000000000000001}')",
        )
        .expect("fill");
    for (index, tenant) in tenants.into_iter().enumerate() {
        let parameters: &[&(dyn postgres::types::ToSql + Sync)] = &[&tenant];
        for call in [
            "SELECT set_tenant_limit($1, 'agents', 5)",
            "SELECT set_tenant_rate_limit($1, 'api', 5000)",
            "SELECT set_subscription($1, 'active', '2026-01-01', '2026-02-01')",
            "SELECT update_tenant($1, metadata => '{\"quote\": \"''\\\\ \\\" €\"}')",
        ] {
            admin.query_one(call, parameters).expect(call);
        }
        let email = format!("member{index}@example.com");
        member(control, tenant, &email);
        as_tenant(&mut control.connect("app"), tenant, |tx| {
            tx.execute("SELECT create_user($1, tenant => $2)", &[&format!("home{index}@example.com"), &tenant])
                .expect("user");
        });
    }
}

#[test]
fn a_database_is_told_all_that_concerns_its_tenant_and_nothing_of_another() {
    let control = control(cluster());
    let own = Own::make(cluster(), &control, "acme");
    let other = Own::make(cluster(), &control, "other");
    fill(&control, [own.tenant, other.tenant]);
    sync(&control);
    assert_told(&control, &own);
    assert_told(&control, &other);
    // Keys that sign are left where tokens are issued, and nobody else's rows are anywhere.
    let foreign = format!("tenancy.memberships WHERE tenant_id <> '{}'", own.tenant);
    assert_eq!(count(&mut own.superuser(), &foreign), 0);
    assert_eq!(count(&mut own.superuser(), "tenancy.users WHERE email LIKE '%1@example.com'"), 0);
    // Told again, nothing is touched.
    let versions = "SELECT string_agg(xmin::text, ' ' ORDER BY user_id) FROM tenancy.memberships";
    let before: String = one(&mut own.superuser(), versions, &[]);
    sync(&control);
    assert_eq!(one::<String>(&mut own.superuser(), versions, &[]), before);
    assert_eq!(count(&mut control.superuser(), "tenancy.database_changes"), 0);
}

/// Values change places, and what was unique is so all the time.
#[test]
fn what_was_exchanged_arrives() {
    let control = control(cluster());
    let own = Own::make(cluster(), &control, "acme");
    fill(&control, [own.tenant, tenant(&mut control.connect("operator"))]);
    member(&control, own.tenant, "second@example.com");
    sync(&control);
    control
        .superuser()
        .batch_execute(
            "BEGIN; UPDATE tenancy.users SET email = 'x' WHERE email = 'second@example.com';
             UPDATE tenancy.users SET email = 'second@example.com' WHERE email = 'member0@example.com';
             UPDATE tenancy.users SET email = 'member0@example.com' WHERE email = 'x'; COMMIT;
             DELETE FROM tenancy.added_roles; DELETE FROM tenancy.stored_jwt_keys; DELETE FROM tenancy.tenant_limits;
             SELECT set_plan_limit('enterprise', 'members', 1)",
        )
        .expect("change");
    sync(&control);
    assert_told(&control, &own);
}

#[test]
fn members_and_keys_authenticate_within_seconds_and_revocation_is_as_fast() {
    let cluster = eager();
    let control = control(&cluster);
    let own = Own::make(&cluster, &control, "acme");
    let (user, key) = member(&control, own.tenant, "ada@example.com");
    let until = |what: &str, condition: &mut dyn FnMut() -> bool| {
        let begun = Instant::now();
        wait_until(what, condition);
        assert!(begun.elapsed() < Duration::from_secs(10), "{what} after {:?}", begun.elapsed());
    };
    until("the key binds", &mut || authenticates(&own.database, &key).is_ok());
    assert_eq!(authenticates(&own.database, &key).expect("bind"), own.tenant);
    // The application works there.
    let written: i64 = as_tenant(&mut own.app(), own.tenant, |tx| {
        tx.execute("SET LOCAL search_path = public", &[]).expect("any path");
        one::<Uuid>(tx, "SELECT set_tenant($1)", &[&own.tenant]);
        one(tx, "INSERT INTO contacts (name) VALUES ('Grace') RETURNING id", &[])
    });
    assert_eq!(written, 1);
    as_tenant(&mut control.connect("app"), own.tenant, |tx| {
        assert!(one::<bool>(tx, "SELECT revoke_api_key(id) FROM tenancy.api_keys", &[]));
    });
    until("the key is refused", &mut || authenticates(&own.database, &key).is_err());
    fails(authenticates(&own.database, &key), "28000");
    // A member who is removed, a plan that changes, a level that is taken.
    as_tenant(&mut control.connect("app"), own.tenant, |tx| {
        let other: Uuid = one(tx, "SELECT create_user('second@example.com')", &[]);
        one::<Uuid>(tx, "SELECT add_member($1, 'owner')", &[&other]);
        assert!(one::<bool>(tx, "SELECT remove_member($1)", &[&user]));
    });
    let members = "tenancy.memberships WHERE role = 'admin'";
    until("the member is gone", &mut || count(&mut own.superuser(), members) == 0);
    control
        .connect("operator")
        .execute("SELECT set_plan_limit('enterprise', 'calls', 7, 'month')", &[])
        .expect("limit");
    let limit = "tenancy.plan_limits WHERE resource = 'calls' AND max_value = 7";
    until("the limit is there", &mut || count(&mut own.superuser(), limit) == 1);
    control.superuser().execute("SELECT revoke_access('client')", &[]).expect("revoke");
    until("the level is gone", &mut || {
        authenticates(&own.database, &key).err().and_then(|error| error.code().map(|code| code.code() == "42501"))
            == Some(true)
    });
}

#[test]
fn a_state_reaches_the_database_with_the_commit_that_makes_it() {
    let control = control(cluster());
    let own = Own::new(cluster(), &control, "acme");
    let mut app = own.app();
    let mut session = app.transaction().expect("begin");
    bind(&mut session, own.tenant);
    drop(session);
    let label = |state: &str| {
        format!(
            "SECURITY LABEL FOR pg_tenancy ON DATABASE {} IS 'tenant: {} {state} of {}'",
            own.database.name(),
            own.tenant,
            control.name()
        )
    };
    for (state, sqlstate) in
        [("suspended", "42501"), ("moving", ""), ("provisioning", "55000"), ("deleted", "42501"), ("active", "")]
    {
        control.superuser().batch_execute(&label(state)).expect("label");
        let mut transaction = app.transaction().expect("begin");
        let bound = transaction.query_one("SELECT set_tenant($1)", &[&own.tenant]);
        if sqlstate.is_empty() { drop(bound.expect(state)) } else { drop(fails(bound, sqlstate)) }
    }
}

#[test]
fn a_database_that_cannot_be_told_is_shown_and_keeps_no_other_from_hearing() {
    let control = control(cluster());
    let lost = Own::new(cluster(), &control, "lost");
    let own = Own::new(cluster(), &control, "acme");
    let name = lost.database.name().to_owned();
    control.superuser().batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).expect("drop");
    let (mut admin, notices) = control.connect_with_notices("admin");
    control
        .connect("operator")
        .execute("SELECT set_plan_limit('enterprise', 'calls', 8, 'month')", &[])
        .expect("limit");
    admin.batch_execute("CALL sync_tenant_databases()").expect("sync");
    assert!(notices.contains("1 databases of tenants are synchronised, 1 failed"), "{:?}", notices.messages());
    assert_eq!(count(&mut own.superuser(), "tenancy.plan_limits WHERE max_value = 8"), 1);
    let row = rows(
        &mut control.connect("operator"),
        "SELECT slug, waiting_changes, waiting_since IS NOT NULL, attempts, last_sqlstate, last_error FROM tenancy.database_state WHERE attempts > 0",
        &[],
    );
    assert_eq!(row.len(), 1);
    assert_eq!((row[0].get::<_, &str>(0), row[0].get::<_, i64>(1), row[0].get::<_, bool>(2)), ("lost", 1, true));
    assert_eq!((row[0].get::<_, i32>(3), row[0].get::<_, &str>(4)), (1, "P0002"));
    assert!(row[0].get::<_, &str>(5).contains(&name));
    // A database of the same name that is not labelled as the tenant's is told nothing.
    control.superuser().batch_execute(&format!("CREATE DATABASE {name}")).expect("create");
    admin.batch_execute("CALL sync_tenant_databases()").expect("sync");
    let error: String =
        one(&mut control.superuser(), "SELECT last_error FROM tenancy.database_state WHERE slug = 'lost'", &[]);
    assert!(error.contains("is not that of tenant"), "{error}");
}

/// Whatever a superuser has done to the copy, or a backup has brought back.
#[test]
fn a_copy_that_was_changed_by_hand_is_mended() {
    let cluster = eager();
    let control = control(&cluster);
    let own = Own::new(&cluster, &control, "acme");
    let (_, key) = member(&control, own.tenant, "ada@example.com");
    wait_until("the key binds", || authenticates(&own.database, &key).is_ok());
    own.superuser()
        .batch_execute("DELETE FROM tenancy.stored_api_keys; UPDATE tenancy.plans SET features = '{free}'")
        .expect("change");
    assert!(authenticates(&own.database, &key).is_err());
    // A worker looks at it once a minute by itself.
    assert!(one::<bool>(&mut own.superuser(), "SELECT pg_reload_conf()", &[]));
    wait_until("the key binds again", || authenticates(&own.database, &key).is_ok());
    assert_told(&control, &own);
}

#[test]
fn a_call_by_who_may_not_or_inside_a_transaction_is_refused() {
    let control = control(cluster());
    for role in ["app", "client", "operator", "monitor"] {
        fails(control.connect(role).batch_execute("CALL sync_tenant_databases()"), "42501");
    }
    fails(control.connect("admin").batch_execute("BEGIN; CALL sync_tenant_databases()"), "25001");
}

/// A role that has the level `client` in the control database, and cannot have it in the tenant's own.
fn ineligible(control: &Database, own: &Own, role: &str) {
    let mut superuser = control.superuser();
    superuser.batch_execute(&format!("CREATE ROLE {role}")).expect("a role");
    superuser.batch_execute(&format!("SELECT grant_access('{role}', 'client')")).expect("grant");
    let temporary = format!("GRANT TEMPORARY ON DATABASE {} TO {role}", own.database.name());
    own.superuser().batch_execute(&temporary).expect("grant");
}

#[test]
fn a_level_that_cannot_be_given_keeps_no_other_from_being_taken_or_given() {
    let cluster = Cluster::start(Options::new());
    let control = control(&cluster);
    let own = Own::new(&cluster, &control, "acme");
    ineligible(&control, &own, "a_tempted_role");
    let mut superuser = control.superuser();
    superuser
        .batch_execute("CREATE ROLE newcomer; SELECT grant_access('newcomer', 'client'), revoke_access('client')")
        .expect("change");
    control.connect("admin").batch_execute("CALL sync_tenant_databases()").expect("sync, with a warning");
    let failed = "SELECT last_error FROM tenancy.database_state";
    let failed: String = one(&mut control.connect("operator"), failed, &[]);
    assert!(failed.contains("a_tempted_role"), "{failed}");
    let levels = "SELECT string_agg(role, ' ' ORDER BY role) FROM tenancy.access WHERE level = 'client'";
    assert_eq!(one::<String>(&mut own.superuser(), levels, &[]), "newcomer");
}

#[test]
fn a_revocation_does_not_wait_for_the_next_attempt_of_what_failed_before() {
    let cluster = eager();
    let control = control(&cluster);
    let own = Own::make(&cluster, &control, "acme");
    let (_, key) = member(&control, own.tenant, "ada@example.com");
    wait_until("the key binds", || authenticates(&own.database, &key).is_ok());
    ineligible(&control, &own, "a_tempted_role");
    let mut superuser = control.superuser();
    wait_until("it has failed", || count(&mut superuser, "tenancy.told_states WHERE attempts > 0") == 1);
    // As it is after some more attempts.
    let later = "UPDATE tenancy.told_states SET next_attempt_at = now() + '1 hour'";
    superuser.batch_execute(later).expect("wait for long");
    as_tenant(&mut control.connect("app"), own.tenant, |tx| {
        assert!(one::<bool>(tx, "SELECT revoke_api_key(id) FROM tenancy.api_keys", &[]));
    });
    let begun = Instant::now();
    wait_until("the key is refused", || authenticates(&own.database, &key).is_err());
    assert!(begun.elapsed() < Duration::from_secs(10), "after {:?}", begun.elapsed());
    fails(authenticates(&own.database, &key), "28000");
}
