//! Adopting a large table while the application writes to it.

use crate::report::{Bar, Row, Unit};
use crate::rounds::{execute, seconds_once};
use crate::settings::Settings;
use crate::tables::options;
use harness::{Cluster, Database, Uuid, count, tenant};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Rounds at most: each loads the table anew.
const ROUNDS: usize = 3;
/// What a transaction may take before it counts as having waited.
const PATIENCE: Duration = Duration::from_millis(20);

const REQUEST: &str = "INSERT INTO orders (customer, reference) VALUES (1, gen_random_uuid()::text);
    UPDATE customers SET name = name WHERE id = 1";

/// What one would otherwise do, in one transaction, while writers wait.
const BY_HAND: &str = "BEGIN;
    ALTER TABLE customers ADD COLUMN tenant_id uuid; ALTER TABLE orders ADD COLUMN tenant_id uuid;
    UPDATE customers SET tenant_id = 'TENANT'; UPDATE orders SET tenant_id = 'TENANT';
    ALTER TABLE customers ALTER tenant_id SET NOT NULL; ALTER TABLE orders ALTER tenant_id SET NOT NULL;
    ALTER TABLE customers ADD UNIQUE (tenant_id, id);
    ALTER TABLE orders DROP CONSTRAINT orders_customer_fkey, DROP CONSTRAINT orders_reference_key, ADD UNIQUE (tenant_id, reference),
        ADD UNIQUE (tenant_id, id), ADD FOREIGN KEY (tenant_id, customer) REFERENCES customers (tenant_id, id);
    CREATE INDEX ON orders (tenant_id, customer);
    COMMIT";

pub fn measure(settings: &Settings) -> Vec<Row> {
    let cluster = Cluster::start(options());
    let database = cluster.database("adopt");
    let tenant = tenant(&mut database.connect("operator"));
    let rounds = settings.rounds.min(ROUNDS);
    let (mut waited, mut longest, mut by_hand) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        load(&database, settings.rows);
        by_hand.push(seconds_once(&mut database.superuser(), &BY_HAND.replace("TENANT", &tenant.to_string())));
        load(&database, settings.rows);
        let (total, most) = adopt(&database, tenant);
        waited.push(total);
        longest.push(most);
    }
    let second = vec![1.0; rounds];
    let figure = format!("adoption of {} rows: waits of a writer", settings.rows);
    let ours = ("adopt_schema, in total", waited.as_slice());
    vec![
        Row::new(&figure, Unit::Seconds, ours, ("a second", &second), Bar::AtMost(1.0)),
        Row::new(&figure, Unit::Seconds, ours, ("the same statements in one transaction", &by_hand), Bar::None),
        Row::new(&figure, Unit::Seconds, ("adopt_schema, longest", &longest), ("a second", &second), Bar::None),
    ]
}

fn load(database: &Database, rows: usize) {
    execute(
        &mut database.superuser(),
        &format!(
            "DROP TABLE IF EXISTS orders, customers; DELETE FROM tenancy.adoptions;
            CREATE TABLE customers (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
            CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int REFERENCES customers, reference text UNIQUE);
            CREATE INDEX ON orders (customer);
            INSERT INTO customers (name) SELECT 'customer ' || n FROM generate_series(1, 1000) n;
            ALTER TABLE orders DISABLE TRIGGER ALL;
            INSERT INTO orders (customer, reference) SELECT 1 + n % 1000, 'reference ' || n FROM generate_series(1, {rows}) n;
            ALTER TABLE orders ENABLE TRIGGER ALL;
            ALTER TABLE customers OWNER TO owner; ALTER TABLE orders OWNER TO owner;
            GRANT ALL ON customers, orders TO app;"
        ),
    );
    execute(&mut database.superuser(), "VACUUM ANALYZE customers, orders");
    execute(&mut database.superuser(), "CHECKPOINT");
}

/// Seconds that a writer waited in total, and at most, while the tables were adopted.
fn adopt(database: &Database, tenant: Uuid) -> (f64, f64) {
    let stop = AtomicBool::new(false);
    let waits = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(database, &stop));
        std::thread::sleep(Duration::from_millis(200));
        execute(&mut database.connect("admin"), &format!("CALL adopt_schema('public', '{tenant}')"));
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("join")
    });
    let protected = "tenancy.protection_status WHERE intact";
    assert_eq!(count(&mut database.superuser(), protected), 2);
    let most = waits.iter().copied().fold(Duration::ZERO, Duration::max);
    (waits.iter().sum::<Duration>().as_secs_f64(), most.as_secs_f64())
}

/// Writes as a single-tenant application does until the tables are protected; the transactions that took longer than they should.
fn write(database: &Database, stop: &AtomicBool) -> Vec<Duration> {
    let mut app = database.connect("app");
    let mut waits = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let written = app.batch_execute(REQUEST);
        if begin.elapsed() > PATIENCE {
            waits.push(begin.elapsed());
        }
        if let Err(error) = written {
            let code = error.code().map(|code| code.code().to_owned());
            assert_eq!(code.as_deref(), Some("42501"), "protected: {error:?}");
            break;
        }
    }
    waits
}
