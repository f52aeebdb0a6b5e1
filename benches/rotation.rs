//! What deciding costs: two years of ten thousand PgBouncers in virtual time, and the worst pass, in
//! which all of them are due.

#[expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#[path = "../tests/it/computing.rs"]
mod computing;
#[expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#[path = "../tests/it/rotation/simulation.rs"]
mod simulation;

use std::time::Instant;

use computing::computed;

use bouncert::names::{Alias, ObjectRef};
use bouncert::pki::renewal::RenewPolicy;
use bouncert::rotation::facts::{Facts, Held};
use bouncert::rotation::fleet::Fleet;
use bouncert::rotation::limits::Limits;
use time::Duration;

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() {
    let begun = Instant::now();
    let report = simulation::run(&simulation::two_years());
    println!(
        "two years of 10,000: {} passes in {:.1?}; median {:?}, longest {:?}; {}",
        report.passes.len(),
        begun.elapsed(),
        report.median_pass(),
        report.longest_pass(),
        report.told()
    );
    let now = simulation::BEGINNING;
    let mut fleet = Fleet::new(Limits::default());
    for n in 0..10_000 {
        let at = ObjectRef::new(format!("team-{}", n % 100), format!("pooler-{n}"));
        let life = (now - Duration::days(59), now + Duration::days(31));
        let held = Held::new(
            &at.to_string(),
            Alias::Server,
            1,
            life,
            RenewPolicy::TwoThirds,
        );
        let facts = Facts {
            certificates: vec![held],
            ..Facts::default()
        };
        fleet.upsert(&at, facts, now);
    }
    let later = now + Duration::days(5);
    let begun = Instant::now();
    let pass = fleet.pass(later);
    println!(
        "10,000 become due at once: {:?}, {} begin, {} wait for room",
        begun.elapsed(),
        pass.starts.len(),
        pass.waiting
    );
}
