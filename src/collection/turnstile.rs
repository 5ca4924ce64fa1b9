//! A lock that is shared or held alone, in the order in which it was asked for.
//!
//! std's `RwLock` leaves the order to the system, and Linux's lets those who want it alone pass those who share it: two
//! clients that patch without a pause would keep every other write of a collection waiting without an end.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The lock.
#[derive(Default)]
pub struct Turnstile {
    queue: Mutex<Queue>,
    /// Signalled when another may be able to pass.
    moved: Condvar,
}

#[derive(Default)]
struct Queue {
    /// The number of whoever asks next.
    next: u64,
    /// The number of the first who has not passed.
    turn: u64,
    /// Those who hold the lock.
    holders: usize,
    /// Whether the one who holds it does so alone.
    is_alone: bool,
}

/// The lock, held until it is dropped.
#[must_use]
pub struct Pass<'a>(&'a Turnstile);

impl Turnstile {
    /// Holds it beside others who share it.
    pub fn share(&self) -> Pass<'_> {
        self.enter(false)
    }

    /// Holds it alone.
    pub fn hold_alone(&self) -> Pass<'_> {
        self.enter(true)
    }

    fn enter(&self, alone: bool) -> Pass<'_> {
        let mut queue = self.queue();
        let number = queue.next;
        queue.next += 1;
        while queue.turn != number || queue.is_alone || (alone && queue.holders > 0) {
            queue = self.moved.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.turn += 1;
        queue.holders += 1;
        queue.is_alone = alone;
        // The next may share it as well.
        self.wake(&queue);
        Pass(self)
    }

    fn wake(&self, queue: &Queue) {
        if queue.turn != queue.next && !queue.is_alone {
            self.moved.notify_all();
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.holders -= 1;
        queue.is_alone = false;
        self.0.wake(&queue);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    /// Waits until so many have asked for it.
    fn until_asked(turnstile: &Turnstile, count: usize) {
        while turnstile.queue().next < count as u64 {
            thread::yield_now();
        }
    }

    #[test]
    fn it_is_passed_in_the_order_in_which_it_was_asked_for() {
        // Who shares it stands between two who want it alone: no two of them pass together.
        const ALONE: [bool; 6] = [true, false, true, true, false, true];
        let (turnstile, passed) = (Turnstile::default(), Mutex::new(Vec::new()));
        let first = turnstile.hold_alone();
        thread::scope(|scope| {
            for (n, alone) in ALONE.into_iter().enumerate() {
                let (turnstile, passed) = (&turnstile, &passed);
                scope.spawn(move || {
                    let _pass = turnstile.enter(alone);
                    passed.lock().unwrap().push(n);
                });
                until_asked(turnstile, n + 2);
            }
            drop(first);
        });
        assert_eq!(passed.into_inner().unwrap(), (0..ALONE.len()).collect::<Vec<_>>());
    }

    #[test]
    fn who_shares_it_holds_it_beside_others_and_who_wants_it_alone_waits_for_them() {
        let (turnstile, inside) = (Turnstile::default(), AtomicUsize::new(0));
        // Both at once.
        let (one, two) = (turnstile.share(), turnstile.share());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(turnstile.hold_alone()));
            until_asked(&turnstile, 3);
            drop(one);
            assert!(!waiting.is_finished() && turnstile.queue().turn == 2, "another still shares it");
            drop(two);
        });
        thread::scope(|scope| {
            for thread in 0..4 {
                let (turnstile, inside) = (&turnstile, &inside);
                scope.spawn(move || {
                    for n in 0..500 {
                        let alone = (thread + n) % 3 == 0;
                        let _pass = turnstile.enter(alone);
                        let before = inside.fetch_add(1, Ordering::SeqCst);
                        assert!(!alone || before == 0, "{before} beside one who holds it alone");
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        let queue = turnstile.queue();
        assert_eq!((queue.holders, queue.turn), (0, 2_003));
    }
}
