//! Requests in a tenant's schema: bound and guarded, against a `search_path` on a server without the library.

use crate::cpu::Watched;
use crate::crm;
use crate::pgbench::{Run, transaction};
use crate::report::{Bar, Row, Unit};
use crate::rounds::{Side, execute, interleave};
use crate::settings::Settings;
use crate::tables::{assert_plan, options};
use harness::{Client, Cluster, Database, rows, text};

/// Tenants, each with this many contacts.
const TENANTS: usize = 10;
const CONTACTS: usize = 10_000;

const READ: &str = "SELECT first_name FROM contacts WHERE id = :id";
const GUARDED: &str = "set_tenant, guarded";
const BARE: &str = "set_config('search_path', …), no library";
const SET_LOCAL: &str = "SET LOCAL search_path, no library";

/// Reads within the server, so that nothing but the executor's own work is there to hide the guard.
const LOOP: &str = "DO $$ DECLARE found text; BEGIN
    FOR number IN 1 .. 10000 LOOP
        SELECT first_name INTO found FROM contacts WHERE id = number;
    END LOOP;
END $$";

/// A database with the tenants' schemas, and what a transaction of each of them begins with.
struct Served<'a> {
    database: &'a Database,
    binds: Vec<String>,
}

pub fn measure(settings: &Settings) -> Vec<Row> {
    let clusters = [options(), options().without_preload(), options().without_preload()].map(Cluster::start);
    let [loaded, bare, control] = &clusters;
    let loaded = loaded.database("schemas");
    let [bare, control] = [bare, control].map(|cluster| cluster.empty_database("schemas"));
    let tenants = with_tenants(&loaded);
    with_schemas(&bare, &loaded);
    with_schemas(&control, &loaded);
    let by = |database, bind: fn(&str) -> String| Served {
        database,
        binds: tenants.iter().map(|tenant| bind(tenant)).collect(),
    };
    let by_number = |database, bind: fn(usize) -> String| Served { database, binds: (1..=TENANTS).map(bind).collect() };
    let set_config = |number| format!("SELECT set_config('search_path', 'tenant_{number}, public', true)");
    let served = [
        by(&loaded, |tenant| format!("SELECT set_tenant('{tenant}')")),
        by_number(&bare, set_config),
        by_number(&control, set_config),
        by_number(&bare, |number| format!("SET LOCAL search_path = tenant_{number}, public")),
    ];
    let rounds = settings.fine_rounds;
    [
        reads("transaction of one point read in a schema", 1, settings, &served),
        reads("transaction of 20 point reads in a schema", 20, settings, &served),
        reads("transaction of 500 point reads in a schema", 500, settings, &served),
        compare(
            "server CPU of a transaction of one point read",
            Unit::Seconds,
            Bar::None,
            interleave(rounds, served.each_ref().map(answered)),
        ),
        compare(
            "server CPU of a point read in a PL/pgSQL loop",
            Unit::Seconds,
            Bar::None,
            interleave(rounds, served.each_ref().map(looped)),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Makes the tenants, whose ids it gives.
fn with_tenants(database: &Database) -> Vec<String> {
    crm::install(database);
    let create = format!(
        "SELECT create_tenant('t' || n, isolation => 'schema', template => 'crm', schema_name => ('tenant_' || n)::name)::text
         FROM generate_series(1, {TENANTS}) AS n"
    );
    let tenants = rows(&mut database.connect("operator"), &create, &[]);
    fill(database);
    tenants.iter().map(|row| row.get(0)).collect()
}

/// Makes the same schemas without the library.
fn with_schemas(database: &Database, template: &Database) {
    crm::install_without_extension(template, database);
    let text = crm::dump(template);
    for number in 1..=TENANTS {
        crm::replay(database, &crm::renamed(&text, &format!("tenant_{number}")));
    }
    fill(database);
}

fn fill(database: &Database) {
    let mut superuser = database.superuser();
    for number in 1..=TENANTS {
        execute(
            &mut superuser,
            &format!(
                "INSERT INTO tenant_{number}.contacts (first_name, last_name, email)
                 SELECT 'First ' || n, 'Last ' || n, n || '@example.com' FROM generate_series(1, {CONTACTS}) AS n"
            ),
        );
    }
    execute(&mut superuser, "VACUUM (FREEZE, ANALYZE)");
    execute(&mut superuser, "CHECKPOINT");
}

fn reads(figure: &str, times: usize, settings: &Settings, served: &[Served<'_>; 4]) -> Vec<Row> {
    let short = Settings { seconds: 1, ..*settings };
    let pick = format!("\\set id random(1, {CONTACTS})");
    let sides = served.each_ref().map(|served| -> Side<'_> {
        let (short, pick) = (&short, &pick);
        Box::new(move |round| {
            let script = transaction(served.bind(round), pick, READ, times);
            Run { database: served.database, role: "app", script: &script, variables: Vec::new() }.tps(short)
        })
    });
    compare(figure, Unit::Transactions, Bar::AtLeast(0.98), interleave(settings.fine_rounds, sides))
}

/// The transaction of one read by a session that has prepared its statements.
fn answered<'a>(served: &'a Served<'_>) -> Side<'a> {
    const TRANSACTIONS: usize = 2000;
    let mut session = Watched::connect(served.database, "app", "");
    Box::new(move |round| {
        served.begin(&mut session.client, round);
        let client = &mut session.client;
        let [bind, read] = [served.bind(round), "SELECT first_name FROM contacts WHERE id = $1"]
            .map(|statement| client.prepare(statement).expect("prepare"));
        execute(client, "COMMIT");
        session.seconds_each(TRANSACTIONS, |client| {
            for id in (1..).take(TRANSACTIONS) {
                execute(client, "BEGIN");
                client.execute(&bind, &[]).expect("bind");
                let id: i32 = id;
                client.query(&read, &[&id]).expect("read");
                execute(client, "COMMIT");
            }
        })
    })
}

fn looped<'a>(served: &'a Served<'_>) -> Side<'a> {
    let mut session = Watched::connect(served.database, "app", "");
    Box::new(move |round| {
        served.begin(&mut session.client, round);
        let seconds = session.seconds_each(10_000, |client| execute(client, LOOP));
        execute(&mut session.client, "COMMIT");
        seconds
    })
}

impl Served<'_> {
    fn bind(&self, round: usize) -> &str {
        &self.binds[round % TENANTS]
    }

    /// Begins a transaction of the round's tenant, which reads by the index and sees a row.
    fn begin(&self, client: &mut Client, round: usize) {
        execute(client, &format!("BEGIN; {}", self.bind(round)));
        let read = READ.replace(":id", "7");
        assert_plan(client, &read, "Index");
        assert_eq!(text(client, &read), "First 7");
    }
}

/// The second row compares two servers that are alike: as far as its ratio is from 1, so little says the first.
fn compare(figure: &str, unit: Unit, bar: Bar, [ours, bare, control, set_local]: [Vec<f64>; 4]) -> Vec<Row> {
    vec![
        Row::new(figure, unit, (GUARDED, &ours), (BARE, &bare), bar),
        Row::new("the same, control: how exact that is", unit, (BARE, &control), (BARE, &bare), Bar::None),
        Row::new(figure, unit, (GUARDED, &ours), (SET_LOCAL, &set_local), Bar::None),
    ]
}
