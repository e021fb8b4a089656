//! Every message that a bad plan can get, and the texts that are embedded.

use super::*;

#[test]
fn embedded_plans_are_valid() {
    for driver in model::DriverKind::ALL {
        let known = Known::nothing();
        parse(starter(*driver), "starter.yaml", Path::new("."), &known).unwrap();
    }
    let lab = lab(Path::new("."), &Known::nothing()).unwrap();
    assert_eq!(lab.plan.workloads()[0].count, 3);
}
