//! What went wrong, with its SQLSTATE, as an answer.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

#[derive(Debug)]
pub enum Fault {
    /// The request does not say whose it is.
    Anonymous,
    /// A handler outside of the middleware asks for a transaction.
    Unbound,
    /// The transaction outlives the handler.
    Kept,
    /// There is no such row, or it is another tenant's.
    Missing,
    Sql(sqlx::Error),
}

impl Fault {
    pub fn sqlstate(&self) -> Option<String> {
        match self {
            Fault::Sql(sqlx::Error::Database(error)) => error.code().map(Into::into),
            _ => None,
        }
    }

    pub fn status(&self) -> StatusCode {
        match (self, self.sqlstate().as_deref()) {
            (Fault::Anonymous, _) | (_, Some("28000")) => StatusCode::UNAUTHORIZED,
            (_, Some("54000")) => StatusCode::PAYMENT_REQUIRED,
            // Suspended, a missing role or scope; a write for a tenant that may only read.
            (_, Some("42501" | "25006")) => StatusCode::FORBIDDEN,
            (Fault::Missing, _) | (_, Some("P0002")) => StatusCode::NOT_FOUND,
            (_, Some("23505")) => StatusCode::CONFLICT,
            (_, Some("53400")) => StatusCode::TOO_MANY_REQUESTS,
            // The tenant is being moved, or two transactions were in each other's way: try again.
            (_, Some("55000" | "40001" | "40P01")) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Fault::Sql(error)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let said = match &self {
            Fault::Sql(sqlx::Error::Database(error)) if self.status() != StatusCode::INTERNAL_SERVER_ERROR => {
                error.message().to_owned()
            }
            _ => format!("{}", self.status()),
        };
        (self.status(), said).into_response()
    }
}
