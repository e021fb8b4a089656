use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::probe::config::{Locator, Purpose, Target, Volume};
use crate::probe::filesystem::Kind;
use crate::probe::layout::LayoutSpec;

/// File systems that answer as Linux does.
#[derive(Default)]
struct Kernel {
    frozen: Mutex<BTreeSet<String>>,
    /// One that cannot be frozen.
    broken: Option<String>,
    /// Where a freeze waits, twice, for whoever looks on.
    slow: Option<Barrier>,
}

impl Kernel {
    fn held(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.frozen.lock().unwrap()
    }

    fn frozen(&self) -> BTreeSet<String> {
        self.held().clone()
    }
}

impl Freezes for Kernel {
    fn freeze(&self, target: &FileTarget) -> io::Result<()> {
        if let Some(slow) = &self.slow {
            slow.wait();
            slow.wait();
        }
        if self.broken.as_ref() == Some(&target.mount) {
            return Err(ErrorKind::Unsupported.into());
        }
        if self.held().insert(target.mount.clone()) {
            Ok(())
        } else {
            Err(ErrorKind::ResourceBusy.into())
        }
    }

    fn thaw(&self, target: &FileTarget) -> io::Result<()> {
        if self.held().remove(&target.mount) {
            Ok(())
        } else {
            Err(ErrorKind::InvalidInput.into())
        }
    }
}

/// A raw volume and as many file volumes as asked for.
fn config(files: u8) -> Config {
    let on = |ordinal: u8| Locator::Serial(format!("s{ordinal}"));
    let raw = Target::Raw(on(0));
    let files = (1..=files).map(|ordinal| {
        Target::File(FileTarget {
            on: on(ordinal),
            mount: format!("/m{ordinal}"),
            kind: Kind::Ext4,
        })
    });
    let volume = |(ordinal, target): (u8, Target)| Volume {
        vol_id: [ordinal; 16],
        target,
        cells: None,
        from: 0,
    };
    Config {
        run_id: [1; 16],
        seed: 1,
        incarnation: 1,
        purpose: Purpose::Verify,
        layout: LayoutSpec::default(),
        volumes: (0..)
            .zip(std::iter::once(raw).chain(files))
            .map(volume)
            .collect(),
        scratch: 1 << 20,
        expect: Vec::new(),
    }
}

fn words(told: &[Told]) -> Vec<(u8, Option<bool>)> {
    told.iter().map(|one| (one.volume, one.well)).collect()
}

#[test]
fn all_are_frozen_asked_for_and_thawed_once() {
    let kernel = Arc::<Kernel>::default();
    let hold = Hold::new(&config(2), Arc::clone(&kernel) as Arc<dyn Freezes>);
    let both = |well| vec![(1, Some(well)), (2, Some(well))];
    assert_eq!(words(&hold.freeze().unwrap()), both(true));
    assert_eq!(kernel.frozen().len(), 2);
    assert_eq!(words(&hold.ask()), both(true));
    assert_eq!(words(&hold.end().unwrap()), both(true));
    assert!(kernel.frozen().is_empty() && hold.is_over());
    assert_eq!(hold.end(), None, "a second thaw has nothing to do");
    assert_eq!(words(&hold.ask()), both(false));
    assert!(hold.freeze().is_err(), "what is over is never frozen again");
    assert!(kernel.frozen().is_empty());
}

#[test]
fn a_question_never_leaves_anything_frozen() {
    let kernel = Arc::<Kernel>::default();
    let hold = Hold::new(&config(2), Arc::clone(&kernel) as Arc<dyn Freezes>);
    hold.freeze().unwrap();
    kernel.frozen.lock().unwrap().remove("/m2");
    assert_eq!(words(&hold.ask()), [(1, Some(true)), (2, Some(false))]);
    assert_eq!(kernel.frozen(), BTreeSet::from(["/m1".to_owned()]));
    assert_eq!(
        words(&hold.end().unwrap()),
        [(1, Some(true)), (2, Some(false))]
    );
}

#[test]
fn one_that_cannot_be_frozen_thaws_the_others() {
    let kernel = Arc::new(Kernel {
        broken: Some("/m2".into()),
        ..Kernel::default()
    });
    let hold = Hold::new(&config(2), Arc::clone(&kernel) as Arc<dyn Freezes>);
    let why = hold.freeze().unwrap_err();
    assert!(why.contains("/m2"), "{why}");
    assert!(kernel.frozen().is_empty() && hold.is_over());
}

#[test]
fn what_somebody_else_froze_is_left_to_them() {
    let kernel = Arc::<Kernel>::default();
    kernel.frozen.lock().unwrap().insert("/m2".into());
    let hold = Hold::new(&config(2), Arc::clone(&kernel) as Arc<dyn Freezes>);
    assert!(hold.freeze().is_err());
    assert_eq!(kernel.frozen(), BTreeSet::from(["/m2".to_owned()]));
    let bare = thaw_bare(&config(2), &*kernel);
    assert_eq!(words(&bare), [(1, Some(false)), (2, Some(true))]);
    assert_eq!(words(&unheld(&config(1))), [(1, Some(false))]);
}

#[test]
fn without_a_file_system_there_is_nothing_to_hold() {
    let hold = Hold::new(&config(0), Arc::<Kernel>::default());
    assert!(hold.freeze().is_err());
}

#[test]
fn the_timer_thaws_only_after_a_freeze_that_is_under_way() {
    let kernel = Arc::new(Kernel {
        slow: Some(Barrier::new(2)),
        ..Kernel::default()
    });
    let hold = Arc::new(Hold::new(
        &config(1),
        Arc::clone(&kernel) as Arc<dyn Freezes>,
    ));
    let freezing = {
        let hold = Arc::clone(&hold);
        thread::spawn(move || hold.freeze())
    };
    let barrier = kernel.slow.as_ref().unwrap();
    barrier.wait();
    let guarding = {
        let hold = Arc::clone(&hold);
        thread::spawn(move || hold.guard(Instant::now()))
    };
    assert!(!guarding.is_finished(), "the freeze is under way");
    barrier.wait();
    assert!(freezing.join().unwrap().is_ok());
    assert!(guarding.join().unwrap(), "it was the timer");
    assert!(kernel.frozen().is_empty());
}

#[test]
fn a_thaw_ends_the_timer_and_so_does_the_end_of_the_power() {
    let kernel = Arc::<Kernel>::default();
    for thaws in [true, false] {
        let hold = Arc::new(Hold::new(
            &config(1),
            Arc::clone(&kernel) as Arc<dyn Freezes>,
        ));
        let guard = {
            let hold = Arc::clone(&hold);
            thread::spawn(move || hold.guard(Instant::now() + Duration::from_secs(600)))
        };
        hold.freeze().unwrap();
        if thaws {
            assert!(hold.end().is_some());
        } else {
            hold.abandon();
        }
        assert!(!guard.join().unwrap(), "it was not the timer");
        assert_eq!(kernel.frozen().is_empty(), thaws);
    }
}

proptest! {
    /// Whatever is done to a hold in whatever order, nothing of it stays frozen once it is over.
    #[test]
    fn nothing_outlives_a_hold(deeds in proptest::collection::vec(0_u8..4, 0..12), broken in 0_u8..4) {
        let kernel = Arc::new(Kernel {
            broken: Some(format!("/m{broken}")),
            ..Kernel::default()
        });
        let hold = Hold::new(&config(3), Arc::clone(&kernel) as Arc<dyn Freezes>);
        for deed in deeds {
            match deed {
                0 => drop(hold.freeze()),
                1 => drop(hold.ask()),
                2 => drop(hold.end()),
                _ => { hold.guard(Instant::now()); }
            }
            if hold.is_over() {
                prop_assert!(kernel.frozen().is_empty());
            }
        }
    }
}
