//! Bodies that come late or break off. A body that fails makes the server close the connection
//! before the announced end (HTTP/1.1) or reset the stream (HTTP/2), as a server that dies does.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, future, stream};
use http::Response;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Body as _, Frame};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::lab::api::hooks::Body;

/// Frames of a slow body that may be on their way at a time.
const ON_THE_WAY: usize = 1024;

/// A body whose frames arrive `lag` later than they were sent, in their order.
pub(super) fn late(body: Body, lag: Duration) -> Body {
    let frames = body.into_data_stream().map(move |bytes| {
        let due = Instant::now() + lag;
        async move {
            sleep_until(due).await;
            bytes.map(Frame::data)
        }
    });
    StreamBody::new(frames.buffered(ON_THE_WAY)).boxed_unsync()
}

/// An answer that breaks off in its middle, after its whole length was announced.
pub(super) fn cut(mut answer: Response<Body>) -> Response<Body> {
    let length = answer.body().size_hint().exact().unwrap_or(0);
    answer
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(length));
    let mut left = usize::try_from(length / 2).unwrap_or(0);
    answer.map(|body| {
        let half = body.into_data_stream().map(move |bytes| {
            let bytes = bytes?;
            let part = bytes.slice(..bytes.len().min(left));
            left -= part.len();
            Ok(part)
        });
        let whole = half.filter(|bytes| future::ready(!matches!(bytes, Ok(b) if b.is_empty())));
        broken(whole)
    })
}

/// A watch that breaks off after a few events, within a line, or after a while without any.
pub(super) fn cut_watch(body: Body, drawn: u64) -> Body {
    let events = 1 + drawn % 4;
    let until = Instant::now() + Duration::from_millis(500 + drawn % 2500);
    let source = body.into_data_stream().boxed();
    let some = stream::unfold((source, events), move |(mut source, left)| async move {
        if left == 0 {
            return None;
        }
        let bytes = timeout_at(until, source.next()).await.ok()??;
        let bytes = match bytes {
            Ok(bytes) if left == 1 => Ok(bytes.slice(..bytes.len() / 2)),
            other => other,
        };
        Some((bytes, (source, left - 1)))
    });
    broken(some)
}

/// What came, and then the break.
fn broken(some: impl stream::Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    let reset = stream::once(future::ready(Err(io::ErrorKind::ConnectionReset.into())));
    let frames = some.chain(reset).map(|bytes| bytes.map(Frame::data));
    StreamBody::new(frames).boxed_unsync()
}
