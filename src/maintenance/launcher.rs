//! The one process that is always there: it knows the databases of the server, and sends workers to those whose time has come.
//!
//! What it knows it keeps in its own memory: after its end, or the server's crash, the next one begins by visiting every database. A database
//! without the extension is visited once a minute, to see whether it has got it, and soon after CREATE EXTENSION.

use super::{settings, visit};
use crate::error::{Error, Result};
use crate::monitor::{self, Announced, Report};
use crate::worker::process;
use crate::worker::{self, Job, Worker};
use pgrx::{log, pg_guard, pg_sys, warning};
use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_long};
use std::time::{Duration, Instant};

/// The function below, as the library exports it.
const FUNCTION: &CStr = c"pg_tenancy_launcher";
/// What pg_stat_activity calls the process.
const NAME: &str = "pg_tenancy launcher";

/// When a database is visited again that has not the extension, or could not be visited.
const SELDOM: Duration = Duration::from_secs(60);
/// How far the first visits of databases are apart: a server of a thousand is not to be busy with nothing else.
const SPREAD: Duration = Duration::from_millis(50);
/// How long a database is left alone between two visits at least.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the list of databases is read.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is said in the log that there is no room.
const COMPLAINT: Duration = Duration::from_secs(600);

/// Registers the launcher and its settings when the server starts.
pub fn init() {
    settings::init();
    worker::keep(FUNCTION, NAME);
}

/// Where the postmaster starts it.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn pg_tenancy_launcher(_argument: pg_sys::Datum) {
    // SAFETY: the main function of a process that the postmaster keeps, which begins so; a static function, registered once; plain reads.
    unsafe {
        process::begin_without_database();
        pg_sys::on_shmem_exit(Some(leave), pg_sys::Datum::null());
        monitor::set_launcher(pg_sys::MyProcPid);
    }
    let mut launcher = Launcher::default();
    loop {
        let sleep = match process::attempt(|| launcher.look()) {
            Ok(sleep) => sleep,
            Err(failure) => {
                log!("pg_tenancy launcher: {}", failure.message);
                settings::naptime()
            }
        };
        if process::sleep(c_long::try_from(sleep.as_millis()).unwrap_or(c_long::MAX)) {
            launcher.begin_anew();
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn leave(_code: c_int, _argument: pg_sys::Datum) {
    monitor::set_launcher(0);
}

/// What is known of a database.
struct Known {
    /// When it is visited next.
    due: Instant,
    /// When it was visited last.
    visited: Option<Instant>,
    /// Whether something was done in it since the beginning of that visit.
    announced: bool,
}

/// A visit that is under way.
struct Visit {
    database: u32,
    worker: Worker,
    /// Where it reports.
    number: usize,
}

#[derive(Default)]
struct Launcher {
    databases: HashMap<u32, Known>,
    listed: Option<Instant>,
    visits: Vec<Visit>,
    complained: Option<Instant>,
}

impl Launcher {
    /// Has every database visited, as at the start: whoever has the configuration read again wants to see what comes of it.
    fn begin_anew(&mut self) {
        let mut due = Instant::now();
        for known in self.databases.values_mut() {
            (known.due, known.announced) = (due, true);
            due += SPREAD;
        }
    }

    /// Does what is to be done now; how long nothing will be.
    fn look(&mut self) -> Result<Duration> {
        let now = Instant::now();
        self.end_visits(now);
        if !settings::enabled() {
            return Ok(settings::naptime());
        }
        if self.listed.is_none_or(|listed| now - listed >= LOOK) {
            self.list(now)?;
        }
        self.hear(now);
        let has_room = self.begin_visits(now);
        let next =
            self.databases.iter().filter(|(database, _)| !self.is_visited(**database)).map(|(_, known)| known.due);
        let wait = next.min().map_or(LOOK, |due| due.saturating_duration_since(now));
        // A visit that ends wakes the process.
        Ok(if has_room { wait.clamp(PAUSE, LOOK) } else { LOOK })
    }

    fn is_visited(&self, database: u32) -> bool {
        self.visits.iter().any(|visit| visit.database == database)
    }

    /// Takes in what the visits that have ended report.
    fn end_visits(&mut self, now: Instant) {
        let (ended, going): (Vec<_>, Vec<_>) = self.visits.drain(..).partition(|visit| visit.worker.has_ended());
        self.visits = going;
        for visit in ended {
            let report = monitor::visit(visit.number).map_or(Report::Nothing, |place| place.report());
            let Some(known) = self.databases.get_mut(&visit.database) else { continue };
            let wait = match report {
                Report::Nothing | Report::NoExtension => SELDOM,
                Report::NextIn(0) => PAUSE,
                Report::NextIn(milliseconds) => Duration::from_millis(milliseconds).max(settings::naptime()),
            };
            // What was announced while the visit was under way, it may have missed.
            let wait = if known.announced { wait.min(settings::naptime()) } else { wait };
            known.due = now + wait;
            known.visited = Some(now);
        }
    }

    /// Reads which databases there are. Between such looks no transaction is open.
    fn list(&mut self, now: Instant) -> Result<()> {
        let listed = process::transaction(|| true, || Ok(databases()))?
            .ok_or_else(|| Error::Internal("a transaction without locks was not begun".to_owned()))?;
        self.listed = Some(now);
        self.databases.retain(|database, _| listed.contains(database));
        let mut due = now;
        for database in listed {
            self.databases.entry(database).or_insert_with(|| {
                due += SPREAD;
                // What was announced before the server crashed, nobody knows any more.
                Known { due: due - SPREAD, visited: None, announced: true }
            });
        }
        Ok(())
    }

    /// Brings forward the visits of databases in which something was done.
    fn hear(&mut self, now: Instant) {
        let announced = monitor::announced();
        let naptime = settings::naptime();
        let is_announced = |database: u32| match &announced {
            Announced::All => true,
            Announced::These(these) => these.contains(&pg_sys::Oid::from(database)),
        };
        for (_, known) in self.databases.iter_mut().filter(|(database, _)| is_announced(**database)) {
            known.announced = true;
            known.due = known.due.min(known.visited.map_or(now, |visited| visited + naptime));
        }
    }

    /// Sends workers to the databases that have been due for longest; whether there is room for more.
    fn begin_visits(&mut self, now: Instant) -> bool {
        let mut due: Vec<(Instant, u32)> = self
            .databases
            .iter()
            .filter(|(database, known)| known.due <= now && !self.is_visited(**database))
            .map(|(database, known)| (known.due, *database))
            .collect();
        due.sort_unstable();
        for (_, database) in due {
            if self.visits.len() >= settings::max_workers() {
                return false;
            }
            if !self.begin_visit(database) {
                self.complain(now);
                return false;
            }
        }
        true
    }

    fn begin_visit(&mut self, database: u32) -> bool {
        let free = (0..monitor::VISITS).find(|number| !self.visits.iter().any(|visit| visit.number == *number));
        let (Some(number), Some(known)) = (free, self.databases.get_mut(&database)) else { return false };
        let Some(place) = monitor::visit(number) else { return false };
        place.begin();
        let name = format!("pg_tenancy worker in database {database}");
        let job = Job { function: visit::FUNCTION, name: &name, database: pg_sys::Oid::from(database) };
        let orders = visit::Orders { number, announced: known.announced };
        let Some(worker) = Worker::start(&job, &orders.write()) else { return false };
        known.announced = false;
        self.visits.push(Visit { database, worker, number });
        true
    }

    fn complain(&mut self, now: Instant) {
        if self.complained.is_none_or(|complained| now - complained >= COMPLAINT) {
            self.complained = Some(now);
            warning!(
                "pg_tenancy launcher: no background worker can be started now; max_worker_processes is too low for what runs"
            );
        }
    }
}

/// The databases that can be connected to.
fn databases() -> Vec<u32> {
    /// datconnlimit of one whose DROP was interrupted (DATCONNLIMIT_INVALID_DB in catalog/pg_database.h).
    const INVALID: i32 = -2;
    let mut found = Vec::new();
    // SAFETY: a scan of a catalog in a transaction; a tuple's fixed part is read before the scan goes on.
    unsafe {
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as _);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            if (*row).datallowconn && (*row).datconnlimit != INVALID {
                found.push((*row).oid.to_u32());
            }
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as _);
    }
    found
}
