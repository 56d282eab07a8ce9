//! Subscriptions: what the billing system says, in whatever order and how often, and what follows for the tenant.

use harness::{
    Client, Database, Uuid, as_tenant, bind, count, fails, one, protected_table, simple, tenant, wait_for_lock,
};

fn status(operator: &mut Client, tenant: Uuid) -> String {
    one(operator, "SELECT status FROM tenancy.tenants WHERE id = $1", &[&tenant])
}

fn set(operator: &mut Client, tenant: Uuid, arguments: &str) {
    let set: Uuid = one(operator, &format!("SELECT set_subscription($1, {arguments})"), &[&tenant]);
    assert_eq!(set, tenant);
}

fn apply(operator: &mut Client) -> i64 {
    one(operator, "SELECT apply_subscription_grace()", &[])
}

#[test]
fn past_due_leads_to_read_only_after_the_grace_and_paying_leads_back() {
    let database = Database::new("grace");
    protected_table(&database);
    let (mut operator, mut app) = (database.connect("operator"), database.connect("app"));
    let tenant = tenant(&mut operator);
    set(&mut operator, tenant, "'active'");
    set(&mut operator, tenant, "'past_due'");
    assert_eq!(apply(&mut operator), 0, "the grace has not passed");
    // Saying it again does not begin the grace anew, nor end it.
    let until = "SELECT grace_until::text FROM tenancy.subscriptions";
    let before: String = one(&mut operator, until, &[]);
    set(&mut operator, tenant, "'past_due', grace => '0'");
    assert_eq!(one::<String>(&mut operator, until, &[]), before);
    set(&mut operator, tenant, "'active'");
    assert_eq!(count(&mut operator, "tenancy.subscriptions WHERE grace_until IS NOT NULL"), 0);
    set(&mut operator, tenant, "'past_due', grace => '0'");
    assert_eq!(apply(&mut operator), 1);
    assert_eq!(apply(&mut operator), 0);
    assert_eq!(status(&mut operator, tenant), "read_only");
    assert_eq!(
        one::<String>(&mut operator, "SELECT status_reason FROM tenancy.tenants WHERE id = $1", &[&tenant]),
        "subscription past_due"
    );
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, tenant);
    fails(transaction.batch_execute("INSERT INTO notes (body) VALUES ('x')"), "25006");
    drop(transaction);
    set(&mut operator, tenant, "'active'");
    assert_eq!(status(&mut operator, tenant), "active");
    as_tenant(&mut app, tenant, |app| app.batch_execute("INSERT INTO notes (body) VALUES ('x')").expect("write again"));
}

#[test]
fn what_an_operator_has_decided_meanwhile_stays() {
    let database = Database::new("grace_operator");
    let mut operator = database.connect("operator");
    // Made read-only by hand before, or changed since: paying does not lift it.
    for change in [
        "suspend_tenant($1, 'abuse')",
        "suspend_tenant($1, 'abuse'), resume_tenant($1), suspend_tenant($1, 'abuse', 'read_only')",
    ] {
        let tenant = tenant(&mut operator);
        set(&mut operator, tenant, "'past_due', grace => '0'");
        assert_eq!(apply(&mut operator), 1);
        for call in change.split("), ") {
            let call = format!("SELECT {}", if call.ends_with(')') { call.to_owned() } else { format!("{call})") });
            operator.execute(&call, &[&tenant]).expect("decide");
        }
        let before = status(&mut operator, tenant);
        set(&mut operator, tenant, "'active'");
        assert_eq!(status(&mut operator, tenant), before);
    }
    let suspended = tenant(&mut operator);
    operator.execute("SELECT suspend_tenant($1, 'abuse')", &[&suspended]).expect("suspend");
    set(&mut operator, suspended, "'past_due', grace => '0'");
    assert_eq!(apply(&mut operator), 0);
    assert_eq!(status(&mut operator, suspended), "suspended");
}

#[test]
fn what_is_canceled_is_served_until_its_period_ends() {
    let database = Database::new("canceled");
    let mut operator = database.connect("operator");
    let (paid, over) = (tenant(&mut operator), tenant(&mut operator));
    set(&mut operator, paid, "'canceled', now() - interval '1 day', now() + interval '20 days', grace => '0'");
    set(&mut operator, over, "'canceled', now() - interval '30 days', now() - interval '1 hour', grace => '0'");
    assert_eq!(apply(&mut operator), 1);
    assert_eq!(status(&mut operator, paid), "active");
    assert_eq!(status(&mut operator, over), "read_only");
}

#[test]
fn what_is_said_again_changes_nothing_and_null_leaves() {
    let database = Database::new("webhooks");
    let mut operator = database.connect("operator");
    let tenant = tenant(&mut operator);
    let said = "'active', '2026-01-31 10:00Z', '2026-02-28 10:00Z', 'cus_1', 'sub_1', follows_period => true";
    set(&mut operator, tenant, said);
    let all = "SELECT * FROM tenancy.subscriptions";
    let audit = "tenancy.audit_log WHERE action = 'subscription.set'";
    let (before, written) = (simple(&mut operator, all), count(&mut operator, audit));
    for again in [said, "'active'", "'active', stripe_customer_id => 'cus_1'", "'active', grace => '1 day'"] {
        set(&mut operator, tenant, again);
        assert_eq!(simple(&mut operator, all), before, "{again}");
    }
    assert_eq!(count(&mut operator, audit), written);
    // The next month of a subscription that began on the 31st begins on the 28th; the one after on the 31st again.
    set(&mut operator, tenant, "'active', '2026-02-28 10:00Z', '2026-03-31 10:00Z'");
    let from = "SELECT months_from = '2026-01-31 10:00Z' FROM tenancy.subscriptions";
    assert!(one::<bool>(&mut operator, from, &[]));
    // The day was changed.
    set(&mut operator, tenant, "'active', '2026-03-10 00:00Z', '2026-04-10 00:00Z'");
    assert!(one::<bool>(&mut operator, "SELECT months_from = '2026-03-10Z' FROM tenancy.subscriptions", &[]));
    set(&mut operator, tenant, "'active', follows_period => false");
    assert!(one::<bool>(&mut operator, "SELECT months_from IS NULL FROM tenancy.subscriptions", &[]));
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let database = Database::new("subscription_errors");
    let mut operator = database.connect("operator");
    let tenant = tenant(&mut operator);
    for (arguments, sqlstate) in [
        ("'cancelled'", "22023"),
        ("''", "22023"),
        ("NULL", "22023"),
        ("'active', '2026-02-01', '2026-01-01'", "22023"),
        ("'active', '2026-02-01', '2026-02-01'", "22023"),
        ("'active', '-infinity', 'infinity'", "22023"),
        ("'active', grace => '-1 s'", "22023"),
        ("'active', grace => NULL", "22023"),
        ("'active', follows_period => true", "22023"),
        ("'active', stripe_customer_id => ''", "22023"),
        ("'active', stripe_subscription_id => repeat('x', 10000)", "22023"),
        ("'past_due', grace => '300000 years'", "22008"),
    ] {
        let call = format!("SELECT set_subscription('{tenant}', {arguments})");
        fails(operator.batch_execute(&call), sqlstate);
    }
    fails(operator.batch_execute("SELECT set_subscription(gen_random_uuid(), 'active')"), "P0002");
    fails(operator.batch_execute("SELECT set_subscription(NULL, 'active')"), "22023");
    assert_eq!(count(&mut operator, "tenancy.subscriptions"), 0);
}

/// A tenant whose writer does not end holds up nobody else, and becomes read-only when it has ended.
#[test]
fn a_tenant_that_is_being_written_for_waits_and_the_others_do_not() {
    let database = Database::new("grace_busy");
    protected_table(&database);
    let (mut operator, mut app) = (database.connect("operator"), database.connect("app"));
    let tenants = harness::tenants(&mut operator, 3);
    for tenant in &tenants {
        set(&mut operator, *tenant, "'past_due', grace => '0'");
    }
    let mut writing = app.transaction().expect("begin");
    bind(&mut writing, tenants[1]);
    writing.batch_execute("INSERT INTO notes (body) VALUES ('x')").expect("write");
    operator.batch_execute("SET lock_timeout = '100ms'").expect("set");
    assert_eq!(apply(&mut operator), 2);
    assert_eq!(status(&mut operator, tenants[1]), "active");
    operator.batch_execute("RESET lock_timeout").expect("reset");
    let pid = harness::backend_pid(&mut operator);
    let mut superuser = database.superuser();
    std::thread::scope(|scope| {
        let applying = scope.spawn(|| apply(&mut operator));
        wait_for_lock(&mut superuser, pid);
        writing.commit().expect("commit");
        assert_eq!(applying.join().expect("join"), 1);
    });
}

#[test]
fn a_tenant_sees_its_own_subscription_only() {
    let database = Database::new("subscription_visible");
    let (mut operator, mut app) = (database.connect("operator"), database.connect("app"));
    let tenants = harness::tenants(&mut operator, 2);
    for tenant in &tenants {
        set(&mut operator, *tenant, "'active', stripe_customer_id => 'cus'");
    }
    as_tenant(&mut app, tenants[0], |app| {
        assert_eq!(one::<Uuid>(app, "SELECT tenant_id FROM tenancy.subscriptions", &[]), tenants[0]);
    });
    assert_eq!(count(&mut app, "tenancy.subscriptions"), 0);
    fails(database.connect("client").batch_execute("SELECT * FROM tenancy.subscriptions"), "42501");
}
