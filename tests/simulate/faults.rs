//! Negative controls: each known fault is put in, and the simulation must find it.

use evenkeel::dataplane::defects::{Defect, set};

use super::schedule::Bench;
use super::search;

/// Schedules within which each must be found.
const SCHEDULES_MAX: u64 = 20_000;

/// Puts a fault in and searches from a fixed seed on; fails if nothing is found, or only
/// something else than the fault causes.
fn must_find(defect: Defect, symptoms: &[&str]) {
    set(Some(defect));
    let found = search(Bench::default(), 1, SCHEDULES_MAX);
    set(None);
    let (seed, problems) = found.unwrap_or_else(|| panic!("{defect:?} passes for sound"));
    let is_known = |problem: &String| symptoms.iter().any(|symptom| problem.contains(symptom));
    assert!(problems.iter().any(is_known), "{defect:?}: {problems:#?}");
    let shown: String = problems[0].chars().take(60).collect();
    println!("{defect:?}: schedule {seed}: {shown}");
}

macro_rules! negative_controls {
    ($($name:ident, $defect:ident, $symptoms:expr;)*) => {$(
        // If this fails, the simulation would pass a program with this fault.
        #[test]
        fn $name() {
            must_find(Defect::$defect, &$symptoms);
        }
    )*};
}

negative_controls! {
    fin_while_bytes_are_held, FinWhileHeld, ["before the last byte", "are held"];
    a_full_pipe_is_taken_for_an_empty_socket, FullPipeIsEmptySocket, ["stalled", "before the last byte"];
    bytes_wait_for_a_fin_that_does_not_follow, CorkEverything, ["does not come"];
    a_full_turn_ends_before_its_fin, LateFin, ["does not come"];
    a_short_read_is_taken_for_eof, ShortReadIsEof, ["before the last byte", "meant none"];
    a_short_read_hides_a_reset, ShortReadHidesReset, ["before the last byte", "meant none"];
    a_reset_is_forgotten, ForgetReset, ["meant none", "are held"];
    a_reset_that_splice_swallows_goes_unheard, UnheardReset, ["before the last byte", "meant none"];
    a_short_write_loses_the_rest, DropShortWrite, ["received", "wrong bytes"];
    a_stream_that_is_over_is_not_read_on, NoOver, ["stalled"];
    a_full_target_is_tried_for_ever, SpinOnFullTarget, ["busy with nothing"];
    a_muted_source_is_not_heard_again, StayMuted, ["stalled"];
    a_session_that_waits_for_bandwidth_is_forgotten, ForgetBandwidth, ["stalled"];
    bandwidth_is_not_counted, FreeBandwidth, ["too fast", "waits for bandwidth"];
    urgent_data_goes_unnoticed, IgnoreUrgent, ["stalled", "before the last byte", "meant none"];
    closing_loses_what_is_not_acknowledged, NoLinger, ["at risk"];
    a_pipe_is_kept, KeepPipe, ["pipes are out", "never came back"];
    a_stale_event_acts_on_a_reused_slot, StaleEvent, ["the last byte", "meant none", "received"];
    a_hang_up_while_connecting_is_believed, EarlyHangUp, ["before the last byte", "meant none"];
    an_unproven_handshake_is_believed, BelieveAnyEvent, ["before its handshake"];
    one_backend_too_many_is_tried, OneRetryMore, ["too many"];
    a_handshake_is_waited_for_too_long, ForgetConnectTimeout, ["waited for"];
}

// If this fails, the controls find what is there without a fault, and show nothing.
#[test]
fn without_a_fault_nothing_is_found() {
    assert_eq!(search(Bench::default(), 1, SCHEDULES_MAX), None);
}
