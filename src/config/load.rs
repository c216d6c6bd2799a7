//! Finding and reading the file and the environment. The only part of the settings that touches the outside.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::fault::{Fault, Faults};
use super::parse::Draft;
use super::settings::Settings;

/// Where a configuration is looked for when the command line names none, in this order.
const PLACES: [&str; 2] = ["config.yaml", "/etc/mailfail2ban/config.yaml"];

/// Longest file that is read, in bytes. A hundred thousand networks on a list are 2 MiB; what is longer than this is
/// not a configuration, and `/dev/zero` has no end.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The file to read: the one that the command line names, whether or not it exists, else `./config.yaml`, else
/// `/etc/mailfail2ban/config.yaml`.
///
/// # Errors
///
/// One fault, which says where was looked and how to get a file, if there is none in either place.
pub fn locate(explicit: Option<&Path>) -> Result<PathBuf, Faults> {
    locate_among(explicit, &PLACES.map(Path::new))
}

fn locate_among(explicit: Option<&Path>, places: &[&Path]) -> Result<PathBuf, Faults> {
    if let Some(path) = explicit {
        return Ok(path.to_owned());
    }
    // Whatever is there is taken, readable or not: to pass over a file that cannot be read, or a link that leads
    // nowhere, would be to run with other settings than the operator sees.
    let there = |path: &&&Path| !matches!(path.symlink_metadata(), Err(e) if is_absent(&e));
    if let Some(path) = places.iter().find(there) {
        return Ok(path.to_path_buf());
    }
    let places: Vec<String> = places.iter().map(|path| Path::new(".").join(path).display().to_string()).collect();
    let message = format!(
        "there is no configuration: looked for {}; `mailfail2ban config > config.yaml` writes one with every default, \
         --config FILE names another",
        places.join(" and ")
    );
    Err(Faults::new("", vec![Fault { key: String::new(), line: None, message }]))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Reads the file and the environment of this process; see [`parse`](super::parse()).
///
/// # Errors
///
/// All faults of both, or one if the file cannot be read or is not UTF-8.
pub fn load(path: &Path) -> Result<Settings, Faults> {
    draft(path)?.finish()
}

/// The same, for those who look for more faults before it is finished.
///
/// # Errors
///
/// If the file cannot be read or is not UTF-8.
pub fn draft(path: &Path) -> Result<Draft, Faults> {
    let source = path.display().to_string();
    let text = read_text(path).map_err(|fault| Faults::new(&source, vec![fault]))?;
    // What is not UTF-8 is no setting's name and no setting's value: the replacement character makes it a fault where
    // it matters, and is passed over where it does not.
    let environment = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    Ok(Draft::parse(&source, &text, environment))
}

fn read_text(path: &Path) -> Result<String, Fault> {
    let fault = |line, message| Fault { key: String::new(), line, message };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| fault(None, format!("cannot be read: {error}")))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        let limit = FILE_BYTES_MAX / (1024 * 1024);
        return Err(fault(None, format!("is longer than {limit} MiB, which no configuration is")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + memchr::memchr_iter(b'\n', valid).count();
        fault(Some(line), "is not text in UTF-8 from here on".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own for one test, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("mailfail2ban-config-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }

        fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_first_place_with_a_file_is_taken() {
        let scratch = Scratch::new("locate");
        let (here, etc) = (scratch.0.join("config.yaml"), scratch.0.join("etc/config.yaml"));
        let places = [here.as_path(), etc.as_path()];
        let named = Path::new("/nowhere/at/all.yaml");
        assert_eq!(locate_among(Some(named), &places).as_deref(), Ok(named));

        let faults = locate_among(None, &places).unwrap_err().to_string();
        assert!(faults.contains(&format!("looked for {} and {}", here.display(), etc.display())), "{faults}");
        assert!(faults.contains("`mailfail2ban config > config.yaml`"), "{faults}");

        std::fs::create_dir(scratch.0.join("etc")).unwrap();
        scratch.file("etc/config.yaml", b"");
        assert_eq!(locate_among(None, &places).as_deref(), Ok(etc.as_path()));
        std::os::unix::fs::symlink("nowhere", &here).unwrap();
        assert_eq!(locate_among(None, &places).as_deref(), Ok(here.as_path()));
    }

    #[test]
    fn what_cannot_be_read_is_one_fault() {
        let scratch = Scratch::new("load");
        let fault = |path: &Path| load(path).unwrap_err().to_string();
        let missing = scratch.0.join("missing.yaml");
        assert!(fault(&missing).starts_with(&format!("{}: cannot be read: ", missing.display())));
        assert!(fault(&scratch.0).contains("cannot be read: "));
        let latin1 = scratch.file("latin1.yaml", b"# one\n# two\nlog:\n  level: \xe9\n");
        assert_eq!(fault(&latin1), format!("{}:4: is not text in UTF-8 from here on", latin1.display()));
        assert!(fault(Path::new("/dev/zero")).contains("is longer than 64 MiB"));
    }

    #[test]
    fn a_file_is_read() {
        let scratch = Scratch::new("read");
        let path = scratch.file("config.yaml", b"ban:\n  max_attempts: 7\n");
        assert_eq!(load(&path).unwrap().ban.max_attempts, 7);
    }
}
