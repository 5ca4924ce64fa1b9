//! Memory for the long bodies of all requests together, and for what was read of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{ApiError, Code};
use super::limits;

/// Longest body that asks for no room.
pub(crate) const SMALL_BODY_BYTES: usize = 1 << 20;
/// Bytes that are set aside for each of a body until it is known what was read of it: itself once, while it is put
/// together twice, and texts and vectors, or metadata of some length.
const BYTES_A_BYTE: usize = 4;
/// Bytes of a permit.
const UNIT_BYTES: usize = 64 << 10;

/// Memory of one server.
#[derive(Debug)]
pub(crate) struct Room {
    units: Arc<Semaphore>,
    all: usize,
}

/// What one body takes of it, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    room: Arc<Room>,
    permit: OwnedSemaphorePermit,
}

impl Room {
    /// Of so many bytes.
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        let all = (bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Arc::new(Self { units: Arc::new(Semaphore::new(all)), all })
    }

    /// Waits for room to read a body of so many bytes. One that is small asks for none.
    ///
    /// # Errors
    /// [`Code::Overloaded`] where there is none within `timeout`.
    pub(crate) async fn take(self: &Arc<Self>, body_bytes: usize, timeout: Duration) -> Result<Option<Held>, ApiError> {
        if body_bytes <= SMALL_BODY_BYTES {
            return Ok(None);
        }
        let units = self.units_of(body_bytes.saturating_mul(BYTES_A_BYTE));
        let permit = limits::waiting_for_place(Arc::clone(&self.units).acquire_many_owned(units));
        match tokio::time::timeout(timeout, permit).await {
            Ok(permit) => Ok(Some(Held { room: Arc::clone(self), permit: permit.map_err(ApiError::internal)? })),
            Err(_) => Err(full()),
        }
    }

    /// Never more than there are, or nobody would get them.
    fn units_of(&self, bytes: usize) -> u32 {
        bytes.div_ceil(UNIT_BYTES).min(self.all) as u32
    }
}

impl Held {
    /// Holds so many bytes from now on, which is what was read of the body.
    ///
    /// # Errors
    /// [`Code::Overloaded`] where that is more than before, and others hold the rest. Waiting would be in vain where
    /// they do the same.
    pub(crate) fn settle(&mut self, bytes: usize) -> Result<(), ApiError> {
        let (has, needs) = (self.permit.num_permits(), self.room.units_of(bytes) as usize);
        if needs <= has {
            drop(self.permit.split(has - needs));
            return Ok(());
        }
        let more = Arc::clone(&self.room.units).try_acquire_many_owned((needs - has) as u32);
        self.permit.merge(more.map_err(|_| full())?);
        Ok(())
    }
}

fn full() -> ApiError {
    let detail = "the long bodies of other requests take all the memory that there is for them; try again shortly, or \
                  send less at once";
    ApiError::new(Code::Overloaded, detail)
}

/// What a request and the calls that it started hold.
type OfRequest = Arc<Mutex<Option<Held>>>;

tokio::task_local! {
    static OF_REQUEST: OfRequest;
}

/// Runs a request. What is [kept](keep) meanwhile is held until it ends.
pub(crate) async fn scope<T>(request: impl Future<Output = T>) -> T {
    OF_REQUEST.scope(OfRequest::default(), request).await
}

/// Holds it until the request at hand ends, and with it the calls that it started.
pub(crate) fn keep(held: Option<Held>) {
    // Without a request it is dropped.
    _ = OF_REQUEST.try_with(|of_request| *of_request.lock().unwrap_or_else(PoisonError::into_inner) = held);
}

/// What the request at hand holds, for a call that may outlive it.
pub(crate) fn of_request() -> Option<OfRequest> {
    OF_REQUEST.try_with(Arc::clone).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const LONG: Duration = Duration::from_secs(600);

    /// Whether there is room for a body of so many MiB at once.
    async fn has_room(room: &Arc<Room>, mib: usize) -> bool {
        let taken = room.take(mib * MIB, Duration::ZERO).await;
        assert!(taken.as_ref().err().is_none_or(|error| error.code == Code::Overloaded), "{taken:?}");
        taken.is_ok()
    }

    #[tokio::test]
    async fn long_bodies_wait_for_each_other_and_small_ones_do_not() {
        let room = Room::new(16 * MIB);
        let first = room.take(3 * MIB, LONG).await.unwrap();
        assert!(!has_room(&room, 2).await && has_room(&room, 1).await);
        let mut second = Box::pin(room.take(2 * MIB, LONG));
        assert!(tokio::time::timeout(Duration::ZERO, &mut second).await.is_err());
        drop(first);
        let second = second.await.unwrap();
        assert!(second.is_some() && has_room(&room, 2).await);
    }

    #[tokio::test]
    async fn what_was_read_is_held_and_no_more() {
        let room = Room::new(16 * MIB);
        let mut held = room.take(3 * MIB, LONG).await.unwrap().unwrap();
        held.settle(8 * MIB).unwrap();
        assert!(has_room(&room, 2).await);
        held.settle(14 * MIB).unwrap();
        assert!(!has_room(&room, 2).await);
        // A body that takes more than all there is takes all.
        held.settle(100 * MIB).unwrap();
        drop(held);
        let all = room.take(100 * MIB, LONG).await.unwrap();
        assert!(!has_room(&room, 2).await);
        drop(all);
        let (_other, mut held) = (room.take(2 * MIB, LONG).await.unwrap(), room.take(2 * MIB, LONG).await.unwrap());
        assert_eq!(held.as_mut().unwrap().settle(9 * MIB).unwrap_err().code, Code::Overloaded);
    }

    #[tokio::test]
    async fn room_is_held_until_the_request_and_its_calls_have_ended() {
        let room = Room::new(16 * MIB);
        let call = scope(async {
            keep(room.take(4 * MIB, LONG).await.unwrap());
            assert!(!has_room(&room, 2).await);
            of_request()
        });
        let call = call.await;
        assert!(!has_room(&room, 2).await, "a call goes on");
        drop(call);
        assert!(has_room(&room, 2).await);
        scope(async { keep(room.take(4 * MIB, LONG).await.unwrap()) }).await;
        assert!(has_room(&room, 2).await);
    }
}
