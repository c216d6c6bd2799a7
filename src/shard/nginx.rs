//! nginx asks over HTTP: may this client in?

use super::conversation::{Next, OUTPUT_BYTES, Protocol, Taken};
use super::core::Core;
use super::listen::Service;
use crate::engine::address::Address;
use crate::engine::policy::{QuestionRules, forwarded_client};
use crate::engine::time::Time;
use crate::wire::http1::answer::{self, Denial, DenialContent};
use crate::wire::http1::{Delivery, Field, HEAD_BYTES_MAX, Method, Request, Session, Step, Target};
use std::io::Write as _;

/// One connection of nginx, or of anybody who asks over HTTP.
#[derive(Debug)]
pub struct Nginx {
    session: Session,
    /// What `/health` says of this program.
    version: &'static str,
}

impl Nginx {
    pub fn new(version: &'static str) -> Nginx {
        Nginx { session: Session::new(), version }
    }
}

impl Protocol for Nginx {
    /// A question as nginx asks it takes 150 to 800 bytes.
    const INPUT_BYTES: usize = 4 << 10;
    const INPUT_BYTES_MAX: usize = HEAD_BYTES_MAX;

    fn take(&mut self, core: &mut Core, peer: Option<Address>, input: &[u8], output: &mut Vec<u8>) -> Taken {
        let mut done = 0;
        let mut next = Next::Read;
        while let Some(rest) = input.get(done..) {
            if output.len() >= OUTPUT_BYTES {
                next = Next::Again;
                break;
            }
            let before = output.len();
            let closes = match self.session.next(rest) {
                Step::Incomplete => break,
                Step::Skip { consumed } => {
                    done += consumed;
                    false
                }
                Step::Request { request, .. }
                    if request.target == Target::Operators && core.policy.questions.operators && !core.draining =>
                {
                    core.counters.asked[Service::Nginx as usize].other += 1;
                    return Taken { consumed: done, progress: !output.is_empty(), next: Next::HandOver };
                }
                Step::Request { request, consumed } => {
                    let mut delivery = request.delivery();
                    if core.draining {
                        delivery = delivery.closing();
                    }
                    answer_request(core, self.version, &request, peer, delivery, output);
                    done += consumed;
                    delivery.closes()
                }
                Step::Refuse { refusal, delivery, consumed } => {
                    core.counters.asked[Service::Nginx as usize].refused += 1;
                    answer::refusal(output, refusal, delivery);
                    done += consumed;
                    true
                }
            };
            if let Some(status) = output.get(before..).and_then(answer::status) {
                core.counters.told(Service::Nginx, status);
            }
            if closes {
                next = Next::Close;
                break;
            }
        }
        Taken { consumed: done, progress: !output.is_empty(), next }
    }
}

fn answer_request(
    core: &mut Core,
    version: &str,
    request: &Request<'_>,
    peer: Option<Address>,
    delivery: Delivery,
    output: &mut Vec<u8>,
) {
    if request.target == Target::Auth {
        return answer_question(core, request, peer, delivery, output);
    }
    core.counters.asked[Service::Nginx as usize].other += 1;
    let reads = matches!(request.method, Method::Get | Method::Head);
    match request.target {
        // Otherwise it is handed over.
        Target::Operators if core.policy.questions.operators => answer::ending(output, delivery),
        Target::Auth | Target::Operators | Target::Other => answer::not_found(output, delivery),
        _ if !reads => answer::method_not_allowed(output, delivery),
        Target::Health => answer::json(output, &health(core, version), delivery),
        Target::Ready => answer::ready(output, core.is_ready(), delivery),
        Target::ConfigSource => answer::json(output, &core.documents.config_source, delivery),
        Target::DatabaseStatus => answer::json(output, &core.documents.database_status, delivery),
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
        core.counters.asked[Service::Nginx as usize].unknown += 1;
        match rules.deny_unknown {
            true => answer::unknown_denied(output, content, delivery),
            false => answer::unknown_allowed(output, delivery),
        }
        return;
    };
    let verdict = core.judge(client);
    core.counters.asked[Service::Nginx as usize].answered(verdict);
    match verdict.denial(&core.policy, core.now) {
        None => answer::allowed(output, client.ip(), delivery),
        Some(denial) => {
            let denial = Denial { client: client.ip(), reason: denial.reason, retry_after: denial.ends_in };
            answer::denied(output, &denial, content, delivery);
        }
    }
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
        Some(peer) if rules.nginx_trusted_proxies.contains(peer) && !request.forwarded_for.is_absent() => {
            forwarded_client(request.forwarded_for.from_right(), &rules.nginx_trusted_proxies)
        }
        peer => peer,
    }
}

fn health(core: &Core, version: &str) -> Vec<u8> {
    let mut document = Vec::with_capacity(128);
    let (shards, uptime) = (core.shards, core.now.since(Time::START).as_secs());
    let _ = write!(
        document,
        r#"{{"status":"healthy","version":"{version}","uptime_seconds":{uptime},"shards":{shards},"policy":{}}}"#,
        core.policy.number
    );
    document
}
