//! HTTP/1.1 for operators and for Prometheus: connections bounded in time, with everything that is read and written.

use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a request's head may take, and a kept-alive connection may be idle.
const HEAD: Duration = Duration::from_secs(10);

/// How long a peer may take nothing of what is written to it.
const WRITE: Duration = Duration::from_secs(10);

/// How long a peer may go on talking after the last answer, and how much, in bytes.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1 << 20;

/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// How a connection is served: by these bounds, and to the end though the peer says no more.
pub fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES_MAX).half_close(true);
    builder
}

/// A stream whose peer has to take what is written to it in time, and that does not end before the peer has it: were
/// it closed with something unread, the kernel would throw the answer away.
pub struct Patient<S> {
    stream: S,
    /// Since the last write that was not taken.
    waits: Option<Pin<Box<Sleep>>>,
    /// Since the last word was said, and how much of what the peer goes on to say is still passed over.
    lingers: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> Patient<S> {
    pub fn new(stream: S) -> Patient<S> {
        Patient { stream, waits: None, lingers: None }
    }

    /// What became of a write, or that the peer has taken nothing for too long.
    fn waited<T>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.waits = None;
            return wrote;
        }
        ready!(self.waits.get_or_insert_with(|| Box::pin(sleep(WRITE))).as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> Patient<S> {
    /// Passes over what the peer still says, until it is done, or has had its time.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (time, left) = self.lingers.get_or_insert_with(|| (Box::pin(sleep(LINGER)), LINGER_BYTES_MAX));
        let mut scratch = [0; 4096];
        while *left > 0 {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    *left = left.saturating_sub(buffer.filled().len())
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return time.as_mut().poll(cx),
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.waited(cx, wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.waited(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingers.is_none() {
            let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
            ready!(self.waited(cx, shut))?;
        }
        self.linger(cx).map(Ok)
    }
}
