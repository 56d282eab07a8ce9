//! The application's rows. The tenant column is in none: its default is the bound tenant, in statements it is left out.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, query, query_as, query_scalar};
use uuid::Uuid;

#[derive(Debug, Serialize, Deserialize)]
pub struct Workflow {
    pub id: Uuid,
    pub name: String,
    pub status: String,
}

#[derive(Debug, Deserialize, Serialize)]
pub struct NewWorkflow {
    pub name: String,
    pub status: String,
}

impl Workflow {
    pub async fn all(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<Workflow>> {
        query_as!(Workflow, "SELECT id, name, status FROM workflows ORDER BY name").fetch_all(db).await
    }

    pub async fn create(db: impl PgExecutor<'_>, new: &NewWorkflow) -> sqlx::Result<Workflow> {
        query_as!(
            Workflow,
            "INSERT INTO workflows (created_by, name, status) SELECT id, $1, $2 FROM users WHERE role = 'owner' LIMIT 1
             RETURNING id, name, status",
            new.name,
            new.status
        )
        .fetch_one(db)
        .await
    }

    pub async fn set_status(db: impl PgExecutor<'_>, id: Uuid, status: &str) -> sqlx::Result<Option<Workflow>> {
        query_as!(
            Workflow,
            "UPDATE workflows SET status = $2, updated_at = now() WHERE id = $1 RETURNING id, name, status",
            id,
            status
        )
        .fetch_optional(db)
        .await
    }

    pub async fn delete(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<bool> {
        Ok(query!("DELETE FROM workflows WHERE id = $1", id).execute(db).await?.rows_affected() == 1)
    }

    /// Begins runs with so many tasks each, by one statement.
    pub async fn run(db: impl PgExecutor<'_>, id: Uuid, tasks: &[i32]) -> sqlx::Result<u64> {
        let begun = query!(
            "INSERT INTO workflow_executions (workflow_id, task_count) SELECT $1, n FROM unnest($2::int[]) AS n",
            id,
            tasks
        );
        Ok(begun.execute(db).await?.rows_affected())
    }
}

/// A workflow with who made it and one of its runs, if there is any: that `tasks` may be NULL is known from sqlx's EXPLAIN.
#[derive(Debug, Serialize, Deserialize)]
pub struct Run {
    pub workflow: String,
    pub creator: String,
    pub tasks: Option<i32>,
}

impl Run {
    pub async fn all(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<Run>> {
        query_as!(
            Run,
            "SELECT w.name AS workflow, u.name AS creator, e.task_count AS tasks FROM workflows AS w
             JOIN users AS u ON (u.tenant_id, u.id) = (w.tenant_id, w.created_by)
             LEFT JOIN workflow_executions AS e ON (e.tenant_id, e.workflow_id) = (w.tenant_id, w.id)
             ORDER BY w.name, e.task_count"
        )
        .fetch_all(db)
        .await
    }
}

pub struct Agent;

impl Agent {
    /// The key of an upsert begins with the tenant column, which is named there and nowhere else.
    pub async fn put(db: impl PgExecutor<'_>, name: &str, config: &Value) -> sqlx::Result<Uuid> {
        query_scalar!(
            "INSERT INTO agents (name, config) VALUES ($1, $2)
             ON CONFLICT (tenant_id, name) DO UPDATE SET config = excluded.config RETURNING id",
            name,
            config
        )
        .fetch_one(db)
        .await
    }

    pub async fn count(db: impl PgExecutor<'_>) -> sqlx::Result<i64> {
        query_scalar!(r#"SELECT count(*) AS "count!" FROM agents"#).fetch_one(db).await
    }

    /// COPY into a protected table is refused: it goes to a staging table, which the same transaction empties.
    pub async fn import(connection: &mut PgConnection, names: &[String]) -> sqlx::Result<u64> {
        let mut copy = connection.copy_in_raw("COPY agents_import (name) FROM STDIN").await?;
        let escape = |name: &String| name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t") + "\n";
        copy.send(names.iter().map(escape).collect::<String>().into_bytes()).await?;
        copy.finish().await?;
        let moved = query!(
            "WITH moved AS (DELETE FROM agents_import RETURNING name) INSERT INTO agents (name) SELECT name FROM moved"
        );
        Ok(moved.execute(crate::unnamed::Unnamed(connection)).await?.rows_affected())
    }
}

/// What the migration brings.
#[derive(Debug, Serialize, Deserialize)]
pub struct Note {
    pub body: String,
    pub priority: i32,
}

impl Note {
    pub async fn add(db: impl PgExecutor<'_>, workflow: Uuid, body: &str) -> sqlx::Result<()> {
        query!("INSERT INTO notes (workflow_id, body) VALUES ($1, $2)", workflow, body).execute(db).await.map(drop)
    }

    pub async fn all(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<Note>> {
        query_as!(
            Note,
            "SELECT n.body, w.priority FROM notes AS n JOIN workflows AS w ON (w.tenant_id, w.id) = (n.tenant_id, n.workflow_id)"
        )
        .fetch_all(db)
        .await
    }
}
