//! Routing by PgBouncer, with nothing of ours in between.

use super::fixtures::*;
use harness::postgres::NoTls;
use harness::{PgBouncer, PoolOptions, cluster, fails, one, rows, simple};

fn lines(control: &harness::Database, connection: &str) -> Vec<String> {
    let found = rows(&mut control.connect("monitor"), "SELECT pgbouncer_databases($1)", &[&connection]);
    found.iter().map(|row| row.get(0)).collect()
}

#[test]
fn pgbouncer_takes_the_lines_and_the_pool_sizes_of_plans() {
    let control = shop(cluster(), "bouncer");
    let mut operator = control.connect("operator");
    for plan in [
        "create_plan('large', 'database', '{\"pool_size\": 7, \"max_concurrent_transactions\": 3}')",
        "create_plan('small', 'database', '{\"max_concurrent_transactions\": 2}')",
        "create_plan('plain', 'database', '{\"pool_size\": \"1 host=evil\"}')",
    ] {
        operator.batch_execute(&format!("SELECT {plan}")).expect(plan);
    }
    let tenants = ["large", "small", "plain"]
        .map(|plan| one::<harness::Uuid>(&mut operator, "SELECT create_tenant($1, plan => $1)", &[&plan]));
    assert_eq!(lines(&control, ""), Vec::<String>::new(), "none is ready");
    provision(&control);
    let mut expected = [(tenants[0], " pool_size=7"), (tenants[1], " pool_size=2"), (tenants[2], "")]
        .map(|(tenant, size)| format!("{0} = dbname='{0}'{size}", home(tenant)));
    expected.sort();
    assert_eq!(lines(&control, ""), expected);
    fails(control.connect("monitor").query("SELECT pgbouncer_databases(E'a\\nb')", &[]), "22023");

    // A name that PgBouncer cannot write.
    let rename = format!("ALTER DATABASE \"{}\" RENAME TO \"it's = \"\"{}\"\"\"", home(tenants[2]), tenants[2]);
    cluster().server().superuser().batch_execute(&rename).expect("rename");
    provision(&control);
    let port = control.server().port();
    let options = lines(&control, &format!("host=127.0.0.1 port={port}"))
        .iter()
        .fold(PoolOptions::new(5), |options, line| options.database(line));
    let bouncer = PgBouncer::start(&control, options);
    for tenant in tenants {
        let mut config = bouncer.config("app");
        let mut app = config.dbname(&home(tenant)).connect(NoTls).expect("connect through the pooler");
        app.batch_execute(&format!(
            "BEGIN; SELECT set_tenant('{tenant}'); INSERT INTO orders (body) VALUES ('x'); COMMIT"
        ))
        .expect("write through the pooler");
        let found =
            simple(&mut app, &format!("BEGIN; SELECT set_tenant('{tenant}'); SELECT count(*) FROM orders; COMMIT"));
        assert_eq!(found.last(), Some(&vec![Some("1".to_owned())]));
    }
    let sizes = simple(&mut bouncer.console(), "SHOW DATABASES");
    let size_of = |tenant| {
        let row = sizes.iter().find(|row| row[0].as_deref() == Some(home(tenant).as_str())).expect("a database");
        row.iter().flatten().any(|value| value == "7")
    };
    assert!(size_of(tenants[0]) && !size_of(tenants[1]), "{sizes:?}");
}

#[test]
fn tenant_location_tells_of_every_isolation() {
    let control = shop(cluster(), "location");
    let mut operator = control.connect("operator");
    operator
        .batch_execute("SELECT create_tenant('Rows'), create_tenant('Schema', isolation => 'schema')")
        .expect("create");
    let acme = provisioned(&control, "Acme");
    let mut app = control.connect("app");
    let mut find = |slug: &str| -> (String, String, Option<String>) {
        let row = app.query_one("SELECT isolation, database_name, schema_name FROM tenant_location($1)", &[&slug]);
        let row = row.expect("one row");
        (row.get(0), row.get(1), row.get(2))
    };
    let own = control.name().to_owned();
    assert_eq!(find("rows"), ("row".to_owned(), own.clone(), None));
    let (isolation, database, schema) = find("schema");
    assert_eq!((isolation.as_str(), database, schema.is_some()), ("schema", own, true));
    let schema = format!("tenant_{acme}");
    assert_eq!(find("acme"), ("database".to_owned(), home(acme), Some(schema)));
    for (slug, sqlstate) in [(Some("nobody"), "P0002"), (Some(""), "P0002"), (Some("'; --"), "P0002"), (None, "22023")]
    {
        fails(app.query("SELECT * FROM tenant_location($1)", &[&slug]), sqlstate);
    }
    fails(app.query("SELECT * FROM tenant_location(repeat('x', 1000000))", &[]), "P0002");
}
