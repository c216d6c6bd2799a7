//! Two ends of a connection without a system between them, for `h2`, which speaks through tokio's traits: one end is a stream
//! for it, the other is two buffers. Reading waits while there is nothing, and nobody is woken: whoever fills a buffer polls
//! again.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A handle to both buffers: `h2` has one, whoever is at the other end another.
#[derive(Clone, Debug, Default)]
pub struct Memory(Rc<RefCell<Buffers>>);

#[derive(Debug, Default)]
struct Buffers {
    input: Vec<u8>,
    /// So many bytes at the front of the input were read.
    taken: usize,
    output: Vec<u8>,
}

impl Memory {
    /// What is to be read next.
    pub fn send(&self, bytes: &[u8]) {
        let buffers = &mut *self.0.borrow_mut();
        buffers.input.drain(..std::mem::take(&mut buffers.taken));
        buffers.input.extend_from_slice(bytes);
    }

    /// Moves what was written to the end of `out`.
    pub fn receive(&self, out: &mut Vec<u8>) {
        out.append(&mut self.0.borrow_mut().output);
    }

    /// Whether there is something to be read.
    #[allow(dead_code, reason = "a server reads until it waits")]
    pub fn is_unread(&self) -> bool {
        let buffers = self.0.borrow();
        buffers.taken < buffers.input.len()
    }
}

impl AsyncRead for Memory {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let buffers = &mut *self.0.borrow_mut();
        let unread = &buffers.input[buffers.taken..];
        let count = unread.len().min(into.remaining());
        into.put_slice(&unread[..count]);
        buffers.taken += count;
        if count == 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl AsyncWrite for Memory {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
