//! A tenant's schema is an exact copy of its template: `pg_dump` of both says the same but for the schema's name, and nothing of the one
//! hangs on the other. For the templates of the examples, for a foreign application's schema (Chinook), and for one that has
//! every feature there is (`schema/everything.sql`).

mod compare;
mod hostile;
mod refused;

use crate::examples::Examples;
use compare::{Dump, Renaming};
use harness::*;
use std::path::Path;

pub const PRELUDE: &str = include_str!("schema/prelude.sql");
const EVERYTHING: &str = include_str!("schema/everything.sql");
const REORDERED: &str = include_str!("schema/reordered.sql");

/// A database with a schema that can be copied, registered as template `t` unless said otherwise.
struct World {
    database: Database,
    schema: &'static str,
}

impl World {
    /// A template by a script of the superuser's, which needs [`PRELUDE`] or not.
    fn of(label: &str, schema: &'static str, script: &str) -> World {
        let database = Database::new(label);
        load(&database, "postgres", &format!("BEGIN;\n{script};\nCOMMIT;"));
        World { database, schema }
    }

    fn everything() -> World {
        let world = World::of("everything", "everything", &[PRELUDE, EVERYTHING].concat());
        // What is granted by default in this database from now on is no part of the schema, and none of a copy.
        load(
            &world.database,
            "postgres",
            "ALTER DEFAULT PRIVILEGES FOR ROLE template_owner GRANT ALL ON TABLES TO PUBLIC",
        );
        world
    }

    /// The template of an example, as the example registers it; under `t`, too.
    fn example(name: &str, schema: &'static str) -> World {
        let database = Database::new(name);
        Examples::copy().run(name, "install.sql", &database);
        load(&database, "postgres", "SELECT unregister_template(template) FROM tenancy.templates");
        World { database, schema }
    }

    /// An application from elsewhere, in a schema of its own; None where its script is not at hand.
    fn chinook() -> Option<World> {
        let file = match std::env::var_os("PG_TENANCY_DATA") {
            Some(directory) => Path::new(&directory).join("chinook.sql"),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/chinook.sql"),
        };
        let Ok(script) = std::fs::read_to_string(&file) else {
            eprintln!("skipped: there is no {}", file.display());
            return None;
        };
        let is_ours =
            |line: &&str| !["DROP DATABASE", "CREATE DATABASE", "\\c "].iter().any(|command| line.starts_with(command));
        let tables: String = script.lines().filter(is_ours).flat_map(|line| [line, "\n"]).collect();
        let database = Database::new("chinook");
        load(&database, "postgres", "CREATE SCHEMA chinook AUTHORIZATION owner");
        load(&database, "owner", &format!("SET search_path = chinook;\n{tables}"));
        Some(World { database, schema: "chinook" })
    }

    /// Registers the schema as the template `t`.
    #[track_caller]
    fn register(&self, data_tables: &[&str]) {
        const REGISTER: &str =
            "SELECT register_template('t', $1::text::name, data_tables => $2, tenant_schema => 'schema_of_{slug}')";
        one::<String>(&mut self.database.connect("admin"), REGISTER, &[&self.schema, &data_tables]);
    }

    /// A tenant with a copy of the template, in a schema of this name.
    #[track_caller]
    fn tenant(&self, schema: &str) -> Uuid {
        one(&mut self.database.connect("operator"), CREATE, &[&schema])
    }

    /// A tenant without a schema.
    #[track_caller]
    fn without_schema(&self) -> Uuid {
        const CREATE: &str = "SELECT create_tenant('Waiting', slug => 'waiting', isolation => 'row')";
        one(&mut self.database.connect("operator"), CREATE, &[])
    }

    /// Fails, and shows where, unless the dumps of both schemas say the same.
    #[track_caller]
    fn assert_same(&self, schema: &str, copy: &str) {
        let renaming = Renaming::new(&mut self.database.superuser(), schema, copy);
        let expected = Dump::of(&self.database, schema).renamed(&renaming);
        expected.assert_same(&Dump::of(&self.database, copy));
    }

    /// What each table, materialized view and sequence of a schema holds.
    fn contents(&self, schema: &str) -> Vec<(String, String)> {
        const ROWS: &str = "
            SELECT c.relname::text, format(CASE c.relkind
                WHEN 'S' THEN 'SELECT last_value || '' '' || is_called FROM %s'
                WHEN 'm' THEN CASE WHEN c.relispopulated THEN 'SELECT md5(coalesce(string_agg(t::text, '','' ORDER BY t::text), '''')) FROM %s AS t'
                              ELSE 'SELECT ''not populated''' END
                ELSE 'SELECT count(*) || '' '' || md5(coalesce(string_agg(t::text, '','' ORDER BY t::text), '''')) FROM ONLY %s AS t' END,
                c.oid::regclass)
            FROM pg_class AS c WHERE c.relnamespace = $1::text::regnamespace AND c.relkind IN ('r', 'm', 'S') ORDER BY 1";
        let mut superuser = self.database.superuser();
        let quoted: String = one(&mut superuser, "SELECT quote_ident($1)", &[&schema]);
        let queries: Vec<(String, String)> =
            rows(&mut superuser, ROWS, &[&quoted]).iter().map(|row| (row.get(0), row.get(1))).collect();
        queries.into_iter().map(|(name, query)| (name, text(&mut superuser, &query))).collect()
    }

    /// Where the sequences of other schemas are, but for those that "shared" is there for.
    fn other_sequences(&self, schema: &str) -> Vec<Vec<Option<String>>> {
        let positions = format!(
            "SELECT schemaname, sequencename, last_value FROM pg_sequences WHERE schemaname NOT IN ('{schema}', 'shared', 'tenancy') ORDER BY 1, 2"
        );
        simple(&mut self.database.superuser(), &positions)
    }
}

const CREATE: &str = "SELECT create_tenant('Copied', slug => 'copied', isolation => 'schema', template => 't', schema_name => $1::text::name)";

/// Runs a script that must succeed.
#[track_caller]
fn load(database: &Database, role: &str, script: &str) {
    let output = database.psql(role, script);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Everything in one schema that depends on anything in another, as the catalogs know it.
const DEPENDS: &str = "
    WITH RECURSIVE has (namespace, class, object) AS (
        SELECT refobjid, classid, objid FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass
            AND refobjid IN (quote_ident($1)::regnamespace, quote_ident($2)::regnamespace)
        UNION
        SELECT h.namespace, d.classid, d.objid FROM has AS h JOIN pg_depend AS d ON d.refclassid = h.class AND d.refobjid = h.object
        WHERE d.deptype IN ('a', 'i', 'P', 'S')
    )
    SELECT DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid) || ' depends on ' || pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)
    FROM pg_depend AS d
    JOIN has AS this ON (this.class, this.object) = (d.classid, d.objid)
    JOIN has AS that ON (that.class, that.object) = (d.refclassid, d.refobjid) AND that.namespace <> this.namespace
    ORDER BY 1";

/// Checks that one schema is an exact copy of the other, and for itself.
#[track_caller]
fn assert_exact(world: &World, schema: &str, copy: &str) {
    world.assert_same(schema, copy);
    let entangled: Vec<String> =
        rows(&mut world.database.superuser(), DEPENDS, &[&schema, &copy]).iter().map(|row| row.get(0)).collect();
    assert!(entangled.is_empty(), "{entangled:#?}");
}

/// Inserts a row of defaults wherever one can be, which draws from every sequence of a default.
fn insert_defaults(world: &World, schema: &str) {
    const TABLES: &str = "SELECT oid::regclass::text FROM pg_class
        WHERE relnamespace = $1::text::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition";
    let mut superuser = world.database.superuser();
    let tables: Vec<String> = rows(&mut superuser, TABLES, &[&schema]).iter().map(|row| row.get(0)).collect();
    for table in tables {
        // Where a value is missing or wrong, the others' sequences have moved all the same.
        let _ = superuser.batch_execute(&format!("INSERT INTO {table} DEFAULT VALUES"));
    }
}

/// One template and one copy: the same by `pg_dump`, independent by `pg_depend`, and by what inserts do.
fn a_copy_is_exact_and_independent(world: &World, data_tables: &[&str], drawn: usize) {
    world.register(data_tables);
    let before = world.contents(world.schema);
    world.tenant("copied");
    assert_exact(world, world.schema, "copied");
    assert_eq!(world.contents(world.schema), before, "copying changes nothing in the template");

    let others = world.other_sequences("copied");
    let own = "SELECT count(*) FROM pg_sequences WHERE schemaname = 'copied' AND last_value IS NOT NULL";
    let count: i64 = one(&mut world.database.superuser(), own, &[]);
    insert_defaults(world, "copied");
    assert_eq!(world.other_sequences("copied"), others, "an insert into the copy draws from another's sequence");
    let now: i64 = one(&mut world.database.superuser(), own, &[]);
    assert!(
        now >= count + i64::try_from(drawn).expect("a number"),
        "{now} sequences of the copy are in use, {count} before"
    );
    assert_eq!(world.contents(world.schema), before, "an insert into the copy changes the template");
}

#[test]
fn a_copy_of_everything_is_exact() {
    a_copy_is_exact_and_independent(&World::everything(), &[], 12);
}

#[test]
fn a_copy_of_the_crm_is_exact() {
    a_copy_is_exact_and_independent(&World::example("crm", "crm_template"), &["deal_stages", "schema_migrations"], 6);
}

#[test]
fn a_copy_of_capital_planning_is_exact() {
    a_copy_is_exact_and_independent(&World::example("capital_planning", "planning_template"), &["scenarios"], 2);
}

#[test]
fn a_copy_of_chinook_is_exact() {
    if let Some(world) = World::chinook() {
        a_copy_is_exact_and_independent(&world, &[], 5);
    }
}

#[test]
fn the_comparison_knows_an_exact_copy() {
    // Proves the other tests' yardstick: pg_dump's own script under another name, loaded beside the original.
    let world = World::everything();
    let renaming = Renaming::new(&mut world.database.superuser(), "everything", "copied");
    let renamed = Dump::of(&world.database, "everything").renamed(&renaming);
    load(&world.database, "postgres", &renamed.to_string());
    assert_exact(&world, "everything", "copied");
    let before = world.other_sequences("copied");
    insert_defaults(&world, "copied");
    assert_eq!(world.other_sequences("copied"), before);
    works_without_its_template(&world);
    // And it sees what is not the same.
    for change in [
        "ALTER TABLE copied.hen REPLICA IDENTITY DEFAULT",
        "COMMENT ON TABLE copied.columns IS 'Another table'",
        "ALTER TABLE copied.events ALTER COLUMN id SET DEFAULT nextval('everything.events_id_seq')",
    ] {
        load(&world.database, "postgres", change);
        let expected = Dump::of(&world.database, "everything").renamed(&renaming);
        assert!(expected.differences(&Dump::of(&world.database, "copied")).is_some(), "{change}");
    }
    let depends = rows(&mut world.database.superuser(), DEPENDS, &[&"everything", &"copied"]);
    assert_eq!(depends.len(), 1, "the default that draws from the other's sequence");
}

/// Runs what names the schema in a text, while the template is out of the way.
#[track_caller]
fn works_without_its_template(world: &World) {
    const RUN: &str = "
        SELECT count(*) FROM copied.rows_of();
        SELECT copied.with_settings(1), copied.with_one_path(), copied.with_empty_path(), copied.next_label(), copied.set_of_enum(), copied.overloaded('ok', NULL);
        INSERT INTO copied.triggered (id, a, b) VALUES (77, 1, 'b');
        SET CONSTRAINTS ALL IMMEDIATE;
        INSERT INTO copied.columns (net) VALUES (1);
        INSERT INTO copied.plain (id) VALUES (1);
        INSERT INTO copied.ruled_view VALUES (99, 'ninety-nine');
        UPDATE copied.ruled SET n = 1;
        REFRESH MATERIALIZED VIEW copied.summed";
    let mut superuser = world.database.superuser();
    let mut transaction = superuser.transaction().expect("begin");
    // Out of the way, and back by the rollback: a name that is left is one that does not exist.
    transaction
        .batch_execute("SET LOCAL session_replication_role = origin; ALTER SCHEMA everything RENAME TO out_of_the_way")
        .expect("rename the template");
    if let Err(error) = transaction.batch_execute(RUN) {
        panic!("{:?}", error.as_db_error());
    }
    let noted: Vec<Vec<Option<String>>> =
        simple(&mut transaction, "SELECT what FROM copied.events ORDER BY id DESC LIMIT 2");
    assert!(!noted.is_empty());
    transaction.rollback().expect("roll back");
}

#[test]
fn functions_that_name_their_schema_name_the_copy() {
    let world = World::everything();
    world.register(&[]);
    world.tenant("copied");
    works_without_its_template(&world);
}

#[test]
fn a_copy_of_a_copy_is_exact() {
    let world = World::everything();
    world.register(&[]);
    let first = world.tenant("copied");
    let second = world.without_schema();
    let clone = "SELECT clone_tenant_schema($1, $2, with_data => false)";
    let name: String = one(&mut world.database.connect("admin"), clone, &[&first, &second]);
    world.assert_same("copied", &name);
    assert_exact(&world, "everything", &name);
}

#[test]
fn reference_rows_come_with_the_template() {
    let world = World::everything();
    world.register(&["sensors", "columns", "constrained", "typed", "second_user_of_shared_numbers"]);
    world.tenant("copied");
    let (template, copy) = (world.contents("everything"), world.contents("copied"));
    // Rows of these, and where the sequences are that belong to them.
    let with_data = [
        "sensors",
        "columns",
        "constrained",
        "typed",
        "second_user_of_shared_numbers",
        "columns_id_seq",
        "Identity's sequence",
        "columns_number_seq",
        "columns_small_number_seq",
        "columns_big_number_seq",
    ];
    let of = |contents: &[(String, String)], name: &str| {
        contents.iter().find(|(other, _)| other == name).map(|(_, content)| content.clone())
    };
    for name in with_data {
        assert_eq!(of(&copy, name), of(&template, name), "{name}");
    }
    for empty in ["indexed", "events", "hen", "everything", "measured_2026_01"] {
        assert!(of(&copy, empty).is_some_and(|content| content.starts_with("0 ")), "{empty}: {copy:?}");
    }
    // The next row collides with none.
    let mut superuser = world.database.superuser();
    superuser.batch_execute("INSERT INTO copied.columns (net) VALUES (1), (2)").expect("more rows");
    assert_eq!(count(&mut superuser, "copied.columns"), 7);
}

#[test]
fn a_clone_with_data_has_every_row() {
    let world = World::of("everything", "everything", &[PRELUDE, EVERYTHING].concat());
    // The schema with all its rows is a tenant's; what it was made from does not matter.
    let mut superuser = world.database.superuser();
    superuser.batch_execute("CREATE SCHEMA nothing AUTHORIZATION template_owner").expect("a template");
    one::<String>(
        &mut world.database.connect("admin"),
        "SELECT register_template('t', 'nothing', tenant_schema => 'schema_of_{slug}')",
        &[],
    );
    let source: Uuid = one(&mut world.database.connect("operator"), CREATE, &[&"dropped"]);
    one::<bool>(&mut world.database.connect("admin"), "SELECT delete_tenant_schema($1)", &[&source]);
    superuser
        .batch_execute(&format!("SECURITY LABEL FOR pg_tenancy ON SCHEMA everything IS 'tenant: {source}'"))
        .expect("label");
    const ADOPT: &str =
        "UPDATE tenancy.tenants SET isolation = 'schema', schema_name = 'everything', template = 't' WHERE id = $1";
    superuser.execute(ADOPT, &[&source]).expect("adopt the schema");

    let destination = world.without_schema();
    let clone = "SELECT clone_tenant_schema($1, $2)";
    let before = world.contents("everything");
    let name: String = one(&mut world.database.connect("admin"), clone, &[&source, &destination]);
    assert_eq!(world.contents(&name), before);
    assert_eq!(world.contents("everything"), before);
    world.assert_same("everything", &name);
    // Refused, it leaves what there is.
    fails(world.database.connect("admin").query(clone, &[&source, &destination]), "23505");
    assert_eq!(world.contents(&name), before);
}

#[test]
fn a_clone_with_data_draws_on_from_where_the_original_was() {
    let Some(world) = World::chinook() else { return };
    world.register(&["album", "artist", "track", "genre", "media_type"]);
    let first = world.tenant("copied");
    let second = world.without_schema();
    assert_eq!(count(&mut world.database.superuser(), "copied.track"), 3503);
    let name: String =
        one(&mut world.database.connect("admin"), "SELECT clone_tenant_schema($1, $2)", &[&first, &second]);
    assert_eq!(world.contents(&name), world.contents("copied"));
    let next =
        format!("INSERT INTO {}.artist (name) VALUES ('Somebody new') RETURNING artist_id", quoted(&world, &name));
    let last: i32 = one(&mut world.database.superuser(), "SELECT max(artist_id) FROM copied.artist", &[]);
    assert_eq!(one::<i32>(&mut world.database.superuser(), &next, &[]), last + 1);
}

#[test]
fn columns_in_another_order_are_copied_by_name() {
    const COLUMNS: &str = "SELECT c.relname || '.' || a.attname, replace(concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
            pg_get_expr(d.adbin, d.adrelid)), quote_ident($1) || '.', '')
        FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relnamespace = quote_ident($1)::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1";
    let world = World::of("everything", "everything", "CREATE SCHEMA everything AUTHORIZATION owner");
    load(&world.database, "owner", REORDERED);
    world.register(&["parent", "child", "adopted", "heir"]);
    world.tenant("copied");
    let columns = |schema: &str| -> Vec<(String, String)> {
        rows(&mut world.database.superuser(), COLUMNS, &[&schema]).iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    assert_eq!(columns("copied"), columns("everything"));
    for query in [
        "SELECT tableoid::regclass::text, id, later, number FROM s.parent ORDER BY id",
        "SELECT id, own, later, number FROM s.child",
        "SELECT id, own, later, number, a FROM s.adopted",
        "SELECT id, own, later, number, a FROM s.heir",
    ] {
        let [template, copy] = ["everything", "copied"].map(|schema| {
            let rows = simple(&mut world.database.superuser(), &query.replace("s.", &format!("{schema}.")));
            format!("{rows:?}").replace(&format!("{schema}."), "")
        });
        assert_eq!(copy, template, "{query}");
    }
    // A column that the parent gets reaches the children, and one that it loses leaves them.
    let inherits = "ALTER TABLE copied.parent ADD COLUMN more integer; SELECT more FROM copied.child, copied.adopted, copied.heir AS h
        WHERE h.more IS NULL AND adopted.more IS NULL AND child.more IS NULL".replace("SELECT more", "SELECT child.more");
    load(&world.database, "postgres", &inherits);
}

#[test]
fn what_is_published_or_used_elsewhere_can_be_copied() {
    let world = World::of(
        "published",
        "published",
        "CREATE SCHEMA published AUTHORIZATION owner; SET ROLE owner; CREATE TABLE published.t (id int PRIMARY KEY); RESET ROLE;
         CREATE TABLE published_elsewhere (id int REFERENCES published.t); CREATE VIEW seen_elsewhere AS SELECT * FROM published.t;
         SET client_min_messages = error; CREATE PUBLICATION p FOR TABLES IN SCHEMA published; CREATE PUBLICATION q FOR TABLE published.t",
    );
    world.register(&[]);
    world.tenant("copied");
    assert_exact(&world, "published", "copied");
}

/// A schema's name as it stands in SQL.
fn quoted(world: &World, name: &str) -> String {
    one(&mut world.database.superuser(), "SELECT quote_ident($1)", &[&name])
}
