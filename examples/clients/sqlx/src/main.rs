//! The story: every promise is checked, and the first that does not hold ends it.

use agent_platform::app::router;
use agent_platform::bind::{Binding, Bound};
use agent_platform::fault::Fault;
use agent_platform::models::{Agent, NewWorkflow, Note, Run, Workflow};
use agent_platform::unnamed::Unnamed;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgPool, PgTransaction, query, query_scalar};
use std::sync::Arc;
use tokio::sync::Notify;
use tower::ServiceExt;
use uuid::Uuid;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn promise(what: &str, holds: bool) -> Outcome {
    if !holds {
        return Err(format!("NOT AS PROMISED: {what}").into());
    }
    println!("   ✓ {what}");
    Ok(())
}

async fn pool(variable: &str) -> Outcome<PgPool> {
    let url = std::env::var(variable).map_err(|_| format!("{variable} is not set"))?;
    Ok(PgPoolOptions::new().max_connections(3).connect(&url).await?)
}

/// One request; what it answers.
async fn call(app: &Router, who: (&str, &str), method: Method, path: &str, body: Value) -> Outcome<(StatusCode, Value)> {
    let request = Request::builder().method(method).uri(path).header(who.0, who.1);
    let request = request.header("content-type", "application/json").body(Body::from(body.to_string()))?;
    let response = app.clone().oneshot(request).await?;
    let status = response.status();
    let bytes = to_bytes(response.into_body(), 1 << 20).await?;
    let said = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into());
    Ok((status, said))
}

async fn bound(pool: &PgPool, slug: &str) -> Outcome<PgTransaction<'static>> {
    let mut transaction = pool.begin().await?;
    query("SELECT set_tenant_by_slug($1)").bind(slug).execute(Unnamed(&mut transaction)).await?;
    Ok(transaction)
}

fn sqlstate<T>(result: sqlx::Result<T>) -> String {
    result.err().and_then(|error| Fault::from(error).sqlstate()).unwrap_or_default()
}

const ACME: (&str, &str) = ("x-tenant", "acme");
const GLOBEX: (&str, &str) = ("x-tenant", "globex");
const HOOLI: (&str, &str) = ("x-tenant", "hooli");

#[tokio::main]
async fn main() -> Outcome {
    let backend = pool("APP_URL").await?;
    let begun = Arc::new(Notify::new());
    let app = router(Binding::Slug(backend.clone()), given_up(begun.clone()));
    migrations().await?;
    requests(&app).await?;
    rows(&app).await?;
    bulk(&backend).await?;
    notes(&backend).await?;
    api_keys(&backend).await?;
    limits(&app).await?;
    suspension(&app).await?;
    failures(&app, &backend, &begun).await?;
    raw(&backend).await?;
    concurrently(&app).await
}

/// Migrations come first, because statements that were checked at compile time know what they bring.
async fn migrations() -> Outcome {
    let migrator = pool("MIGRATOR_URL").await?;
    sqlx::migrate!().run(&migrator).await?;
    let admin = pool("ADMIN_URL").await?;
    let protected: bool = query_scalar("SELECT protect_table('notes')").fetch_one(&admin).await?;
    sqlx::migrate!().run(&migrator).await?;
    promise("sqlx's migrator adds a table, which an admin protects, and a column with a value for every tenant", protected)
}

async fn requests(app: &Router) -> Outcome {
    for who in [ACME, GLOBEX] {
        let new = NewWorkflow { name: format!("{}: Triage", who.1), status: "active".into() };
        let (status, _) = call(app, who, Method::POST, "/workflows", json!(new)).await?;
        let (_, listed) = call(app, who, Method::GET, "/workflows", Value::Null).await?;
        let own = status == StatusCode::OK && listed.as_array().is_some_and(|rows| rows.len() == 1) && listed[0]["name"] == new.name;
        promise(&format!("a request of {} finds its own rows, and nobody else's", who.1), own)?;
    }
    let (status, _) = call(app, ("x-nothing", ""), Method::GET, "/workflows", Value::Null).await?;
    let (unknown, _) = call(app, ("x-tenant", "nobody"), Method::GET, "/workflows", Value::Null).await?;
    promise(
        "a request that does not say whose it is is 401, one of a tenant that is none 404",
        status == StatusCode::UNAUTHORIZED && unknown == StatusCode::NOT_FOUND,
    )
}

async fn rows(app: &Router) -> Outcome {
    let new = NewWorkflow { name: "acme: Digest".into(), status: "draft".into() };
    let (_, made) = call(app, ACME, Method::POST, "/workflows", json!(new)).await?;
    let path = format!("/workflows/{}", made["id"].as_str().unwrap_or_default());
    let (foreign, _) = call(app, GLOBEX, Method::PATCH, &path, json!("paused")).await?;
    let (_, changed) = call(app, ACME, Method::PATCH, &path, json!("paused")).await?;
    let (deleted, _) = call(app, ACME, Method::DELETE, &path, Value::Null).await?;
    let (again, _) = call(app, ACME, Method::DELETE, &path, Value::Null).await?;
    promise("a row is written, changed and deleted", changed["status"] == "paused" && deleted == StatusCode::OK)?;
    promise(
        "another tenant's row is not found, as one that is gone",
        foreign == StatusCode::NOT_FOUND && again == StatusCode::NOT_FOUND,
    )?;

    let (_, first) = call(app, ACME, Method::PUT, "/agents/acme:%20Reader", json!({"version": 1})).await?;
    let (_, second) = call(app, ACME, Method::PUT, "/agents/acme:%20Reader", json!({"version": 2})).await?;
    promise("an upsert changes the row that is there", first.is_string() && first == second)
}

async fn bulk(backend: &PgPool) -> Outcome {
    let names: Vec<String> = (1..=1000).map(|n| format!("acme: bulk\t{n}")).collect();
    let mut tx = bound(backend, "acme").await?;
    let before = Agent::count(Unnamed(&mut tx)).await?;
    let moved = Agent::import(&mut tx, &names).await?;
    let after = Agent::count(Unnamed(&mut tx)).await?;
    tx.commit().await?;
    promise("1 000 rows come by COPY and a staging table", moved == 1000 && after == before + 1000)
}

async fn notes(backend: &PgPool) -> Outcome {
    for slug in ["acme", "globex"] {
        let mut tx = bound(backend, slug).await?;
        let workflow = Workflow::all(Unnamed(&mut tx)).await?.remove(0).id;
        Note::add(Unnamed(&mut tx), workflow, &format!("{slug}: seen")).await?;
        Workflow::run(Unnamed(&mut tx), workflow, &[1, 2, 3]).await?;
        tx.commit().await?;
    }
    let mut tx = bound(backend, "globex").await?;
    let notes = Note::all(Unnamed(&mut tx)).await?;
    let runs = Run::all(Unnamed(&mut tx)).await?;
    tx.commit().await?;
    let noted = notes.len() == 1 && notes[0].body == "globex: seen" && notes[0].priority == 3;
    promise("what the migration brought is the tenant's own", noted)?;
    let joined = runs.iter().map(|run| (&*run.workflow, &*run.creator, run.tasks));
    promise(
        "a join finds workflows with their runs and who made them",
        joined.eq([1, 2, 3].map(|n| ("globex: Triage", "globex: Ada", Some(n)))),
    )
}

async fn api_keys(backend: &PgPool) -> Outcome {
    let mut tx = bound(backend, "acme").await?;
    let key: String =
        query_scalar("SELECT api_key FROM create_api_key('sqlx')").persistent(false).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    let api = router(Binding::ApiKey(pool("CLIENT_URL").await?), Router::new());
    let (status, listed) = call(&api, ("authorization", &format!("Bearer {key}")), Method::GET, "/workflows", Value::Null).await?;
    promise("an API key binds its tenant", status == StatusCode::OK && listed[0]["name"] == "acme: Triage")?;
    let (status, _) = call(&api, ("authorization", "Bearer ptk_noise"), Method::GET, "/workflows", Value::Null).await?;
    let (chosen, _) = call(&api, ACME, Method::GET, "/workflows", Value::Null).await?;
    promise(
        "a key that is none is 401, and so is a tenant's name without a key",
        status == StatusCode::UNAUTHORIZED && chosen == StatusCode::UNAUTHORIZED,
    )
}

async fn limits(app: &Router) -> Outcome {
    let active = |n: u8| json!(NewWorkflow { name: format!("hooli: {n}"), status: "active".into() });
    for n in 1..=2 {
        call(app, HOOLI, Method::POST, "/workflows", active(n)).await?;
    }
    let (status, said) = call(app, HOOLI, Method::POST, "/workflows", active(3)).await?;
    let (_, listed) = call(app, HOOLI, Method::GET, "/workflows", Value::Null).await?;
    let held = said == "limit reached for concurrent_workflows (2)" && listed.as_array().is_some_and(|rows| rows.len() == 2);
    promise("the third active workflow of the free plan is 54000, and 402", status == StatusCode::PAYMENT_REQUIRED && held)
}

async fn suspension(app: &Router) -> Outcome {
    let operator = pool("OPERATOR_URL").await?;
    query("SELECT suspend_tenant(find_tenant('globex'), 'invoice overdue')").execute(&operator).await?;
    let (suspended, _) = call(app, GLOBEX, Method::GET, "/workflows", Value::Null).await?;
    query("SELECT resume_tenant(find_tenant('globex'))").execute(&operator).await?;
    let (resumed, _) = call(app, GLOBEX, Method::GET, "/workflows", Value::Null).await?;
    promise(
        "a suspended tenant is 403 until it is resumed",
        suspended == StatusCode::FORBIDDEN && resumed == StatusCode::OK,
    )
}

/// Routes of requests that do not come to their end.
fn given_up(begun: Arc<Notify>) -> Router {
    let write = async |mut tx: Bound| -> Result<Bound, Fault> {
        Agent::put(tx.db(), "acme: never", &json!({})).await?;
        Ok(tx)
    };
    let fail = move |tx: Bound| async move { write(tx).await.map(|_| StatusCode::IM_A_TEAPOT) };
    let hang = move |tx: Bound| async move {
        let tx = write(tx).await?;
        begun.notify_one();
        std::future::pending::<()>().await;
        drop(tx);
        Ok::<_, Fault>(())
    };
    let keep = move |tx: Bound| async move {
        let tx = write(tx).await?;
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            drop(tx);
        });
        Ok::<_, Fault>(())
    };
    Router::new().route("/fail", post(fail)).route("/hang", post(hang)).route("/keep", post(keep))
}

async fn failures(app: &Router, backend: &PgPool, begun: &Notify) -> Outcome {
    let (status, _) = call(app, ACME, Method::POST, "/fail", Value::Null).await?;
    let hanging = {
        let app = app.clone();
        tokio::spawn(async move { call(&app, ACME, Method::POST, "/hang", Value::Null).await.map(drop) })
    };
    begun.notified().await;
    hanging.abort();
    let aborted = hanging.await.is_err();
    let (kept, _) = call(app, ACME, Method::POST, "/keep", Value::Null).await?;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let mut tx = bound(backend, "acme").await?;
    let never: i64 = query_scalar("SELECT count(*) FROM agents WHERE name = 'acme: never'")
        .persistent(false)
        .fetch_one(&mut *tx)
        .await?;
    tx.commit().await?;
    promise(
        "a request that fails, is given up, or keeps its transaction leaves nothing",
        status == StatusCode::IM_A_TEAPOT && aborted && kept == StatusCode::INTERNAL_SERVER_ERROR && never == 0,
    )
}

async fn raw(backend: &PgPool) -> Outcome {
    let mut tx = bound(backend, "acme").await?;
    let sql = "SELECT name FROM workflows WHERE true OR tenant_id IS NOT NULL";
    let names: Vec<String> = query_scalar(sql).persistent(false).fetch_all(&mut *tx).await?;
    tx.commit().await?;
    promise("a query that forgets the filter finds the tenant's own rows", names == ["acme: Triage"])?;

    let mut tx = backend.begin().await?;
    let unbound = sqlstate(Workflow::all(Unnamed(&mut tx)).await);
    tx.rollback().await?;
    promise("without a tenant it is 42501", unbound == "42501")?;

    let mut tx = bound(backend, "acme").await?;
    let insert = query("INSERT INTO agents (tenant_id, name) VALUES ($1, 'acme: Nobody')").bind(None::<Uuid>);
    let explicit = sqlstate(insert.execute(Unnamed(&mut tx)).await);
    tx.rollback().await?;
    promise("an explicit NULL for the tenant is 42501", explicit == "42501")
}

async fn concurrently(app: &Router) -> Outcome {
    let clients = (0..8).flat_map(|_| [ACME, GLOBEX]).map(|who| {
        let app = app.clone();
        tokio::spawn(async move {
            let mut own = 0;
            for _ in 0..13 {
                let (_, listed) = call(&app, who, Method::GET, "/workflows", Value::Null).await?;
                let expected = format!("{}: Triage", who.1);
                own += usize::from(listed.as_array().is_some_and(|rows| rows.len() == 1 && rows[0]["name"] == expected));
            }
            Outcome::Ok(own)
        })
    });
    let mut own = 0;
    for client in clients.collect::<Vec<_>>() {
        own += client.await??;
    }
    promise("208 requests of two tenants at once over a pool of three, and each saw its own rows only", own == 208)
}
