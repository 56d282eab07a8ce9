//! Rate limits: never more than burst and rate allow, whoever asks from wherever, and one tenant's never at another's cost.

use crate::row::read_as;
use harness::postgres::NoTls;
use harness::{
    Client, Cluster, Database, GenericClient, Options, Transaction, Uuid, as_tenant, bind, count, fails, one, rows,
    simple, tenant, tenants, text, wait_until,
};
use std::time::{Duration, Instant};

/// An answer of check_rate_limit().
#[derive(Debug, PartialEq)]
struct Check {
    allowed: bool,
    max_value: Option<i32>,
    remaining: Option<i32>,
    retry_after: Option<f64>,
    reset_in: Option<f64>,
}

/// `check(tx, "'api', cost => 2")`
#[track_caller]
fn check(client: &mut impl GenericClient, arguments: &str) -> Check {
    let sql = format!(
        "SELECT allowed, max_value, remaining, retry_after_s::float8,
                extract(epoch FROM reset_at - clock_timestamp())::float8 FROM check_rate_limit({arguments})"
    );
    let rows = rows(client, &sql, &[]);
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    let [retry_after, reset_in] = [row.get(3), row.get(4)];
    Check { allowed: row.get(0), max_value: row.get(1), remaining: row.get(2), retry_after, reset_in }
}

#[track_caller]
fn allowed(client: &mut impl GenericClient, arguments: &str) -> bool {
    check(client, arguments).allowed
}

/// How many of so many requests are allowed.
#[track_caller]
fn granted(client: &mut impl GenericClient, requests: i32, arguments: &str) -> i64 {
    let sql = format!(
        "SELECT count(*) FILTER (WHERE (asked).allowed)
         FROM (SELECT check_rate_limit({arguments}) AS asked FROM generate_series(1, {requests}) AS i OFFSET 0) AS all_of_them"
    );
    one(client, &sql, &[])
}

#[track_caller]
fn limit(operator: &mut Client, arguments: &str) {
    operator.batch_execute(&format!("SELECT set_plan_rate_limit('free', {arguments})")).expect("set a rate limit");
}

/// A database with tenants on the plan free.
fn house(label: &str, number: usize) -> (Database, Vec<Uuid>) {
    let database = Database::new(label);
    let made = tenants(&mut database.connect("operator"), number);
    (database, made)
}

#[test]
fn an_answer_says_what_the_plan_allows_what_is_left_and_when_there_is_more() {
    let (database, tenants) = house("rates", 1);
    let mut operator = database.connect("operator");
    limit(&mut operator, "'api', 3600, 'hour', 10");
    let mut app = database.connect("app");
    let mut tx = app.transaction().expect("begin");
    bind(&mut tx, tenants[0]);
    let first = check(&mut tx, "'api', 4");
    assert_eq!(
        (first.allowed, first.max_value, first.remaining, first.retry_after),
        (true, Some(3600), Some(6), Some(0.0))
    );
    assert!(first.reset_in.is_some_and(|seconds| (3.0..=4.1).contains(&seconds)), "{first:?}");
    let look = check(&mut tx, "'api', 0");
    assert_eq!((look.allowed, look.remaining), (true, Some(6)));
    assert!(allowed(&mut tx, "'api', cost => 6"));
    let refused = check(&mut tx, "'api', 2");
    assert!(!refused.allowed && refused.remaining.is_some_and(|left| left <= 1), "{refused:?}");
    assert!(refused.retry_after.is_some_and(|seconds| (0.5..=2.0).contains(&seconds)), "{refused:?}");
    let never = check(&mut tx, "'api', 11");
    assert_eq!((never.allowed, never.retry_after), (false, None));
    // What is promised comes.
    let wait = refused.retry_after.expect("a time to wait");
    std::thread::sleep(Duration::from_secs_f64(wait));
    assert!(allowed(&mut tx, "'api', 2"));
    assert_eq!(one::<bool>(&mut tx, "SELECT enforce_rate_limit('api', 0)", &[]), true);
    let fault = fails(tx.query("SELECT enforce_rate_limit('api', 9)", &[]), "53400");
    assert_eq!(fault.message(), "rate limit exceeded for api");
    assert!(fault.detail().is_some_and(|detail| detail.starts_with("retry after ")), "{fault:?}");
}

#[test]
fn unlimited_nothing_and_unknown_are_three_different_things() {
    let (database, tenants) = house("rates_kinds", 2);
    let mut operator = database.connect("operator");
    limit(&mut operator, "'free', NULL");
    limit(&mut operator, "'never', 0");
    limit(&mut operator, "'once', 1, 'day'");
    let own = "SELECT set_tenant_rate_limit($1, 'once', 3, 'day')";
    assert_eq!(one::<String>(&mut operator, own, &[&tenants[1]]), "once");
    let mut client = database.connect("app");
    as_tenant(&mut client, tenants[0], |tx| {
        let unlimited =
            Check { allowed: true, max_value: None, remaining: None, retry_after: Some(0.0), reset_in: None };
        assert_eq!(check(tx, "'free', 2147483647"), unlimited);
        assert_eq!(granted(tx, 1000, "'free'"), 1000);
        let nothing = check(tx, "'never'");
        assert_eq!(
            (nothing.allowed, nothing.max_value, nothing.remaining, nothing.retry_after),
            (false, Some(0), Some(0), None)
        );
        assert_eq!(granted(tx, 10, "'once'"), 1);
    });
    as_tenant(&mut client, tenants[1], |tx| assert_eq!(granted(tx, 10, "'once'"), 3));
    for (arguments, code) in [
        ("'unknown'", "P0002"),
        ("''", "P0002"),
        ("NULL", "22023"),
        ("'once', NULL", "22023"),
        ("'once', -1", "22023"),
        ("'once', -2147483648", "22023"),
        ("'once', 1, repeat('x', 1025)", "22023"),
        ("'never', 1", "53400"),
        ("'once', 2147483647", "53400"),
        ("'once', 1", "53400"),
    ] {
        let mut tx = client.transaction().expect("begin");
        bind(&mut tx, tenants[0]);
        fails(tx.batch_execute(&format!("SELECT enforce_rate_limit({arguments})")), code);
    }
    fails(client.batch_execute("SELECT check_rate_limit('once')"), "42501");
    assert!(one::<bool>(&mut operator, "SELECT unset_tenant_rate_limit($1, 'once')", &[&tenants[1]]));
    assert!(!one::<bool>(&mut operator, "SELECT unset_tenant_rate_limit($1, 'once')", &[&tenants[1]]));
    as_tenant(&mut client, tenants[1], |tx| assert_eq!(granted(tx, 10, "'once'"), 1));
    assert!(one::<bool>(&mut operator, "SELECT unset_plan_rate_limit('free', 'once')", &[]));
    assert!(!one::<bool>(&mut operator, "SELECT unset_plan_rate_limit('free', 'once')", &[]));
    let mut tx = client.transaction().expect("begin");
    bind(&mut tx, tenants[1]);
    fails(tx.batch_execute("SELECT check_rate_limit('once')"), "P0002");
}

#[test]
fn a_malformed_rate_is_refused_and_the_largest_ones_are_counted_right() {
    let (database, tenants) = house("rates_extreme", 1);
    let mut operator = database.connect("operator");
    for (arguments, code) in [
        ("'free', NULL, 1", "22023"),
        ("NULL, 'api', 1", "22023"),
        ("'free', 'api', -1", "22023"),
        ("'free', 'api', 1, 'month'", "22023"),
        ("'free', 'api', 1, NULL", "22023"),
        ("'free', 'api', 1, 'hour', 0", "22023"),
        ("'free', 'api', 1, 'hour', -5", "22023"),
        ("'free', 'api', NULL, 'hour', 5", "22023"),
        ("'free', 'api', 1, 'day', 2147483647", "22023"),
        ("'free', 'api', 1, 'day', 367", "22023"),
        ("'free', 'Api', 1", "22023"),
        ("'free', repeat('a', 64), 1", "22023"),
        ("'gold', 'api', 1", "P0002"),
    ] {
        fails(operator.batch_execute(&format!("SELECT set_plan_rate_limit({arguments})")), code);
    }
    fails(operator.batch_execute("SELECT set_tenant_rate_limit(gen_random_uuid(), 'api', 1)"), "P0002");
    limit(&mut operator, "'slow', 1, 'day', 366");
    limit(&mut operator, "'fast', 2147483647, 'second'");
    limit(&mut operator, "'huge', 2147483647, 'day', 2147483647");
    as_tenant(&mut database.connect("app"), tenants[0], |tx| {
        assert!(allowed(tx, "'slow', 366"));
        let refused = check(tx, "'slow'");
        assert!(!refused.allowed, "{refused:?}");
        assert!(refused.retry_after.is_some_and(|seconds| (86_000.0..=86_400.0).contains(&seconds)), "{refused:?}");
        assert!(refused.reset_in.is_some_and(|seconds| seconds > 365.9 * 86_400.0), "{refused:?}");
        assert_eq!(check(tx, "'fast', 2147483647").remaining, Some(0));
        assert!(allowed(tx, "'huge', 2147483647"));
        assert!(!allowed(tx, "'huge', 2147483647"));
        assert!(allowed(tx, "'huge', 0"));
    });
}

/// Asks from as many sessions as fast as they can, for so long; gives what was granted and how long it took.
fn storm(
    database: &Database,
    sessions: usize,
    seconds: f64,
    ask: impl Fn(usize, &mut Client) -> i64 + Sync,
) -> (i64, f64) {
    let mut clients: Vec<Client> = (0..sessions).map(|_| database.connect("app")).collect();
    let begin = Instant::now();
    let granted = std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(number, client)| {
                let ask = &ask;
                scope.spawn(move || {
                    let mut granted = 0;
                    while begin.elapsed().as_secs_f64() < seconds {
                        granted += ask(number, client);
                    }
                    granted
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a session")).sum()
    });
    (granted, begin.elapsed().as_secs_f64())
}

#[test]
fn sixteen_sessions_never_get_more_than_burst_and_rate_allow() {
    let (database, tenants) = house("rates_hot", 1);
    limit(&mut database.connect("operator"), "'api', 1000, 'second', 300");
    // Costs from 1 to 3 in one half of the sessions: what counts is what was taken.
    const DEARER: &str = "
        SELECT coalesce(sum(cost) FILTER (WHERE (asked).allowed), 0)
        FROM (SELECT cost, check_rate_limit('api', cost) AS asked FROM generate_series(1, 3) AS cost OFFSET 0) AS all_of_them";
    let (taken, seconds) = storm(&database, 16, 3.0, |number, client| {
        as_tenant(
            client,
            tenants[0],
            |tx| if number % 2 == 0 { granted(tx, 20, "'api'") } else { one(tx, DEARER, &[]) },
        )
    });
    let most = 300.0 + 1000.0 * seconds;
    assert!(taken as f64 <= most, "{taken} taken in {seconds} s, {most} at most");
    assert!(taken as f64 >= 0.8 * 1000.0 * 3.0, "{taken} taken in {seconds} s");
}

#[test]
fn many_tenants_each_get_their_own_and_no_more() {
    const TENANTS: usize = 500;
    let (database, tenants) = house("rates_many", TENANTS);
    limit(&mut database.connect("operator"), "'api', 5, 'day'");
    let mut granted_in_all = 0;
    for _ in 0..2 {
        let mut clients: Vec<Client> = (0..8).map(|_| database.connect("app")).collect();
        granted_in_all += std::thread::scope(|scope| {
            let tenants = &tenants;
            let threads: Vec<_> = clients
                .iter_mut()
                .map(|client| {
                    scope.spawn(move || {
                        tenants
                            .iter()
                            .map(|tenant| as_tenant(client, *tenant, |tx| granted(tx, 3, "'api'")))
                            .sum::<i64>()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a session")).sum::<i64>()
        });
    }
    assert_eq!(granted_in_all, 5 * TENANTS as i64);
}

#[test]
fn a_limit_holds_for_each_subject_apart_and_for_each_resource_and_database() {
    let (database, tenants) = house("rates_subjects", 2);
    let mut operator = database.connect("operator");
    limit(&mut operator, "'api', 3, 'day'");
    limit(&mut operator, "'mail', 3, 'day'");
    let mut client = database.connect("app");
    for tenant in &tenants {
        as_tenant(&mut client, *tenant, |tx| {
            for subject in
                ["NULL", "''", "'a'", "'b'", "E'\\'; DROP TABLE x --'", "'é\u{202e}'", "repeat('x', 1024)", "'A'"]
            {
                assert_eq!(granted(tx, 5, &format!("'api', 1, {subject}")), 3, "{subject}");
            }
            assert_eq!(granted(tx, 5, "'mail', 1, 'a'"), 3);
        });
    }
    // The same tenant in another database of the server, as a copy has it.
    let other = Database::new("rates_copy");
    let mut operator = other.connect("operator");
    one::<Uuid>(&mut operator, "SELECT create_tenant('Copy', id => $1)", &[&tenants[0]]);
    limit(&mut operator, "'api', 3, 'day'");
    as_tenant(&mut other.connect("app"), tenants[0], |tx| assert_eq!(granted(tx, 5, "'api'"), 3));
}

#[test]
fn what_was_taken_stays_taken_when_the_transaction_rolls_back() {
    let (database, tenants) = house("rates_rollback", 1);
    limit(&mut database.connect("operator"), "'api', 10, 'day'");
    let mut client = database.connect("app");
    let mut tx = client.transaction().expect("begin");
    bind(&mut tx, tenants[0]);
    assert_eq!(granted(&mut tx, 4, "'api'"), 4);
    let mut savepoint = tx.savepoint("s").expect("savepoint");
    assert_eq!(granted(&mut savepoint, 4, "'api'"), 4);
    savepoint.rollback().expect("roll back to the savepoint");
    assert_eq!(check(&mut tx, "'api', 0").remaining, Some(2));
    tx.rollback().expect("roll back");
    as_tenant(&mut client, tenants[0], |tx| assert_eq!(granted(tx, 10, "'api'"), 2));
}

#[test]
fn rates_are_limited_in_read_only_transactions_and_on_a_standby() {
    let primary = Cluster::start(Options::new());
    let database = primary.database("rates_standby");
    let mut operator = database.connect("operator");
    let tenant = tenant(&mut operator);
    limit(&mut operator, "'api', 5, 'day'");
    let mut client = database.connect("app");
    let mut tx = client.build_transaction().read_only(true).start().expect("begin");
    bind(&mut tx, tenant);
    assert_eq!(granted(&mut tx, 3, "'api'"), 3);
    assert_eq!(one::<Option<String>>(&mut tx, "SELECT pg_current_xact_id_if_assigned()::text", &[]), None);
    drop(tx);
    let standby = primary.standby();
    standby.catch_up_with(&primary);
    let config = standby.server().config(database.name(), "app");
    let mut reader = config.connect(NoTls).expect("connect to the standby");
    // Per server: the standby has buckets of its own.
    as_tenant(&mut reader, tenant, |tx| {
        assert_eq!(granted(tx, 10, "'api'"), 5);
        assert!(allowed(tx, "'api', 1, 'a subject'"));
    });
    limit(&mut operator, "'api', 7, 'day'");
    standby.catch_up_with(&primary);
    wait_until("the change has reached the standby's session", || {
        as_tenant(&mut reader, tenant, |tx| check(tx, "'api', 0").max_value) == Some(7)
    });
    let shown = "SELECT busy FROM tenancy.rate_limit_status WHERE part = 'subjects'";
    let mut monitor = standby.server().config(database.name(), "monitor").connect(NoTls).expect("connect");
    assert_eq!(one::<i64>(&mut monitor, shown, &[]), 1);
}

#[test]
fn a_change_of_a_rate_takes_effect_at_once_for_open_transactions_too() {
    let (database, tenants) = house("rates_change", 1);
    let mut operator = database.connect("operator");
    limit(&mut operator, "'api', 2, 'day'");
    operator.batch_execute("SELECT create_plan('pro'), set_plan_rate_limit('pro', 'api', 20, 'day')").expect("plan");
    let mut client = database.connect("app");
    let mut tx = client.transaction().expect("begin");
    bind(&mut tx, tenants[0]);
    assert_eq!(granted(&mut tx, 5, "'api'"), 2);
    one::<Uuid>(&mut operator, "SELECT change_plan($1, 'pro')", &[&tenants[0]]);
    assert_eq!(granted(&mut tx, 30, "'api'"), 20);
    // What its own transaction has not committed holds for it alone, and not after it is undone.
    operator.batch_execute("BEGIN; SELECT set_plan_rate_limit('pro', 'api', 100, 'day')").expect("change");
    assert_eq!(granted(&mut tx, 1, "'api'"), 0);
    operator.batch_execute("ROLLBACK").expect("roll back");
    assert_eq!(granted(&mut tx, 1, "'api'"), 0);
    // Saying the same again fills no bucket.
    operator.batch_execute("SELECT set_plan_rate_limit('pro', 'api', 20, 'day')").expect("the same");
    assert_eq!(granted(&mut tx, 1, "'api'"), 0);
    operator.batch_execute("SELECT set_plan_rate_limit('pro', 'api', 3, 'day')").expect("less");
    assert_eq!(granted(&mut tx, 30, "'api'"), 3);
}

/// A server with few buckets, whose tenants' part has 1 024 and whose subjects' part as many.
fn small_server(label: &str, number: usize) -> (Cluster, Database, Vec<Uuid>) {
    let cluster = Cluster::start(Options::new().set("tenancy.rate_limit_buckets", "2048"));
    let database = cluster.database(label);
    let made = tenants(&mut database.connect("operator"), number);
    (cluster, database, made)
}

fn status(database: &Database, part: &str) -> (i64, i64, i64, i64) {
    let sql = "SELECT buckets, busy, evicted, refused_for_room FROM tenancy.rate_limit_status WHERE part = $1";
    let row = &rows(&mut database.connect("monitor"), sql, &[&part])[0];
    (row.get(0), row.get(1), row.get(2), row.get(3))
}

#[test]
fn a_tenant_that_invents_subjects_leaves_the_others_room() {
    let (_cluster, database, tenants) = small_server("rates_flood", 3);
    limit(&mut database.connect("operator"), "'login', 1, 'day'");
    let mut client = database.connect("app");
    let flood = |tx: &mut Transaction| granted(tx, 20_000, "'login', 1, 'invented ' || i");
    let got = as_tenant(&mut client, tenants[0], flood);
    let (buckets, busy, _, refused) = status(&database, "subjects");
    assert_eq!((buckets, busy, refused), (1024, got, 20_000 - got));
    assert_eq!(got, 256, "a quarter of the places");
    let full = as_tenant(&mut client, tenants[0], |tx| check(tx, "'login', 1, 'another'"));
    assert!(!full.allowed && full.retry_after.is_some_and(|seconds| seconds > 80_000.0), "{full:?}");
    assert_eq!(full.remaining, Some(0));
    for other in &tenants[1..] {
        as_tenant(&mut client, *other, |tx| {
            assert_eq!(granted(tx, 32, "'login', 1, 'user ' || i"), 32);
            assert_eq!(granted(tx, 32, "'login', 1, 'user ' || i"), 0);
        });
    }
    // Its own bucket is apart, and those of the subjects that it has are still what they were.
    as_tenant(&mut client, tenants[0], |tx| {
        assert!(allowed(tx, "'login'"));
        assert_eq!(granted(tx, 20_000, "'login', 1, 'invented ' || i"), 0);
    });
    let (_, _, evicted, _) = status(&database, "subjects");
    assert_eq!(evicted, 0);
}

/// Buckets that go idle and are used again are the flooding tenant's as well.
#[test]
fn a_tenant_that_uses_its_subjects_over_and_over_leaves_the_others_room() {
    let (_cluster, database, tenants) = small_server("rates_reuse", 2);
    let mut operator = database.connect("operator");
    limit(&mut operator, "'login', 2, 'second', 2");
    let mut client = database.connect("app");
    for round in 0..6 {
        as_tenant(&mut client, tenants[0], |tx| {
            // Those of the rounds before again, and as many new ones.
            for earlier in 0..=round {
                granted(tx, 300, &format!("'login', 2, '{earlier} ' || i"));
            }
        });
        std::thread::sleep(Duration::from_millis(1050));
    }
    limit(&mut operator, "'login', 1, 'day'");
    as_tenant(&mut client, tenants[0], |tx| {
        for earlier in 0..6 {
            granted(tx, 2000, &format!("'login', 1, '{earlier} ' || i"));
        }
    });
    let (_, busy, _, _) = status(&database, "subjects");
    assert!((200..=256).contains(&busy), "{busy} places");
    as_tenant(&mut client, tenants[1], |tx| assert_eq!(granted(tx, 32, "'login', 1, 'user ' || i"), 32));
}

#[test]
fn when_every_bucket_is_busy_a_new_one_is_refused_and_idle_ones_make_room() {
    let (_cluster, database, tenants) = small_server("rates_full", 1);
    let mut superuser = database.superuser();
    let fill = |superuser: &mut Client, name: &str, number: i32, period: &str| {
        superuser
            .batch_execute(&format!(
                "INSERT INTO tenancy.plan_rate_limits
                 SELECT 'free', '{name}' || i, 1, '{period}', NULL FROM generate_series(1, {number}) AS i"
            ))
            .expect("limits");
    };
    fill(&mut superuser, "short", 3000, "second");
    fill(&mut superuser, "long", 3000, "day");
    let mut client = database.connect("app");
    as_tenant(&mut client, tenants[0], |tx| granted(tx, 3000, "'short' || i"));
    std::thread::sleep(Duration::from_millis(1100));
    let (_, busy, _, _) = status(&database, "tenants");
    assert_eq!(busy, 0);
    let got = as_tenant(&mut client, tenants[0], |tx| granted(tx, 3000, "'long' || i"));
    let (buckets, busy, evicted, refused) = status(&database, "tenants");
    assert_eq!((buckets, busy, got), (1024, 1024, 1024));
    assert!(evicted >= 1000 && refused >= 3000 - got, "{evicted} {refused}");
    // None of those that were counted was forgotten.
    as_tenant(&mut client, tenants[0], |tx| {
        assert_eq!(granted(tx, 3000, "'long' || i"), 0);
        let refused = check(tx, "'short1'");
        assert!(!refused.allowed && refused.retry_after.is_some_and(|seconds| seconds > 80_000.0), "{refused:?}");
        let fault = fails(tx.savepoint("s").expect("s").batch_execute("SELECT enforce_rate_limit('short1')"), "53400");
        assert!(fault.detail().is_some_and(|detail| detail.contains("no bucket is free")), "{fault:?}");
    });
}

/// Sessions whose keys come and go in few places, so that places change hands all the time: still no key gets more than its own.
#[test]
fn no_bucket_gives_more_than_its_own_while_places_change_hands() {
    let (_cluster, database, tenants) = small_server("rates_churn", 8);
    limit(&mut database.connect("operator"), "'login', 20, 'second', 1");
    let begin = Instant::now();
    let mut clients: Vec<Client> = (0..8).map(|_| database.connect("app")).collect();
    const SUBJECTS: usize = 2000;
    let mut totals = vec![0i64; SUBJECTS * tenants.len()];
    let counted: Vec<Vec<i64>> = std::thread::scope(|scope| {
        let tenants = &tenants;
        let threads: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(session, client)| {
                scope.spawn(move || {
                    let mut counts = vec![0i64; SUBJECTS * tenants.len()];
                    let mut round = session;
                    while begin.elapsed() < Duration::from_secs(4) {
                        // Two sessions at a time use the same tenant.
                        let place = (round / 2) % tenants.len();
                        let sql = format!(
                            "SELECT i FROM generate_series(1, {SUBJECTS}) AS i WHERE (check_rate_limit('login', 1, i::text)).allowed"
                        );
                        let found = as_tenant(client, tenants[place], |tx| rows(tx, &sql, &[]));
                        for row in found {
                            counts[place * SUBJECTS + row.get::<_, i32>(0) as usize - 1] += 1;
                        }
                        round += 1;
                    }
                    counts
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a session")).collect()
    });
    for counts in counted {
        totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
    }
    let most = 1.0 + 20.0 * begin.elapsed().as_secs_f64();
    let highest = totals.iter().max().copied().unwrap_or(0);
    assert!(highest as f64 <= most, "{highest} where {most} is most");
    let (_, _, evicted, _) = status(&database, "subjects");
    assert!(evicted > 1000, "only {evicted} places changed hands");
}

#[test]
fn a_backend_that_is_killed_in_the_middle_leaves_no_limit_behind_that_hangs() {
    let cluster = Cluster::start(Options::new().set("restart_after_crash", "on"));
    let database = cluster.database("rates_kill");
    let tenant = tenant(&mut database.connect("operator"));
    limit(&mut database.connect("operator"), "'login', 1000, 'second', 1000");
    let mut victim = database.connect("app");
    let pid = harness::backend_pid(&mut victim);
    let thread = std::thread::spawn(move || {
        let mut tx = victim.transaction().expect("begin");
        bind(&mut tx, tenant);
        tx.batch_execute("SELECT count(check_rate_limit('login', 1, i::text)) FROM generate_series(1, 100000000) AS i")
            .is_err()
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill").success());
    assert!(thread.join().expect("the victim"));
    let connect = || database.connect_with("app", |_| ()).ok();
    wait_until("the server is back", || connect().is_some());
    as_tenant(&mut connect().expect("a session"), tenant, |tx| {
        assert_eq!(granted(tx, 5000, "'login', 1, i::text"), 5000);
    });
}

#[test]
fn a_tenant_sees_its_own_rate_limits_and_uses_its_own_buckets_only() {
    let (database, tenants) = house("rates_visible", 2);
    let mut operator = database.connect("operator");
    for tenant in &tenants {
        one::<String>(&mut operator, "SELECT set_tenant_rate_limit($1, 'api', 7)", &[tenant]);
    }
    let all = "SELECT tenant_id FROM tenancy.tenant_rate_limits";
    for role in ["app", "client"] {
        let mut session = database.connect(role);
        assert_eq!(simple(&mut session, all).len(), 0);
        if role == "app" {
            assert_eq!(read_as(&mut session, tenants[0], all), [[Some(tenants[0].to_string())]]);
        }
        for call in ["set_plan_rate_limit('free', 'api', 9)", "unset_plan_rate_limit('free', 'api')"] {
            fails(session.batch_execute(&format!("SELECT {call}")), "42501");
        }
        fails(session.batch_execute("SELECT * FROM tenancy.rate_limit_status"), "42501");
    }
    assert_eq!(simple(&mut operator, all).len(), 2);
    assert_eq!(
        text(&mut operator, "SELECT count(*) FROM tenancy.audit_log WHERE action = 'tenant.set_rate_limit'"),
        "2"
    );
    operator.execute("SELECT delete_tenant($1)", &[&tenants[0]]).expect("delete");
    let purge = format!("CALL purge_tenant('{}', force => true)", tenants[0]);
    database.connect("admin").batch_execute(&purge).expect("purge");
    assert_eq!(count(&mut database.superuser(), "tenancy.tenant_rate_limits"), 1);
}
