//! The question over HTTP: may this client in?
//!
//! All questions of one read are answered with one write. Buffers belong to the connection and are used again, so a
//! question allocates nothing.

use super::Plan;
use super::connections::ConnectionId;
use super::core::Core;
use super::handover::Handover;
use super::listen::Service;
use super::system::Handle;
use super::turn::Shard;
use crate::engine::address::Address;
use crate::engine::policy::{QuestionRules, forwarded_client};
use crate::engine::verdict::Verdict;
use crate::wire::http1::answer::{self, Denial, DenialContent};
use crate::wire::http1::{Delivery, Field, HEAD_BYTES_MAX, Method, Request, Session, Step, Target};
use monoio::buf::SliceMut;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use std::io::Write as _;

/// First size of a connection's read buffer: a question as nginx asks it takes 150 to 800 bytes.
const READ_BYTES: usize = 4 << 10;

/// First size of a connection's write buffer: three denials.
const OUTPUT_BYTES: usize = 512;

/// Answers are written once they are this many, even if more questions wait.
const WRITE_BYTES: usize = 64 << 10;

/// Reads in a row after which other connections get their turn on the epoll driver.
const READS_PER_WAKE: u32 = 16;

/// Answers a connection's questions until it ends.
pub async fn run(shard: Shard, handover: Handover, plan: Plan) {
    let _ = rustix::net::sockopt::set_tcp_nodelay(&handover.socket, true);
    let peer = handover.peer;
    let Ok(stream) = TcpStream::from_std(std::net::TcpStream::from(handover.socket)) else {
        shard.turn(|core| core.spread.release(Service::Question, core.index));
        return;
    };
    let id = shard.turn(|core| {
        let deadline = core.now.plus(plan.read_timeout);
        core.open(Handle::of(&stream), Service::Question, peer, deadline)
    });
    let mut connection = Connection { shard: &shard, plan: &plan, id, peer, stream, session: Session::new() };
    connection.answer_all().await;
    shard.turn(|core| core.close(id, Service::Question));
}

struct Connection<'a> {
    shard: &'a Shard,
    plan: &'a Plan,
    id: ConnectionId,
    peer: Option<Address>,
    stream: TcpStream,
    session: Session,
}

impl Connection<'_> {
    async fn answer_all(&mut self) {
        let mut input: Vec<u8> = Vec::with_capacity(READ_BYTES);
        let mut output: Vec<u8> = Vec::with_capacity(OUTPUT_BYTES);
        let mut reads = 0;
        loop {
            if input.len() == input.capacity() {
                if input.capacity() >= HEAD_BYTES_MAX {
                    return;
                }
                input.reserve_exact(HEAD_BYTES_MAX - input.len());
            }
            let (begin, end) = (input.len(), input.capacity());
            let (result, slice) = self.stream.read(SliceMut::new(input, begin, end)).await;
            input = slice.into_inner();
            if !matches!(result, Ok(1..)) {
                return;
            }
            loop {
                let closes = self.answer_read(&mut input, &mut output);
                if output.is_empty() && !closes {
                    break;
                }
                let (result, written) = self.stream.write_all(output).await;
                output = written;
                output.clear();
                if result.is_err() || closes {
                    return;
                }
                // An answer was taken: the next question has its own time, and there may be more in the buffer.
                self.shard.turn(|core| core.connections.set_deadline(self.id, core.now.plus(self.plan.read_timeout)));
                if input.is_empty() {
                    break;
                }
            }
            // One large head, or a burst of questions, must not keep its memory for as long as the connection lives.
            if input.is_empty() && input.capacity() > READ_BYTES {
                input = Vec::with_capacity(READ_BYTES);
            }
            if output.capacity() > READ_BYTES {
                output = Vec::with_capacity(OUTPUT_BYTES);
            }
            reads += 1;
            if reads % READS_PER_WAKE == 0 {
                self.shard.give_way().await;
            }
        }
    }

    /// Answers what is complete in `input`, up to a bounded amount of output. True if the connection closes then.
    fn answer_read(&mut self, input: &mut Vec<u8>, output: &mut Vec<u8>) -> bool {
        let mut done = 0;
        let mut closes = false;
        self.shard.turn(|core| {
            while output.len() < WRITE_BYTES
                && let Some(rest) = input.get(done..)
            {
                match self.session.next(rest) {
                    Step::Incomplete => break,
                    Step::Skip { consumed } => done += consumed,
                    Step::Request { request, consumed } => {
                        let mut delivery = request.delivery();
                        if core.draining {
                            delivery = delivery.closing();
                        }
                        closes |= delivery.closes();
                        answer_request(core, self.plan, &request, self.peer, delivery, output);
                        done += consumed;
                    }
                    Step::Refuse { refusal, delivery, consumed } => {
                        core.counters.requests_refused += 1;
                        answer::refusal(output, refusal, delivery);
                        closes = true;
                        done += consumed;
                    }
                }
                if closes {
                    break;
                }
            }
            if !output.is_empty() {
                core.connections.set_deadline(self.id, core.now.plus(self.plan.write_timeout));
            }
        });
        input.drain(..done.min(input.len()));
        closes
    }
}

fn answer_request(
    core: &mut Core,
    plan: &Plan,
    request: &Request<'_>,
    peer: Option<Address>,
    delivery: Delivery,
    output: &mut Vec<u8>,
) {
    if request.target == Target::Auth {
        return answer_question(core, request, peer, delivery, output);
    }
    core.counters.requests_other += 1;
    let reads = matches!(request.method, Method::Get | Method::Head);
    match request.target {
        Target::Health | Target::Ready if !reads => answer::method_not_allowed(output, delivery),
        Target::Health => answer::json(output, &health(core, plan), delivery),
        Target::Ready => answer::ready(output, core.ready && !core.draining, delivery),
        Target::Auth | Target::Other => answer::not_found(output, delivery),
    }
}

fn answer_question(
    core: &mut Core,
    request: &Request<'_>,
    peer: Option<Address>,
    delivery: Delivery,
    output: &mut Vec<u8>,
) {
    let rules = &core.policy.questions;
    let content = if rules.json { DenialContent::Json } else { DenialContent::Empty };
    let Some(client) = client(request, peer, rules) else {
        core.counters.questions_unknown += 1;
        match rules.deny_unknown {
            true => answer::unknown_denied(output, content, delivery),
            false => answer::unknown_allowed(output, delivery),
        }
        return;
    };
    let verdict = core.judge(client);
    let (reason, retry_after) = match verdict {
        Verdict::Allow | Verdict::Allowed => {
            core.counters.questions_allowed += 1;
            answer::allowed(output, client.ip(), delivery);
            return;
        }
        Verdict::Blocked => ("blacklist", None),
        Verdict::Banned(ban) => (core.policy.name(ban.pattern), Some(ban.until.since(core.now))),
    };
    core.counters.questions_denied += 1;
    answer::denied(output, &Denial { client: client.ip(), reason, retry_after }, content, delivery);
}

/// Who is asked about: the first of the proxies' headers that is there, a trusted proxy's list of hops, else the peer
/// itself. `None` if what is there is no address.
fn client(request: &Request<'_>, peer: Option<Address>, rules: &QuestionRules) -> Option<Address> {
    for field in [request.original_ip, request.real_ip, request.client_ip] {
        match field {
            Field::One(text) => return Address::parse_with_port(text),
            Field::Conflicting => return None,
            Field::Absent => {}
        }
    }
    match peer {
        Some(peer) if rules.trusted_proxies.contains(peer) && !request.forwarded_for.is_absent() => {
            forwarded_client(request.forwarded_for.from_right(), &rules.trusted_proxies)
        }
        peer => peer,
    }
}

fn health(core: &Core, plan: &Plan) -> Vec<u8> {
    let mut document = Vec::with_capacity(128);
    let (shards, uptime) = (core.shards, core.now.millis() / 1000);
    let _ = write!(
        document,
        r#"{{"status":"healthy","version":"{}","uptime_seconds":{uptime},"shards":{shards},"policy":{}}}"#,
        plan.version, core.policy.number
    );
    document
}
