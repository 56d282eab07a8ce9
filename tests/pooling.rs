//! Behind PgBouncer in transaction mode, where each transaction may find another server session and each
//! server session serves every tenant.

use harness::{
    Client, Database, PgBouncer, PoolOptions, Uuid, as_tenant, backend_pid, bind, count, fails, protected_table,
    simple, tenants, text,
};

/// A database with the protected table notes and `n` tenants, behind a pooler.
fn pooled(label: &str, n: usize, pool_size: u32) -> (Database, PgBouncer, Vec<Uuid>) {
    let database = Database::new(label);
    protected_table(&database);
    let tenants = tenants(&mut database.connect("operator"), n);
    let bouncer = PgBouncer::start(&database, PoolOptions::new(pool_size));
    (database, bouncer, tenants)
}

fn backend(client: &mut Client) -> String {
    text(client, "SELECT pg_backend_pid()")
}

#[test]
fn a_binding_ends_with_its_transaction() {
    let (_database, bouncer, tenants) = pooled("pool_end", 1, 1);
    let mut first = bouncer.connect("app");
    let mut second = bouncer.connect("app");
    let bound_in = as_tenant(&mut first, tenants[0], |transaction| {
        transaction.execute("INSERT INTO notes (body) VALUES ('x')", &[]).expect("insert");
        backend_pid(transaction).to_string()
    });
    assert_eq!(backend(&mut second), bound_in, "one server session serves both clients");
    let unbound = simple(&mut second, "SELECT current_tenant_or_null()");
    assert_eq!(unbound, [[None]]);
    fails(second.batch_execute("SELECT * FROM notes"), "42501");
}

#[test]
fn a_client_that_vanishes_inside_its_transaction_leaves_no_binding() {
    let (_database, bouncer, tenants) = pooled("pool_vanish", 1, 1);
    let mut first = bouncer.connect("app");
    first.batch_execute("BEGIN").expect("begin");
    text(&mut first, &format!("SELECT set_tenant('{}')", tenants[0]));
    drop(first);
    let mut second = bouncer.connect("app");
    assert_eq!(simple(&mut second, "SELECT current_tenant_or_null()"), [[None]]);
}

#[test]
fn a_failed_transaction_leaves_no_binding() {
    let (_database, bouncer, tenants) = pooled("pool_fail", 1, 1);
    let mut client = bouncer.connect("app");
    let mut transaction = client.transaction().expect("begin");
    bind(&mut transaction, tenants[0]);
    fails(transaction.batch_execute("SELECT 1 / 0"), "22012");
    transaction.rollback().expect("roll back");
    assert_eq!(simple(&mut client, "SELECT current_tenant_or_null()"), [[None]]);
}

#[test]
fn many_clients_over_few_server_sessions_see_their_own_rows_only() {
    const ROUNDS: i64 = 40;
    let (database, bouncer, tenants) = pooled("pool_many", 6, 2);
    std::thread::scope(|scope| {
        for &tenant in &tenants {
            let bouncer = &bouncer;
            scope.spawn(move || write_and_read(&mut bouncer.connect("app"), tenant, ROUNDS));
        }
    });
    let total = ROUNDS * i64::try_from(tenants.len()).expect("a small number");
    assert_eq!(count(&mut database.superuser(), "notes"), total);
    let misplaced = "notes WHERE body <> tenant_id::text";
    assert_eq!(count(&mut database.superuser(), misplaced), 0);
}

/// Each round writes a row that names its tenant, and expects all rows so far to do so.
fn write_and_read(client: &mut Client, tenant: Uuid, rounds: i64) {
    for round in 1..=rounds {
        as_tenant(client, tenant, |transaction| {
            let insert = "INSERT INTO notes (body) VALUES ($1)";
            transaction.execute(insert, &[&tenant.to_string()]).expect("insert");
            assert_eq!(count(transaction, "notes"), round);
            let foreign = format!("notes WHERE body <> '{tenant}'");
            assert_eq!(count(transaction, &foreign), 0);
        });
    }
}
