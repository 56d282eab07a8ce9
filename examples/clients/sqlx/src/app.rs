//! The application: handlers take the request's transaction, and know no tenant.

use crate::bind::{Binding, Bound, in_transaction};
use crate::fault::Fault;
use crate::models::{Agent, NewWorkflow, Run, Workflow};
use axum::extract::Path;
use axum::routing::{get, patch, put};
use axum::{Json, Router, middleware};
use serde_json::Value;
use uuid::Uuid;

/// The routes; with `more` of the caller's, which are bound as well.
pub fn router(binding: Binding, more: Router) -> Router {
    Router::new()
        .route("/workflows", get(workflows).post(create))
        .route("/workflows/{id}", patch(change).delete(delete))
        .route("/runs", get(runs))
        .route("/agents/{name}", put(agent))
        .merge(more)
        .layer(middleware::from_fn_with_state(binding, in_transaction))
}

async fn workflows(mut tx: Bound) -> Result<Json<Vec<Workflow>>, Fault> {
    Ok(Json(Workflow::all(tx.db()).await?))
}

async fn create(mut tx: Bound, Json(new): Json<NewWorkflow>) -> Result<Json<Workflow>, Fault> {
    Ok(Json(Workflow::create(tx.db(), &new).await?))
}

async fn change(mut tx: Bound, Path(id): Path<Uuid>, Json(status): Json<String>) -> Result<Json<Workflow>, Fault> {
    let changed = Workflow::set_status(tx.db(), id, &status).await?;
    Ok(Json(changed.ok_or(Fault::Missing)?))
}

async fn delete(mut tx: Bound, Path(id): Path<Uuid>) -> Result<(), Fault> {
    if Workflow::delete(tx.db(), id).await? { Ok(()) } else { Err(Fault::Missing) }
}

async fn runs(mut tx: Bound) -> Result<Json<Vec<Run>>, Fault> {
    Ok(Json(Run::all(tx.db()).await?))
}

async fn agent(mut tx: Bound, Path(name): Path<String>, Json(config): Json<Value>) -> Result<Json<Uuid>, Fault> {
    Ok(Json(Agent::put(tx.db(), &name, &config).await?))
}
