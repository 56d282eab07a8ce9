//! Nothing of a purged tenant is anywhere.

use super::*;

/// Every row of every table that names the tenant, whoever owns the table; the audit log keeps what was done to it and when.
const TRACES: &str = "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_toast%' ORDER BY 1";

/// The tables that name the tenant, with how many rows do.
fn named(database: &Database, tenant: Uuid, secrets: &[&str]) -> Vec<String> {
    let mut superuser = database.superuser();
    let tables: Vec<String> = rows(&mut superuser, TRACES, &[]).iter().map(|row| row.get(0)).collect();
    let mut found = Vec::new();
    for table in tables {
        let mut what: Vec<String> = vec![tenant.to_string()];
        what.extend(secrets.iter().map(|secret| (*secret).to_owned()));
        let sql = format!(
            "SELECT count(*) FROM {table} AS t WHERE EXISTS (SELECT FROM unnest($1::text[]) AS s WHERE strpos(t::text, s) > 0)"
        );
        let rows: i64 = one(&mut superuser, &sql, &[&what]);
        if rows > 0 {
            found.push(format!("{table} {rows}"));
        }
    }
    found
}

#[test]
fn a_purge_leaves_nothing_and_says_what_it_removed() {
    let database = shop(cluster(), "purged_whole");
    let (acme, globex) = (filled(&database, "acme"), filled(&database, "globex"));
    let mut operator = database.connect("operator");
    operator
        .batch_execute("SELECT create_metric('calls'); SELECT create_metric('visitors', aggregation => 'unique'); SELECT set_plan_limit('free', 'calls', 100, 'month'); SELECT set_plan_rate_limit('free', 'api', 5)")
        .unwrap_or_else(|error| panic!("{error:?}"));
    let key: String = as_tenant(&mut database.connect("app"), acme, |tx| {
        tx.batch_execute(
            "SELECT add_member(create_user('only.acme@example.com', tenant => current_tenant()), 'owner');
             SELECT create_invitation('invited.acme@example.com');
             SELECT record_usage('calls', 1, 'key ' || n, now() - n * interval '40 days') FROM generate_series(1, 3) AS n;
             SELECT record_usage('visitors', resource_id => gen_random_uuid());
             SELECT consume_quota('calls', 2); SELECT check_rate_limit('api')",
        )
        .unwrap_or_else(|error| panic!("{error:?}"));
        one(tx, "SELECT api_key FROM create_api_key('robots')", &[])
    });
    one::<i64>(&mut database.connect("app"), &format!("SELECT count(*) FROM verify_api_key('{key}')"), &[]);
    one::<i64>(&mut database.connect("admin"), "SELECT rollup_usage()", &[]);
    one::<bool>(&mut database.connect("admin"), "SELECT limit_table('shop.customers', 'customers')", &[]);
    rows(&mut operator, "SELECT set_plan_limit('free', 'customers', 1000)", &[]);
    for statement in [
        "SELECT set_tenant_limit($1, 'agents', 7)",
        "SELECT set_tenant_rate_limit($1, 'api', 5, 'minute')",
        "SELECT set_subscription($1, 'active', date_trunc('day', now()) - interval '3 days', date_trunc('day', now()) + interval '20 days')::text",
        "SELECT count(*)::text FROM close_billing_period($1, to_char(now() - interval '2 months', 'YYYY-MM'))",
    ] {
        rows(&mut operator, statement, &[&acme]);
    }
    as_tenant(&mut database.connect("app"), acme, |tx| {
        tx.batch_execute("INSERT INTO shop.customers (name) VALUES ('counted'); SELECT record_usage('calls')")
            .expect("write");
    });
    let secrets = ["only.acme@example.com", "invited.acme@example.com"];
    let before = named(&database, acme, &secrets);
    for table in [
        "tenancy.users",
        "tenancy.memberships",
        "tenancy.stored_invitations",
        "tenancy.stored_api_keys",
        "tenancy.tenant_limits",
        "tenancy.tenant_rate_limits",
        "tenancy.subscriptions",
        "tenancy.billing_periods",
        "tenancy.billing_lines",
        "tenancy.usage_inbox",
        "tenancy.usage_buckets",
        "tenancy.usage_uniques",
        "tenancy.quota_counters",
        "tenancy.row_counters",
        "tenancy_archive.usage_events",
        "shop.customers",
        "shop.events_new",
        "tenancy.usage_keys",
    ] {
        assert!(before.iter().any(|found| found.starts_with(table)), "{table} has nothing to remove: {before:?}");
    }
    let others = picture(&database, Some(globex));

    rows(&mut operator, "SELECT delete_tenant($1)", &[&acme]);
    let (mut admin, notices) = database.connect_with_notices("admin");
    admin.batch_execute(&format!("CALL purge_tenant('{acme}', true)")).unwrap_or_else(|error| panic!("{error:?}"));
    let after = named(&database, acme, &secrets);
    assert!(after.iter().all(|found| found.starts_with("tenancy.audit_log ")), "{after:?}");
    assert_eq!(picture(&database, Some(globex)), others);
    let said = notices.messages().join("\n");
    for table in [
        "shop.customers",
        "tenancy.memberships",
        "tenancy.stored_api_keys",
        "tenancy.usage_buckets",
        "tenancy.billing_lines",
        "tenancy_archive.usage_events",
    ] {
        assert!(said.contains(&format!("from {table}")), "{table}: {said}");
    }
    // What the log keeps tells of nobody.
    let told: i64 = one(
        &mut database.superuser(),
        "SELECT count(*) FROM tenancy.audit_log WHERE strpos(coalesce(target, '') || coalesce(before::text, '') || coalesce(principal::text, ''), 'acme') > 0",
        &[],
    );
    assert_eq!(told, 0);
}
