//! Questions before the fact.

use super::fixtures::*;
use harness::*;

/// allowed, max_value, used, remaining.
#[track_caller]
fn ask(app: &mut Client, tenant: Uuid, arguments: &str) -> String {
    let sql = format!(
        "SELECT concat_ws(' ', allowed, coalesce(max_value::text, '-'), used, coalesce(remaining::text, '-')) FROM check_limit({arguments})"
    );
    as_tenant(app, tenant, |transaction| one(transaction, &sql, &[]))
}

#[test]
fn what_is_left_is_told_for_the_bound_tenant_alone() {
    let shop = Shop::new("limit_check");
    let (tenant, other) = (shop.tenant(Some(3)), shop.tenant(None));
    for role in ["app", "client"] {
        let mut client = shop.connect(role);
        fails(client.query("SELECT check_limit('agents')", &[]), "42501");
        fails(client.query("SELECT enforce_limit('agents')", &[]), "42501");
        fails(client.query("SELECT has_feature('sso')", &[]), "42501");
    }
    let mut app = shop.connect("app");
    assert_eq!(ask(&mut app, tenant, "'agents'"), "t 3 0 3");
    run_as(&mut app, tenant, "INSERT INTO agents (status) VALUES ('active'), ('active'), ('idle')");
    run_as(&mut app, other, "INSERT INTO agents SELECT FROM generate_series(1, 7)");
    assert_eq!(ask(&mut app, tenant, "'agents'"), "t 3 2 1");
    assert_eq!(ask(&mut app, tenant, "'agents', 2"), "f 3 2 1");
    assert_eq!(ask(&mut app, tenant, "'agents', 0"), "t 3 2 1");
    assert_eq!(ask(&mut app, other, "'agents', 1000"), "t - 7 -");
    shop.set_limit(tenant, "agents", Some(1));
    assert_eq!(ask(&mut app, tenant, "'agents', 0"), "f 1 2 0");
    shop.set_limit(tenant, "seats", Some(8));
    assert_eq!(ask(&mut app, tenant, "'seats', 8"), "t 8 0 8");
    for (arguments, sqlstate) in [
        ("'nothing'", "P0002"),
        ("NULL", "22023"),
        ("'agents', NULL", "22023"),
        ("'agents', -1", "22023"),
        ("'agents', 'NaN'", "22023"),
    ] {
        refused(&mut app, tenant, &format!("SELECT check_limit({arguments})"), sqlstate);
        refused(&mut app, tenant, &format!("SELECT enforce_limit({arguments})"), sqlstate);
    }
    refused(&mut app, tenant, "SELECT enforce_limit('agents')", "54000");
    assert!(as_tenant(&mut app, tenant, |transaction| one::<bool>(
        transaction,
        "SELECT enforce_limit('seats', 8)",
        &[]
    )));
}

#[test]
fn a_plan_has_its_features_at_once() {
    let database = Database::new("limit_feature");
    let mut operator = database.connect("operator");
    let tenant = tenant(&mut operator);
    let mut app = database.connect("app");
    let mut has = |feature: &str| -> bool {
        as_tenant(&mut app, tenant, |transaction| one(transaction, "SELECT has_feature($1)", &[&feature]))
    };
    assert!(!has("sso"));
    operator.batch_execute("SELECT create_plan('free', features => '{sso,audit}')").expect("give");
    assert!(has("sso") && has("audit") && !has("SSO"));
    operator.batch_execute("SELECT create_plan('free')").expect("take");
    assert!(!has("sso"));
}
