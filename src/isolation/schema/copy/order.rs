//! Order by dependency.

use std::collections::BTreeSet;

/// The numbers below `count` in an order in which each comes after what it depends on (`(one, on)`), as near to their own order as that
/// allows; or, where some depend on each other in a circle, those that cannot be ordered.
pub fn sort(count: usize, dependencies: &[(usize, usize)]) -> Result<Vec<usize>, Vec<usize>> {
    let mut waiting_for = vec![0_usize; count];
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); count];
    let distinct: BTreeSet<(usize, usize)> = dependencies.iter().copied().filter(|(one, on)| one != on).collect();
    for (one, on) in distinct {
        waiting_for[one] += 1;
        dependents[on].push(one);
    }
    let mut ready: BTreeSet<usize> = (0..count).filter(|node| waiting_for[*node] == 0).collect();
    let mut ordered = Vec::with_capacity(count);
    while let Some(next) = ready.pop_first() {
        ordered.push(next);
        for dependent in &dependents[next] {
            waiting_for[*dependent] -= 1;
            if waiting_for[*dependent] == 0 {
                ready.insert(*dependent);
            }
        }
    }
    if ordered.len() == count { Ok(ordered) } else { Err((0..count).filter(|node| waiting_for[*node] > 0).collect()) }
}
