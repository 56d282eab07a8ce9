//! The clients in `examples/clients/`: each keeps its story directly and through PgBouncer in transaction mode, and leaves nothing
//! of one tenant behind for the next. They install what they need from their registries into their own folders.

mod leftovers;
mod round;

use harness::*;
use round::{Round, Route};

/// A client whose story is told here.
struct Story {
    name: &'static str,
    /// How many promises it keeps at least; a promise that does not hold ends it.
    promises: usize,
    /// How many writes to another tenant's rows it attempts, an explicit NULL among them.
    mismatches: i64,
}

impl Story {
    /// Tells it in a database of its own for each way to the server.
    #[track_caller]
    fn holds(&self) {
        let cluster = Cluster::start(Options::new());
        for route in [Route::Direct, Route::Pooled] {
            let round = Round::prepare(&cluster, route);
            let told = round.tell(self.name);
            println!("{told}");
            let kept = told.lines().filter(|line| line.starts_with("   ✓ ")).count();
            assert!(kept >= self.promises, "{kept} promises of {} were kept, {route:?}:\n{told}", self.promises);
            leftovers::none_in(&round);
            leftovers::only_its_refusals(&round, self.mismatches);
        }
        leftovers::no_databases(&cluster);
    }
}

#[test]
fn psql_keeps_its_story_directly_and_through_the_pooler() {
    Story { name: "psql", promises: 19, mismatches: 1 }.holds();
}

#[test]
fn sqlx_keeps_its_story_directly_and_through_the_pooler() {
    Story { name: "sqlx", promises: 13, mismatches: 1 }.holds();
}

#[test]
fn sqlalchemy_keeps_its_story_directly_and_through_the_pooler() {
    Story { name: "sqlalchemy", promises: 35, mismatches: 1 }.holds();
}

#[test]
fn django_keeps_its_story_directly_and_through_the_pooler() {
    Story { name: "django", promises: 39, mismatches: 2 }.holds();
}

#[test]
fn drizzle_keeps_its_story_directly_and_through_the_pooler() {
    Story { name: "drizzle", promises: 13, mismatches: 1 }.holds();
}

#[test]
fn prisma_keeps_its_story_directly_and_through_the_pooler() {
    Story { name: "prisma", promises: 13, mismatches: 1 }.holds();
}
