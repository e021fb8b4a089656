//! Which guests may run, and boot, at a time: memory for all that run, cores for those that boot.
//!
//! Guests that boot compete for the processor as no running guest does; a dozen at once under TCG starve
//! each other until their watchdogs fire. Both queues are first come, first served.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::host::{HostError, available_mib};

/// The share of the available memory that guests may have, in percent. The rest is for QEMU itself,
/// the array's disks and the host.
const SHARE: u64 = 80;

/// What a host gives to guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Memory of all guests together, in MiB.
    pub memory_mib: u32,
    /// Guests that boot at a time.
    pub boots: NonZeroU32,
}

impl Capacity {
    /// Of this host, now: 80 % of the memory that is available, one boot per core.
    pub fn of_this_host() -> Result<Self, HostError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            memory_mib: share(available_mib()?),
            boots: u32::try_from(cores)
                .ok()
                .and_then(NonZeroU32::new)
                .unwrap_or(NonZeroU32::MIN),
        })
    }
}

fn share(mib: u32) -> u32 {
    u32::try_from(u64::from(mib) * SHARE / 100).unwrap_or(u32::MAX)
}

/// A guest that will never fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "guest {guest} wants {wanted} MiB of memory, and there are {there} MiB for all guests together; give it less, or run on a larger host"
)]
pub struct TooLarge {
    /// The guest.
    pub guest: String,
    /// What it wants, in MiB.
    pub wanted: u32,
    /// What there is, in MiB.
    pub there: u32,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// So many MiB of memory.
    Memory(u32),
    /// A turn to boot.
    Boot,
}

/// A guest in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The guest.
    pub guest: String,
    /// What it waits for.
    pub what: For,
    /// How much of that there is for all guests together.
    pub of: u32,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { guest, of, .. } = self;
        match self.what {
            For::Memory(mib) => {
                write!(
                    f,
                    "{guest} waits for {mib} of the {of} MiB of memory for all guests"
                )
            }
            For::Boot => write!(
                f,
                "{guest} waits to boot; at most {of} guests boot at a time"
            ),
        }
    }
}

/// The queues of one host. Clones share them.
#[derive(Debug, Clone)]
pub struct Admission {
    capacity: Capacity,
    memory: Arc<Semaphore>,
    boots: Arc<Semaphore>,
    queue: Queue,
}

/// A guest's memory; given back when dropped.
#[derive(Debug)]
#[must_use = "dropped, it gives the memory back at once"]
pub struct Memory(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// A guest's turn to boot; given back when dropped.
#[derive(Debug)]
#[must_use = "dropped, it gives the turn to the next at once"]
pub struct Boot(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Admission {
    /// Empty queues.
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            memory: semaphore(capacity.memory_mib),
            boots: semaphore(capacity.boots.get()),
            queue: Queue::default(),
        }
    }

    /// Waits for a guest's memory, to be held as long as its QEMU lives. Given up, it leaves the queue.
    pub async fn memory(&self, guest: &str, mib: u32) -> Result<Memory, TooLarge> {
        if mib > self.capacity.memory_mib {
            return Err(TooLarge {
                guest: guest.into(),
                wanted: mib,
                there: self.capacity.memory_mib,
            });
        }
        let _place = self.queue.enter(guest, For::Memory(mib));
        Ok(Memory(acquire(&self.memory, mib).await))
    }

    /// Waits for a turn to boot, to be held until the guest is up.
    pub async fn boot(&self, guest: &str) -> Boot {
        let _place = self.queue.enter(guest, For::Boot);
        Boot(acquire(&self.boots, 1).await)
    }

    /// Who waits for what, the longest first.
    pub fn waiting(&self) -> Vec<Waiting> {
        let queue = self.queue.lock();
        let waiting = queue.places.values().map(|(guest, what)| {
            let of = match what {
                For::Memory(_) => self.capacity.memory_mib,
                For::Boot => self.capacity.boots.get(),
            };
            Waiting {
                guest: guest.clone(),
                what: *what,
                of,
            }
        });
        waiting.collect()
    }
}

fn semaphore(permits: u32) -> Arc<Semaphore> {
    let permits = usize::try_from(permits).unwrap_or(Semaphore::MAX_PERMITS);
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}

async fn acquire(semaphore: &Arc<Semaphore>, permits: u32) -> OwnedSemaphorePermit {
    match Arc::clone(semaphore).acquire_many_owned(permits).await {
        Ok(permit) => permit,
        // Only a closed semaphore refuses, and these are never closed.
        Err(_closed) => std::future::pending().await,
    }
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    places: BTreeMap<u64, (String, For)>,
}

#[derive(Debug, Clone, Default)]
struct Queue(Arc<Mutex<Places>>);

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, guest: &str, what: For) -> Place {
        let mut places = self.lock();
        let number = places.next;
        places.next += 1;
        places.places.insert(number, (guest.into(), what));
        Place {
            queue: self.clone(),
            number,
        }
    }
}

/// A place in the queue, left when dropped.
struct Place {
    queue: Queue,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.lock().places.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::poll;
    use proptest::prelude::*;

    fn admission(memory_mib: u32, boots: u32) -> Admission {
        let boots = NonZeroU32::new(boots).unwrap();
        Admission::new(Capacity { memory_mib, boots })
    }

    fn words(admission: &Admission) -> Vec<String> {
        admission
            .waiting()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[tokio::test]
    async fn the_first_to_come_is_the_first_to_run() {
        let host = admission(100, 1);
        let first = host.memory("a", 80).await.unwrap();
        let mut large = Box::pin(host.memory("b", 50));
        let mut small = Box::pin(host.memory("c", 10));
        assert!(poll!(&mut large).is_pending());
        // It would fit, but came later.
        assert!(poll!(&mut small).is_pending());
        assert_eq!(
            words(&host),
            [
                "b waits for 50 of the 100 MiB of memory for all guests",
                "c waits for 10 of the 100 MiB of memory for all guests"
            ]
        );
        drop(first);
        let large = large.await.unwrap();
        let small = small.await.unwrap();
        assert_eq!(words(&host), [""; 0]);
        drop((large, small));
    }

    #[tokio::test]
    async fn who_gives_up_lets_the_next_in() {
        let host = admission(100, 1);
        let booting = host.boot("a").await;
        let mut gives_up = Box::pin(host.boot("b"));
        let mut next = Box::pin(host.boot("c"));
        assert!(poll!(&mut gives_up).is_pending() && poll!(&mut next).is_pending());
        assert_eq!(
            words(&host)[0],
            "b waits to boot; at most 1 guests boot at a time"
        );
        drop(gives_up);
        assert_eq!(words(&host).len(), 1);
        drop(booting);
        let _up = next.await;
    }

    #[tokio::test]
    async fn what_can_never_fit_is_refused_at_once() {
        let host = admission(100, 1);
        let _all = host.memory("a", 100).await.unwrap();
        let error = host.memory("b", 101).await.unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("guest b wants 101 MiB of memory, and there are 100")
        );
    }

    #[test]
    fn this_host_has_something_to_give() {
        let capacity = Capacity::of_this_host().unwrap();
        assert!(capacity.memory_mib > 0);
        assert_eq!(share(1000), 800);
        assert_eq!(share(u32::MAX), 3_435_973_836);
    }

    proptest! {
        /// Whoever comes and goes, memory is never given twice, and all of it comes back.
        #[test]
        fn memory_is_neither_lost_nor_given_twice(
            steps in proptest::collection::vec((0_usize..6, 1_u32..=100), 1..60),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let host = admission(100, 1);
                let mut guests = [const { None }; 6];
                let mut held = [0; 6];
                for (guest, mib) in steps {
                    if guests[guest].take().is_none() {
                        let mut ask = Box::pin(host.memory("g", mib));
                        if let std::task::Poll::Ready(memory) = poll!(&mut ask) {
                            guests[guest] = Some(memory.unwrap());
                            held[guest] = mib;
                        } else {
                            assert!(held.iter().sum::<u32>() + mib > 100);
                        }
                    } else {
                        held[guest] = 0;
                    }
                    let free = 100 - held.iter().sum::<u32>();
                    assert_eq!(host.memory.available_permits(), free as usize);
                    assert!(host.waiting().is_empty());
                }
                drop(guests);
                assert_eq!(host.memory.available_permits(), 100);
            });
        }
    }
}
