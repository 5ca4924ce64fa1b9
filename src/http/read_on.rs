//! Bodies that were answered before their end: what comes after is read and thrown away.
//!
//! Most clients read no answer before they have sent all. A connection that is closed while they send is reset, and the
//! answer lost with it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Error;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};

/// What is read on, at most,
const READ_ON_BYTES: usize = 64 << 20;
/// for how long,
const READ_ON_TIME: Duration = Duration::from_secs(10);
/// and how long without a byte.
const READ_ON_PAUSE: Duration = Duration::from_secs(2);

/// A body that is read on when it is dropped before its end.
struct ReadOn {
    body: Body,
    /// Whether its client sends nothing before it is asked to, which reading does.
    unasked: bool,
    ended: bool,
}

/// Reads a request's body on when a handler drops it early. Call it within the server's runtime.
pub(crate) fn wrap(headers: &HeaderMap, body: Body) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::new(ReadOn { body, unasked: headers.contains_key(header::EXPECT), ended: false })
}

impl HttpBody for ReadOn {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.unasked = false;
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.ended |= matches!(frame, Poll::Ready(None | Some(Err(_))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ReadOn {
    fn drop(&mut self) {
        if self.unasked || self.ended || self.body.is_end_stream() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(read_on(std::mem::take(&mut self.body)));
        }
    }
}

async fn read_on(mut body: Body) {
    let rest = async {
        let mut left = READ_ON_BYTES;
        while left > 0
            && let Ok(Some(Ok(frame))) = tokio::time::timeout(READ_ON_PAUSE, body.frame()).await
        {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    // Whoever is slower loses the answer.
    _ = tokio::time::timeout(READ_ON_TIME, rest).await;
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt, stream};
    use tokio::sync::mpsc;

    use super::*;

    /// A body of three parts, and what was read of it.
    fn counted(expect: bool) -> (Body, mpsc::UnboundedReceiver<u8>) {
        let (tell, told) = mpsc::unbounded_channel();
        let parts = stream::iter(0..3).map(move |part| {
            tell.send(part).unwrap();
            Ok::<_, Infallible>(Bytes::from(vec![part]))
        });
        let mut headers = HeaderMap::new();
        if expect {
            headers.insert(header::EXPECT, "100-continue".parse().unwrap());
        }
        (wrap(&headers, Body::from_stream(parts)), told)
    }

    #[tokio::test]
    async fn what_a_handler_leaves_is_read() {
        let (mut body, mut told) = counted(false);
        body.frame().await.unwrap().unwrap();
        drop(body);
        let mut read = Vec::new();
        while let Some(part) = told.recv().await {
            read.push(part);
        }
        assert_eq!(read, [0, 1, 2]);
    }

    #[tokio::test]
    async fn a_client_that_waits_to_be_asked_is_not_asked_after_its_answer() {
        let (body, mut told) = counted(true);
        drop(body);
        assert_eq!(told.recv().await, None);
        let (mut body, mut told) = counted(true);
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert_eq!((told.recv().await, told.recv().await, told.recv().await), (Some(0), Some(1), Some(2)));
    }
}
