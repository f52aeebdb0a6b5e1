//! Rotation by itself: in virtual time, and on the local platform.

mod astray;
mod balanced;
mod certificate;
mod granted;
mod platform;
mod simulation;
mod unsigned;

use std::time::Duration;

use bouncert::rotation::limits::Limits;

#[test]
fn two_years_of_ten_thousand_poolers_keep_every_limit_and_expire_nothing() {
    let world = simulation::two_years();
    let report = simulation::run(&world);
    let told = report.told();
    let costs = format!(
        "{} passes, median {:?}, longest {:?}",
        report.passes.len(),
        report.median_pass(),
        report.longest_pass()
    );
    let told = format!("{told}; {costs}");
    println!("{told}");
    let Limits {
        concurrency,
        concurrency_per_namespace,
        starts_per_minute,
    } = world.limits;
    // That the outages were felt at all: otherwise the rest says nothing.
    assert!(
        report.rotations > 100_000 && report.failures > 1_000,
        "{told}"
    );
    assert!(report.most_at_once == concurrency, "{told}");
    assert!(
        report.most_in_a_namespace <= concurrency_per_namespace,
        "{told}"
    );
    assert!(report.worst_minute <= starts_per_minute, "{told}");
    assert!(report.worst_minute_after_an_outage > 0, "{told}");
    assert_eq!(report.late, 0, "{told}");
    assert_eq!(report.outside_window, 0, "{told}");
    // The brake, for issuers that grant less than is asked for.
    assert!(report.soonest >= 0.1, "{told}");
    assert!(report.most_in_a_life <= 10, "{told}");
    // An unoptimised build on a busy machine: the median says what a pass costs.
    assert!(report.median_pass() <= Duration::from_millis(50), "{told}");
}
