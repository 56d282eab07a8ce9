//! What a session was told besides its results.

use postgres::error::DbError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The notices and warnings that a session received, oldest first.
#[derive(Clone, Default)]
pub struct Notices(Arc<Mutex<Vec<DbError>>>);

impl Notices {
    /// Collects what `config`'s session will be told.
    pub(crate) fn collect(config: &mut postgres::Config) -> Notices {
        let notices = Notices::default();
        let sink = notices.clone();
        config.notice_callback(move |notice| sink.lock().push(notice));
        notices
    }

    /// All messages so far.
    pub fn messages(&self) -> Vec<String> {
        self.lock().iter().map(|notice| notice.message().to_owned()).collect()
    }

    /// Whether some message so far contains `text`.
    pub fn contains(&self, text: &str) -> bool {
        self.lock().iter().any(|notice| notice.message().contains(text))
    }

    /// Takes all notices so far, whole: severity, SQLSTATE, hint.
    pub fn take(&self) -> Vec<DbError> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<DbError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
