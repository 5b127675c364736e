//! Negative controls that are faults of the kernel's side: the simulation must find them.
//! Faults of the worker itself are in `tests/controls`.

use super::schedule::Bench;
use super::search;

// If this fails, the simulation would pass a pool of pipes that lends one which still holds bytes
// of another session.
#[test]
fn a_dirty_pipe_is_lent_again() {
    let mut bench = Bench { lends_dirty_pipes: true, ..Bench::default() };
    let (seed, problems) = search(&mut bench, 1, 20_000).unwrap();
    let is_known = |problem: &String| {
        ["wrong bytes", "sent, ", "stalled"].iter().any(|symptom| problem.contains(symptom))
    };
    assert!(problems.iter().any(is_known), "{seed}: {problems:#?}");
}

// If this fails, the simulation would pass directions that wait and keep all pipes for it.
#[test]
fn pipes_never_run_short() {
    let mut bench = Bench { never_runs_short: true, ..Bench::default() };
    let (seed, problems) = search(&mut bench, 1, 20_000).unwrap();
    let is_known = |problem: &String| problem.contains("stay with directions that wait");
    assert!(problems.iter().any(is_known), "{seed}: {problems:#?}");
}
