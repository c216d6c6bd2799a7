//! HAProxy asks over SPOP: may this client in?

use super::conversation::{Next, OUTPUT_BYTES, Parting, Protocol, Taken};
use super::core::Core;
use super::listen::Service;
use crate::engine::address::Address;
use crate::engine::verdict::Verdict;
use crate::wire::spop::answer::{self, Answer, Denial};
use crate::wire::spop::{Client, Closing, FRAME_BYTES_MAX, Handled, Notify, Session, Status, Step, frame_kind};

/// One connection of HAProxy's engine: each of its threads holds some.
#[derive(Debug, Default)]
pub struct Spoa {
    session: Session,
}

impl Protocol for Spoa {
    /// A question takes about 60 bytes, and many come at once.
    const INPUT_BYTES: usize = 16 << 10;
    const INPUT_BYTES_MAX: usize = FRAME_BYTES_MAX as usize + size_of::<u32>();

    fn take(&mut self, core: &mut Core, _: Option<Address>, input: &[u8], output: &mut Vec<u8>) -> Taken {
        let mut done = 0;
        let mut next = Next::Read;
        while let Some(rest) = input.get(done..) {
            if output.len() >= OUTPUT_BYTES {
                next = Next::Again;
                break;
            }
            match self.session.next(rest, output) {
                Step::Incomplete => break,
                Step::Handled { consumed, what } => {
                    core.counters.asked[Service::Spoa as usize].other += 1;
                    match what {
                        Handled::Hello => told(core, frame_kind::AGENT_HELLO),
                        Handled::UnknownFrame | Handled::AfterClose => {}
                    }
                    done += consumed;
                }
                Step::Notify { notify, consumed } => {
                    answer_question(core, &notify, self.session.frame_bytes_max(), output);
                    told(core, frame_kind::ACK);
                    done += consumed;
                }
                Step::Close { consumed, why } => {
                    count_end(core, why);
                    done += consumed;
                    next = Next::Close;
                    break;
                }
            }
        }
        Taken { consumed: done, progress: done > 0, next }
    }

    fn part(&mut self, core: &mut Core, why: Parting, output: &mut Vec<u8>) {
        let status = match why {
            Parting::Drain => Status::Normal,
            Parting::Timeout => Status::Timeout,
        };
        core.counters.spoa_disconnects.by_agent.add(status.code());
        self.session.disconnect(status, output);
    }
}

fn told(core: &mut Core, frame_kind: u8) {
    core.counters.told(Service::Spoa, frame_kind.into());
}

fn count_end(core: &mut Core, why: Closing) {
    told(core, if why == Closing::HealthCheck { frame_kind::AGENT_HELLO } else { frame_kind::AGENT_DISCONNECT });
    let asked = &mut core.counters.asked[Service::Spoa as usize];
    let disconnects = &mut core.counters.spoa_disconnects;
    match why {
        Closing::HealthCheck => asked.other += 1,
        Closing::Peer { status } => disconnects.by_haproxy.add(status),
        Closing::Fault(fault) => {
            asked.refused += 1;
            disconnects.by_agent.add(fault.status().code());
        }
    }
}

/// Answers about everybody who is named: one who is kept out is enough.
fn answer_question(core: &mut Core, notify: &Notify<'_>, frame_bytes_max: u32, output: &mut Vec<u8>) {
    let addresses = notify.clients().filter_map(|client| match client {
        Client::Ip(ip) => Some(Address::from(ip)),
        Client::Text(text) => Address::parse_with_port(text),
    });
    let verdict = addresses.map(|address| core.judge(address)).reduce(worse);
    let asked = &mut core.counters.asked[Service::Spoa as usize];
    match verdict {
        Some(verdict) => asked.answered(verdict),
        None => asked.unknown += 1,
    }
    let answer = match verdict.and_then(|verdict| verdict.denial(&core.policy, core.now)) {
        None => Answer::Allowed,
        Some(denial) => Answer::Denied(Denial {
            reason: denial.reason,
            pattern: denial.ban.map(|(pattern, _)| pattern),
            severity: denial.ban.map(|(_, severity)| severity.level()),
            expires_in: denial.ends_in,
        }),
    };
    answer::ack(output, notify.stream_id, notify.frame_id, &answer, frame_bytes_max);
}

/// The first denial, if there is any.
fn worse(earlier: Verdict, later: Verdict) -> Verdict {
    if earlier.is_denial() { earlier } else { later }
}
