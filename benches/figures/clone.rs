//! Making a tenant's schema: a copy from the catalogs, against pg_dump's text and the tools around it.

use crate::cpu::Watched;
use crate::crm;
use crate::report::{Bar, Row, Unit};
use crate::rounds::{Side, execute, interleave, median};
use crate::settings::Settings;
use crate::tables::options;
use harness::{Client, Cluster, Database, run};
use std::time::Instant;

const OURS: &str = "create_tenant(isolation => 'schema')";

/// Schemas that one measurement makes, after one that warms the session.
const COPIES: usize = 5;

pub fn measure(settings: &Settings) -> Vec<Row> {
    let clusters = [options(), options().without_preload()].map(Cluster::start);
    let [loaded, bare] = &clusters;
    let (ours, theirs) = (loaded.database("clone"), bare.empty_database("clone"));
    crm::install(&ours);
    crm::install_without_extension(&ours, &theirs);
    let text = crm::dump(&ours);
    assert_same_objects(&ours, &theirs, &text);
    let sides: [Side<'_>; 7] = [
        Box::new(|_| warm(&ours, "operator", |client, schema| execute(client, &create(schema)))),
        Box::new(|_| warm(&theirs, "postgres", |client, schema| load(client, &text, schema))),
        Box::new(|_| tools(&theirs)),
        Box::new(|_| fresh(&ours, "operator", |client, schema| execute(client, &create(schema)))),
        Box::new(|_| fresh(&theirs, "postgres", |client, schema| load(client, &text, schema))),
        Box::new(|_| busy(&ours, "operator", |client, schema| execute(client, &create(schema)))),
        Box::new(|_| busy(&theirs, "postgres", |client, schema| load(client, &text, schema))),
    ];
    let [copied, loaded, piped, copied_first, loaded_first, copied_cpu, loaded_cpu] =
        interleave(settings.rounds, sides);
    let row =
        |figure, ours: &[f64], theirs: (&str, &[f64]), bar| Row::new(figure, Unit::Schemas, (OURS, ours), theirs, bar);
    let figure = "a schema for a tenant of the crm";
    vec![
        row(figure, &copied, ("pg_dump, sed, psql --single-transaction", &piped), Bar::AtLeast(2.0)),
        row(figure, &copied, ("ready-made DDL in one transaction", &loaded), Bar::AtLeast(0.7)),
        row(
            "the same, first of a session",
            &copied_first,
            ("ready-made DDL, first of a session", &loaded_first),
            Bar::None,
        ),
        Row::new(
            "server CPU of a schema",
            Unit::Seconds,
            (OURS, &copied_cpu),
            ("ready-made DDL in one transaction", &loaded_cpu),
            Bar::None,
        ),
    ]
}

fn create(schema: &str) -> String {
    let slug = schema.replace('_', "-");
    format!(
        "SELECT create_tenant('{slug}', slug => '{slug}', isolation => 'schema', template => 'crm', schema_name => '{schema}')"
    )
}

/// All of it in one message, which leaves the client out.
fn load(client: &mut Client, text: &str, schema: &str) {
    execute(client, &format!("BEGIN;\n{}\nCOMMIT", crm::renamed(text, schema)));
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64()
}

/// Schemas in a second, by a session that has made one before.
fn warm(database: &Database, role: &str, mut make: impl FnMut(&mut Client, &str)) -> f64 {
    let mut client = database.connect(role);
    let mut each = Vec::with_capacity(COPIES);
    for number in 0..=COPIES {
        let taken = seconds(|| make(&mut client, &format!("copy_{number}")));
        if number > 0 {
            each.push(taken);
        }
    }
    forget(database);
    1.0 / median(&each)
}

/// The CPU time of the server for one, by such a session.
fn busy(database: &Database, role: &str, mut make: impl FnMut(&mut Client, &str)) -> f64 {
    let mut session = Watched::connect(database, role, "");
    make(&mut session.client, "copy_0");
    let seconds =
        session.seconds_each(COPIES, |client| (1..=COPIES).for_each(|number| make(client, &format!("copy_{number}"))));
    forget(database);
    seconds
}

/// Schemas in a second, by sessions that have done nothing before.
fn fresh(database: &Database, role: &str, mut make: impl FnMut(&mut Client, &str)) -> f64 {
    let each = [0; COPIES].map(|_| {
        let mut client = database.connect(role);
        execute(&mut client, "SELECT");
        let taken = seconds(|| make(&mut client, "copy_0"));
        forget(database);
        taken
    });
    1.0 / median(&each)
}

/// The same by the tools that come with PostgreSQL.
fn tools(database: &Database) -> f64 {
    const PIPE: &str =
        "\"$0\" -n \"$2\" | sed \"s/$2/copy_0/g\" | \"$1\" -X -q -o /dev/null -v ON_ERROR_STOP=1 --single-transaction";
    let [pg_dump, psql] = ["pg_dump", "psql"].map(|name| database.tool(name, "postgres").get_program().to_owned());
    let each: Vec<f64> = (0..COPIES)
        .map(|_| {
            let mut shell = database.tool("/bin/bash", "postgres");
            shell.args(["-e", "-o", "pipefail", "-c", PIPE]).args([&pg_dump, &psql]).arg(crm::TEMPLATE);
            let taken = seconds(|| drop(run(&mut shell)));
            forget(database);
            taken
        })
        .collect();
    1.0 / median(&each)
}

/// Drops the copies, with what the catalogs kept of them.
fn forget(database: &Database) {
    let mut superuser = database.superuser();
    execute(
        &mut superuser,
        "DO $$ DECLARE schema text; BEGIN
            FOR schema IN SELECT nspname FROM pg_namespace WHERE nspname LIKE 'copy\\_%' LOOP
                EXECUTE 'SET LOCAL client_min_messages = error; DROP SCHEMA ' || schema || ' CASCADE';
            END LOOP;
            IF to_regclass('tenancy.tenants') IS NOT NULL THEN
                DELETE FROM tenancy.tenants WHERE slug LIKE 'copy-%';
            END IF;
        END $$",
    );
    execute(&mut superuser, "VACUUM");
}

/// What is compared makes the same.
fn assert_same_objects(ours: &Database, theirs: &Database, text: &str) {
    const OBJECTS: &str =
        "SELECT string_agg(concat_ws(' ', relname, relkind, relnatts), ', ' ORDER BY relname) FROM pg_class
        WHERE relnamespace = 'copy_0'::regnamespace";
    execute(&mut ours.connect("operator"), &create("copy_0"));
    load(&mut theirs.superuser(), text, "copy_0");
    let objects = [ours, theirs].map(|database| harness::text(&mut database.superuser(), OBJECTS));
    assert_eq!(objects[0], objects[1]);
    let rows = [ours, theirs].map(|database| harness::count(&mut database.superuser(), "copy_0.deal_stages"));
    assert_eq!(rows, [6, 6]);
    forget(ours);
    forget(theirs);
}
