//! What the server has counted, as its Prometheus metrics say.

use anyhow::{Context, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// One scrape: values by name and labels, as they are printed.
#[derive(Clone, Debug, Default)]
pub struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// # Errors
    ///
    /// Nobody answers, or not in this format.
    pub fn get(url: &str) -> anyhow::Result<Scrape> {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).build().into();
        let text = agent
            .get(url)
            .call()
            .and_then(|mut answer| answer.body_mut().read_to_string())
            .with_context(|| url.to_owned())?;
        Scrape::parse(&text)
    }

    pub fn parse(text: &str) -> anyhow::Result<Scrape> {
        let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let values = samples
            .map(|line| sample(line).with_context(|| format!("no sample: {line:?}")))
            .collect::<anyhow::Result<BTreeMap<_, _>>>()?;
        ensure!(values.keys().any(|name| name.starts_with("fail2ban_")), "no metrics of mailfail2ban");
        Ok(Scrape(values))
    }

    /// The sum over all labels, or over those that contain `label`.
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        let of_name = |key: &str| key == name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        self.0.iter().filter(|(key, _)| of_name(key) && key.contains(label)).map(|(_, value)| value).sum()
    }

    /// Values by the label `shard`.
    pub fn by_shard(&self, name: &str) -> BTreeMap<String, f64> {
        let prefix = format!("{name}{{shard=\"");
        let shard = |key: &str| Some(key.strip_prefix(&prefix)?.split('"').next()?.to_owned());
        self.0.iter().filter_map(|(key, value)| Some((shard(key)?, *value))).collect()
    }

    pub fn lines_received(&self) -> f64 {
        self.sum("fail2ban_syslog_received_total", "")
    }

    pub fn lines_matched(&self) -> f64 {
        self.sum("fail2ban_syslog_records_total", "result=\"matched\"")
    }
}

/// Scrapes until the server has received `lines` more than `before`, or until nothing more comes.
pub fn after(url: &str, before: &Scrape, lines: u64) -> anyhow::Result<Scrape> {
    let mut last = Scrape::get(url)?;
    let mut last_change = Instant::now();
    while last.lines_received() - before.lines_received() < lines as f64
        && last_change.elapsed() < Duration::from_secs(2)
    {
        std::thread::sleep(Duration::from_millis(100));
        let next = Scrape::get(url)?;
        if next.lines_received() > last.lines_received() {
            last_change = Instant::now();
        }
        last = next;
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_added_up_by_name_and_label() {
        let text = "# HELP fail2ban_a x\nfail2ban_a{t=\"udp\"} 3\nfail2ban_a{t=\"tcp\"} 4\nfail2ban_ab 100\n\
            fail2ban_shard_q{shard=\"0\"} 1\nfail2ban_shard_q{shard=\"1\"} 2.5\n";
        let scrape = Scrape::parse(text).unwrap();
        assert_eq!((scrape.sum("fail2ban_a", ""), scrape.sum("fail2ban_a", "t=\"udp\"")), (7.0, 3.0));
        assert_eq!(scrape.by_shard("fail2ban_shard_q").into_values().collect::<Vec<_>>(), [1.0, 2.5]);
        assert!(Scrape::parse("hello 1\n").is_err());
        assert!(Scrape::parse("hello\n").is_err());
    }
}
