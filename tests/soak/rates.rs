//! Rate limits of very many tenants, asked for at the same time.

use harness::{Client, Cluster, Options, Uuid, one, rows, simple};

/// How many sessions go through all tenants, each asking so often, where so many are allowed.
const SESSIONS: usize = 4;
const ASKED: usize = 2;
const ALLOWED: usize = 5;

/// Asks for the rate of so many tenants; gives what was allowed in all.
fn go_through(number: usize) -> usize {
    let cluster = Cluster::start(Options::new());
    let database = cluster.database("rates_of_many");
    let mut operator = database.connect("operator");
    let create = "SELECT create_tenant('Tenant ' || i) FROM generate_series(1, $1::bigint) AS i";
    let number = i64::try_from(number).expect("a number of tenants");
    let tenants: Vec<Uuid> = rows(&mut operator, create, &[&number]).iter().map(|row| row.get(0)).collect();
    one::<String>(&mut operator, "SELECT set_plan_rate_limit('free', 'api', $1, 'day')", &[&(ALLOWED as i32)]);
    let mut clients: Vec<Client> = (0..SESSIONS).map(|_| database.connect("app")).collect();
    let allowed: Vec<usize> = std::thread::scope(|scope| {
        let tenants = &tenants;
        let ask = move |client: &mut Client, tenant: Uuid| {
            let asking = "SELECT (check_rate_limit('api')).allowed;".repeat(ASKED);
            let answers = simple(client, &format!("BEGIN; SELECT set_tenant('{tenant}'); {asking} COMMIT"));
            answers.iter().filter(|row| row[0].as_deref() == Some("t")).count()
        };
        let threads: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(move || tenants.iter().map(|tenant| ask(client, *tenant)).sum()))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a session")).collect()
    });
    let status = "SELECT busy, refused_for_room FROM tenancy.rate_limit_status WHERE part = 'tenants'";
    let row = &rows(&mut database.connect("monitor"), status, &[])[0];
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (number, 0));
    allowed.into_iter().sum()
}

/// No more than the plan allows and, as there is room for all of them, no less.
#[test]
fn a_hundred_thousand_tenants_each_get_their_rate_and_no_more() {
    const TENANTS: usize = 100_000;
    assert_eq!(go_through(TENANTS), TENANTS * ALLOWED);
}
