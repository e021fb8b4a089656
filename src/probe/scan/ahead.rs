//! Work on a sequence by several threads, told in order.
//!
//! Contract: what `work` makes of the n-th item is the n-th that `told` hears; no item is begun that
//! lies further than [`AHEAD`] a thread beyond the one that `told` waits for, so that a slow item
//! bounds what piles up behind it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, scope};

/// Items of a thread that may be done before they are told.
const AHEAD: u64 = 2;
const STACK: usize = 256 * 1024;

/// Items on their way.
struct Line<I, T> {
    items: I,
    taken: u64,
    told: u64,
    done: BTreeMap<u64, T>,
    /// Threads that may still add to `done`.
    threads: u64,
    /// Nothing that is not begun is wanted any more.
    stopped: bool,
}

struct Shared<I, T> {
    line: Mutex<Line<I, T>>,
    /// There is something to tell, or nobody who could add to it.
    ready: Condvar,
    /// There is room to go ahead, or an end to it.
    room: Condvar,
}

impl<I, T> Shared<I, T> {
    fn lock(&self) -> MutexGuard<'_, Line<I, T>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a thread out however it ends.
struct Present<'a, I, T>(&'a Shared<I, T>);

impl<I, T> Drop for Present<'_, I, T> {
    fn drop(&mut self) {
        self.0.lock().threads -= 1;
        self.0.ready.notify_all();
    }
}

/// Does `work` on each item, on up to `threads` threads with a `tool` each, and tells the results in
/// the order of the items. Ends early with the first error of `told`, or if no thread can be had.
pub(super) fn in_order<I: Iterator + Send, W, T: Send>(
    threads: u64,
    items: I,
    tool: impl Fn() -> W + Sync,
    work: impl Fn(I::Item, &mut W) -> T + Sync,
    mut told: impl FnMut(T) -> io::Result<()>,
) -> io::Result<()> {
    let shared = Shared {
        line: Mutex::new(Line {
            items,
            taken: 0,
            told: 0,
            done: BTreeMap::new(),
            threads: 0,
            stopped: false,
        }),
        ready: Condvar::new(),
        room: Condvar::new(),
    };
    let run = |present: Present<'_, I, T>| {
        let mut tool = tool();
        while let Some((number, item)) = next(present.0, threads * AHEAD) {
            let made = work(item, &mut tool);
            let mut line = present.0.lock();
            line.done.insert(number, made);
            if number == line.told {
                present.0.ready.notify_all();
            }
        }
    };
    scope(|scope| {
        let mut refused = None;
        for _ in 0..threads {
            shared.lock().threads += 1;
            let present = Present(&shared);
            let builder = Builder::new().name("reader".to_owned()).stack_size(STACK);
            // Fewer threads do as well.
            if let Err(error) = builder.spawn_scoped(scope, || run(present)) {
                refused = Some(error);
                break;
            }
        }
        let heard = tell(&shared, &mut told);
        shared.lock().stopped = true;
        shared.room.notify_all();
        heard?;
        let begun = shared.lock().taken > 0;
        refused.filter(|_| !begun).map_or(Ok(()), Err)
    })
}

/// The next item, `None` when there is none or it is not wanted.
fn next<I: Iterator, T>(shared: &Shared<I, T>, ahead: u64) -> Option<(u64, I::Item)> {
    let mut line = shared.lock();
    while line.taken - line.told >= ahead && !line.stopped {
        let waited = shared.room.wait(line);
        line = waited.unwrap_or_else(PoisonError::into_inner);
    }
    if line.stopped {
        return None;
    }
    let item = line.items.next()?;
    line.taken += 1;
    Some((line.taken - 1, item))
}

/// Tells results as they come until there can be no more.
fn tell<I, T>(shared: &Shared<I, T>, told: &mut impl FnMut(T) -> io::Result<()>) -> io::Result<()> {
    let mut line = shared.lock();
    loop {
        let number = line.told;
        if let Some(made) = line.done.remove(&number) {
            line.told += 1;
            shared.room.notify_one();
            drop(line);
            told(made)?;
            line = shared.lock();
        } else if line.threads == 0 {
            return Ok(());
        } else {
            let waited = shared.ready.wait(line);
            line = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        for threads in 1..=5 {
            let mut heard = Vec::new();
            // Early items take longest, so that later ones are done before them.
            let work = |n: u64, sum: &mut u64| {
                for step in 0..(200 - n) * 50 {
                    *sum = super::super::super::layout::mix(*sum ^ step);
                }
                (n, *sum).0
            };
            let told = |n| {
                heard.push(n);
                Ok(())
            };
            in_order(threads, 0..200, || 0, work, told).unwrap();
            assert_eq!(heard, (0..200).collect::<Vec<_>>());
        }
    }

    #[test]
    fn nothing_runs_far_ahead_of_what_is_told() {
        let begun = AtomicU64::new(0);
        let mut told = 0;
        let work = |n: u64, (): &mut ()| {
            begun.fetch_max(n, Ordering::SeqCst);
        };
        let hear = |()| {
            told += 1;
            assert!(begun.load(Ordering::SeqCst) < told + 3 * AHEAD);
            Ok(())
        };
        in_order(3, 0..1000, || (), work, hear).unwrap();
        assert_eq!(told, 1000);
    }

    #[test]
    fn an_error_of_the_listener_ends_it() {
        let mut left = 5;
        let hear = |_| {
            left -= 1;
            if left == 0 {
                Err(io::ErrorKind::BrokenPipe.into())
            } else {
                Ok(())
            }
        };
        let ended = in_order(2, 0.., || (), |n: u64, (): &mut ()| n, hear);
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_panic_in_the_work_is_not_waited_for() {
        let work = |n: u64, (): &mut ()| assert!(n < 3, "as asked");
        let ended = std::panic::catch_unwind(|| in_order(2, 0..9, || (), work, |()| Ok(())));
        assert!(ended.is_err());
    }
}
