//! Many transactions of several tenants over few server sessions, each of another kind, each checked before and after.

use super::wire::Wire;
use harness::{
    Client, Database, PgBouncer, PoolOptions, Uuid, count, fails, protected_table, simple, tenants, text, wait_until,
};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// What a storm consists of.
pub struct Storm {
    pub tenants: usize,
    /// Clients, each of one tenant, in turn.
    pub clients: usize,
    /// Server sessions.
    pub pool_size: u32,
    /// Transactions of all clients together.
    pub transactions: usize,
    /// Each so many transactions a client vanishes in the middle of one; 0 for never.
    pub vanish_every: usize,
}

/// What it proved: how many transactions each server session ran, and how many of them followed one of another tenant.
pub struct Outcome {
    pub transactions_by_session: BTreeMap<i32, usize>,
    pub switches: usize,
}

/// The backends of this database that have a tenant bound; the view itself tells of every database.
pub const BOUND_HERE: &str = "tenancy.activity JOIN pg_stat_get_activity(NULL) AS backend USING (pid)
    WHERE backend.datid = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// The locks on tenants of this database.
pub const LOCKED_HERE: &str = "pg_locks
    WHERE objsubid = 32330 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// What a transaction may find when it begins: nothing bound, no user, no activity, no lock of a tenant, no cursor. A
/// function, so that each server session plans it once.
const LEFTOVERS: &str = "
CREATE FUNCTION leftovers() RETURNS text LANGUAGE plpgsql AS $$ BEGIN
    RETURN concat_ws(' ', current_tenant_or_null(), current_user_id(), current_setting('tenancy.context', true),
        (SELECT string_agg(principal::text, ' ') FROM current_principal() AS principal),
        (SELECT string_agg(activity::text, ' ') FROM tenancy.backends() AS activity WHERE pid = pg_backend_pid()),
        (SELECT string_agg(locks::text, ' ') FROM pg_lock_status() AS locks WHERE pid = pg_backend_pid() AND objsubid = 32330),
        (SELECT string_agg(name, ' ') FROM pg_cursor()));
END $$;
GRANT EXECUTE ON FUNCTION leftovers() TO app";

/// A database with the protected table notes and `n` tenants, behind a pooler.
pub fn pooled(label: &str, n: usize, options: PoolOptions) -> (Database, PgBouncer, Vec<Uuid>) {
    let database = Database::new(label);
    protected_table(&database);
    let tenants = tenants(&mut database.connect("operator"), n);
    let bouncer = PgBouncer::start(&database, options);
    (database, bouncer, tenants)
}

/// Runs the storm, then checks that every row that is left is its tenant's and that nobody is bound.
pub fn run(storm: &Storm) -> Outcome {
    let (database, bouncer, tenants) = pooled("storm", storm.tenants, PoolOptions::new(storm.pool_size));
    // So that a transaction can ask for its own activity.
    database.superuser().batch_execute("SELECT grant_access('app', 'monitor')").expect("grant access");
    database.superuser().batch_execute(LEFTOVERS).expect("create the function");
    let last = Mutex::new(BTreeMap::<i32, (usize, Uuid)>::new());
    let switches = Mutex::new(0);
    let record = |session: i32, tenant: Uuid| {
        let mut last = last.lock().expect("no client panicked");
        let entry = last.entry(session).or_insert((0, tenant));
        if entry.1 != tenant {
            *switches.lock().expect("no client panicked") += 1;
        }
        *entry = (entry.0 + 1, tenant);
    };
    std::thread::scope(|scope| {
        for number in 0..storm.clients {
            let (bouncer, record) = (&bouncer, &record);
            let tenant = tenants[number % tenants.len()];
            let stranger = tenants[(number + 1) % tenants.len()];
            scope.spawn(move || {
                let mut member = Member { client: bouncer.connect("app"), number, tenant, stranger };
                for turn in 0..storm.transactions / storm.clients {
                    if storm.vanish_every > 0 && (turn + number) % storm.vanish_every == 0 {
                        vanish(bouncer, tenant, turn / storm.vanish_every);
                    }
                    record(member.transaction(turn), tenant);
                }
            });
        }
    });
    check_end(&database, &tenants);
    let last = last.into_inner().expect("no client panicked");
    Outcome {
        transactions_by_session: last.into_iter().map(|(session, (number, _))| (session, number)).collect(),
        switches: switches.into_inner().expect("no client panicked"),
    }
}

fn check_end(database: &Database, tenants: &[Uuid]) {
    let mut superuser = database.superuser();
    assert_eq!(count(&mut superuser, "notes WHERE body NOT LIKE tenant_id || ' kept %'"), 0, "misplaced rows");
    for tenant in tenants {
        assert!(count(&mut superuser, &format!("notes WHERE tenant_id = '{tenant}'")) > 0, "a tenant without rows");
    }
    wait_until("nobody is bound", || count(&mut superuser, BOUND_HERE) == 0);
    wait_until("no tenant is locked", || count(&mut superuser, LOCKED_HERE) == 0);
}

/// One client: a driver's session through the pooler that serves one tenant and tries for another's rows.
struct Member {
    client: Client,
    number: usize,
    tenant: Uuid,
    stranger: Uuid,
}

impl Member {
    /// One transaction of the kind that is due, checked at its beginning; gives the server session that ran it.
    fn transaction(&mut self, turn: usize) -> i32 {
        let session = self.begin();
        match (turn + self.number) % 12 {
            0 => self.rolls_back(),
            1 => self.fails_in_the_middle(),
            2 => self.uses_savepoints(),
            3 => self.binds_in_a_savepoint_only(),
            4 => self.prepares(),
            5 => self.leaves_a_cursor_open(),
            6 | 7 => self.binds_nothing(turn),
            8 => self.writes_for_the_stranger(),
            9 => self.binds_the_stranger_too(),
            10 => self.clears(),
            _ => self.writes_and_reads(),
        }
        session
    }

    fn begin(&mut self) -> i32 {
        let found = simple(&mut self.client, "BEGIN; SELECT pg_backend_pid(), leftovers()").remove(0);
        let session = found[0].as_deref().and_then(|pid| pid.parse().ok()).expect("a process id");
        assert_eq!(found[1].as_deref(), Some(""), "server session {session} was left with something");
        session
    }

    fn bind(&mut self) {
        let user = "00000000-0000-4000-8000-000000000001";
        let bound = text(&mut self.client, &format!("SELECT set_tenant('{}', '{user}')", self.tenant));
        assert_eq!(bound, self.tenant.to_string());
    }

    fn run(&mut self, sql: &str) {
        if let Err(error) = self.client.batch_execute(sql) {
            panic!("{sql}: {error:?}");
        }
    }

    fn refused(&mut self, sql: &str, sqlstate: &str) {
        fails(self.client.batch_execute(sql), sqlstate);
    }

    /// Every row in sight is the tenant's and was committed, or was written by this transaction.
    fn reads_its_own(&mut self) {
        let written = format!("{} ", self.tenant);
        for row in simple(&mut self.client, "SELECT tenant_id, body FROM notes") {
            let (tenant, body) = (row[0].as_deref(), row[1].as_deref().expect("a body"));
            assert_eq!(tenant, Some(self.tenant.to_string().as_str()), "a row of another tenant");
            assert!(body.starts_with(&written), "a row that another tenant wrote: {body}");
            assert!(!body.contains(" lost "), "a row that was never committed: {body}");
        }
    }

    fn insert(&self, word: &str) -> String {
        format!("INSERT INTO notes (body) VALUES ('{} {word} {}')", self.tenant, self.number)
    }

    fn writes_and_reads(&mut self) {
        self.bind();
        self.run(&format!("DELETE FROM notes WHERE body LIKE '% {}'", self.number));
        self.run(&self.insert("kept"));
        self.reads_its_own();
        self.run("COMMIT");
    }

    fn rolls_back(&mut self) {
        self.bind();
        self.reads_its_own();
        self.run(&self.insert("lost"));
        self.run("ROLLBACK");
    }

    fn fails_in_the_middle(&mut self) {
        self.bind();
        self.run(&self.insert("lost"));
        self.refused("SELECT 1 / 0", "22012");
        self.refused("SELECT * FROM notes", "25P02");
        self.run("COMMIT");
    }

    fn uses_savepoints(&mut self) {
        self.bind();
        self.run("SAVEPOINT inner_part");
        self.run(&self.insert("lost"));
        self.refused("SELECT 1 / 0", "22012");
        self.run("ROLLBACK TO inner_part; RELEASE inner_part");
        self.reads_its_own();
        self.run(&self.insert("kept"));
        self.run("COMMIT");
    }

    fn binds_in_a_savepoint_only(&mut self) {
        self.run("SAVEPOINT inner_part");
        self.bind();
        self.reads_its_own();
        self.run("ROLLBACK TO inner_part");
        self.refused("SELECT * FROM notes", "42501");
        self.run("COMMIT");
    }

    fn prepares(&mut self) {
        self.bind();
        let insert = self.client.prepare("INSERT INTO notes (body) VALUES ($1) RETURNING tenant_id").expect("prepare");
        let select = self.client.prepare("SELECT tenant_id FROM notes WHERE id > $1").expect("prepare");
        let body = format!("{} kept {}", self.tenant, self.number);
        let written: Uuid = self.client.query_one(&insert, &[&body]).expect("insert").get(0);
        assert_eq!(written, self.tenant);
        for row in self.client.query(&select, &[&0_i64]).expect("select") {
            assert_eq!(row.get::<_, Uuid>(0), self.tenant, "a row of another tenant");
        }
        drop((insert, select));
        self.run("COMMIT");
    }

    fn leaves_a_cursor_open(&mut self) {
        self.bind();
        self.run("DECLARE left_open CURSOR FOR SELECT tenant_id FROM notes");
        for row in simple(&mut self.client, "FETCH 3 FROM left_open") {
            assert_eq!(row[0].as_deref(), Some(self.tenant.to_string().as_str()), "a row of another tenant");
        }
        self.run("COMMIT");
    }

    fn binds_nothing(&mut self, turn: usize) {
        let attempt = match turn % 4 {
            0 => "SELECT * FROM notes",
            1 => "INSERT INTO notes (body) VALUES ('unbound')",
            2 => "UPDATE notes SET body = 'unbound'",
            _ => "DELETE FROM notes",
        };
        self.refused(attempt, "42501");
        self.run("ROLLBACK");
    }

    fn writes_for_the_stranger(&mut self) {
        self.bind();
        let row = format!("INSERT INTO notes (tenant_id, body) VALUES ('{}', 'forged')", self.stranger);
        self.refused(&row, "42501");
        self.run("ROLLBACK");
    }

    fn binds_the_stranger_too(&mut self) {
        self.bind();
        self.refused(&format!("SELECT set_tenant('{}')", self.stranger), "55000");
        self.run("ROLLBACK");
    }

    fn clears(&mut self) {
        self.bind();
        self.run("SELECT clear_tenant()");
        self.refused("SELECT * FROM notes", "42501");
        self.run("ROLLBACK");
    }
}

/// A client of its own begins a transaction for the tenant, writes, and is gone; each time at another moment.
pub fn vanish(bouncer: &PgBouncer, tenant: Uuid, moment: usize) {
    let mut wire = Wire::connect(bouncer, "app", &[]).expect("connect");
    let lost = format!("INSERT INTO notes (body) VALUES ('{tenant} lost')");
    wire.run(&format!("BEGIN; SELECT set_tenant('{tenant}'); {lost}"));
    match moment % 6 {
        0 => {}
        1 => wire.send("SELECT count(*) FROM generate_series(1, 100000)"),
        2 => wire.send_half(&lost),
        3 => wire.send_without_sync(&lost),
        4 => wire.run(&format!("SAVEPOINT inner_part; {lost}")),
        _ => wire.run("DECLARE left_open CURSOR FOR SELECT * FROM notes; FETCH 1 FROM left_open"),
    }
}
