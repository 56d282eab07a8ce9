//! One transaction for each request, bound before the handler runs: the pattern to copy.

use crate::fault::Fault;
use crate::unnamed::Unnamed;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use sqlx::{PgPool, PgTransaction};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// By what a request says whose it is.
#[derive(Clone)]
pub enum Binding {
    /// The backend (level app) is trusted to choose. Here a header, in production the subdomain or the session.
    Slug(PgPool),
    /// The API server (level client) is not: the request brings a key.
    ApiKey(PgPool),
}

impl Binding {
    async fn begin(&self, headers: &HeaderMap) -> Result<PgTransaction<'static>, Fault> {
        let (pool, statement, credential) = match self {
            Binding::Slug(pool) => (pool, "SELECT set_tenant_by_slug($1)", headers.get("x-tenant")),
            Binding::ApiKey(pool) => {
                (pool, "SELECT 1 FROM authenticate_api_key($1)", headers.get(header::AUTHORIZATION))
            }
        };
        let credential = credential.and_then(|value| value.to_str().ok()).ok_or(Fault::Anonymous)?;
        let credential = credential.strip_prefix("Bearer ").unwrap_or(credential);
        let mut transaction = pool.begin().await?;
        // Not checked at compile time: the role that may prepare the other statements may not call this one.
        sqlx::query(statement).bind(credential).execute(Unnamed(&mut transaction)).await?;
        Ok(transaction)
    }
}

type Shared = Arc<Mutex<PgTransaction<'static>>>;

/// Commits what the handler did before the answer goes out, or rolls it back if the answer is no success. A request that is given
/// up half-way drops the transaction, which rolls it back.
pub async fn in_transaction(State(binding): State<Binding>, mut request: Request, next: Next) -> Result<Response, Fault> {
    let shared: Shared = Arc::new(Mutex::new(binding.begin(request.headers()).await?));
    request.extensions_mut().insert(shared.clone());
    let response = next.run(request).await;
    // Somebody who keeps it, a task or a body that is streamed, would go on after the answer: nothing of it is committed.
    let transaction = Arc::into_inner(shared).ok_or(Fault::Kept)?.into_inner();
    if response.status().is_success() {
        transaction.commit().await?;
    } else {
        transaction.rollback().await?;
    }
    Ok(response)
}

/// The request's transaction, as an argument of handlers.
pub struct Bound(OwnedMutexGuard<PgTransaction<'static>>);

impl Bound {
    /// For statements.
    pub fn db(&mut self) -> Unnamed<'_> {
        Unnamed(&mut self.0)
    }

    /// For what takes a connection, COPY for one.
    pub fn connection(&mut self) -> &mut sqlx::PgConnection {
        &mut self.0
    }
}

impl<S: Sync> FromRequestParts<S> for Bound {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let shared = parts.extensions.remove::<Shared>().ok_or(Fault::Unbound)?;
        Ok(Bound(shared.lock_owned().await))
    }
}
