//! Behind PgBouncer in transaction mode, where each transaction may find another server session and each
//! server session serves every tenant.

mod schemas;
mod storm;
pub(crate) mod wire;

use harness::{
    Client, Database, PgBouncer, PoolOptions, Uuid, as_tenant, backend_pid, bind, count, fails, one, simple, text,
    wait_for_lock, wait_until,
};
use storm::{BOUND_HERE, LOCKED_HERE, Storm, pooled};
use wire::Wire;

/// A pooler before a single server session, which two tenants share.
fn shared_session(label: &str) -> (Database, PgBouncer, [Uuid; 2]) {
    let (database, bouncer, tenants) = pooled(label, 2, PoolOptions::new(1));
    (database, bouncer, [tenants[0], tenants[1]])
}

/// A row that names the tenant that writes it.
fn insert(tenant: Uuid) -> String {
    format!("INSERT INTO notes (body) VALUES ('{tenant}')")
}

fn write(client: &mut Client, tenant: Uuid) {
    as_tenant(client, tenant, |transaction| transaction.batch_execute(&insert(tenant)).expect("insert"));
}

/// Begins, binds and writes, and leaves the transaction open.
fn begin_and_write(client: &mut Client, tenant: Uuid) {
    let begin = format!("BEGIN; SELECT set_tenant('{tenant}'); {}", insert(tenant));
    client.batch_execute(&begin).expect("begin and write");
}

fn backend(client: &mut Client) -> String {
    text(client, "SELECT pg_backend_pid()")
}

fn bodies(client: &mut Client) -> Vec<String> {
    simple(client, "SELECT body FROM notes").into_iter().map(|row| row[0].clone().expect("a body")).collect()
}

/// Nothing is bound in the server session that serves the client, and nothing opens.
fn assert_unbound(client: &mut Client) {
    let bound = "SELECT current_tenant_or_null(), current_user_id(), (SELECT count(*) FROM current_principal())";
    assert_eq!(simple(client, bound), [[None, None, Some("0".to_owned())]]);
    fails(client.batch_execute("SELECT * FROM notes"), "42501");
    fails(client.batch_execute("INSERT INTO notes (body) VALUES ('unbound')"), "42501");
    fails(client.batch_execute("UPDATE notes SET body = 'unbound'"), "42501");
    fails(client.batch_execute("DELETE FROM notes"), "42501");
}

/// Nobody but `tenants` has rows, one each, and no session is bound or holds a tenant's lock.
fn assert_left(database: &Database, tenants: &[Uuid]) {
    let mut superuser = database.superuser();
    wait_until("nobody is bound", || count(&mut superuser, BOUND_HERE) == 0);
    wait_until("no tenant is locked", || count(&mut superuser, LOCKED_HERE) == 0);
    let mut expected: Vec<String> = tenants.iter().map(Uuid::to_string).collect();
    expected.sort();
    let left = simple(&mut superuser, "SELECT tenant_id FROM notes WHERE body = tenant_id::text ORDER BY 1");
    assert_eq!(left.into_iter().map(|mut row| row.remove(0).expect("a tenant")).collect::<Vec<_>>(), expected);
    assert_eq!(count(&mut superuser, "notes"), i64::try_from(tenants.len()).expect("few"));
}

#[test]
fn three_thousand_transactions_of_two_tenants_on_one_server_session_never_mix() {
    const TRANSACTIONS: usize = 3_000;
    let storm = Storm { tenants: 2, clients: 4, pool_size: 1, transactions: TRANSACTIONS, vanish_every: 0 };
    let outcome = storm::run(&storm);
    assert_eq!(outcome.transactions_by_session.into_values().collect::<Vec<_>>(), [TRANSACTIONS]);
    assert!(outcome.switches > TRANSACTIONS / 4, "the tenants took turns only {} times", outcome.switches);
}

#[test]
fn transactions_of_many_tenants_over_few_server_sessions_never_mix_though_clients_vanish() {
    let storm = Storm { tenants: 5, clients: 10, pool_size: 3, transactions: 3000, vanish_every: 25 };
    let outcome = storm::run(&storm);
    assert_eq!(outcome.transactions_by_session.values().sum::<usize>(), 3000);
    assert!(outcome.switches > 1000, "the tenants took turns only {} times", outcome.switches);
}

#[test]
fn a_binding_ends_with_its_transaction() {
    let (_database, bouncer, [tenant, _]) = shared_session("pool_end");
    let mut first = bouncer.connect("app");
    let mut second = bouncer.connect("app");
    let bound_in = as_tenant(&mut first, tenant, |transaction| backend_pid(transaction).to_string());
    assert_eq!(backend(&mut second), bound_in, "one server session serves both clients");
    assert_unbound(&mut second);
    assert_unbound(&mut first);
}

#[test]
fn a_chained_transaction_begins_unbound() {
    let (_database, bouncer, [tenant, other]) = shared_session("pool_chain");
    for end in ["COMMIT AND CHAIN", "ROLLBACK AND CHAIN"] {
        let mut client = bouncer.connect("app");
        begin_and_write(&mut client, tenant);
        client.batch_execute(end).expect("end the transaction");
        fails(client.batch_execute("SELECT * FROM notes"), "42501");
        client.batch_execute(end).expect("end the transaction");
        assert_eq!(text(&mut client, &format!("SELECT set_tenant('{other}')")), other.to_string());
        assert!(bodies(&mut client).is_empty());
        client.batch_execute("ROLLBACK").expect("roll back");
    }
}

#[test]
fn a_binding_outside_a_transaction_reaches_no_other_statement() {
    let (_database, bouncer, [tenant, _]) = shared_session("pool_auto");
    let mut client = bouncer.connect("app");
    write(&mut client, tenant);
    let (mut alone, notices) = bouncer.connect_with_notices("app");
    text(&mut alone, &format!("SELECT set_tenant('{tenant}')"));
    assert!(notices.contains("transaction block"), "{:?}", notices.messages());
    assert_unbound(&mut client);
    let together = simple(&mut alone, &format!("SELECT set_tenant('{tenant}'); SELECT body FROM notes"));
    assert_eq!(together.len(), 2, "statements that are sent together are one transaction");
    assert_unbound(&mut client);
}

#[test]
fn a_failed_transaction_leaves_no_binding() {
    let (database, bouncer, [tenant, other]) = shared_session("pool_fail");
    let mut client = bouncer.connect("app");
    let mut next = bouncer.connect("app");
    for end in ["ROLLBACK", "COMMIT"] {
        begin_and_write(&mut client, tenant);
        fails(client.batch_execute("SELECT 1 / 0"), "22012");
        client.batch_execute(end).expect("end the transaction");
        assert_unbound(&mut next);
    }
    // Together with what begins the transaction, in one message.
    let all = format!("BEGIN; SELECT set_tenant('{tenant}'); {}; SELECT 1 / 0; COMMIT", insert(tenant));
    fails(client.batch_execute(&all), "22012");
    client.batch_execute("ROLLBACK").expect("roll back");
    assert_unbound(&mut next);
    write(&mut next, other);
    assert_left(&database, &[other]);
}

#[test]
fn a_failure_at_commit_leaves_no_binding() {
    let (database, bouncer, [tenant, other]) = shared_session("pool_commit");
    let deferred = "ALTER TABLE notes ADD UNIQUE (tenant_id, body) DEFERRABLE INITIALLY DEFERRED";
    database.connect("owner").batch_execute(deferred).expect("add a constraint");
    let mut client = bouncer.connect("app");
    begin_and_write(&mut client, tenant);
    client.batch_execute(&insert(tenant)).expect("insert once more");
    fails(client.batch_execute("COMMIT"), "23505");
    let mut next = bouncer.connect("app");
    assert_unbound(&mut next);
    write(&mut next, other);
    assert_left(&database, &[other]);
}

#[test]
fn a_client_that_vanishes_inside_its_transaction_leaves_neither_binding_nor_row() {
    let (database, bouncer, [tenant, other]) = shared_session("pool_vanish");
    let mut next = bouncer.connect("app");
    for moment in 0..12 {
        storm::vanish(&bouncer, tenant, moment);
        assert_unbound(&mut next);
    }
    write(&mut next, other);
    assert_left(&database, &[other]);
}

#[test]
fn a_client_that_closes_its_session_inside_its_transaction_leaves_neither_binding_nor_row() {
    let (database, bouncer, [tenant, other]) = shared_session("pool_close");
    let mut client = bouncer.connect("app");
    begin_and_write(&mut client, tenant);
    client.close().expect("close the session");
    let mut next = bouncer.connect("app");
    assert_unbound(&mut next);
    write(&mut next, other);
    assert_left(&database, &[other]);
}

/// The backend does not notice at once that nobody waits for its answer.
#[test]
fn a_client_that_vanishes_during_a_long_statement_commits_nothing() {
    let (database, bouncer, [tenant, other]) = shared_session("pool_long");
    let mut superuser = database.superuser();
    superuser.batch_execute("SELECT pg_advisory_lock(1)").expect("lock");
    let mut wire = Wire::connect(&bouncer, "app", &[]).expect("connect");
    wire.run(&format!("BEGIN; SELECT set_tenant('{tenant}'); {}", insert(tenant)));
    let waiting = one(&mut superuser, &format!("SELECT pid FROM {BOUND_HERE}"), &[]);
    wire.send("SELECT pg_advisory_lock(1); COMMIT");
    wait_for_lock(&mut superuser, waiting);
    drop(wire);
    let mut next = bouncer.connect("app");
    assert_unbound(&mut next);
    assert_ne!(backend(&mut next), waiting.to_string(), "a session in mid-transaction serves nobody else");
    assert_eq!(one::<Uuid>(&mut superuser, &format!("SELECT tenant_id FROM {BOUND_HERE}"), &[]), tenant);
    write(&mut next, other);
    let terminated: bool = one(&mut superuser, "SELECT pg_terminate_backend($1)", &[&waiting]);
    assert!(terminated);
    assert_left(&database, &[other]);
}

#[test]
fn a_cancelled_statement_leaves_no_binding() {
    let (database, bouncer, [tenant, other]) = shared_session("pool_cancel");
    let mut superuser = database.superuser();
    superuser.batch_execute("SELECT pg_advisory_lock(2)").expect("lock");
    let mut client = bouncer.connect("app");
    begin_and_write(&mut client, tenant);
    let waiting = one(&mut superuser, &format!("SELECT pid FROM {BOUND_HERE}"), &[]);
    std::thread::scope(|scope| {
        let statement = scope.spawn(|| client.batch_execute("SELECT pg_advisory_lock(2)"));
        wait_for_lock(&mut superuser, waiting);
        assert!(one::<bool>(&mut superuser, "SELECT pg_cancel_backend($1)", &[&waiting]));
        fails(statement.join().expect("the statement ends"), "57014");
    });
    client.batch_execute("COMMIT").expect("end the failed transaction");
    let mut next = bouncer.connect("app");
    assert_eq!(backend(&mut next), waiting.to_string(), "one server session serves both clients");
    assert_unbound(&mut next);
    write(&mut next, other);
    assert_left(&database, &[other]);
}

#[test]
fn a_terminated_server_session_leaves_neither_binding_nor_row() {
    let (database, bouncer, [tenant, other]) = shared_session("pool_terminate");
    let mut client = bouncer.connect("app");
    begin_and_write(&mut client, tenant);
    let mut superuser = database.superuser();
    let terminated = format!("SELECT bool_and(pg_terminate_backend(pid)) FROM {BOUND_HERE}");
    assert!(one::<bool>(&mut superuser, &terminated, &[]));
    assert!(client.batch_execute("COMMIT").is_err(), "the transaction's server session is gone");
    let mut next = bouncer.connect("app");
    wait_until("the pooler has a new server session", || {
        next.batch_execute("SELECT 1").is_ok() || {
            next = bouncer.connect("app");
            false
        }
    });
    assert_unbound(&mut next);
    write(&mut next, other);
    assert_left(&database, &[other]);
}

#[test]
fn suspending_with_terminate_ends_the_transaction_of_that_tenant_only() {
    let (database, bouncer, tenants) = pooled("pool_suspend", 2, PoolOptions::new(2));
    let mut suspended = bouncer.connect("app");
    let mut spared = bouncer.connect("app");
    begin_and_write(&mut suspended, tenants[0]);
    begin_and_write(&mut spared, tenants[1]);
    let suspend = format!("SELECT suspend_tenant('{}', 'unpaid', terminate => true)", tenants[0]);
    database.connect("operator").batch_execute(&suspend).expect("suspend");
    assert!(suspended.batch_execute("COMMIT").is_err(), "the transaction's server session is gone");
    spared.batch_execute("COMMIT").expect("commit");
    let mut next = bouncer.connect("app");
    assert_unbound(&mut next);
    fails(next.batch_execute(&format!("BEGIN; SELECT set_tenant('{}')", tenants[0])), "42501");
    next.batch_execute("ROLLBACK").expect("roll back");
    assert_left(&database, &[tenants[1]]);
}

#[test]
fn a_pooler_that_is_killed_commits_nothing() {
    let (database, bouncer, [tenant, other]) = shared_session("pool_killed");
    let mut client = bouncer.connect("app");
    begin_and_write(&mut client, tenant);
    drop(bouncer);
    assert!(client.batch_execute("COMMIT").is_err(), "the pooler is gone");
    let bouncer = PgBouncer::start(&database, PoolOptions::new(1));
    let mut next = bouncer.connect("app");
    assert_unbound(&mut next);
    write(&mut next, other);
    assert_left(&database, &[other]);
}

/// It would keep a tenant's rows in the server session, for whoever comes next to fetch.
#[test]
fn a_holdable_cursor_over_a_tenants_rows_does_not_outlive_its_transaction() {
    const DECLARE: &str = "DECLARE held CURSOR WITH HOLD FOR SELECT * FROM notes";
    const DECLARE_BINARY: &str = "DECLARE held BINARY NO SCROLL CURSOR WITH HOLD FOR SELECT body FROM notes";
    const DECLARE_UNRELATED: &str = "DECLARE held_too CURSOR WITH HOLD FOR SELECT 1";
    let (database, bouncer, [tenant, _]) = shared_session("pool_hold");
    let mut client = bouncer.connect("app");
    write(&mut client, tenant);
    let bind = format!("SELECT set_tenant('{tenant}')");
    for (statements, refused_with) in [
        (format!("BEGIN; {bind}; {DECLARE}"), "0A000"),
        (format!("BEGIN; {bind}; SAVEPOINT inner_part; {DECLARE}"), "0A000"),
        (format!("BEGIN; SAVEPOINT inner_part; {bind}; {DECLARE}"), "0A000"),
        (format!("BEGIN; {bind}; {DECLARE_UNRELATED}"), "0A000"),
        (format!("BEGIN; {bind}; {DECLARE_BINARY}"), "0A000"),
        // Declared first: what it is to hold is computed at the commit.
        (format!("BEGIN; {DECLARE_UNRELATED}; {bind}"), "55000"),
    ] {
        fails(client.batch_execute(&statements), refused_with);
        client.batch_execute("ROLLBACK").expect("roll back");
        let mut next = bouncer.connect("app");
        fails(next.batch_execute("FETCH ALL FROM held"), "34000");
        assert_eq!(
            simple(&mut next, "SELECT name FROM pg_cursors WHERE is_holdable"),
            Vec::<Vec<Option<String>>>::new()
        );
        assert_unbound(&mut next);
    }
    assert_left(&database, &[tenant]);
}

#[test]
fn a_holdable_cursor_of_an_unbound_transaction_holds_no_tenants_rows() {
    let (_database, bouncer, [tenant, _]) = shared_session("pool_hold_unbound");
    let mut client = bouncer.connect("app");
    write(&mut client, tenant);
    let declare = "DECLARE held CURSOR WITH HOLD FOR SELECT * FROM notes";
    let declared = client.batch_execute(&format!("BEGIN; {declare}; COMMIT"));
    fails(declared, "42501");
    client.batch_execute("ROLLBACK").expect("roll back");
    // Outside a transaction block the statement commits at once.
    fails(client.batch_execute(declare), "42501");
    let mut next = bouncer.connect("app");
    fails(next.batch_execute("FETCH ALL FROM held"), "34000");
    // One that reads no tenant's table is left in the server session and is in nobody's way.
    client.batch_execute("BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT 1; COMMIT").expect("hold");
    assert_unbound(&mut next);
    write(&mut next, tenant);
    next.batch_execute("CLOSE held").expect("close");
}

#[test]
fn a_temporary_table_cannot_be_left_for_the_next_tenant() {
    let (_database, bouncer, [tenant, other]) = shared_session("pool_temp");
    let mut app = bouncer.connect("app");
    write(&mut app, tenant);
    for statement in [
        "CREATE TEMP TABLE notes AS SELECT * FROM public.notes",
        "CREATE TEMP TABLE notes (body text)",
        "SELECT * INTO TEMP notes FROM public.notes",
        "CREATE TEMP VIEW notes AS SELECT 'forged' AS body",
        "CREATE TABLE public.copied AS SELECT * FROM notes",
        "CREATE FUNCTION pg_temp.current_tenant() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'",
    ] {
        app.batch_execute(&format!("BEGIN; SELECT set_tenant('{tenant}')")).expect("bind");
        fails(app.batch_execute(statement), "42501");
        app.batch_execute("ROLLBACK").expect("roll back");
        fails(bouncer.connect("client").batch_execute(statement), "42501");
    }
    let mut next = bouncer.connect("app");
    as_tenant(&mut next, other, |transaction| assert_eq!(count(transaction, "notes"), 0));
    assert_unbound(&mut next);
}

/// Each is set for the session, by a client that then leaves the server session to the next one.
#[test]
fn settings_left_in_the_server_session_open_nothing() {
    let (_database, bouncer, [tenant, other]) = shared_session("pool_settings");
    let mut careless = bouncer.connect("app");
    write(&mut careless, tenant);
    for setting in [
        "SET row_security = off",
        "SET search_path = pg_temp, pg_catalog, public",
        "SET plan_cache_mode = force_generic_plan",
        "SET session_replication_role = DEFAULT",
        "SET enable_seqscan = off",
        "SET enable_indexscan = off",
        "SET default_transaction_isolation = 'serializable'",
        "SET default_transaction_read_only = on",
        "SET SESSION AUTHORIZATION DEFAULT",
        "SET role = app",
        "SET force_parallel_mode = on",
        "SET default_transaction_deferrable = on",
        "SET tenancy_app.tenant = 'something'",
    ] {
        let in_transaction = format!("BEGIN; SELECT set_tenant('{tenant}'); {setting}; COMMIT");
        // Some version may lack one of the settings, or refuse it to this role: then nothing is left.
        let _ = careless.batch_execute(&in_transaction);
        careless.batch_execute("ROLLBACK").expect("roll back");
        let mut next = bouncer.connect("app");
        let unbound = next.batch_execute("SELECT * FROM public.notes").expect_err("unbound");
        assert_eq!(unbound.code().map(|code| code.code()), Some("42501"), "{setting}");
        next.batch_execute(&format!("BEGIN; SELECT set_tenant('{other}')")).expect("bind");
        // Row security that is off makes PostgreSQL refuse; whatever else is set, there are no rows of the other.
        if let Ok(rows) = next.simple_query("SELECT body FROM public.notes") {
            let found = rows.iter().any(|message| matches!(message, harness::postgres::SimpleQueryMessage::Row(_)));
            assert!(!found, "{setting}: rows of another tenant");
        }
        next.batch_execute("ROLLBACK; RESET ALL; RESET ROLE").expect("tidy up");
        as_tenant(&mut next, tenant, |transaction| assert_eq!(count(transaction, "notes"), 1, "{setting}"));
    }
}

#[test]
fn the_context_cannot_be_set_for_the_session() {
    let (_database, bouncer, [tenant, _]) = shared_session("pool_set");
    let mut client = bouncer.connect("app");
    let value = format!("{tenant}||set_tenant|||||");
    for attempt in [
        format!("SET tenancy.context = '{value}'"),
        format!("SET SESSION tenancy.context = '{value}'"),
        format!("SET LOCAL tenancy.context = '{value}'"),
        format!("SELECT set_config('tenancy.context', '{value}', false)"),
    ] {
        fails(client.batch_execute(&attempt), "42501");
        client.batch_execute(&format!("BEGIN; SELECT set_tenant('{tenant}')")).expect("bind");
        fails(client.batch_execute(&attempt), "42501");
        client.batch_execute("COMMIT").expect("end the failed transaction");
        assert_unbound(&mut bouncer.connect("app"));
    }
}

#[test]
fn a_prepared_statement_left_in_the_server_session_serves_each_tenant_its_own_rows() {
    let (_database, bouncer, [tenant, other]) = shared_session("pool_prepared");
    let mut first = bouncer.connect("app");
    let mut second = bouncer.connect("app");
    write(&mut first, tenant);
    write(&mut second, other);
    let bind = |tenant: Uuid| format!("BEGIN; SELECT set_tenant('{tenant}')");
    let prepare = "PREPARE reading AS SELECT body FROM notes; PREPARE writing AS UPDATE notes SET body = body";
    first.batch_execute(&format!("{}; {prepare}", bind(tenant))).expect("prepare");
    first.batch_execute("EXECUTE reading; EXECUTE writing; COMMIT").expect("execute");
    // Often enough for a generic plan.
    for _ in 0..8 {
        for (client, tenant) in [(&mut second, other), (&mut first, tenant)] {
            fails(client.batch_execute("EXECUTE reading"), "42501");
            fails(client.batch_execute("EXECUTE writing"), "42501");
            client.batch_execute(&bind(tenant)).expect("bind");
            assert_eq!(simple(client, "EXECUTE reading"), [[Some(tenant.to_string())]]);
            client.batch_execute("EXECUTE writing; COMMIT").expect("execute");
        }
    }
}

#[test]
fn statements_prepared_by_a_driver_inside_transactions_serve_each_tenant_its_own_rows() {
    let (_database, bouncer, [tenant, other]) = shared_session("pool_driver");
    let mut clients = [bouncer.connect("app"), bouncer.connect("app")];
    for turn in 1..=8 {
        for (client, tenant) in clients.iter_mut().zip([tenant, other]) {
            let mut transaction = client.transaction().expect("begin");
            let insert = transaction.prepare("INSERT INTO notes (body) VALUES ($1)").expect("prepare");
            let select = transaction.prepare("SELECT tenant_id, body FROM notes WHERE body = $1").expect("prepare");
            bind(&mut transaction, tenant);
            transaction.execute(&insert, &[&"same"]).expect("insert");
            let rows = transaction.query(&select, &[&"same"]).expect("select");
            assert_eq!(rows.len(), turn);
            assert!(rows.iter().all(|row| row.get::<_, Uuid>(0) == tenant));
            drop((insert, select));
            transaction.commit().expect("commit");
        }
    }
}

#[test]
fn startup_parameters_bind_nothing_through_the_pooler() {
    let ignoring = PoolOptions::new(1).set("ignore_startup_parameters", "options, tenancy.context");
    let (database, lenient, tenants) = pooled("pool_startup", 1, ignoring);
    let strict = PgBouncer::start(&database, PoolOptions::new(1));
    let value = format!("{}||set_tenant|||||", tenants[0]);
    for parameters in [
        ["options", &format!("-c tenancy.context={value}")],
        ["options", &format!("--tenancy.context={value}")],
        ["options", "-c tenancy.allow_rebind=on -c tenancy.allow_bypass=on"],
        ["tenancy.context", &value],
        ["application_name", &format!("'; SET tenancy.context = '{value}")],
    ] {
        for bouncer in [&strict, &lenient] {
            // Refused by the pooler or ignored by it; what it forwards, the server refuses.
            let _ = Wire::connect(bouncer, "app", &parameters).map(|mut wire| wire.run("SELECT 1"));
            let mut next = bouncer.connect("app");
            assert_unbound(&mut next);
            assert_eq!(text(&mut next, "SHOW tenancy.allow_rebind"), "off", "{parameters:?}");
        }
    }
}

#[test]
fn a_prepared_transaction_leaves_its_server_session_unbound() {
    let (database, bouncer, [tenant, other]) = shared_session("pool_two_phase");
    let name = database.name();
    let mut client = bouncer.connect("app");
    begin_and_write(&mut client, tenant);
    client.batch_execute(&format!("PREPARE TRANSACTION '{name}'")).expect("prepare the transaction");
    let mut next = bouncer.connect("app");
    assert_unbound(&mut next);
    assert_eq!(count(&mut database.superuser(), BOUND_HERE), 0);
    as_tenant(&mut next, other, |transaction| assert_eq!(count(transaction, "notes"), 0));
    next.batch_execute(&format!("COMMIT PREPARED '{name}'")).expect("commit the prepared transaction");
    assert_unbound(&mut next);
    assert_left(&database, &[tenant]);
}

#[test]
fn a_session_pooler_that_resets_nothing_passes_on_no_binding() {
    let options = PoolOptions::new(1).set("pool_mode", "session").set("server_reset_query", "");
    let (database, bouncer, tenants) = pooled("pool_session", 2, options);
    let mut first = bouncer.connect("app");
    let session = backend(&mut first);
    write(&mut first, tenants[0]);
    first.close().expect("close the session");
    let mut second = bouncer.connect("app");
    assert_eq!(backend(&mut second), session, "the server session is passed on");
    assert_unbound(&mut second);
    write(&mut second, tenants[1]);
    assert_left(&database, &tenants);
}

#[test]
fn resetting_a_server_session_after_every_transaction_disturbs_nothing() {
    let options = PoolOptions::new(1).set("server_reset_query", "DISCARD ALL").set("server_reset_query_always", "1");
    let (database, bouncer, tenants) = pooled("pool_reset", 2, options);
    let mut clients = [bouncer.connect("app"), bouncer.connect("app")];
    let sessions: Vec<String> = clients.iter_mut().map(backend).collect();
    assert_eq!(sessions[0], sessions[1], "one server session serves both clients");
    for (client, &tenant) in clients.iter_mut().zip(&tenants) {
        write(client, tenant);
        assert_unbound(client);
    }
    let mut bound = bouncer.connect("app");
    begin_and_write(&mut bound, tenants[0]);
    fails(bound.batch_execute("DISCARD ALL"), "25001");
    bound.batch_execute("ROLLBACK").expect("roll back");
    assert_unbound(&mut bound);
    assert_left(&database, &tenants);
}

/// A pooler before a single server session, which clients of two tenants share that hold nothing but a key.
fn shared_by_clients(label: &str) -> (Database, PgBouncer, [(Uuid, String); 2]) {
    let (database, bouncer, tenants) = shared_session(label);
    let mut app = database.connect("app");
    let with_key = |tenant| {
        let key = as_tenant(&mut app, tenant, |tx| one(tx, "SELECT api_key FROM create_api_key('client')", &[]));
        (tenant, key)
    };
    (database, bouncer, tenants.map(with_key))
}

fn begin_by_key(client: &mut Client, key: &str) {
    client.batch_execute(&format!("BEGIN; SELECT authenticate_api_key('{key}')")).expect("authenticate");
}

#[test]
fn a_key_binds_its_own_transaction_of_a_shared_server_session_and_no_other() {
    let (database, bouncer, [(tenant, key), (other, other_key)]) = shared_by_clients("pool_key");
    let mut clients = [bouncer.connect("client"), bouncer.connect("client")];
    assert_eq!(backend(&mut clients[0]), backend(&mut clients[1]), "one server session serves both clients");
    for end in ["COMMIT", "ROLLBACK", "SELECT 1 / 0; COMMIT"] {
        for ((tenant, key), client) in [(tenant, &key), (other, &other_key)].into_iter().zip(&mut clients) {
            assert_unbound(client);
            begin_by_key(client, key);
            client.batch_execute(&insert(tenant)).expect("insert");
            assert!(bodies(client).iter().all(|body| *body == tenant.to_string()));
            let _ = client.batch_execute(end);
            client.batch_execute("ROLLBACK").expect("end the transaction");
            assert_unbound(client);
        }
    }
    let [first, second] = &mut clients;
    let refused = format!("BEGIN; SELECT authenticate_api_key('{key}'); SELECT authenticate_api_key('{other_key}')");
    fails(first.batch_execute(&refused), "55000");
    first.batch_execute("ROLLBACK").expect("roll back");
    assert_unbound(second);
    // Outside a transaction block it binds nothing that lasts.
    text(first, &format!("SELECT tenant_id FROM authenticate_api_key('{key}')"));
    assert_unbound(second);
    assert_unbound(first);
    assert_left(&database, &[tenant, other]);
}

#[test]
fn a_client_that_vanishes_after_presenting_its_key_leaves_nothing_to_the_next() {
    let (database, bouncer, [(tenant, key), (other, other_key)]) = shared_by_clients("pool_key_vanish");
    let authenticate = format!("BEGIN; SELECT authenticate_api_key('{key}'); {}", insert(tenant));
    let mut next = bouncer.connect("client");
    for moment in 0..6 {
        let mut wire = Wire::connect(&bouncer, "client", &[]).expect("connect");
        match moment % 3 {
            0 => wire.run(&authenticate),
            1 => wire.send(&authenticate),
            _ => {
                wire.run(&authenticate);
                wire.send_half("COMMIT");
            }
        }
        drop(wire);
        assert_unbound(&mut next);
    }
    begin_by_key(&mut next, &other_key);
    next.batch_execute(&format!("{}; COMMIT", insert(other))).expect("write");
    assert_left(&database, &[other]);
}

/// What a hostile client may do to the session that the next tenant is served by: at worst its statements fail.
#[test]
fn nothing_that_a_client_leaves_in_the_server_session_turns_the_next_one_to_its_tenant() {
    let (database, bouncer, [(tenant, key), (other, other_key)]) = shared_by_clients("pool_key_trap");
    let mut hostile = bouncer.connect("client");
    let mut victim = bouncer.connect("client");
    begin_by_key(&mut victim, &other_key);
    victim.batch_execute(&format!("{}; COMMIT", insert(other))).expect("write");
    for trap in [
        "PREPARE reading AS SELECT body FROM notes".to_owned(),
        format!("PREPARE reading AS SELECT body FROM authenticate_api_key('{key}'), notes"),
        format!("PREPARE reading AS INSERT INTO notes (body) VALUES ('{tenant}') RETURNING body"),
        "SET search_path = tenancy, pg_catalog, public".to_owned(),
        "SET row_security = off".to_owned(),
        "SET plan_cache_mode = force_generic_plan".to_owned(),
        "SET default_transaction_read_only = on".to_owned(),
        "SET default_transaction_isolation = serializable".to_owned(),
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY".to_owned(),
        "SET ROLE client".to_owned(),
        "SET session_authorization = client".to_owned(),
        "SET my.key = 'trap'".to_owned(),
        "SELECT pg_advisory_lock(1)".to_owned(),
        "DECLARE held CURSOR WITH HOLD FOR SELECT current_tenant_or_null()".to_owned(),
        "LISTEN notes".to_owned(),
    ] {
        begin_by_key(&mut hostile, &key);
        let _ = hostile.batch_execute(&trap);
        hostile.batch_execute("COMMIT").expect("end the transaction");
        let told = |client: &mut Client, statement: &str| match client.simple_query(statement) {
            Ok(answer) => format!("{answer:?}"),
            Err(error) => format!("{error:?}"),
        };
        for statement in ["SELECT body FROM notes", "EXECUTE reading", "FETCH ALL held"] {
            begin_by_key(&mut victim, &other_key);
            assert_eq!(text(&mut victim, "SELECT current_tenant()"), other.to_string(), "{trap}");
            assert!(!told(&mut victim, statement).contains(&tenant.to_string()) || trap.contains("INSERT"), "{trap}");
            let _ = victim.batch_execute("SELECT current_tenant()");
            victim.batch_execute("ROLLBACK").expect("end the transaction");
            begin_by_key(&mut hostile, &key);
            let seen = told(&mut hostile, statement);
            assert!(!seen.contains(&other.to_string()), "{trap}: {seen}");
            hostile.batch_execute("ROLLBACK").expect("end the transaction");
        }
        hostile.batch_execute("DISCARD ALL").expect("tidy up");
    }
    assert_left(&database, &[other]);
}
