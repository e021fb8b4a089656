use std::collections::BTreeSet;

use super::*;

#[test]
fn names_are_unique_and_plantable_ones_parse() {
    let mut names = BTreeSet::new();
    for row in table() {
        assert!(names.insert(row.name), "{} stands twice", row.name);
        match row.how {
            How::Lab(fault) => assert_eq!(parse(row.name).map(|p| p.fault), Ok(fault)),
            _ => assert!(parse(row.name).is_err(), "{}", row.name),
        }
    }
}

#[test]
fn an_aimed_fault_sleeps_until_its_moment() {
    let board = Board::default();
    board.put(parse("bit-flip-cold@promote").expect("a fault"));
    assert!(!board.armed(Fault::BitFlipCold));
    board.moment(Moment::SyncStart);
    assert!(!board.armed(Fault::BitFlipCold));
    board.moment(Moment::Promote);
    assert!(board.armed(Fault::BitFlipCold));
    board.heal(Fault::BitFlipCold);
    assert!(!board.armed(Fault::BitFlipCold) && board.planted().is_empty());
}

#[test]
fn what_cannot_be_planted_is_refused_with_the_reason() {
    for (text, part) in [
        ("bit-flip", "no fault `bit-flip`"),
        ("bit-flip-cold@noon", "no moment `noon`"),
        ("bit-flip-cold:ms=3", "no parameter `ms`"),
        ("bit-flip-cold:ms", "key=value"),
    ] {
        let said = parse(text).expect_err(text);
        assert!(said.contains(part), "{text}: {said}");
    }
}
