//! Tables that have a tenant column already, with rows that lack a tenant.

use harness::*;

const HALF_DONE: &str = "
CREATE TABLE half (id int PRIMARY KEY, tenant_id uuid, body text);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.body := 'touched'; RETURN NEW; END $$;
CREATE TRIGGER touch BEFORE UPDATE ON half FOR EACH ROW EXECUTE FUNCTION touch();
";

#[test]
fn rows_without_a_tenant_get_one_in_batches_and_triggers_do_not_fire() {
    let database = Database::new("adopt_fill");
    let [first, second] = tenants(&mut database.connect("operator"), 2)[..] else { panic!("two tenants") };
    let mut owner = database.connect("owner");
    owner.batch_execute(HALF_DONE).expect("create");
    owner
        .batch_execute(&format!(
            "INSERT INTO half SELECT n, CASE WHEN n % 10 = 0 THEN '{second}'::uuid END, 'row ' || n FROM generate_series(1, 2500) n;
            ALTER TABLE half ALTER tenant_id SET DEFAULT '{first}'; ALTER TABLE half ALTER tenant_id DROP DEFAULT"
        ))
        .expect("rows");
    let mut admin = database.connect("admin");
    admin.batch_execute(&format!("CALL adopt_table('half', '{first}', batch_size => 100)")).expect("adopt");
    let mut superuser = database.superuser();
    assert_eq!(count(&mut superuser, &format!("half WHERE tenant_id = '{first}'")), 2250);
    assert_eq!(count(&mut superuser, &format!("half WHERE tenant_id = '{second}' AND id % 10 = 0")), 250);
    assert_eq!(count(&mut superuser, "half WHERE body <> 'row ' || id"), 0);
    assert_eq!(count(&mut superuser, "tenancy.adoptions WHERE rows_filled = 2250"), 1);
    assert_eq!(count(&mut superuser, "pg_constraint WHERE conrelid = 'half'::regclass"), 1);
    let transactions: i64 = one(&mut superuser, "SELECT count(DISTINCT xmin::text) FROM half", &[]);
    assert!(transactions >= 23, "{transactions} transactions");
    assert_eq!(text(&mut superuser, "SHOW session_replication_role"), "origin");
}

#[test]
fn rows_of_unknown_tenants_are_found_before_anything_changes() {
    let database = Database::new("adopt_strangers");
    let tenant = tenant(&mut database.connect("operator"));
    let mut owner = database.connect("owner");
    owner.batch_execute(HALF_DONE).expect("create");
    owner.batch_execute("INSERT INTO half VALUES (1, NULL), (2, gen_random_uuid())").expect("rows");
    let mut admin = database.connect("admin");
    let error = fails(admin.batch_execute(&format!("CALL adopt_table('half', '{tenant}')")), "55000");
    assert!(error.message().contains("belong to no known tenant"), "{error:?}");
    assert_eq!(count(&mut database.superuser(), "half WHERE tenant_id IS NULL"), 1);
    owner.batch_execute("DELETE FROM half WHERE id = 2; ALTER TABLE half ENABLE ALWAYS TRIGGER touch").expect("always");
    let error = fails(admin.batch_execute(&format!("CALL adopt_table('half', '{tenant}')")), "55000");
    assert!(error.message().contains("trigger touch fires always"), "{error:?}");
}

#[test]
fn a_text_column_is_filled_with_the_tenant_as_text() {
    let database = Database::new("adopt_text");
    let tenant = tenant(&mut database.connect("operator"));
    database
        .connect("owner")
        .batch_execute(
            "CREATE TABLE t (id int, org varchar(40)); INSERT INTO t VALUES (1), (2); GRANT SELECT ON t TO app",
        )
        .expect("create");
    let call = format!("CALL adopt_table('t', '{tenant}', tenant_column => 'org')");
    database.connect("admin").batch_execute(&call).expect("adopt");
    assert_eq!(as_tenant(&mut database.connect("app"), tenant, |transaction| count(transaction, "t")), 2);
}

#[test]
fn another_tenant_cannot_go_on_with_an_adoption() {
    let database = Database::new("adopt_other");
    let [first, second] = tenants(&mut database.connect("operator"), 2)[..] else { panic!("two tenants") };
    database.connect("owner").batch_execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)").expect("create");
    let mut superuser = database.superuser();
    const BEGUN: &str = "INSERT INTO tenancy.adoptions (table_name, tenant_id, tenant_column, keys, steps) VALUES ('t', $1, 'tenant_id', 'all', 9)";
    superuser.execute(BEGUN, &[&first]).expect("as a crash leaves it");
    let mut admin = database.connect("admin");
    let error = fails(admin.batch_execute(&format!("CALL adopt_table('t', '{second}')")), "55000");
    assert!(error.message().contains("has begun"), "{error:?}");
    admin.batch_execute(&format!("CALL adopt_table('t', '{first}')")).expect("adopt");
    assert_eq!(count(&mut superuser, &format!("t WHERE tenant_id = '{first}'")), 1);
    superuser.batch_execute("DROP TABLE t").expect("drop");
    assert_eq!(count(&mut superuser, "tenancy.adoptions"), 0);
}
