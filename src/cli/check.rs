//! `check`: is the configuration right?

use crate::config::Faults;
use crate::control::publish::Publisher;
use crate::engine::table::hash_key;
use std::path::Path;

/// Reads and compiles the configuration, prints its warnings, and says what it found.
///
/// # Errors
///
/// All faults of the configuration.
pub fn run(path: &Path) -> Result<(), Faults> {
    let source = path.display().to_string();
    // The key of the hash is of no use here: nobody else sees these tables.
    let (settings, policy) = Publisher::new(1, hash_key(0)).load(path)?;
    for warning in &settings.warnings {
        eprintln!("mailfail2ban: warning: {}", warning.at(&source));
    }
    let counted = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    super::print(&format!(
        "{source}: the configuration is right: {}, {} on the whitelist, {} on the blacklist\n",
        counted(policy.matcher.len(), "pattern"),
        counted(policy.allow.len(), "network"),
        counted(policy.block.len(), "network"),
    ));
    Ok(())
}
