//! Statements of every kind, one session at a time.

use super::fixtures::*;
use harness::*;

#[test]
fn the_insert_that_would_pass_the_limit_fails_and_leaves_nothing() {
    let shop = Shop::new("limit_insert");
    let (few, other) = (shop.tenant(Some(3)), shop.tenant(Some(1)));
    let mut app = shop.connect("app");
    for _ in 0..3 {
        run_as(&mut app, few, "INSERT INTO agents DEFAULT VALUES");
    }
    let fault = refused(&mut app, few, "INSERT INTO agents DEFAULT VALUES", "54000");
    assert_eq!(fault.message(), "limit reached for agents (3)");
    assert_eq!((shop.check(few), shop.counted(few)), (3, Some(3)));
    run_as(&mut app, other, "INSERT INTO agents DEFAULT VALUES");
    refused(&mut app, other, "INSERT INTO agents DEFAULT VALUES", "54000");
    run_as(&mut app, few, "DELETE FROM agents WHERE id = (SELECT min(id) FROM agents)");
    run_as(&mut app, few, "INSERT INTO agents DEFAULT VALUES");
    refused(&mut app, few, "INSERT INTO agents DEFAULT VALUES", "54000");
    assert_eq!((shop.check(few), shop.check(other)), (3, 1));
}

#[test]
fn rows_that_do_not_count_are_free_and_a_status_change_counts_both_ways() {
    let shop = Shop::new("limit_status");
    let tenant = shop.tenant(Some(2));
    let mut app = shop.connect("app");
    run_as(&mut app, tenant, "INSERT INTO agents (status) SELECT 'idle' FROM generate_series(1, 10)");
    assert_eq!(shop.counted(tenant), None, "nothing has counted yet");
    refused(&mut app, tenant, "UPDATE agents SET status = 'active'", "54000");
    run_as(&mut app, tenant, "UPDATE agents SET status = 'active' WHERE id <= 2");
    refused(&mut app, tenant, "UPDATE agents SET status = 'active' WHERE id = 3", "54000");
    // As many as before.
    run_as(&mut app, tenant, "UPDATE agents SET status = CASE WHEN id IN (1, 3) THEN 'active' ELSE 'idle' END");
    run_as(&mut app, tenant, "UPDATE agents SET status = 'idle'");
    assert_eq!((shop.check(tenant), shop.counted(tenant)), (0, Some(0)));
    run_as(&mut app, tenant, "UPDATE agents SET status = 'active' WHERE id > 8");
    assert_eq!((shop.check(tenant), shop.counted(tenant)), (2, Some(2)));
}

#[test]
fn one_statement_of_many_rows_is_all_or_nothing() {
    let shop = Shop::new("limit_rows");
    let tenant = shop.tenant(Some(10));
    let mut app = shop.connect("app");
    refused(&mut app, tenant, "INSERT INTO agents SELECT FROM generate_series(1, 11)", "54000");
    assert_eq!(shop.check(tenant), 0);
    run_as(&mut app, tenant, "INSERT INTO agents SELECT FROM generate_series(1, 10)");
    assert_eq!(shop.check(tenant), 10);
}

#[test]
fn upserts_and_merges_count_what_they_do() {
    let shop = Shop::new("limit_upsert");
    let tenant = shop.tenant(Some(2));
    let mut app = shop.connect("app");
    run_as(&mut app, tenant, "INSERT INTO agents (name) VALUES ('a'), ('b')");
    let upsert = |rows: &str, set: &str| {
        format!("INSERT INTO agents (name) VALUES {rows} ON CONFLICT (tenant_id, name) DO UPDATE SET {set}")
    };
    run_as(&mut app, tenant, &upsert("('a'), ('b')", "name = excluded.name"));
    refused(&mut app, tenant, &upsert("('a'), ('c')", "name = excluded.name"), "54000");
    // One goes, another comes: never more than two when it is done.
    run_as(&mut app, tenant, &upsert("('a'), ('c')", "status = 'idle'"));
    assert_eq!((shop.check(tenant), shop.counted(tenant)), (2, Some(2)));
    run_as(&mut app, tenant, "INSERT INTO agents (name) VALUES ('c') ON CONFLICT DO NOTHING");
    let merge =
        "MERGE INTO agents a USING (VALUES ('b', 'delete'), ('d', 'insert')) AS v (name, what) ON a.name = v.name
        WHEN MATCHED AND v.what = 'delete' THEN DELETE WHEN NOT MATCHED THEN INSERT (name) VALUES (v.name)";
    run_as(&mut app, tenant, merge);
    assert_eq!((shop.check(tenant), shop.counted(tenant)), (2, Some(2)));
    let merge = "MERGE INTO agents a USING (VALUES ('a'), ('e')) AS v (name) ON a.name = v.name
        WHEN MATCHED THEN UPDATE SET status = 'active' WHEN NOT MATCHED THEN INSERT (name) VALUES (v.name)";
    refused(&mut app, tenant, merge, "54000");
    assert_eq!(shop.check(tenant), 2);
    let swap = "WITH gone AS (DELETE FROM agents WHERE status = 'active' RETURNING name)
        INSERT INTO agents (name) SELECT name || '2' FROM gone";
    run_as(&mut app, tenant, swap);
    assert_eq!((shop.check(tenant), shop.counted(tenant)), (2, Some(2)));
}

/// A count that is made in the middle of a statement holds some of its rows, and what the statement reports at its end must not be added.
#[test]
fn functions_that_write_the_table_they_are_called_from_are_counted_once() {
    let shop = Shop::new("limit_nested");
    let tenant = shop.tenant(Some(1000));
    shop.connect("owner")
        .batch_execute(
            "CREATE FUNCTION another(n int) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
                IF n % 2 = 0 THEN INSERT INTO agents (status) VALUES ('active'); END IF;
                IF n % 3 = 0 THEN UPDATE agents SET status = 'idle' WHERE id = (SELECT min(id) FROM agents WHERE status = 'active'); END IF;
                IF n % 5 = 0 THEN
                    BEGIN INSERT INTO agents DEFAULT VALUES; RAISE 'no'; EXCEPTION WHEN raise_exception THEN NULL; END;
                END IF;
                RETURN 'active'; END $$",
        )
        .expect("create the function");
    let mut app = shop.connect("app");
    for statement in [
        "INSERT INTO agents (status) SELECT another(n) FROM generate_series(1, 31) n",
        "UPDATE agents SET status = another(id::int)",
        "WITH a AS (INSERT INTO agents (status) SELECT another(n) FROM generate_series(1, 7) n RETURNING id),
              b AS (DELETE FROM agents WHERE id < 5 RETURNING id)
         INSERT INTO agents (status) SELECT another(n) FROM generate_series(1, 13) n",
    ] {
        // Whether there is a counter before or not.
        for keep in [true, false] {
            if !keep {
                shop.database.superuser().batch_execute("DELETE FROM tenancy.row_counters").expect("forget");
            }
            run_as(&mut app, tenant, statement);
            let rows = shop.check(tenant);
            assert_eq!(shop.counted(tenant), Some(rows), "{statement}");
        }
    }
}

#[test]
fn savepoints_and_rollbacks_take_back_what_was_counted() {
    let shop = Shop::new("limit_savepoint");
    let tenant = shop.tenant(Some(3));
    let mut app = shop.connect("app");
    as_tenant(&mut app, tenant, |transaction| {
        let mut run = |sql: &str| transaction.batch_execute(sql);
        run("INSERT INTO agents DEFAULT VALUES; SAVEPOINT s; INSERT INTO agents SELECT FROM generate_series(1, 2)")
            .expect("fill");
        run("ROLLBACK TO s; SAVEPOINT t").expect("go back");
        fails(run("INSERT INTO agents SELECT FROM generate_series(1, 3)"), "54000");
        run("ROLLBACK TO t; INSERT INTO agents SELECT FROM generate_series(1, 2)").expect("fill again");
    });
    assert_eq!((shop.check(tenant), shop.counted(tenant)), (3, Some(3)));
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, tenant);
    transaction.batch_execute("DELETE FROM agents").expect("delete");
    transaction.rollback().expect("roll back");
    refused(&mut app, tenant, "INSERT INTO agents DEFAULT VALUES", "54000");
    assert_eq!(shop.check(tenant), 3);
}

#[test]
fn a_prepared_transaction_holds_its_rows_until_it_is_decided() {
    let shop = Shop::new("limit_2pc");
    let tenant = shop.tenant(Some(2));
    let mut app = shop.connect("app");
    for (decision, left) in [("ROLLBACK", 1), ("COMMIT", 2)] {
        if left == 1 {
            run_as(&mut app, tenant, "INSERT INTO agents DEFAULT VALUES");
        }
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, tenant);
        transaction.batch_execute("INSERT INTO agents DEFAULT VALUES; PREPARE TRANSACTION 'limit'").expect("prepare");
        transaction.rollback().expect("nothing is open");
        let mut other = shop.connect("app");
        refused(&mut other, tenant, "SET LOCAL lock_timeout = '100ms'; INSERT INTO agents DEFAULT VALUES", "55P03");
        app.batch_execute(&format!("{decision} PREPARED 'limit'")).expect(decision);
        assert_eq!((shop.check(tenant), shop.counted(tenant)), (left, Some(left)));
    }
    refused(&mut app, tenant, "INSERT INTO agents DEFAULT VALUES", "54000");
}

#[test]
fn a_plan_change_takes_effect_at_once() {
    let shop = Shop::new("limit_plan");
    let mut operator = shop.connect("operator");
    let tenant = tenant(&mut operator);
    let mut app = shop.connect("app");
    let insert = "INSERT INTO agents DEFAULT VALUES";
    let fault = refused(&mut app, tenant, insert, "P0002");
    assert_eq!(fault.message(), "resource \"agents\" does not exist in plan \"free\"");
    operator.batch_execute("SELECT set_plan_limit('free', 'agents', 1)").expect("limit");
    run_as(&mut app, tenant, insert);
    refused(&mut app, tenant, insert, "54000");
    // In the middle of a transaction, too.
    let mut transaction = app.transaction().expect("begin");
    bind(&mut transaction, tenant);
    operator.batch_execute("SELECT set_plan_limit('free', 'agents', 3)").expect("raise");
    transaction.batch_execute("INSERT INTO agents SELECT FROM generate_series(1, 2)").expect("insert");
    transaction.commit().expect("commit");
    refused(&mut app, tenant, insert, "54000");
    operator.batch_execute("SELECT set_plan_limit('free', 'agents', 2)").expect("lower");
    refused(&mut app, tenant, insert, "54000");
    run_as(&mut app, tenant, "DELETE FROM agents WHERE id = (SELECT min(id) FROM agents)");
    refused(&mut app, tenant, insert, "54000");
    operator.batch_execute("SELECT set_plan_limit('free', 'agents', NULL)").expect("lift");
    for _ in 0..5 {
        run_as(&mut app, tenant, insert);
    }
    assert_eq!((shop.check(tenant), shop.counted(tenant)), (7, None), "who is not limited is not counted");
    operator.batch_execute("SELECT set_plan_limit('free', 'agents', 8)").expect("limit again");
    run_as(&mut app, tenant, insert);
    refused(&mut app, tenant, insert, "54000");
    operator.batch_execute("SELECT unset_plan_limit('free', 'agents')").expect("unset");
    refused(&mut app, tenant, insert, "P0002");
    run_as(&mut app, tenant, "DELETE FROM agents");
    assert_eq!(shop.check(tenant), 0);
}

#[test]
fn an_old_snapshot_sees_the_limit_as_it_is() {
    let shop = Shop::new("limit_isolation");
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let tenant = shop.tenant(Some(3));
        let mut app = shop.connect("app");
        let mut transaction = app.transaction().expect("begin");
        transaction.batch_execute(&format!("SET TRANSACTION ISOLATION LEVEL {level}")).expect(level);
        bind(&mut transaction, tenant);
        assert_eq!(count(&mut transaction, "agents"), 0);
        // The snapshot shows none of these, and no counter.
        run_as(&mut shop.connect("app"), tenant, "INSERT INTO agents SELECT FROM generate_series(1, 2)");
        transaction.batch_execute("INSERT INTO agents DEFAULT VALUES").expect("the third");
        fails(transaction.batch_execute("INSERT INTO agents DEFAULT VALUES"), "54000");
        transaction.rollback().expect("roll back");
        // Nor does it show these, though the count is made anew.
        let mut transaction = app.transaction().expect("begin");
        transaction.batch_execute(&format!("SET TRANSACTION ISOLATION LEVEL {level}")).expect(level);
        bind(&mut transaction, tenant);
        assert_eq!(count(&mut transaction, "agents"), 2);
        run_as(&mut shop.connect("app"), tenant, "INSERT INTO agents DEFAULT VALUES");
        shop.database.superuser().batch_execute("DELETE FROM tenancy.row_counters").expect("forget");
        fails(transaction.batch_execute("INSERT INTO agents DEFAULT VALUES"), "54000");
        transaction.rollback().expect("roll back");
        assert_eq!(shop.check(tenant), 3);
    }
}

#[test]
fn what_bypasses_row_security_is_not_limited_and_leaves_exact_counts() {
    let shop = Shop::new("limit_bypass");
    let tenants: Vec<Uuid> = (0..40).map(|_| shop.tenant(Some(5))).collect();
    let mut superuser = shop.database.superuser();
    let mut app = shop.connect("app");
    for tenant in &tenants {
        run_as(&mut app, *tenant, "INSERT INTO agents DEFAULT VALUES");
    }
    // One tenant, then all at once.
    for some in [&tenants[..1], &tenants[..]] {
        let insert = "INSERT INTO agents (tenant_id) SELECT t FROM unnest($1::uuid[]) t, generate_series(1, 10)";
        superuser.execute(insert, &[&some]).expect("bypass");
        for tenant in some {
            refused(&mut app, *tenant, "INSERT INTO agents DEFAULT VALUES", "54000");
            run_as(&mut app, *tenant, "DELETE FROM agents WHERE id = (SELECT min(id) FROM agents)");
            let rows = shop.check(*tenant);
            assert_eq!(shop.counted(*tenant), Some(rows));
        }
    }
    superuser.batch_execute("TRUNCATE agents").expect("truncate");
    for tenant in &tenants {
        run_as(&mut app, *tenant, "INSERT INTO agents SELECT FROM generate_series(1, 5)");
        refused(&mut app, *tenant, "INSERT INTO agents DEFAULT VALUES", "54000");
        assert_eq!(shop.check(*tenant), 5);
    }
}

#[test]
fn a_restore_by_copy_is_counted_afterwards() {
    let shop = Shop::new("limit_copy");
    let tenant = shop.tenant(Some(4));
    let mut app = shop.connect("app");
    run_as(&mut app, tenant, "INSERT INTO agents DEFAULT VALUES");
    let script = format!("COPY agents (tenant_id) FROM stdin;\n{tenant}\n{tenant}\n\\.\n");
    assert!(shop.database.psql("postgres", &script).status.success());
    run_as(&mut app, tenant, "INSERT INTO agents DEFAULT VALUES");
    refused(&mut app, tenant, "INSERT INTO agents DEFAULT VALUES", "54000");
    assert_eq!((shop.check(tenant), shop.counted(tenant)), (4, Some(4)));
    // An application copies into a table of its own first.
    let tenant = shop.tenant(Some(4));
    let copy = |rows: usize| {
        let lines = "x\n".repeat(rows);
        let script = format!(
            "BEGIN; SELECT set_tenant('{tenant}'); CREATE TEMPORARY TABLE staging (name text) ON COMMIT DROP;
             COPY staging FROM stdin;\n{lines}\\.\nINSERT INTO agents (name) SELECT NULL FROM staging; COMMIT;\n"
        );
        shop.database
            .superuser()
            .batch_execute(&format!("GRANT TEMPORARY ON DATABASE {} TO app", shop.database.name()))
            .expect("grant");
        shop.database.psql("app", &script)
    };
    assert!(copy(4).status.success());
    assert!(String::from_utf8_lossy(&copy(1).stderr).contains("limit reached for agents (4)"));
    assert_eq!(shop.check(tenant), 4);
}

#[test]
fn errors_of_users_code_keep_their_fields() {
    let shop = Shop::new("limit_errors");
    let tenant = shop.tenant(Some(4));
    shop.connect("owner")
        .batch_execute(
            "CREATE FUNCTION counts(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
                IF $1 = 'bad' THEN
                    RAISE 'no such status' USING ERRCODE = 'UX001', DETAIL = 'd', HINT = 'h', COLUMN = 'status', CONSTRAINT = 'c',
                        DATATYPE = 'text', TABLE = 'agents', SCHEMA = 'public';
                END IF;
                RETURN true; END $$",
        )
        .expect("create the function");
    let mut admin = shop.connect("admin");
    assert!(one::<bool>(&mut admin, "SELECT limit_table('agents', 'agents', 'public.counts(status)')", &[]));
    let mut app = shop.connect("app");
    run_as(&mut app, tenant, "INSERT INTO agents (status) VALUES ('good')");
    let fault = refused(&mut app, tenant, "INSERT INTO agents (status) VALUES ('bad')", "UX001");
    let fields = [
        fault.detail(),
        fault.hint(),
        fault.column(),
        fault.constraint(),
        fault.datatype(),
        fault.table(),
        fault.schema(),
    ];
    assert_eq!(fields, ["d", "h", "status", "c", "text", "agents", "public"].map(Some));
}

/// A condition's functions run as the table's owner: with the session's `search_path` they could be made to run anyone's code.
#[test]
fn a_condition_runs_nobody_elses_code() {
    let shop = Shop::new("limit_hijack");
    let tenant = shop.tenant(Some(4));
    shop.database
        .superuser()
        .batch_execute(
            "CREATE SCHEMA evil AUTHORIZATION app; ALTER TABLE agents ADD seen text;
             CREATE FUNCTION public.counts(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN lower($1) = 'active'; END $$;
             ALTER FUNCTION public.counts OWNER TO owner",
        )
        .expect("prepare");
    let mut admin = shop.connect("admin");
    assert!(one::<bool>(&mut admin, "SELECT limit_table('agents', 'agents', 'public.counts(status)')", &[]));
    let mut app = shop.connect("app");
    app.batch_execute(
        "CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE 'taken over as %', current_user; END $$;
         SET search_path = evil, pg_catalog, public",
    )
    .expect("attack");
    run_as(&mut app, tenant, "INSERT INTO agents (status) SELECT 'ACTIVE' FROM generate_series(1, 4)");
    refused(&mut app, tenant, "INSERT INTO agents (status) VALUES ('Active')", "54000");
}
