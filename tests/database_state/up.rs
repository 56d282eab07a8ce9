//! From the tenant's own database to the control database: usage, counts and last uses.

use crate::database_state::fixtures::*;
use harness::*;
use std::time::{Duration, Instant};

/// Each bucket and resource of a tenant.
fn usage(database: &Database, tenant: Uuid) -> String {
    ["usage_buckets", "usage_uniques"]
        .map(|table| content(database, &format!("tenancy.{table} x WHERE tenant_id = '{tenant}'")))
        .join("\n--\n")
}

fn metrics(control: &Database) {
    control
        .connect("operator")
        .batch_execute(
            "SELECT create_metric('tokens', 'sum'), create_metric('people', 'unique'), create_metric('disk', 'last')",
        )
        .expect("metrics");
}

/// Events of several days and metrics.
fn record(own: &Own, events: i32) {
    as_tenant(&mut own.app(), own.tenant, |tx| {
        tx.execute(
            "SELECT record_usage('tokens', n * 1.25, occurred_at => now() - n * interval '7 hours'),
                record_usage('people', 1, resource_id => gen_random_uuid(), occurred_at => now() - n * interval '7 hours'),
                record_usage('disk', n) FROM generate_series(1, $1::int) n",
            &[&events],
        )
        .expect("record");
    });
}

#[track_caller]
fn figures(session: &mut Client, tenant: Uuid, month: &str) -> Vec<(String, String, i64)> {
    let rows = rows(
        session,
        "SELECT metric, quantity::text, events FROM tenant_usage($1, $2) WHERE events > 0 ORDER BY 1",
        &[&tenant, &month],
    );
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

#[test]
fn usage_is_answered_by_the_control_database_within_a_minute() {
    let cluster = eager();
    let control = control(&cluster);
    metrics(&control);
    let own = Own::new(&cluster, &control, "acme");
    record(&own, 40);
    let begun = Instant::now();
    let own_buckets = || usage(&own.database, own.tenant);
    wait_until("the usage is reported", || own_buckets().len() > 100 && usage(&control, own.tenant) == own_buckets());
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    // Days that were reported before change.
    record(&own, 20);
    as_tenant(&mut own.app(), own.tenant, |tx| tx.execute("SELECT consume_quota('calls', 3)", &[]).expect("consume"));
    wait_until("the usage is reported again", || {
        count(&mut own.superuser(), "tenancy.usage_inbox") == 0 && usage(&control, own.tenant) == own_buckets()
    });
    let month: String = one(&mut control.superuser(), "SELECT to_char(now(), 'YYYY-MM')", &[]);
    let mut operator = control.connect("operator");
    assert_eq!(
        figures(&mut operator, own.tenant, &month),
        figures(&mut own.database.connect("operator"), own.tenant, &month)
    );
    assert!(one::<bool>(
        &mut operator,
        "SELECT reported_at > now() - interval '1 minute' FROM tenancy.database_state",
        &[]
    ));
}

#[test]
fn what_is_billed_is_what_was_used_until_the_period_is_closed() {
    let control = control(cluster());
    metrics(&control);
    let own = Own::new(cluster(), &control, "acme");
    // Nobody has reported anything: closing asks the database itself.
    let month: String = one(&mut control.superuser(), "SELECT to_char(now() - interval '2 months', 'YYYY-MM')", &[]);
    control
        .superuser()
        .execute("UPDATE tenancy.tenants SET created_at = now() - interval '1 year'", &[])
        .expect("older");
    let at = format!("{month}-10 12:00+00");
    let record = |quantity: i32| {
        as_tenant(&mut own.app(), own.tenant, |tx| {
            tx.execute(
                "SELECT record_usage('tokens', $1::int, occurred_at => $2::text::timestamptz)",
                &[&quantity, &at],
            )
            .expect("record");
        });
    };
    let close = |month: &str| -> Vec<(String, String)> {
        let lines = rows(
            &mut control.connect("operator"),
            "SELECT kind, quantity::text FROM close_billing_period($1, $2) WHERE metric = 'tokens'",
            &[&own.tenant, &month],
        );
        lines.iter().map(|line| (line.get(0), line.get(1))).collect()
    };
    record(7);
    record(5);
    assert_eq!(close(&month), [("usage".to_owned(), "12".to_owned())]);
    assert_eq!(close(&month), [("usage".to_owned(), "12".to_owned())]);
    // What comes later is billed with the next period, once.
    record(100);
    let next: String = one(&mut control.superuser(), "SELECT to_char(now() - interval '1 month', 'YYYY-MM')", &[]);
    assert_eq!(close(&next), [("adjustment".to_owned(), "100".to_owned())]);
    sync(&control);
    assert_eq!(usage(&control, own.tenant), usage(&own.database, own.tenant));
    let total: String = one(&mut control.superuser(), "SELECT sum(quantity)::text FROM tenancy.billing_lines", &[]);
    assert_eq!(total, "112");
}

/// A copy that has lost or gained something is made right.
#[test]
fn days_that_differ_are_reported_again() {
    let control = control(cluster());
    metrics(&control);
    let own = Own::new(cluster(), &control, "acme");
    let other = tenant(&mut control.connect("operator"));
    as_tenant(&mut control.connect("app"), other, |tx| {
        tx.execute("SELECT record_usage('tokens', 3)", &[]).expect("record")
    });
    one::<i64>(&mut control.superuser(), "SELECT rollup_usage()", &[]);
    let others = usage(&control, other);
    record(&own, 100);
    sync(&control);
    assert_eq!(usage(&control, own.tenant), usage(&own.database, own.tenant));
    control
        .superuser()
        .execute(
            "UPDATE tenancy.usage_buckets SET quantity = quantity + 1 WHERE tenant_id = $1 AND metric = 'tokens'",
            &[&own.tenant],
        )
        .expect("spoil");
    control
        .superuser()
        .execute("DELETE FROM tenancy.usage_uniques WHERE tenant_id = $1", &[&own.tenant])
        .expect("spoil");
    own.superuser()
        .execute("UPDATE tenancy.sent_reports SET verified_at = now() - interval '2 days'", &[])
        .expect("a day later");
    sync(&control);
    assert_eq!(usage(&control, own.tenant), usage(&own.database, own.tenant));
    assert_eq!(usage(&control, other), others);
    assert_eq!(count(&mut own.superuser(), "tenancy.unreported_usage"), 0);
    // What is reported is never less exact than what is asked for at the end.
    control
        .superuser()
        .execute("DELETE FROM tenancy.usage_buckets WHERE tenant_id = $1", &[&own.tenant])
        .expect("spoil");
    let month: String = one(&mut control.superuser(), "SELECT to_char(now() - interval '1 month', 'YYYY-MM')", &[]);
    control
        .superuser()
        .execute("UPDATE tenancy.tenants SET created_at = now() - interval '1 year'", &[])
        .expect("older");
    rows(&mut control.connect("operator"), "SELECT * FROM close_billing_period($1, $2)", &[&own.tenant, &month]);
    assert_eq!(usage(&control, own.tenant), usage(&own.database, own.tenant));
}

#[test]
fn counts_and_last_uses_are_reported() {
    let control = control(cluster());
    let mut admin = control.connect("admin");
    admin
        .batch_execute(
            "SELECT limit_table('tenancy.memberships', 'members'), set_plan_limit('enterprise', 'members', 10)",
        )
        .expect("limit");
    let own = Own::make(cluster(), &control, "acme");
    const LIMIT: &str = "SELECT limit_table('crm_template.contacts', 'contacts', 'id > 2'),
        set_plan_limit('enterprise', 'contacts', 2), set_plan_limit('free', 'contacts', 2)";
    control.superuser().batch_execute(LIMIT).expect("limit");
    let (user, key) = member(&control, own.tenant, "ada@example.com");
    let (_, foreign) = member(&control, tenant(&mut control.connect("operator")), "bob@example.com");
    sync(&control);
    {
        let mut client = own.database.connect("client");
        let mut transaction = client.transaction().expect("begin");
        one::<Uuid>(&mut transaction, "SELECT tenant_id FROM authenticate_api_key($1)", &[&key]);
        transaction.commit().expect("commit");
    }
    as_tenant(&mut own.app(), own.tenant, |tx| tx.execute("SELECT record_login($1)", &[&user]).expect("login"));
    sync(&control);
    let mut operator = control.connect("operator");
    let used = |operator: &mut Client| -> String {
        const USED: &str = "SELECT string_agg(resource || ' ' || used, ', ' ORDER BY resource) FROM tenancy.database_limits WHERE tenant_id = $1";
        one(operator, USED, &[&own.tenant])
    };
    assert_eq!(used(&mut operator), "contacts 0, members 1");
    // The template's limit holds in the database, and goes when it goes there.
    let insert = |name: &str| {
        let mut app = own.app();
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, own.tenant);
        transaction.execute("INSERT INTO contacts (name) VALUES ($1)", &[&name]).and_then(|_| transaction.commit())
    };
    for name in ["a", "x", "b", "x"] {
        insert(name).expect("within the limit");
    }
    fails(insert("c"), "54000");
    sync(&control);
    assert_eq!(used(&mut operator), "contacts 2, members 1");
    control.superuser().batch_execute("SELECT unlimit_table('crm_template.contacts', 'contacts')").expect("unlimit");
    sync(&control);
    insert("c").expect("no limit");
    assert_eq!(used(&mut operator), "members 1");
    let seen = "SELECT last_used_at FROM tenancy.api_keys WHERE tenant_id = $1";
    let theirs: Option<std::time::SystemTime> = one(&mut own.database.connect("operator"), seen, &[&own.tenant]);
    assert!(theirs.is_some());
    assert_eq!(one::<Option<std::time::SystemTime>>(&mut operator, seen, &[&own.tenant]), theirs);
    let login = "SELECT last_login_at FROM tenancy.users WHERE id = $1";
    let theirs: Option<std::time::SystemTime> = one(&mut own.superuser(), login, &[&user]);
    assert!(theirs.is_some());
    assert_eq!(one::<Option<std::time::SystemTime>>(&mut operator, login, &[&user]), theirs);
    // A change of the user keeps what only the copy knows, and nobody else's key was touched.
    control.connect("app").execute("SELECT update_user($1, name => 'Ada')", &[&user]).expect("rename");
    sync(&control);
    assert_eq!(one::<Option<std::time::SystemTime>>(&mut own.superuser(), login, &[&user]), theirs);
    assert!(authenticates(&own.database, &foreign).is_err());
    assert_eq!(count(&mut control.superuser(), "tenancy.api_key_usage WHERE last_used_at IS NOT NULL"), 1);
}

/// A database that has been left behind, as after a move, has no say any more.
#[test]
fn only_the_database_that_is_the_tenants_now_reports() {
    let control = control(cluster());
    metrics(&control);
    let own = Own::new(cluster(), &control, "acme");
    record(&own, 3);
    control
        .superuser()
        .execute(
            "UPDATE tenancy.tenants SET isolation = 'row', database_name = NULL, schema_name = NULL WHERE id = $1",
            &[&own.tenant],
        )
        .expect("move back");
    fails(own.database.connect("admin").batch_execute("CALL sync_tenant_databases()"), "55000");
    assert_eq!(usage(&control, own.tenant).trim(), "--");
}
