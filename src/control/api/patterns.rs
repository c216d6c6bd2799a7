//! A pattern, tried before it goes live.

use super::Office;
use super::answers::{CheckedLine, CounterExampleItem, PatternCheck, RemarkItem};
use super::input;
use super::refusal::{Refusals, Refused};
use crate::config::{PatternSettings, RowFault, pattern_of_row};
use crate::control::candidate::{Judge, Judged, Remark};
use crate::control::desk::Refusal;
use crate::engine::ban::PatternId;
use crate::engine::matcher::{Found, Matcher};
use crate::wire::syslog;
use axum::Json;
use axum::extract::{Request, State};
use serde::Deserialize;
use utoipa::ToSchema;

/// Lines that are tried at once.
const LINES_MAX: usize = 200;

/// A pattern as it would stand in the configuration, and lines to try it on.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub(super) struct Candidate {
    #[schema(example = "^login of <USER> from <IP> failed$")]
    regex: String,
    #[serde(default)]
    name: Option<String>,
    /// The group that captures the address, by number.
    #[serde(default)]
    #[schema(maximum = 255)]
    ip_group: Option<u8>,
    #[serde(default)]
    #[schema(maximum = 255)]
    severity: Option<u8>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    #[schema(maximum = 65535)]
    weight: Option<u16>,
    #[serde(default)]
    refused_by: Option<String>,
    /// Programs that it is for. Without any it sees `program[pid]: message` of all of them.
    #[serde(default)]
    program: Vec<String>,
    /// As in the configuration: with ` => 192.0.2.1` or ` => none` at the end.
    #[serde(default)]
    examples: Vec<String>,
    /// Lines of a log.
    #[serde(default)]
    #[schema(max_items = 200)]
    lines: Vec<String>,
}

impl Candidate {
    /// The same, read by the rules of the configuration; or what is wrong with it.
    fn settings(&self) -> Result<PatternSettings, Vec<RemarkItem>> {
        let (ip_group, severity) = (self.ip_group.map(|n| n.to_string()), self.severity.map(|n| n.to_string()));
        let weight = self.weight.map(|n| n.to_string());
        let programs = self.program.join(",");
        let columns = [
            ("name", Some(self.name.as_deref().unwrap_or("candidate"))),
            ("regex", Some(self.regex.as_str())),
            ("ip_group", ip_group.as_deref()),
            ("severity", severity.as_deref()),
            ("kind", self.kind.as_deref()),
            ("weight", weight.as_deref()),
            ("refused_by", self.refused_by.as_deref()),
            ("program", Some(programs.as_str())),
        ];
        let remark = |fault: RowFault| RemarkItem { key: fault.column, message: fault.message };
        let settings = pattern_of_row(&columns).map_err(|faults| faults.into_iter().map(remark).collect::<Vec<_>>())?;
        Ok(PatternSettings { examples: self.examples.clone(), ..settings })
    }
}

/// Says of a pattern whether it compiles, whether its examples hold, whether a client can steer it, and what it finds in
/// lines. It does not go live.
#[utoipa::path(
    post, path = "/api/patterns/check", tag = "server", request_body = Candidate,
    responses((status = 200, description = "What is right and wrong with it.", body = PatternCheck), Refusals)
)]
pub(super) async fn check(State(office): State<Office>, request: Request) -> Result<Json<PatternCheck>, Refused> {
    let candidate: Candidate = input::body(request).await?;
    if candidate.lines.len() > LINES_MAX {
        return Err(Refused::wrong(format!("lines: expected at most {LINES_MAX}")));
    }
    // It takes all of a core for a moment.
    let _turn = office.searching.lock().await;
    let checked = tokio::task::spawn_blocking(move || judge(&candidate)).await;
    checked.map(Json).map_err(|_| Refusal::Unavailable("the pattern could not be tried".to_owned()).into())
}

fn judge(candidate: &Candidate) -> PatternCheck {
    let faulty = |faults| PatternCheck { success: true, usable: false, faults, ..PatternCheck::default() };
    let settings = match candidate.settings() {
        Ok(settings) => settings,
        Err(faults) => return faulty(faults),
    };
    let item = |remark: Remark| RemarkItem { key: remark.key.to_owned(), message: remark.message };
    match Judge::default().examine(PatternId::FIRST, &settings, false) {
        Err(faults) => faulty(faults.into_iter().map(item).collect()),
        Ok(Judged { pattern, warnings, counter_example }) => PatternCheck {
            success: true,
            usable: true,
            faults: Vec::new(),
            warnings: warnings.into_iter().map(item).collect(),
            counter_example: counter_example.map(|shown| CounterExampleItem {
                line: shown.line,
                of: shown.of.map(|address| address.to_string()),
                found: shown.found.to_string(),
            }),
            lines: try_lines(&Matcher::new(vec![pattern]), &candidate.lines),
        },
    }
}

fn try_lines(matcher: &Matcher, lines: &[String]) -> Vec<CheckedLine> {
    let mut scratch = matcher.scratch();
    let mut check = |line: &String| {
        let found = syslog::decode_logged(line.as_bytes())
            .map(|record| matcher.find(&mut scratch, record.program, record.pid, record.message));
        match found {
            Ok(Found::Match(found)) => {
                CheckedLine { matches: true, ip_address: Some(found.address.to_string()), failures: found.failures }
            }
            _ => CheckedLine { matches: false, ip_address: None, failures: 0 },
        }
    };
    lines.iter().map(&mut check).collect()
}
