//! Adoptions through many crashes.

#[path = "../adopt/crash.rs"]
#[allow(dead_code)]
mod crash;
#[path = "../adopt/fixtures.rs"]
#[allow(dead_code)]
mod fixtures;

/// Each call comes one step further, so that every step of every phase has the server killed behind it.
#[test]
fn an_adoption_that_is_killed_thirty_times_comes_to_the_same_end() {
    let killed = crash::survive("adopt_soak", std::iter::repeat_n(1, 30));
    assert!(killed >= 25, "{killed} kills");
}
