//! What cannot be copied exactly is an error that names it, and leaves nothing.

use super::{PRELUDE, load};
use harness::*;

/// What a schema `{s}` must not contain, and the name that the error has to say.
const UNCLONABLE: [(&str, &str); 27] = [
    ("CREATE FOREIGN TABLE {s}.remote (a integer) SERVER elsewhere", "remote"),
    ("CREATE OPERATOR {s}.=== (FUNCTION = int4eq, LEFTARG = integer, RIGHTARG = integer)", "==="),
    ("CREATE OPERATOR FAMILY {s}.own_family USING btree", "own_family"),
    (
        "CREATE OPERATOR CLASS {s}.own_class FOR TYPE integer USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=,
            OPERATOR 5 >, FUNCTION 1 btint4cmp(integer, integer)",
        "own_class",
    ),
    (
        "CREATE TYPE {s}.own_base; CREATE FUNCTION {s}.base_in(cstring) RETURNS {s}.own_base LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
         CREATE FUNCTION {s}.base_out({s}.own_base) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
         CREATE TYPE {s}.own_base (INPUT = {s}.base_in, OUTPUT = {s}.base_out, LIKE = integer)",
        "own_base",
    ),
    ("CREATE TYPE {s}.own_shell", "own_shell"),
    ("CREATE COLLATION {s}.own_collation FROM \"C\"", "own_collation"),
    ("CREATE TEXT SEARCH CONFIGURATION {s}.own_search (COPY = simple)", "own_search"),
    ("CREATE TEXT SEARCH DICTIONARY {s}.own_dictionary (TEMPLATE = simple)", "own_dictionary"),
    ("CREATE TEXT SEARCH TEMPLATE {s}.own_template (LEXIZE = dsimple_lexize)", "own_template"),
    (
        "CREATE TEXT SEARCH PARSER {s}.own_parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype)",
        "own_parser",
    ),
    ("CREATE CONVERSION {s}.own_conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8", "own_conversion"),
    ("CREATE EXTENSION citext SCHEMA {s}", "citext"),
    ("CREATE EXTENSION hstore SCHEMA {s}; CREATE TABLE {s}.t (a {s}.hstore)", "hstore"),
    ("CREATE TABLE {s}.of_rows (tenant_id uuid NOT NULL, id integer); ALTER TABLE {s}.of_rows OWNER TO owner; SELECT protect_table('{s}.of_rows')", "of_rows"),
    ("CREATE TABLE {s}.heir () INHERITS (outside.parent)", "heir"),
    ("CREATE TABLE {s}.part PARTITION OF outside.partitioned FOR VALUES FROM ({n}) TO ({n} + 1)", "part"),
    (
        "CREATE TABLE {s}.whole (a integer) PARTITION BY LIST (a); CREATE TABLE outside.part_{n} PARTITION OF {s}.whole DEFAULT",
        "part_",
    ),
    (
        "CREATE TYPE {s}.castable AS ENUM ('a'); CREATE FUNCTION {s}.as_number({s}.castable) RETURNS integer LANGUAGE sql AS 'SELECT 1';
         CREATE CAST ({s}.castable AS integer) WITH FUNCTION {s}.as_number({s}.castable)",
        "castable",
    ),
    (
        "CREATE FUNCTION {s}.as_number(outside.castable) RETURNS integer LANGUAGE sql AS 'SELECT 1';
         CREATE CAST (outside.castable AS integer) WITH FUNCTION {s}.as_number(outside.castable)",
        "castable",
    ),
    (
        "CREATE FUNCTION {s}.exempt() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT 1::bigint'; SELECT allow_definer('{s}.exempt()', 'a test')",
        "exempt",
    ),
    ("CREATE VIEW {s}.exempt_view AS SELECT 1 AS one; SELECT allow_definer('{s}.exempt_view', 'a test')", "exempt_view"),
    (
        "CREATE FUNCTION {s}.bound_to_extension() RETURNS integer LANGUAGE sql RETURN 1;
         ALTER FUNCTION {s}.bound_to_extension() DEPENDS ON EXTENSION pg_trgm",
        "bound_to_extension",
    ),
    (
        "CREATE FUNCTION {s}.to_sql(internal) RETURNS internal LANGUAGE internal AS 'varchar_support';
         CREATE FUNCTION {s}.supported(integer) RETURNS integer LANGUAGE sql SUPPORT {s}.to_sql AS 'SELECT 1'",
        "",
    ),
    ("CREATE ACCESS METHOD own_method_{n} TYPE TABLE HANDLER heap_tableam_handler; CREATE TABLE {s}.by_own_method (a integer) USING own_method_{n}", ""),
    ("CREATE PUBLICATION of_own_table_{n} FOR TABLES IN SCHEMA {s}; CREATE TABLE {s}.t (a integer)", ""),
    ("CREATE EVENT TRIGGER own_event_{n} ON sql_drop EXECUTE FUNCTION outside.on_drop()", ""),
];

const OUTSIDE: &str = "
    CREATE EXTENSION postgres_fdw SCHEMA shared; CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw;
    CREATE SCHEMA outside; CREATE TABLE outside.parent (a integer);
    CREATE TABLE outside.partitioned (a integer) PARTITION BY RANGE (a); CREATE TYPE outside.castable AS ENUM ('a');
    CREATE FUNCTION outside.on_drop() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';";

/// What there is of tenants and schemas.
fn everything(database: &Database) -> Vec<Vec<Option<String>>> {
    const ALL: &str = "
        SELECT to_jsonb(t) FROM tenancy.tenants AS t ORDER BY 1; SELECT to_jsonb(t) FROM tenancy.audit_log AS t ORDER BY 1;
        SELECT nspname, nspowner, nspacl FROM pg_namespace ORDER BY 1; SELECT objoid, label FROM pg_seclabel ORDER BY 1, 2;
        SELECT classid, objid, refclassid, refobjid, deptype FROM pg_depend ORDER BY 1, 2, 3, 4, 5";
    simple(&mut database.superuser(), ALL)
}

#[test]
fn what_cannot_be_copied_is_named_and_leaves_nothing() {
    let database = Database::new("unclonable");
    load(&database, "postgres", &[PRELUDE, OUTSIDE].concat());
    let (mut superuser, mut admin, mut operator) =
        (database.superuser(), database.connect("admin"), database.connect("operator"));
    for (number, (ddl, name)) in UNCLONABLE.iter().enumerate() {
        let schema = format!("not_clonable_{number}");
        let ddl = ddl.replace("{s}", &schema).replace("{n}", &number.to_string());
        superuser.batch_execute(&format!("CREATE SCHEMA {schema} AUTHORIZATION owner")).expect("a schema");
        superuser.batch_execute(&ddl).unwrap_or_else(|error| panic!("{ddl}: {:?}", error.as_db_error()));
        let register = format!("SELECT register_template('t{number}', '{schema}')");
        let create = format!(
            "SELECT create_tenant('Tenant', slug => 'tenant-{number}', isolation => 'schema', template => 't{number}')"
        );
        let before = everything(&database);
        let refused = match admin.batch_execute(&register) {
            Err(error) => Err(error),
            Ok(()) => {
                let registered = everything(&database);
                let created = operator.batch_execute(&create);
                if created.is_err() {
                    assert_eq!(everything(&database), registered, "{ddl}");
                }
                created
            }
        };
        if name.is_empty() {
            if let Err(error) = refused {
                panic!("{ddl} can be copied: {:?}", error.as_db_error());
            }
        } else {
            let fault = fails(refused, "0A000");
            let told = format!("{} {}", fault.message(), fault.detail().unwrap_or_default());
            assert!(told.contains(name), "{ddl}: {told}");
            // Without what was in the way the schema can be copied.
            let registered = one::<bool>(
                &mut superuser,
                "SELECT EXISTS (SELECT FROM tenancy.templates WHERE template = $1::text::name)",
                &[&format!("t{number}")],
            );
            assert!(registered || everything(&database) == before, "{ddl}");
        }
    }
}

#[test]
fn what_comes_into_a_template_later_is_refused_by_name() {
    let database = Database::new("unclonable");
    load(&database, "postgres", "CREATE SCHEMA later AUTHORIZATION owner");
    let mut operator = database.connect("operator");
    one::<String>(&mut database.connect("admin"), "SELECT register_template('t', 'later')", &[]);
    let create = |slug: &str| {
        format!("SELECT create_tenant('Tenant', slug => '{slug}', isolation => 'schema', template => 't')")
    };
    one::<Uuid>(&mut operator, &create("before"), &[]);
    load(&database, "postgres", "CREATE COLLATION later.own_collation FROM \"C\"");
    let before = everything(&database);
    let fault = fails(operator.batch_execute(&create("after")), "0A000");
    assert!(fault.message().contains("own_collation"), "{fault:?}");
    assert_eq!(everything(&database), before);
    load(&database, "postgres", "DROP COLLATION later.own_collation");
    one::<Uuid>(&mut operator, &create("after"), &[]);
}
