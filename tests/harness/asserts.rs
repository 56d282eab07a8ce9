//! Queries in one line, and errors as values.

use postgres::error::DbError;
use postgres::types::{FromSqlOwned, ToSql};
use postgres::{GenericClient, Row, SimpleQueryMessage};

/// The error of a statement that must fail with this SQLSTATE; panics when it succeeded or failed otherwise.
#[track_caller]
pub fn fails<T>(result: Result<T, postgres::Error>, sqlstate: &str) -> DbError {
    let Err(error) = result else {
        panic!("succeeded where SQLSTATE {sqlstate} was due");
    };
    let Some(fault) = error.as_db_error() else {
        panic!("SQLSTATE {sqlstate} was due, but the session failed: {error:?}");
    };
    assert!(
        fault.code().code() == sqlstate,
        "SQLSTATE {sqlstate} was due, not {}: {} (detail: {:?}, hint: {:?})",
        fault.code().code(),
        fault.message(),
        fault.detail(),
        fault.hint(),
    );
    fault.clone()
}

/// All rows of a query.
#[track_caller]
pub fn rows(client: &mut impl GenericClient, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
    match client.query(sql, parameters) {
        Ok(rows) => rows,
        Err(error) => panic!("{sql}: {}", explain(&error)),
    }
}

/// The one value of a query of one row.
#[track_caller]
pub fn one<T: FromSqlOwned>(client: &mut impl GenericClient, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> T {
    let rows = rows(client, sql, parameters);
    assert!(rows.len() == 1, "{sql}: {} rows where one was due", rows.len());
    rows[0].get(0)
}

/// The first value of a query of at most one row.
#[track_caller]
pub fn optional<T: FromSqlOwned>(
    client: &mut impl GenericClient,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Option<T> {
    let rows = rows(client, sql, parameters);
    assert!(rows.len() <= 1, "{sql}: {} rows where one at most was due", rows.len());
    rows.first().map(|row| row.get(0))
}

/// How many rows: `count(&mut client, "notes WHERE body = 'x'")`.
#[track_caller]
pub fn count(client: &mut impl GenericClient, from: &str) -> i64 {
    one(client, &format!("SELECT count(*) FROM {from}"), &[])
}

/// All rows as text, by the simple protocol: also for several statements, and behind a transaction pooler,
/// where a named prepared statement may be looked for in another server session.
#[track_caller]
pub fn simple(client: &mut impl GenericClient, sql: &str) -> Vec<Vec<Option<String>>> {
    let messages = match client.simple_query(sql) {
        Ok(messages) => messages,
        Err(error) => panic!("{sql}: {}", explain(&error)),
    };
    let as_text = |message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()),
        _ => None,
    };
    messages.into_iter().filter_map(as_text).collect()
}

/// The one value of a query as text, by the simple protocol; panics on NULL.
#[track_caller]
pub fn text(client: &mut impl GenericClient, sql: &str) -> String {
    let mut rows = simple(client, sql);
    assert!(rows.len() == 1, "{sql}: {} rows where one was due", rows.len());
    match rows.remove(0).into_iter().next().flatten() {
        Some(value) => value,
        None => panic!("{sql}: NULL"),
    }
}

/// An error as a failed test shows it.
pub(crate) fn explain(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(fault) => format!(
            "{} {} (detail: {:?}, hint: {:?}, context: {:?})",
            fault.code().code(),
            fault.message(),
            fault.detail(),
            fault.hint(),
            fault.where_(),
        ),
        None => format!("{error:?}"),
    }
}
