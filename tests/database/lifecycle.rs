//! The states of a tenant, in its own database.

use super::fixtures::*;
use harness::{
    Client, Uuid, as_tenant, backend_pid, bind, cluster, count, fails, one, tenant, wait_for_lock, wait_until,
};

fn call(operator: &mut Client, sql: &str, tenant: Uuid) {
    operator.execute(sql, &[&tenant]).expect(sql);
}

#[test]
fn a_change_of_state_is_seen_at_once_where_the_tenant_is() {
    let control = shop(cluster(), "states");
    let acme = provisioned(&control, "Acme");
    let mut operator = control.connect("operator");
    let mut app = connect(&control, acme, "app");
    as_tenant(&mut app, acme, |app| assert_eq!(count(app, "orders"), 0));
    call(&mut operator, "SELECT suspend_tenant($1)", acme);
    fails(try_bind(&mut app, acme), "42501");
    call(&mut operator, "SELECT suspend_tenant($1, 'unpaid', 'read_only')", acme);
    as_tenant(&mut app, acme, |app| {
        assert_eq!(count(app, "stages"), 2);
        fails(app.batch_execute("INSERT INTO orders DEFAULT VALUES"), "25006");
    });
    call(&mut operator, "SELECT resume_tenant($1)", acme);
    as_tenant(&mut app, acme, |app| app.batch_execute("INSERT INTO orders DEFAULT VALUES").expect("write"));
    call(&mut operator, "SELECT cancel_tenant($1)", acme);
    fails(try_bind(&mut app, acme), "42501");
    call(&mut operator, "SELECT restore_tenant($1)", acme);
    call(&mut operator, "SELECT delete_tenant($1)", acme);
    fails(try_bind(&mut app, acme), "42501");
    call(&mut operator, "SELECT restore_tenant($1)", acme);
    as_tenant(&mut app, acme, |app| assert_eq!(count(app, "orders"), 1, "kept"));
}

/// What was rolled back in the control database never was in the tenant's.
#[test]
fn a_change_of_state_that_is_rolled_back_is_none() {
    let control = shop(cluster(), "undone");
    let acme = provisioned(&control, "Acme");
    let mut operator = control.connect("operator");
    let mut transaction = operator.transaction().expect("begin");
    transaction.execute("SELECT suspend_tenant($1)", &[&acme]).expect("suspend");
    as_tenant(&mut connect(&control, acme, "app"), acme, |app| assert_eq!(count(app, "stages"), 2));
    transaction.rollback().expect("roll back");
    as_tenant(&mut connect(&control, acme, "app"), acme, |app| {
        app.batch_execute("INSERT INTO orders DEFAULT VALUES").expect("write")
    });
}

#[test]
fn a_change_of_state_waits_for_writers_in_the_tenants_database_and_lets_no_later_one_in() {
    let control = shop(cluster(), "writers");
    let acme = provisioned(&control, "Acme");
    let mut superuser = control.superuser();
    let (mut writer, mut late) = (connect(&control, acme, "app"), connect(&control, acme, "app"));
    let mut writing = writer.transaction().expect("begin");
    bind(&mut writing, acme);
    writing.batch_execute("INSERT INTO orders DEFAULT VALUES").expect("write");
    let mut operator = control.connect("operator");
    let pid = backend_pid(&mut operator);
    std::thread::scope(|scope| {
        let suspending = scope.spawn(move || operator.execute("SELECT suspend_tenant($1)", &[&acme]).expect("suspend"));
        wait_for_lock(&mut superuser, pid);
        let pid = backend_pid(&mut late);
        let refused = scope.spawn(move || {
            let mut late = late.transaction().expect("begin");
            bind(&mut late, acme);
            fails(late.batch_execute("INSERT INTO orders DEFAULT VALUES"), "42501");
        });
        wait_for_lock(&mut superuser, pid);
        writing.commit().expect("the writer that was first commits");
        suspending.join().expect("suspended");
        refused.join().expect("refused");
    });
    let mut owner = connect(&control, acme, "postgres");
    let schema: String = one(&mut owner, "SELECT schema_name::text FROM tenancy.tenants", &[]);
    assert_eq!(count(&mut owner, &format!("\"{schema}\".orders")), 1);
}

#[test]
fn terminate_ends_the_sessions_in_the_tenants_database() {
    let control = shop(cluster(), "terminate");
    let (acme, other) = (provisioned(&control, "Acme"), provisioned(&control, "Other"));
    let mut idle = connect(&control, acme, "app");
    let mut others = connect(&control, other, "app");
    let mut operator = control.connect("operator");
    call(&mut operator, "SELECT suspend_tenant($1, terminate => true)", acme);
    wait_until("the session has ended", || idle.batch_execute("SELECT 1").is_err());
    as_tenant(&mut others, other, |app| assert_eq!(count(app, "stages"), 2));
}

#[test]
fn a_tenants_database_serves_that_tenant_alone() {
    let control = shop(cluster(), "alone");
    let (acme, other) = (provisioned(&control, "Acme"), provisioned(&control, "Other"));
    let shared = tenant(&mut control.connect("operator"));
    let mut app = connect(&control, acme, "app");
    for stranger in [other, shared] {
        fails(try_bind(&mut app, stranger), "P0002");
    }
    fails(app.batch_execute("BEGIN; SELECT set_tenant_by_slug('other')"), "P0002");
    app.batch_execute("ROLLBACK").expect("roll back");
    // Nobody gives it another label, or opens it.
    let database = home(acme);
    for role in ["app", "owner", "operator", "admin"] {
        let label =
            format!("SECURITY LABEL FOR pg_tenancy ON DATABASE \"{database}\" IS 'tenant: {other} active of x'");
        fails(control.connect(role).batch_execute(&label), "42501");
    }
}

#[test]
fn a_purge_drops_the_database_with_everyone_in_it() {
    let control = shop(cluster(), "purge");
    let (acme, other) = (provisioned(&control, "Acme"), provisioned(&control, "Other"));
    let mut app = connect(&control, acme, "app");
    let mut operator = control.connect("operator");
    call(&mut operator, "SELECT delete_tenant($1, '0')", acme);
    let (mut admin, notices) = control.connect_with_notices("admin");
    call(&mut admin, "CALL purge_tenant($1)", acme);
    assert!(notices.contains("dropped the database"), "{:?}", notices.messages());
    assert!(app.batch_execute("SELECT 1").is_err(), "who was connected is not any more");
    assert!(try_connect(&control, acme, "postgres").is_err());
    let mut superuser = control.superuser();
    for table in ["tenant_databases WHERE tenant_id", "applied_migrations WHERE tenant_id", "tenants WHERE id"] {
        assert_eq!(count(&mut superuser, &format!("tenancy.{table} = '{acme}'")), 0, "{table}");
    }
    as_tenant(&mut connect(&control, other, "app"), other, |app| assert_eq!(count(app, "stages"), 2));
}

#[test]
fn a_tenant_that_is_deleted_before_its_database_is_there_gets_it_when_it_is_restored() {
    let control = shop(cluster(), "early");
    let mut operator = control.connect("operator");
    let acme = register(&mut operator, "Acme");
    fails(try_bind(&mut control.connect("app"), acme), "55000");
    call(&mut operator, "SELECT delete_tenant($1)", acme);
    provision(&control);
    assert_eq!(count(&mut control.superuser(), "tenancy.provisioning WHERE database_oid IS NOT NULL"), 0);
    call(&mut operator, "SELECT restore_tenant($1)", acme);
    assert_eq!(state(&control, acme), "provisioning");
    provision(&control);
    assert_eq!(state(&control, acme), "active");
    as_tenant(&mut connect(&control, acme, "app"), acme, |app| assert_eq!(count(app, "stages"), 2));
    // And one that never had it is purged all the same.
    let never = register(&mut operator, "Never");
    call(&mut operator, "SELECT delete_tenant($1, '0')", never);
    call(&mut control.connect("admin"), "CALL purge_tenant($1)", never);
    assert_eq!(count(&mut control.superuser(), &format!("tenancy.tenant_databases WHERE tenant_id = '{never}'")), 0);
}

/// The label is of the database, not of its registry: a copy of the registry has the ids, and nothing else.
#[test]
fn a_copy_of_the_control_database_touches_no_tenants_database() {
    let control = shop(cluster(), "copied");
    let acme = provisioned(&control, "Acme");
    let copy = cluster().empty_database("copy");
    let mut superuser = cluster().server().superuser();
    let name = copy.name();
    superuser.batch_execute(&format!("DROP DATABASE {name}")).expect("make room");
    superuser.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {}", control.name())).expect("copy");
    superuser.batch_execute(&format!("GRANT CONNECT ON DATABASE {name} TO PUBLIC")).expect("grant");
    let mut operator = copy.connect("operator");
    call(&mut operator, "SELECT suspend_tenant($1)", acme);
    call(&mut operator, "SELECT delete_tenant($1, '0')", acme);
    call(&mut copy.connect("admin"), "CALL purge_tenant($1)", acme);
    assert_eq!(count(&mut copy.superuser(), "tenancy.tenants"), 0);
    as_tenant(&mut connect(&control, acme, "app"), acme, |app| {
        app.batch_execute("INSERT INTO orders DEFAULT VALUES").expect("still there, and active")
    });
}

/// Of a control database and its copy only the first follows its own new name.
#[test]
fn a_copy_does_not_take_over_the_tenants_of_a_control_database_that_is_renamed() {
    let control = shop(cluster(), "original");
    let acme = provisioned(&control, "Acme");
    let copy = cluster().empty_database("heir");
    let mut superuser = cluster().server().superuser();
    let (name, before, after) = (copy.name(), control.name(), format!("{}_renamed", control.name()));
    superuser.batch_execute(&format!("DROP DATABASE {name}")).expect("make room");
    superuser.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {before}")).expect("copy");
    superuser.batch_execute(&format!("GRANT CONNECT ON DATABASE {name} TO PUBLIC")).expect("grant");
    superuser.batch_execute(&format!("ALTER DATABASE {before} RENAME TO {after}")).expect("rename");
    copy.connect("admin").batch_execute("CALL provision_tenants()").expect("look around");
    let label = "SELECT label FROM pg_shseclabel WHERE label LIKE 'tenant: ' || $1 || ' %'";
    let labelled = |superuser: &mut Client| one::<String>(superuser, label, &[&acme.to_string()]);
    assert_eq!(labelled(&mut superuser), format!("tenant: {acme} active of {before}"));
    let mut admin = control.config("admin").dbname(&after).connect(harness::postgres::NoTls).expect("connect");
    admin.batch_execute("CALL provision_tenants()").expect("follow");
    assert_eq!(labelled(&mut superuser), format!("tenant: {acme} active of {after}"));
    drop(admin);
    superuser.batch_execute(&format!("ALTER DATABASE {after} RENAME TO {before}")).expect("rename back");
}
