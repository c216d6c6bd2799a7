//! A connection on which a proxy asks and we answer, whatever the protocol: read, take what is complete, write once.
//!
//! All questions of one read are answered with one write, which is worth more than anything else here: at 64 questions
//! a read, a question costs a twenty-seventh of one that is alone. Buffers belong to the connection and are used
//! again, so a question allocates nothing.

use super::Plan;
use super::connections::ConnectionId;
use super::core::Core;
use super::handover::Handover;
use super::listen::Service;
use super::system::Handle;
use super::turn::Shard;
use crate::engine::address::Address;
use crate::engine::time::Time;
use monoio::buf::SliceMut;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// Answers are written once they are this many bytes, even if more questions wait.
pub const OUTPUT_BYTES: usize = 64 << 10;

/// First size of a connection's write buffer, to which it returns after a burst.
const FIRST_OUTPUT_BYTES: usize = 512;

/// A write buffer that has grown beyond this is given back.
const KEPT_OUTPUT_BYTES: usize = 4 << 10;

/// Reads in a row, and bytes read, after which other connections get their turn on the epoll driver: what costs is a read
/// as long as questions are short, and then their bytes.
const READS_PER_WAKE: u32 = 16;
const BYTES_PER_WAKE: usize = 64 << 10;

/// How long we look for a peer on a connection that says nothing.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// What stands between bytes and verdicts on one connection.
pub trait Protocol {
    /// First size of the read buffer: some usual questions.
    const INPUT_BYTES: usize;
    /// What an unfinished message may fill at most.
    const INPUT_BYTES_MAX: usize;
    /// Whether the protocol has a way to end by agreement: the peer is told, and what it had asked before it heard of it is
    /// still answered. Else it is told when all that was received has been answered, and the connection closes.
    const PARTS_BY_AGREEMENT: bool = false;

    /// Takes what is complete at the front of `input`, and appends what is to be said to `output`: at most about
    /// [`OUTPUT_BYTES`], then it asks to be called again. `peer` is `None` on a unix socket.
    fn take(&mut self, core: &mut Core, peer: Option<Address>, input: &[u8], output: &mut Vec<u8>) -> Taken;

    /// Whether the connection may be silent for as long as it likes: nothing is under way.
    fn may_rest(&self) -> bool {
        false
    }

    /// The connection is to end from our side: appends what is to be said about that.
    fn part(&mut self, core: &mut Core, why: Parting, output: &mut Vec<u8>) {
        let _ = (core, why, output);
    }
}

/// What [`Protocol::take`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Bytes at the front of the input that are done with.
    pub consumed: usize,
    /// Something was asked and answered: the next one has its own time.
    pub progress: bool,
    pub next: Next,
}

/// How it goes on, after what is in `output` has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// More bytes are needed.
    Read,
    /// There is more in the input.
    Again,
    /// What is left of the input is for the control thread, and so is all that follows on this connection.
    HandOver,
    Close,
}

/// Why we end a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// The shard drains.
    Drain,
    /// The peer came to no point in time.
    Timeout,
}

/// Holds a conversation until it ends.
pub async fn run<P: Protocol>(shard: Shard, arrival: Handover, plan: Rc<Plan>, protocol: P) {
    let Handover { socket, service, peer } = arrival;
    // These concern TCP; on a unix socket they fail, and nothing is missed.
    let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
    let _ = rustix::net::sockopt::set_socket_keepalive(&socket, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(&socket, KEEPALIVE);
    // monoio's TCP stream does nothing but receive and send, so it serves for a unix socket too.
    let Ok(stream) = TcpStream::from_std(std::net::TcpStream::from(socket)) else {
        shard.turn(|core| core.spread.release(service, core.index));
        return;
    };
    let read_timeout = plan.read_timeout[service as usize];
    let (id, patience) = shard.turn(|core| {
        let patience = core.now.plus(read_timeout);
        (core.open(Handle::of(&stream), service, peer, patience), patience)
    });
    let mut conversation = Conversation {
        shard: &shard,
        plan: &plan,
        service,
        id,
        peer,
        stream,
        protocol,
        patience,
        read_at: 0,
        answered: 0,
        can_be_woken: false,
        parts: false,
    };
    let left = conversation.hold().await;
    shard.turn(|core| {
        if let Some(bytes) = left {
            core.hand_over_to_control(Handle::of(&conversation.stream), peer, bytes);
        }
        core.close(id, service);
    });
}

struct Conversation<'a, P> {
    shard: &'a Shard,
    plan: &'a Plan,
    service: Service,
    id: ConnectionId,
    peer: Option<Address>,
    stream: TcpStream,
    protocol: P,
    /// When the peer must have come to the point. Moves with every answer, not with every byte.
    patience: Time,
    /// When the last bytes were read, in nanoseconds, and what was answered and not yet written.
    read_at: u64,
    answered: u64,
    /// This task can be woken to part by agreement, which was not asked for yet.
    can_be_woken: bool,
    /// It was asked for.
    parts: bool,
}

impl<P: Protocol> Conversation<'_, P> {
    /// Returns what was read and is for the control thread, if the connection is.
    async fn hold(&mut self) -> Option<Vec<u8>> {
        let mut input: Vec<u8> = Vec::with_capacity(P::INPUT_BYTES);
        let mut output: Vec<u8> = Vec::with_capacity(FIRST_OUTPUT_BYTES);
        let (mut reads, mut bytes) = (0, 0);
        loop {
            if input.len() == input.capacity() {
                if input.capacity() >= P::INPUT_BYTES_MAX {
                    return None;
                }
                let more = input.capacity().min(P::INPUT_BYTES_MAX - input.len());
                input.reserve_exact(more);
            }
            let result;
            (result, input) = self.read(input).await;
            match result {
                Ok(count @ 1..) => bytes += count,
                Ok(0) => {
                    self.part(output).await;
                    return None;
                }
                Err(_) => return None,
            }
            self.read_at = self.plan.clock.nanos();
            loop {
                let taken = self.take(&mut input, &mut output);
                if !output.is_empty() {
                    let (result, written) = self.stream.write_all(output).await;
                    output = written;
                    output.clear();
                    if result.is_err() {
                        return None;
                    }
                    self.wait_on(taken.progress);
                }
                match taken.next {
                    Next::Close => return None,
                    Next::HandOver => return Some(input),
                    Next::Again => {}
                    Next::Read => break,
                }
            }
            // One large message, or a burst of questions, must not keep its memory for as long as the connection lives.
            if input.is_empty() && input.capacity() > P::INPUT_BYTES {
                input = Vec::with_capacity(P::INPUT_BYTES);
            }
            if output.capacity() > KEPT_OUTPUT_BYTES {
                output = Vec::with_capacity(FIRST_OUTPUT_BYTES);
            }
            reads += 1;
            if reads >= READS_PER_WAKE || bytes >= BYTES_PER_WAKE {
                (reads, bytes) = (0, 0);
                self.shard.give_way().await;
            }
        }
    }

    /// Reads behind what is in `input`. Meanwhile it may come about that all is to end.
    async fn read(&mut self, input: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let (begin, end) = (input.len(), input.capacity());
        let handle = Handle::of(&self.stream);
        let Conversation { shard, id, protocol, parts, can_be_woken, .. } = self;
        let mut reading = pin!(self.stream.read(SliceMut::new(input, begin, end)));
        let (result, slice) = poll_fn(|context| {
            let polled = reading.as_mut().poll(context);
            if P::PARTS_BY_AGREEMENT && !*parts {
                // Also where a read never waits, because there is always more.
                if shard.is_draining() {
                    *parts = true;
                    let mut output = Vec::new();
                    shard.turn(|core| protocol.part(core, Parting::Drain, &mut output));
                    // If nothing can be sent now, the peer does not listen, and hears of the end when it comes.
                    handle.send_now(&output);
                } else if polled.is_pending() && !std::mem::replace(can_be_woken, true) {
                    shard.turn(|core| core.connections.set_waker(*id, context.waker().clone()));
                }
            }
            polled
        })
        .await;
        (result, slice.into_inner())
    }

    fn take(&mut self, input: &mut Vec<u8>, output: &mut Vec<u8>) -> Taken {
        let rested = self.protocol.may_rest();
        let taken = self.shard.turn(|core| {
            let before = core.counters.told[self.service as usize].total;
            let taken = self.protocol.take(core, self.peer, input, output);
            self.answered += core.counters.told[self.service as usize].total - before;
            let rests = self.protocol.may_rest();
            if rests {
                self.patience = Time::MAX;
            } else if rested {
                self.patience = core.now.plus(self.plan.read_timeout[self.service as usize]);
            }
            if !output.is_empty() {
                core.connections.set_deadline(self.id, core.now.plus(self.plan.write_timeout[self.service as usize]));
            } else if rests != rested {
                core.connections.set_deadline(self.id, self.patience);
            }
            taken
        });
        input.drain(..taken.consumed.min(input.len()));
        taken
    }

    /// Something was written: the peer has its time again, all of it if an answer was among it.
    ///
    /// What was answered has taken from the last read until now. An answer that waits in HTTP/2, because the peer opens no
    /// window, is counted with whatever is written next: that wait is the peer's own time, and not in it.
    fn wait_on(&mut self, progress: bool) {
        let rests = self.protocol.may_rest();
        let took = self.plan.clock.nanos().saturating_sub(self.read_at);
        self.shard.turn(|core| {
            core.counters.durations[self.service as usize].record(took, std::mem::take(&mut self.answered));
            if progress && !rests {
                self.patience = core.now.plus(self.plan.read_timeout[self.service as usize]);
            }
            core.connections.set_deadline(self.id, self.patience);
        });
    }

    /// No more will come. If it was we who wanted that, the protocol's last words are said.
    async fn part(&mut self, mut output: Vec<u8>) {
        self.shard.turn(|core| {
            let why = match (core.draining, core.connections.is_ending(self.id)) {
                _ if self.parts => None,
                (true, _) => Some(Parting::Drain),
                (false, true) => Some(Parting::Timeout),
                (false, false) => None,
            };
            if let Some(why) = why {
                self.protocol.part(core, why, &mut output);
            }
        });
        if !output.is_empty() {
            // Whether they are heard or not, the connection closes.
            let _ = self.stream.write_all(output).await;
        }
    }
}
