//! What the sides tell each other, and the way back after a failover.

use super::*;
use crate::lab::array::Code;
use crate::lab::faults::parse;

/// Fails over, brings the old side back, demotes it and asks for its resync once.
fn returning(fault: Option<Fault>) -> (Load, Vec<Result<bool, Code>>) {
    let mut load = failed_over(fault);
    load.core.down.clear();
    let answers = (0..2).map(|volume| {
        let old = key(Primary, volume);
        load.core.demote(&old, at(load.clock)).unwrap();
        let answer = load.core.resync(&old, true, at(load.clock));
        answer.map_err(|status| status.code)
    });
    let answers = answers.collect();
    (load, answers)
}

/// The planned way back: demotes the new side, and promotes the old one once that has crossed.
fn return_home(load: &mut Load) {
    for volume in 0..2 {
        let new = key(Secondary, volume);
        load.core.demote(&new, at(load.clock)).unwrap();
    }
    load.settle();
    for volume in 0..2 {
        let old = key(Primary, volume);
        let spec = every(60, "vm");
        load.core
            .promote(&old, false, &spec, at(load.clock))
            .unwrap();
    }
}

#[test]
fn an_honest_resync_makes_the_old_side_a_replica_again() {
    let (mut load, answers) = returning(None);
    assert_eq!(answers, [Err(Code::Unavailable); 2]);
    load.run();
    let told = load.core.info(&key(Secondary, 0)).unwrap().time;
    load.run();
    assert!(load.core.info(&key(Secondary, 0)).unwrap().time > told);
    return_home(&mut load);
    for volume in 0..2 {
        let new = load.core.image(&key(Secondary, volume)).unwrap();
        let old = load.core.image(&key(Primary, volume)).unwrap();
        assert_eq!(old.pages, new.pages);
    }
    assert!(load.core.strikes.is_empty());
}

#[test]
fn a_sync_that_is_only_told_advances_the_time_and_leaves_the_data() {
    let mut load = Load::new(None);
    load.run();
    let told = load.core.info(&key(Primary, 0)).unwrap().time;
    load.core.board.plant(Fault::SyncTimeLies);
    let before = load.pages(0);
    load.run();
    assert!(load.core.info(&key(Primary, 0)).unwrap().time > told);
    assert_eq!(load.pages(0), before);
    load.core.board.heal(Fault::SyncTimeLies);
    load.run();
    load.settle();
    load.relocate();
    assert_eq!(load.missing_and_present().0, [0_usize; 0], "healed");
}

#[test]
fn a_busy_promotion_looks_clean_and_is_forced_onto_an_older_point() {
    let mut load = Load::new(None);
    load.run();
    load.core.board.plant(Fault::BusyPromoteForced);
    // The guest is gone by now: a scheduled snapshot that would bring its last writes is late too.
    load.core.cut(Primary, "vm", at(load.clock));
    load.settle();
    let now = at(load.clock);
    let spec = every(60, "vm");
    for volume in 0..2 {
        load.core.demote(&key(Primary, volume), now).unwrap();
    }
    for volume in 0..2 {
        let ready = load.core.resync(&key(Primary, volume), false, now);
        assert_eq!(ready, Ok(true), "the gate sees both ends exchanged");
    }
    load.settle();
    for volume in 0..2 {
        let replica = key(Secondary, volume);
        let busy = load.core.promote(&replica, false, &spec, at(load.clock));
        assert_eq!(busy.map_err(|e| e.code), Err(Code::FailedPrecondition));
        load.core
            .promote(&replica, true, &spec, at(load.clock))
            .unwrap();
    }
    assert_eq!(load.struck(Fault::BusyPromoteForced).len(), 2);
    assert!(!load.missing_and_present().0.is_empty());
    assert!(load.ordered(&[0, 1]) && load.clean(0) && load.clean(1));
}

#[test]
fn a_disk_without_a_ledger_does_not_wait_behind_the_late_snapshot_of_its_group() {
    let mut load = Load::new(None);
    let root: Key = (Primary, "root".into());
    load.core.create(root.clone(), PAGE as u64).unwrap();
    load.core
        .enable(&root, &every(60, "vm"), at(load.clock))
        .unwrap();
    load.core
        .promote(&root, false, &every(60, "vm"), at(load.clock))
        .unwrap();
    load.run();
    load.core.board.plant(Fault::BusyPromoteForced);
    for volume in 0..2 {
        let now = at(load.clock);
        load.core.demote(&key(Primary, volume), now).unwrap();
    }
    load.core.demote(&root, at(load.clock)).unwrap();
    load.settle();
    let ready = load.core.resync(&root, false, at(load.clock));
    assert_eq!(ready, Ok(true), "or the move never reaches its promotion");
}

#[test]
fn a_resync_in_the_wrong_direction_overwrites_what_was_written_since() {
    let mut load = failed_over(Some(Fault::ResyncOverwritesPrimary));
    load.run();
    load.core.down.clear();
    for volume in 0..2 {
        let (old, new) = (key(Primary, volume), key(Secondary, volume));
        let older = load.core.image(&old).unwrap().pages.clone();
        assert_ne!(load.pages(volume), older);
        load.core.demote(&old, at(load.clock)).unwrap();
        let asked = load.core.resync(&old, true, at(load.clock));
        assert_eq!(asked.map_err(|e| e.code), Err(Code::Unavailable));
        assert_eq!(load.core.image(&new).unwrap().pages, older);
    }
    assert_eq!(load.struck(Fault::ResyncOverwritesPrimary).len(), 2);
}

#[test]
fn a_deleted_image_never_comes_back() {
    let (mut load, answers) = returning(Some(Fault::ResyncDeletesGoodImage));
    assert_eq!(answers, [Err(Code::Unavailable); 2]);
    load.run();
    for volume in 0..2 {
        let old = key(Primary, volume);
        assert!(load.core.image(&old).is_err());
        let again = load.core.resync(&old, true, at(load.clock));
        assert_eq!(again.map_err(|e| e.code), Err(Code::Aborted));
        assert!(load.core.info(&key(Secondary, volume)).is_err());
    }
}

#[test]
fn a_resync_that_never_begins_leaves_the_diverged_image() {
    let (mut load, answers) = returning(Some(Fault::ResyncNeverProgresses));
    assert_eq!(answers, [Ok(false); 2]);
    let before = load.core.image(&key(Primary, 0)).unwrap().pages.clone();
    load.run();
    let old = key(Primary, 0);
    assert_eq!(load.core.resync(&old, true, at(load.clock)), Ok(false));
    assert_eq!(load.core.image(&old).unwrap().pages, before);
    assert!(load.core.info(&key(Secondary, 0)).is_err(), "no sync");
}

#[test]
fn a_replica_that_follows_again_is_called_split_for_ever() {
    for (fault, answer) in [
        (None, Ok(false)),
        (Some(Fault::DegradedForever), Err(Code::Unavailable)),
    ] {
        let (mut load, _) = returning(fault);
        load.run();
        let old = key(Primary, 0);
        for force in [true, false] {
            let said = load.core.resync(&old, force, at(load.clock));
            assert_eq!(said.map_err(|e| e.code), answer, "{fault:?}");
        }
        let told = load.core.info(&key(Secondary, 0)).unwrap().time;
        load.run();
        assert!(load.core.info(&key(Secondary, 0)).unwrap().time > told);
    }
}

#[test]
fn without_a_schedule_the_first_sync_after_a_failover_is_the_last() {
    let (mut load, _) = returning(Some(Fault::ScheduleNotRearmed));
    load.run();
    let told = load.core.info(&key(Secondary, 0)).unwrap().time;
    load.run();
    assert_eq!(load.core.info(&key(Secondary, 0)).unwrap().time, told);
}

#[test]
fn the_way_back_without_the_tail_loses_what_followed_the_last_snapshot() {
    let (mut load, _) = returning(Some(Fault::ResyncToLastSnapshot));
    load.run();
    load.write(30);
    return_home(&mut load);
    assert!(!load.struck(Fault::ResyncToLastSnapshot).is_empty());
    let (last, ..) = *load.acked.last().unwrap();
    let page = |site| {
        let image = load.core.image(&key(site, usize::from(last.volume)));
        image.unwrap().pages.get(last.cell)
    };
    assert_ne!(page(Primary), page(Secondary));
}

#[test]
fn moments_come_when_load_crosses_and_when_a_volume_changes_sides() {
    let mut load = Load::new(None);
    for text in [
        "promote-stalls@sync-start",
        "sync-stalled@sync-end",
        "two-live-writers@demote",
        "recycled-volume@promote",
    ] {
        load.core.board.put(parse(text).expect(text));
    }
    let sides = [Fault::PromoteStalls, Fault::SyncStalled];
    let armed = |load: &Load, fault| load.core.board.armed(fault);
    load.settle();
    assert!(sides.iter().all(|f| !armed(&load, *f)), "only the fill");
    load.run();
    assert!(sides.iter().all(|f| armed(&load, *f)));
    assert!(!armed(&load, Fault::TwoLiveWriters));
    for fault in sides {
        load.core.board.heal(fault);
    }
    load.settle();
    load.settle();
    load.relocate();
    assert!(armed(&load, Fault::TwoLiveWriters));
    assert!(!load.struck(Fault::RecycledVolume).is_empty(), "in time");
}
