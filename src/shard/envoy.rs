//! Envoy asks over gRPC (ext_authz): may this client in?

use super::conversation::{Next, OUTPUT_BYTES, Parting, Protocol, Taken};
use super::core::Core;
use super::listen::Service;
use crate::engine::address::Address;
use crate::engine::policy::forwarded_client;
use crate::wire::ext_authz::{Answer, CallId, Denial, Handled, Question, Session, Step, Why};

/// One HTTP/2 connection of Envoy: each of its worker threads holds one, and its health checker another.
pub struct Envoy {
    session: Session,
    /// Whether it has asked anything yet. Who has not may not rest: it would hold a place that a proxy needs.
    has_asked: bool,
}

impl Envoy {
    pub fn new() -> Envoy {
        Envoy { session: Session::new(), has_asked: false }
    }

    /// Does everything that the session has for us. True if a check was answered.
    fn answer_all(&mut self, core: &mut Core) -> bool {
        let mut progress = false;
        loop {
            match self.session.next() {
                Step::Idle => return progress,
                Step::Check { call, question } => {
                    progress = true;
                    let client = client(core, &question);
                    answer(core, &mut self.session, call, client);
                }
                Step::Handled(handled) => {
                    progress = true;
                    count(core, handled);
                }
                Step::Closed(why) => {
                    if why != Why::Ended {
                        core.counters.asked[Service::Envoy as usize].refused += 1;
                        core.counters.envoy_broken(why);
                    }
                }
            }
        }
    }
}

impl Protocol for Envoy {
    /// A question takes about 400 bytes, and many come at once.
    const INPUT_BYTES: usize = 16 << 10;
    /// All of the input is taken at once: the session has bounds of its own for what is unfinished.
    const INPUT_BYTES_MAX: usize = Envoy::INPUT_BYTES;
    /// GOAWAY, which Envoy confirms (RFC 9113 §6.8).
    const PARTS_BY_AGREEMENT: bool = true;

    fn take(&mut self, core: &mut Core, _: Option<Address>, input: &[u8], output: &mut Vec<u8>) -> Taken {
        self.session.set_serving(!core.draining);
        let mut taken = Taken { consumed: 0, progress: false, next: Next::Read };
        if self.session.wants_input() {
            self.session.receive(input);
            taken.consumed = input.len();
        }
        loop {
            taken.progress |= self.answer_all(core);
            self.has_asked |= taken.progress;
            let before = output.len();
            self.session.take_output(output);
            let said_something = output.len() > before;
            if self.session.is_closed() {
                taken.next = Next::Close;
                return taken;
            }
            if !said_something {
                break;
            }
            if output.len() >= OUTPUT_BYTES {
                taken.next = Next::Again;
                return taken;
            }
        }
        if taken.consumed < input.len() {
            // The session wants to be rid of its output first. If there is none, it waits for nothing that could happen.
            taken.next = if output.is_empty() { Next::Close } else { Next::Again };
        }
        taken
    }

    fn may_rest(&self) -> bool {
        self.has_asked && !self.session.is_in_the_middle()
    }

    fn part(&mut self, core: &mut Core, _: Parting, output: &mut Vec<u8>) {
        self.session.shut_down();
        self.answer_all(core);
        self.session.take_output(output);
    }
}

fn count(core: &mut Core, handled: Handled) {
    if let Some(status) = handled.grpc_status() {
        core.counters.told(Service::Envoy, status.into());
    }
    let asked = &mut core.counters.asked[Service::Envoy as usize];
    match handled {
        Handled::HealthCheck | Handled::HealthUnknown | Handled::HealthWatch | Handled::Abandoned => asked.other += 1,
        Handled::Refused(refusal) => {
            asked.refused += 1;
            core.counters.envoy_refused(refusal);
        }
    }
}

fn answer(core: &mut Core, session: &mut Session, call: CallId, client: Option<Address>) {
    let verdict = client.map(|client| core.judge(client));
    let asked = &mut core.counters.asked[Service::Envoy as usize];
    match verdict {
        Some(verdict) => asked.answered(verdict),
        None => asked.unknown += 1,
    }
    let denial = verdict.and_then(|verdict| verdict.denial(&core.policy, core.now));
    let answer = match (client, denial) {
        (Some(client), Some(denial)) => {
            Answer::Denied(Denial { client: client.ip(), reason: denial.reason, retry_after: denial.ends_in })
        }
        _ => Answer::Allowed,
    };
    core.counters.told(Service::Envoy, answer.grpc_status().into());
    session.answer(call, &answer);
}

/// Who is asked about: Envoy's own peer, or the one that a trusted proxy in front of Envoy names. `None` if there is no
/// address, as where Envoy listens on a unix socket.
fn client(core: &Core, question: &Question<'_>) -> Option<Address> {
    let source = Address::parse_with_port(question.source()?)?;
    let trusted = &core.policy.questions.envoy_trusted_proxies;
    if trusted.contains(source) {
        let forwarded_for = question.forwarded_for();
        if !forwarded_for.is_absent() {
            return forwarded_client(forwarded_for.from_right(), trusted);
        }
    }
    Some(source)
}
