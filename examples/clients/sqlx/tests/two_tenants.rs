//! A test stays in one transaction that is rolled back. Its role has `tenancy.allow_rebind`, which the application's has not.

use agent_platform::models::{NewWorkflow, Workflow};
use sqlx::{Connection, PgConnection, PgTransaction, query};

async fn become_tenant(tx: &mut PgTransaction<'_>, slug: &str) -> sqlx::Result<()> {
    query("SELECT set_tenant_by_slug($1)").bind(slug).execute(&mut **tx).await.map(drop)
}

#[tokio::test]
async fn a_workflow_is_its_tenants_alone() -> Result<(), Box<dyn std::error::Error>> {
    let mut connection = PgConnection::connect(&std::env::var("TEST_URL")?).await?;
    let mut tx = connection.begin().await?;
    become_tenant(&mut tx, "acme").await?;
    let new = NewWorkflow { name: "acme: under test".into(), status: "draft".into() };
    let made = Workflow::create(&mut *tx, &new).await?;

    become_tenant(&mut tx, "globex").await?;
    assert!(Workflow::set_status(&mut *tx, made.id, "paused").await?.is_none());
    assert!(!Workflow::delete(&mut *tx, made.id).await?);

    become_tenant(&mut tx, "acme").await?;
    assert!(Workflow::all(&mut *tx).await?.iter().any(|workflow| workflow.id == made.id && workflow.status == "draft"));
    tx.rollback().await?;
    Ok(())
}
