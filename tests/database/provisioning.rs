//! From the registration of a tenant to its database.

use super::fixtures::*;
use harness::{Cluster, Uuid, as_tenant, cluster, count, fails, one, rows};

#[test]
fn a_tenant_gets_a_database_of_its_own() {
    let control = shop(cluster(), "own");
    let tenant = provisioned(&control, "Acme");
    let mut app = connect(&control, tenant, "app");
    as_tenant(&mut app, tenant, |app| {
        assert_eq!(count(app, "stages"), 2);
        assert_eq!(one::<String>(app, "SELECT name FROM stages WHERE id = 2", &[]), "tab\tand \\ \n and 'quote'");
        app.batch_execute("INSERT INTO orders (total, body) VALUES (2, 'hi')").expect("write");
        assert_eq!(one::<String>(app, "SELECT body FROM orders", &[]), "HI", "the trigger fires");
        assert_eq!(count(app, "orders WHERE doubled = 4"), 1);
        assert_eq!(count(app, "totals"), 1);
    });
    let mut superuser = control.superuser();
    assert_eq!(count(&mut superuser, "tenancy.provisioning WHERE phase = 'ready' AND problem IS NULL"), 1);
    let location = rows(&mut control.connect("app"), "SELECT * FROM tenant_location('acme')", &[]);
    assert_eq!(location[0].get::<_, Uuid>("tenant_id"), tenant);
    assert_eq!(location[0].get::<_, String>("database_name"), home(tenant));
    assert_eq!(location[0].get::<_, Option<String>>("host"), None);
}

#[test]
fn a_worker_makes_the_database_as_soon_as_the_tenant_is_committed() {
    let cluster = Cluster::start(eager());
    let control = shop(&cluster, "soon");
    let mut operator = control.connect("operator");
    let tenant = register(&mut operator, "Acme");
    let state: String = one(&mut operator, "SELECT wait_for_tenant($1)", &[&tenant]);
    assert_eq!(state, "active", "{}", problem(&control, tenant));
    as_tenant(&mut connect(&control, tenant, "app"), tenant, |app| assert_eq!(count(app, "stages"), 2));
}

/// Who is a member, and has a key, when the tenant is registered, is one as soon as the database is there.
#[test]
fn members_and_keys_are_good_in_a_database_from_its_first_moment() {
    let control = shop(cluster(), "first");
    let mut operator = control.connect("operator");
    let owner: Uuid = one(&mut control.connect("app"), "SELECT create_user('ada@example.com')", &[]);
    let tenant: Uuid =
        one(&mut operator, "SELECT create_tenant('Acme', isolation => 'database', owner => $1)", &[&owner]);
    provision(&control);
    let mut app = connect(&control, tenant, "app");
    let mut transaction = app.transaction().expect("begin");
    let bound: Uuid = one(&mut transaction, "SELECT set_tenant($1, $2)", &[&tenant, &owner]);
    assert_eq!(bound, tenant);
    assert_eq!(one::<String>(&mut transaction, "SELECT current_member_role()", &[]), "owner");
}

/// As long as it is made a database is nobody's who could put something into it.
#[test]
fn a_database_gets_its_owner_when_it_is_whole() {
    let control = shop(cluster(), "owner");
    let mut superuser = control.superuser();
    superuser.batch_execute(&format!("ALTER DATABASE {} OWNER TO owner", control.name())).expect("give away");
    let tenant = provisioned(&control, "Acme");
    const OWNER: &str = "SELECT datdba::regrole::text FROM pg_database WHERE datname = $1";
    assert_eq!(one::<String>(&mut superuser, OWNER, &[&home(tenant)]), "owner");
    let mut owner = connect(&control, tenant, "owner");
    // Its own, but for whose it is and what the control database keeps.
    owner.batch_execute("CREATE SCHEMA mine").expect("its database");
    let label = format!("SECURITY LABEL FOR pg_tenancy ON DATABASE \"{}\" IS NULL", home(tenant));
    fails(owner.batch_execute(&label), "42501");
    fails(owner.batch_execute("DELETE FROM tenancy.tenants"), "42501");
}
