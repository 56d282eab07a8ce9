//! `tools/tenant-backup.sh` and `tools/tenant-restore.sh` for tenants in shared tables.

use super::*;
use crate::backup::tool;
use std::process::Output;

#[track_caller]
fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn refuses(output: &Output, complaint: &str) {
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaints}");
    assert!(complaints.contains(complaint), "{complaint:?} was due: {complaints}");
}

#[test]
fn a_tenant_in_shared_tables_comes_back_as_it_was_backed_up() {
    let (here, there) = (shop(cluster(), "tools_here"), shop(cluster(), "tools_there"));
    for database in [&here, &there] {
        let grant = format!("GRANT TEMPORARY ON DATABASE {} TO admin", database.name());
        database.superuser().batch_execute(&grant).expect("grant");
    }
    let (acme, globex) = (filled(&here, "acme"), filled(&here, "globex"));
    let home = std::env::temp_dir().join(format!("pg_tenancy_transfer_{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir(&home).expect("make a directory");
    let backup = home.join("a \"backup\" of 'acme' $(touch injected) \\ :x");
    let path = backup.to_str().expect("a path");
    refuses(&tool(&here, "operator", "tenant-backup.sh", &["acme", path]), "level admin");
    assert!(!backup.exists());
    refuses(&tool(&here, "admin", "tenant-backup.sh", &["nobody", path]), "there is no tenant");
    succeeds(&tool(&here, "admin", "tenant-backup.sh", &["acme", path]));
    let before = (picture(&here, Some(acme)), picture(&here, Some(globex)));

    // Into the same tenant, and into a database that does not know it.
    as_tenant(&mut here.connect("app"), acme, |tx| {
        tx.batch_execute("DELETE FROM shop.events; UPDATE shop.customers SET name = 'spoilt ' || id").expect("spoil");
    });
    succeeds(&tool(&here, "admin", "tenant-restore.sh", &[path]));
    assert_eq!((picture(&here, Some(acme)), picture(&here, Some(globex))), before);
    succeeds(&tool(&there, "admin", "tenant-restore.sh", &[path]));
    assert_eq!(picture(&there, Some(acme)), before.0);

    // What is not whole changes nothing.
    let file = backup.join("tenant.export");
    let whole = std::fs::read(&file).expect("read the backup");
    for percent in [0, 50, 99] {
        std::fs::write(&file, &whole[..whole.len() * percent / 100]).expect("cut the backup");
        refuses(&tool(&here, "admin", "tenant-restore.sh", &[path]), "nothing was restored");
        assert_eq!((picture(&here, Some(acme)), picture(&here, Some(globex))), before);
    }
    refuses(&tool(&here, "app", "tenant-restore.sh", &[path]), "nothing was restored");
    std::fs::remove_dir_all(&home).expect("remove it");
}
