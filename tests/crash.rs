//! `kill -9` of the whole server in the middle of creates, changes, deletions, purges and writes.

use harness::{
    Client, Cluster, Database, Options, Uuid, backend_pid, bind, count, fails, one, protected_table, rows, tenants,
    wait_for_lock, wait_until,
};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Rows of a tenant that is purged: several batches.
const ROWS: i32 = 12_000;

/// What sessions were told was done before a crash.
#[derive(Default)]
struct Acknowledged {
    created: Mutex<Vec<Uuid>>,
    deleted: Mutex<Vec<Uuid>>,
    purged: Mutex<Vec<Uuid>>,
    written: Mutex<Vec<(Uuid, i64)>>,
    operations: AtomicUsize,
}

impl Acknowledged {
    fn add<T>(&self, list: &Mutex<Vec<T>>, item: T) {
        list.lock().expect("no session panics").push(item);
        self.operations.fetch_add(1, Ordering::Relaxed);
    }

    /// A tenant that was created and, as far as is known, not deleted.
    fn some_tenant(&self, turn: usize) -> Option<Uuid> {
        let created = self.created.lock().expect("no session panics");
        (!created.is_empty()).then(|| created[turn * 7 % created.len()])
    }
}

/// Whether a statement failed because the server is gone; any other failure is the test's.
#[track_caller]
fn is_gone(error: &harness::postgres::Error, client: &Client, allowed: &[&str]) -> bool {
    match error.code() {
        Some(code) if allowed.contains(&code.code()) => false,
        // Shut down, crashed, starting.
        Some(code) if ["57P01", "57P02", "57P03"].contains(&code.code()) => true,
        Some(_) => panic!("{error:?}"),
        None => {
            assert!(client.is_closed(), "{error:?}");
            true
        }
    }
}

/// Creates tenants, gives them rows, and deletes some.
fn register(operator: &mut Client, superuser: &mut Client, done: &Acknowledged, stop: &AtomicBool) {
    const FILL: &str = "INSERT INTO notes (tenant_id, body) SELECT $1, n::text FROM generate_series(1, $2) n";
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let created = operator.query_one("SELECT create_tenant('Crash test')", &[]);
        let id: Uuid = match created {
            Ok(row) => row.get(0),
            Err(error) => {
                is_gone(&error, operator, &[]);
                return;
            }
        };
        done.add(&done.created, id);
        let rows = if turn % 2 == 0 { ROWS } else { 10 };
        if let Err(error) = superuser.execute(FILL, &[&id, &rows]) {
            is_gone(&error, superuser, &[]);
            return;
        }
        if turn % 2 == 0 {
            match operator.execute("SELECT delete_tenant($1, '0')", &[&id]) {
                Ok(_) => done.add(&done.deleted, id),
                Err(error) => {
                    if is_gone(&error, operator, &["55000"]) {
                        return;
                    }
                }
            }
        }
    }
}

/// Suspends, resumes, cancels, restores whatever there is.
fn change(operator: &mut Client, done: &Acknowledged, stop: &AtomicBool) {
    const CALLS: [&str; 6] = [
        "suspend_tenant($1)",
        "resume_tenant($1)",
        "suspend_tenant($1, mode => 'read_only')",
        "resume_tenant($1)",
        "cancel_tenant($1)",
        "restore_tenant($1)",
    ];
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Some(id) = done.some_tenant(turn / CALLS.len()) else { continue };
        let call = format!("SELECT {}", CALLS[turn % CALLS.len()]);
        if let Err(error) = operator.execute(&call, &[&id])
            && is_gone(&error, operator, &["55000", "P0002"])
        {
            return;
        }
    }
}

/// Writes for whatever tenant lets it.
fn write(app: &mut Client, done: &Acknowledged, stop: &AtomicBool) {
    const REFUSED: [&str; 4] = ["42501", "25006", "55000", "P0002"];
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Some(id) = done.some_tenant(turn) else { continue };
        let insert = || -> Result<i64, harness::postgres::Error> {
            let mut transaction = app.transaction()?;
            transaction.execute("SELECT set_tenant($1)", &[&id])?;
            let row = transaction.query_one("INSERT INTO notes (body) VALUES ('written') RETURNING id", &[])?;
            transaction.commit()?;
            Ok(row.get(0))
        };
        let inserted = { insert }();
        match inserted {
            Ok(note) => done.add(&done.written, (id, note)),
            Err(error) => {
                if is_gone(&error, app, &REFUSED) {
                    return;
                }
            }
        }
    }
}

/// Purges what is deleted, one by one and all at once.
fn purge(admin: &mut Client, done: &Acknowledged, stop: &AtomicBool) {
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        let deleted = done.deleted.lock().expect("no session panics").get(next).copied();
        let result = match deleted {
            Some(id) => admin.batch_execute(&format!("CALL purge_tenant('{id}')")),
            None => admin.batch_execute("CALL purge_expired_tenants()"),
        };
        match (result, deleted) {
            (Ok(()), Some(id)) => {
                done.add(&done.purged, id);
                next += 1;
            }
            (Ok(()), None) => {}
            // Restored meanwhile, or purged with the others before.
            (Err(error), _) => {
                if is_gone(&error, admin, &["55000", "P0002"]) {
                    return;
                }
                next += usize::from(deleted.is_some());
            }
        }
    }
}

/// A cluster that survives, and a database in it with the protected table notes.
///
/// PostgreSQL forgets up to 32 values of a sequence that `CREATE DATABASE` copied from its template (as the tests
/// do to save time) when it crashes before its next checkpoint: hence one now.
pub fn durable(label: &str) -> (Cluster, Database) {
    let cluster = Cluster::start(Options::new().durable());
    let database = cluster.database(label);
    protected_table(&database);
    database.superuser().batch_execute("CHECKPOINT").expect("write a checkpoint");
    (cluster, database)
}

/// Lets sessions work until enough was done, then kills the server under them.
fn work_until_killed(cluster: &mut Cluster, database: &Database, done: &Acknowledged, enough: usize) {
    let stop = AtomicBool::new(false);
    let (done, stop) = (done, &stop);
    let before = done.operations.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (mut operator, mut superuser) = (database.connect("operator"), database.superuser());
            scope.spawn(move || register(&mut operator, &mut superuser, done, stop));
            let mut app = database.connect("app");
            scope.spawn(move || write(&mut app, done, stop));
        }
        let mut operator = database.connect("operator");
        scope.spawn(move || change(&mut operator, done, stop));
        let mut admin = database.connect("admin");
        scope.spawn(move || purge(&mut admin, done, stop));
        wait_until("enough was done", || done.operations.load(Ordering::Relaxed) >= before + enough);
        cluster.kill9();
        stop.store(true, Ordering::Relaxed);
    });
}

/// What must hold after a crash, before anything is mended.
fn assert_legal(superuser: &mut Client, done: &Acknowledged) {
    const ILLEGAL: &str =
        "tenancy.tenants WHERE status NOT IN ('active', 'read_only', 'suspended', 'cancelled', 'deleted')
        OR (status = 'deleted') <> (deleted_at IS NOT NULL) OR (status = 'deleted') <> (purge_after IS NOT NULL)
        OR (purge_started_at IS NOT NULL AND status <> 'deleted')";
    const UNDOCUMENTED: &str = "tenancy.tenants t WHERE 1 <> (SELECT count(*) FROM tenancy.audit_log a
        WHERE a.tenant_id = t.id AND a.action = 'tenant.create')";
    const LAST_SAID: &str = "tenancy.tenants t WHERE t.status <> (SELECT coalesce(max(after ->> 'status'), 'active') FROM (
        SELECT after FROM tenancy.audit_log a WHERE a.tenant_id = t.id AND a.after ? 'status' ORDER BY a.id DESC LIMIT 1) l)";
    const HOMELESS: &str = "notes WHERE tenant_id NOT IN (SELECT id FROM tenancy.tenants)";
    const PURGED: &str = "SELECT count(*) FROM tenancy.audit_log WHERE tenant_id = $1 AND action = 'tenant.purged'";
    for wrong in [ILLEGAL, UNDOCUMENTED, LAST_SAID, HOMELESS] {
        assert_eq!(count(superuser, wrong), 0, "{wrong}");
    }
    let known: Vec<Uuid> =
        rows(superuser, "SELECT id FROM tenancy.tenants", &[]).iter().map(|row| row.get(0)).collect();
    for id in done.created.lock().expect("no session panics").iter() {
        let purged: i64 = one(superuser, PURGED, &[id]);
        assert_eq!(purged, i64::from(!known.contains(id)), "{id} is there, or was purged once");
    }
    for id in done.purged.lock().expect("no session panics").iter() {
        assert!(!known.contains(id), "{id} was purged");
    }
    for (id, note) in done.written.lock().expect("no session panics").iter().filter(|(id, _)| known.contains(id)) {
        const NOTE: &str = "SELECT EXISTS (SELECT FROM notes WHERE id = $2 AND tenant_id = $1)
            OR (SELECT purge_started_at IS NOT NULL FROM tenancy.tenants WHERE id = $1)";
        assert!(one::<bool>(superuser, NOTE, &[id, note]), "the committed note {note} of {id}");
    }
}

/// Kills the server `crashes` times; each time every tenant is in a legal state afterwards, what was acknowledged
/// holds, and purging goes on to its end.
pub fn survive(crashes: usize) {
    let (mut cluster, database) = durable("crash");
    let done = Acknowledged::default();
    for crash in 0..crashes {
        work_until_killed(&mut cluster, &database, &done, 60 + crash * 17);
        cluster.start_again();
        let mut superuser = database.superuser();
        assert_legal(&mut superuser, &done);
        if crash % 2 == 0 {
            continue;
        }
        finish_purges(&database, &mut superuser);
    }
    let mut superuser = database.superuser();
    finish_purges(&database, &mut superuser);
    assert_legal(&mut superuser, &done);
    end_all(&database, &mut superuser);
}

/// Every deleted tenant can be purged to the end, half-purged ones included.
fn finish_purges(database: &Database, superuser: &mut Client) {
    let mut admin = database.connect("admin");
    let deleted = "SELECT id FROM tenancy.tenants WHERE status = 'deleted' LIMIT 1";
    if let Some(row) = rows(superuser, deleted, &[]).first() {
        let id: Uuid = row.get(0);
        admin.batch_execute(&format!("CALL purge_tenant('{id}')")).expect("go on with a purge");
    }
    admin.batch_execute("CALL purge_expired_tenants()").expect("go on with all purges");
    assert_eq!(count(superuser, "tenancy.tenants WHERE status = 'deleted'"), 0);
    assert_eq!(count(superuser, "notes WHERE tenant_id NOT IN (SELECT id FROM tenancy.tenants)"), 0);
}

/// The registry and the table are as usable as ever: everything can be deleted and purged.
fn end_all(database: &Database, superuser: &mut Client) {
    let mut operator = database.connect("operator");
    operator.batch_execute("SELECT delete_tenant(id, '0') FROM tenancy.tenants").expect("delete all");
    database.connect("admin").batch_execute("CALL purge_expired_tenants()").expect("purge all");
    assert_eq!(count(superuser, "tenancy.tenants"), 0);
    assert_eq!(count(superuser, "notes"), 0);
}

/// The purge has committed a batch and waits for a row that someone has locked; a suspension waits for a writer.
#[test]
fn what_was_under_way_at_a_crash_can_be_done_again() {
    let (mut cluster, database) = durable("under_way");
    let mut superuser = database.superuser();
    let mut operator = database.connect("operator");
    let ids = tenants(&mut operator, 2);
    let insert = "INSERT INTO notes (tenant_id, body) SELECT $1, n::text FROM generate_series(1, $2) n";
    superuser.execute(insert, &[&ids[0], &ROWS]).expect("insert");
    superuser.execute(insert, &[&ids[1], &10]).expect("insert");
    operator.execute("SELECT delete_tenant($1, '0')", &[&ids[0]]).expect("delete");
    let mut blocker = database.superuser();
    let lock = format!("BEGIN; SELECT FROM notes WHERE tenant_id = '{}' AND body = '{ROWS}' FOR UPDATE", ids[0]);
    blocker.batch_execute(&lock).expect("lock the last row");
    let mut app = database.connect("app");
    let mut writer = app.transaction().expect("begin");
    bind(&mut writer, ids[1]);
    writer.execute("INSERT INTO notes (body) VALUES ('never committed')", &[]).expect("insert");
    let mut admin = database.connect("admin");
    let waiting = [backend_pid(&mut admin), backend_pid(&mut operator)];
    std::thread::scope(|scope| {
        let purge = scope.spawn(|| admin.batch_execute(&format!("CALL purge_tenant('{}')", ids[0])));
        let suspend = scope.spawn(|| operator.execute("SELECT suspend_tenant($1)", &[&ids[1]]));
        for pid in waiting {
            wait_for_lock(&mut superuser, pid);
        }
        cluster.kill9();
        assert!(purge.join().expect("join").is_err());
        assert!(suspend.join().expect("join").is_err());
    });
    cluster.start_again();
    let mut superuser = database.superuser();
    let left = count(&mut superuser, &format!("notes WHERE tenant_id = '{}'", ids[0]));
    assert!((1..i64::from(ROWS)).contains(&left), "the first batch is gone and the last is not: {left}");
    let state = "SELECT status || (purge_started_at IS NOT NULL)::text FROM tenancy.tenants WHERE id = $1";
    assert_eq!(one::<String>(&mut superuser, state, &[&ids[0]]), "deletedtrue");
    assert_eq!(one::<String>(&mut superuser, state, &[&ids[1]]), "activefalse");
    assert_eq!(count(&mut superuser, "notes WHERE body = 'never committed'"), 0);
    let mut operator = database.connect("operator");
    fails(operator.execute("SELECT restore_tenant($1)", &[&ids[0]]), "55000");
    finish_purges(&database, &mut superuser);
    assert_eq!(count(&mut superuser, "notes"), 10);
    operator.execute("SELECT suspend_tenant($1)", &[&ids[1]]).expect("suspend after all");
}

#[test]
fn after_a_crash_every_tenant_is_in_a_legal_state_and_purges_go_on() {
    survive(2);
}
