//! Asking for advice, and following it to the letter.

use harness::*;

/// The role that checks rows of all tenants: a member of `owner` that row security does not bind.
const MIGRATOR: &str = "advised_migrator";
const QUERY: &str = "SELECT table_name, kind, object, problem, statement, run_as, lock, duration, note FROM protection_advice() ORDER BY step";
/// The locks that the session has on tables of users.
const LOCKS: &str =
    "SELECT l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE l.pid = pg_backend_pid() AND c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'tenancy', 'pg_toast') AND l.granted";
const MODES: [(&str, &str); 8] = [
    ("AccessShareLock", "ACCESS SHARE"),
    ("RowShareLock", "ROW SHARE"),
    ("RowExclusiveLock", "ROW EXCLUSIVE"),
    ("ShareUpdateExclusiveLock", "SHARE UPDATE EXCLUSIVE"),
    ("ShareLock", "SHARE"),
    ("ShareRowExclusiveLock", "SHARE ROW EXCLUSIVE"),
    ("ExclusiveLock", "EXCLUSIVE"),
    ("AccessExclusiveLock", "ACCESS EXCLUSIVE"),
];

#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    pub table: String,
    pub kind: String,
    pub object: String,
    pub problem: String,
    pub statement: Option<String>,
    pub run_as: Option<String>,
    pub lock: Option<String>,
    pub duration: Option<String>,
    pub note: String,
}

/// What an administrator is advised of all tables.
#[track_caller]
pub fn advice(database: &Database) -> Vec<Advice> {
    let mut admin = database.connect("admin");
    let found = rows(&mut admin, QUERY, &[]);
    let read = |row: &postgres::Row| Advice {
        table: row.get(0),
        kind: row.get(1),
        object: row.get(2),
        problem: row.get(3),
        statement: row.get(4),
        run_as: row.get(5),
        lock: row.get(6),
        duration: row.get(7),
        note: row.get(8),
    };
    found.iter().map(read).collect()
}

/// Runs a step by the role that it names, and looks whether it takes the lock that it names.
#[track_caller]
pub fn carry_out(database: &Database, step: &Advice) {
    let (Some(statement), Some(run_as)) = (&step.statement, &step.run_as) else {
        panic!("nothing to run: {step:#?}");
    };
    let mut session = match run_as.split_once(", with ") {
        None => database.connect(run_as.trim_matches('"')),
        Some((owner, _)) => {
            assert_eq!((owner, run_as.as_str()), ("owner", "owner, with BYPASSRLS"));
            // Another test may just have made it.
            let create = format!("CREATE ROLE {MIGRATOR} LOGIN BYPASSRLS IN ROLE owner");
            let _ = database.superuser().batch_execute(&create);
            database.connect(MIGRATOR)
        }
    };
    let fault = |error: postgres::Error| panic!("{step:#?}\n{:?}", error.as_db_error());
    if statement.contains(" CONCURRENTLY ") {
        assert_eq!(step.lock.as_deref(), Some("SHARE UPDATE EXCLUSIVE"));
        return session.batch_execute(statement).unwrap_or_else(fault);
    }
    let mut transaction = session.transaction().expect("begin");
    transaction.batch_execute(statement).unwrap_or_else(fault);
    let strongest = simple(&mut transaction, LOCKS)
        .into_iter()
        .filter_map(|row| {
            let mode = row.into_iter().next().flatten()?;
            MODES.iter().position(|(name, _)| *name == mode)
        })
        .max();
    if step.lock.is_some() {
        assert_eq!(strongest.map(|rank| MODES[rank].1), step.lock.as_deref(), "{step:#?}");
    }
    transaction.commit().expect("commit");
}

/// Runs all that is advised, in its order, and gives it; then there is nothing left to advise.
#[track_caller]
pub fn follow(database: &Database) -> Vec<Advice> {
    let steps = advice(database);
    for step in &steps {
        carry_out(database, step);
    }
    let left = advice(database);
    assert!(left.is_empty(), "left after {steps:#?}:\n{left:#?}");
    steps
}

/// Runs the first step that is advised, asks again, and so on, until there is none.
#[track_caller]
pub fn follow_one_by_one(database: &Database) -> Vec<Advice> {
    let mut done = Vec::new();
    while let Some(step) = advice(database).into_iter().next() {
        assert!(!done.contains(&step), "advised again: {step:#?}\nafter {done:#?}");
        carry_out(database, &step);
        done.push(step);
    }
    done
}

/// A database with the extension and these tables, made by `owner`, open to `app`, and protected.
#[track_caller]
pub fn protected(label: &str, tables: &str, names: &[&str]) -> Database {
    let database = Database::new(label);
    let script = format!(
        "{tables}; GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app"
    );
    database
        .connect("owner")
        .batch_execute(&script)
        .unwrap_or_else(|error| panic!("{tables}: {:?}", error.as_db_error()));
    let mut admin = database.connect("admin");
    for name in names {
        assert!(one::<bool>(&mut admin, "SELECT protect_table($1::text::regclass)", &[name]), "{name}");
    }
    database
}
