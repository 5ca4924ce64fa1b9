//! Room for long texts: what is tokenised takes hundreds of times its length in memory meanwhile.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::embed::{Cancellation, EmbedError};

/// Lets as many texts in at once as fit, in the order in which they came.
pub(super) struct Room {
    bytes: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    taken_bytes: usize,
    /// The number of who comes next.
    next: u64,
    /// Numbers of those who wait, the first in front.
    waiting: VecDeque<u64>,
}

/// A part of a room, until it is dropped.
pub(super) struct Place<'a> {
    room: &'a Room,
    bytes: usize,
}

/// How often who waits looks whether its caller has gone.
const LOOK: Duration = Duration::from_millis(50);

impl Room {
    pub(super) const fn new(bytes: usize) -> Self {
        let state = State { taken_bytes: 0, next: 0, waiting: VecDeque::new() };
        Self { bytes, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits until `bytes` fit beside what is in the room, behind those who came before. More than the room has gets
    /// all of it.
    ///
    /// # Errors
    /// [`EmbedError::Cancelled`] where the [`Cancellation`] around this call is cancelled before.
    pub(super) fn enter(&self, bytes: usize) -> Result<Place<'_>, EmbedError> {
        let bytes = bytes.min(self.bytes);
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.waiting.push_back(number);
        let entered = loop {
            if state.waiting.front() == Some(&number) && state.taken_bytes + bytes <= self.bytes {
                state.taken_bytes += bytes;
                break Ok(());
            }
            if let Err(gone) = Cancellation::check_current() {
                break Err(gone);
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        };
        state.waiting.retain(|&waiting| waiting != number);
        drop(state);
        // The next may fit as well, or be the first now.
        self.changed.notify_all();
        entered.map(|()| Place { room: self, bytes })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.room.state().taken_bytes -= self.bytes;
        self.room.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn wait_for(room: &Room, waiting: usize) {
        while room.state().waiting.len() != waiting {
            thread::yield_now();
        }
    }

    #[test]
    fn what_does_not_fit_waits_and_nobody_overtakes() {
        let room = Room::new(10);
        let (first, second) = (room.enter(6).unwrap(), room.enter(3).unwrap());
        let (entered, names) = mpsc::channel();
        thread::scope(|scope| {
            let enter = |name: &'static str, bytes: usize| {
                let (room, entered) = (&room, entered.clone());
                scope.spawn(move || {
                    let place = room.enter(bytes).unwrap();
                    entered.send(name).unwrap();
                    drop(place);
                });
            };
            enter("large", 100);
            wait_for(&room, 1);
            enter("small", 1);
            wait_for(&room, 2);
            drop(first);
            assert_eq!(room.state().taken_bytes, 3);
            assert!(names.try_recv().is_err(), "the large one does not fit yet, and the small one is behind it");
            drop(second);
            assert_eq!([names.recv(), names.recv()], [Ok("large"), Ok("small")]);
        });
        assert_eq!(room.state().taken_bytes, 0);
    }

    #[test]
    fn who_has_gone_waits_no_longer_and_lets_others_in() {
        let room = Room::new(10);
        let half = room.enter(5).unwrap();
        let gone = Cancellation::new();
        thread::scope(|scope| {
            let cancelled = scope.spawn(|| gone.scope(|| room.enter(6).map(drop)));
            wait_for(&room, 1);
            let behind = scope.spawn(|| room.enter(5).map(drop));
            wait_for(&room, 2);
            gone.cancel();
            let result = cancelled.join().unwrap();
            assert!(matches!(result, Err(EmbedError::Cancelled)), "{result:?}");
            behind.join().unwrap().unwrap();
        });
        drop(half);
        assert_eq!(room.state().taken_bytes, 0);
    }
}
