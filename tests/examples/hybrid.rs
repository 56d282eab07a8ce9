//! `examples/hybrid`: its story, and system 5: adoption, isolation by plan, access, limits, subscriptions.

use super::Examples;
use crate::access::fixtures;
use harness::*;
use std::thread;

/// The application with one organization on the free plan, and its owner's session token as a request brings it.
struct Application {
    database: Database,
    acme: Uuid,
    session: String,
}

impl Application {
    fn new() -> Application {
        let database = Database::new("hybrid");
        Examples::copy().run("hybrid", "install.sql", &database);
        let (mut app, mut operator) = (database.connect("app"), database.connect("operator"));
        let ada = fixtures::user(&mut app);
        let acme = one(&mut operator, "SELECT create_tenant('Acme', slug => 'acme', owner => $1)", &[&ada]);
        let mut transaction = app.transaction().expect("begin");
        one::<Uuid>(&mut transaction, "SELECT set_tenant($1, $2)", &[&acme, &ada]);
        let session = one(&mut transaction, "SELECT 'Bearer ' || issue_jwt($1, scopes => '{*}')", &[&ada]);
        transaction.commit().expect("commit");
        Application { database, acme, session }
    }

    /// One request to the API server, by what stands in its header.
    fn request<T>(&self, header: &str, work: impl FnOnce(&mut Transaction<'_>) -> T) -> T {
        let mut client = self.database.connect("client");
        let mut transaction = client.transaction().expect("begin");
        transaction.query_one("SELECT role FROM authenticate($1)", &[&header]).expect("a header that is valid");
        let result = work(&mut transaction);
        transaction.commit().expect("commit");
        result
    }
}

#[test]
fn hybrid_keeps_every_promise_of_its_story() {
    let database = Database::new("hybrid");
    let told = Examples::copy().run("hybrid", "run.sql", &database);
    assert!(told.matches('✓').count() >= 46, "{told}");
}

#[test]
fn of_twenty_agents_at_once_five_are_made() {
    let application = Application::new();
    let made: usize = thread::scope(|scope| {
        let attempts: Vec<_> = (0..20)
            .map(|number| {
                let application = &application;
                scope.spawn(move || {
                    let mut client = application.database.connect("client");
                    let mut transaction = client.transaction().expect("begin");
                    let authenticate = "SELECT role FROM authenticate($1)";
                    transaction.query_one(authenticate, &[&application.session]).expect("the owner's session");
                    let name = format!("Agent {number}");
                    match transaction.execute("INSERT INTO agents (name) VALUES ($1)", &[&name]) {
                        Ok(_) => {
                            transaction.commit().expect("commit");
                            1
                        }
                        Err(error) => {
                            let error = error.as_db_error().expect("the server's error");
                            assert_eq!(error.code().code(), "54000", "{error:?}");
                            assert_eq!(error.message(), "limit reached for agents (5)");
                            assert!(error.hint().is_some_and(|hint| hint.starts_with("Upgrade")), "{error:?}");
                            0
                        }
                    }
                })
            })
            .collect();
        attempts.into_iter().map(|attempt| attempt.join().expect("an attempt")).sum()
    });
    assert_eq!(made, 5);
    application.request(&application.session, |tx| assert_eq!(count(tx, "agents"), 5));
}

#[test]
fn no_request_makes_its_minutes_fewer() {
    let application = Application::new();
    application.request(&application.session, |tx| {
        tx.batch_execute(
            "INSERT INTO agents (name) VALUES ('Scout'); INSERT INTO sessions (agent_id) SELECT id FROM agents",
        )
        .expect("open a session");
    });
    let backdate = "UPDATE sessions SET started_at = started_at - interval '3 minutes 1 second'";
    application.database.superuser().batch_execute(backdate).expect("set the clock back");
    for (statement, sqlstate) in [
        ("UPDATE sessions SET started_at = now()", "42501"),
        ("UPDATE sessions SET status = 'closed', ended_at = started_at", "42501"),
        ("INSERT INTO sessions (agent_id, status, ended_at) SELECT id, 'closed', now() FROM agents", "42501"),
        ("SELECT record_usage('agent_minutes', 0)", "42501"),
        ("SELECT * FROM tenancy.usage_inbox", "42501"),
        ("SELECT charge(id, agent_id, started_at, started_at) FROM sessions", "42501"),
    ] {
        let mut client = application.database.connect("client");
        let mut transaction = client.transaction().expect("begin");
        transaction.query_one("SELECT role FROM authenticate($1)", &[&application.session]).expect("the session");
        fails(transaction.batch_execute(statement), sqlstate);
    }
    // Closed twice, it is charged once; opened again it is not.
    application.request(&application.session, |tx| {
        tx.batch_execute("UPDATE sessions SET status = 'closed'; UPDATE sessions SET status = 'closed'")
            .expect("close");
        let mut attempt = tx.transaction().expect("a savepoint");
        fails(attempt.batch_execute("UPDATE sessions SET status = 'open'"), "23514");
        attempt.rollback().expect("go back");
    });
    let minutes = "SELECT trim_scale(quantity)::text FROM tenant_usage($1) WHERE metric = 'agent_minutes'";
    assert_eq!(one::<String>(&mut application.database.connect("operator"), minutes, &[&application.acme]), "4");
}

#[test]
fn a_subscription_that_is_past_due_stops_writes_for_tokens_and_keys() {
    let application = Application::new();
    let key: String =
        application.request(&application.session, |tx| one(tx, "SELECT 'Key ' || create_key('a key', '{*}')", &[]));
    let mut operator = application.database.connect("operator");
    let set = "SELECT set_subscription($1, $2, grace => '0')";
    for (status, writes) in [("trialing", true), ("past_due", false), ("active", true)] {
        one::<Uuid>(&mut operator, set, &[&application.acme, &status]);
        one::<i64>(&mut operator, "SELECT apply_subscription_grace()", &[]);
        for header in [&application.session, &key] {
            let mut client = application.database.connect("client");
            let mut transaction = client.transaction().expect("begin");
            transaction.query_one("SELECT role FROM authenticate($1)", &[header]).expect("a valid header");
            assert!(count(&mut transaction, "agents") >= 0);
            let write = transaction.batch_execute("UPDATE agents SET status = 'idle'");
            if writes {
                write.expect("write");
            } else {
                fails(write, "25006");
            }
        }
    }
}
