//! A connection as `h2` sees it, whose client is the peer in tests: two buffers. Reading waits when there is nothing left to
//! take in *for now*, writing waits when too much is waiting to be sent. Nobody is woken: whoever fills or empties a buffer
//! polls again.
//!
//! Only the traits of tokio's I/O are used, because `h2` speaks to nothing else; no runtime is.

#![cfg(test)]

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{INPUT_BYTES_PER_ROUND, OUTPUT_BYTES_MAX};

/// A handle to the two buffers: the test has one, `h2` the other.
#[derive(Clone, Debug, Default)]
pub struct Pipe(Rc<RefCell<Buffers>>);

#[derive(Debug, Default)]
struct Buffers {
    /// What was received; the first `taken` bytes of it were read. Both are zero when all of it was.
    input: Vec<u8>,
    taken: usize,
    /// How many bytes may still be read in this round.
    allowance: usize,
    /// Whether the end of the input may be seen.
    end_is_due: bool,
    output: Vec<u8>,
}

impl Pipe {
    pub fn receive(&self, bytes: &[u8]) {
        self.0.borrow_mut().input.extend_from_slice(bytes);
    }

    /// Moves what is to be sent to the end of `out`.
    pub fn take_output(&self, out: &mut Vec<u8>) {
        let buffers = &mut *self.0.borrow_mut();
        if out.is_empty() && out.capacity() < buffers.output.len() {
            std::mem::swap(out, &mut buffers.output);
        } else {
            out.append(&mut buffers.output);
        }
    }

    pub fn input_is_empty(&self) -> bool {
        self.0.borrow().input.is_empty()
    }

    /// Lets the next few bytes be read. False if there are none, or if too much is waiting to be sent.
    pub fn begin_round(&self) -> bool {
        let buffers = &mut *self.0.borrow_mut();
        let begins = !buffers.input.is_empty() && buffers.output.len() < OUTPUT_BYTES_MAX;
        buffers.allowance = if begins { INPUT_BYTES_PER_ROUND } else { 0 };
        begins
    }

    /// Lets the reader see that nothing follows. False if it did before, or if too much is waiting to be sent.
    pub fn end_input(&self) -> bool {
        let buffers = &mut *self.0.borrow_mut();
        let ends = !buffers.end_is_due && buffers.output.len() < OUTPUT_BYTES_MAX;
        buffers.end_is_due |= ends;
        ends
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let buffers = &mut *self.0.borrow_mut();
        let unread = buffers.input.get(buffers.taken..).unwrap_or_default();
        let count = unread.len().min(buffers.allowance).min(into.remaining());
        let Some(bytes) = unread.get(..count).filter(|bytes| !bytes.is_empty()) else {
            // Filling nothing in is how an end is told.
            let ends = buffers.end_is_due && buffers.input.is_empty();
            return if ends { Poll::Ready(Ok(())) } else { Poll::Pending };
        };
        into.put_slice(bytes);
        buffers.taken += count;
        buffers.allowance -= count;
        if buffers.taken == buffers.input.len() {
            buffers.input.clear();
            buffers.taken = 0;
            // A burst must not keep its memory for as long as the connection lives.
            buffers.input.shrink_to(INPUT_BYTES_PER_ROUND);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let output = &mut self.0.borrow_mut().output;
        let room = OUTPUT_BYTES_MAX.saturating_sub(output.len());
        if room == 0 {
            return Poll::Pending;
        }
        let accepted = bytes.get(..room).unwrap_or(bytes);
        output.extend_from_slice(accepted);
        Poll::Ready(Ok(accepted.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn read(pipe: &mut Pipe, bytes_max: usize) -> Poll<usize> {
        let mut buffer = vec![0; bytes_max];
        let mut into = ReadBuf::new(&mut buffer);
        let polled = Pin::new(pipe).poll_read(&mut Context::from_waker(Waker::noop()), &mut into);
        polled.map(|result| {
            result.unwrap();
            into.filled().len()
        })
    }

    fn write(pipe: &mut Pipe, bytes: usize) -> Poll<usize> {
        let polled = Pin::new(pipe).poll_write(&mut Context::from_waker(Waker::noop()), &vec![0; bytes]);
        polled.map(Result::unwrap)
    }

    #[test]
    fn reading_goes_by_rounds() {
        let mut pipe = Pipe::default();
        assert!(!pipe.begin_round());
        pipe.receive(&[1; INPUT_BYTES_PER_ROUND + 5]);
        assert_eq!(read(&mut pipe, 10), Poll::Pending);
        assert!(pipe.begin_round());
        assert_eq!(read(&mut pipe, 10), Poll::Ready(10));
        assert_eq!(read(&mut pipe, 1 << 20), Poll::Ready(INPUT_BYTES_PER_ROUND - 10));
        assert_eq!(read(&mut pipe, 1 << 20), Poll::Pending);
        assert!(pipe.end_input() && !pipe.end_input());
        assert!(pipe.begin_round() && !pipe.input_is_empty());
        assert_eq!(read(&mut pipe, 1 << 20), Poll::Ready(5));
        assert!(pipe.input_is_empty());
        assert_eq!(read(&mut pipe, 1 << 20), Poll::Ready(0));
    }

    #[test]
    fn what_waits_to_be_sent_is_bounded_and_stops_the_reader() {
        let mut pipe = Pipe::default();
        pipe.receive(b"x");
        assert_eq!(write(&mut pipe, OUTPUT_BYTES_MAX - 1), Poll::Ready(OUTPUT_BYTES_MAX - 1));
        assert!(pipe.begin_round());
        assert_eq!(write(&mut pipe, 10), Poll::Ready(1));
        assert_eq!(write(&mut pipe, 10), Poll::Pending);
        assert!(!pipe.begin_round() && !pipe.end_input());
        let mut out = b"before".to_vec();
        pipe.take_output(&mut out);
        assert_eq!(out.len(), 6 + OUTPUT_BYTES_MAX);
        assert!(pipe.begin_round());
        assert_eq!(write(&mut pipe, 10), Poll::Ready(10));
    }
}
