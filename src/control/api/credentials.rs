//! Names, passwords and tokens: whether they are right, in the same time whatever is wrong with them.

use crate::config::{ApiSettings, Role, Token};
use argon2::{Argon2, PasswordVerifier as _};
use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use subtle::ConstantTimeEq as _;
use tokio::sync::{Mutex, Semaphore};

/// Hashes that are computed at a time: each takes its memory and a core.
const HASHES_AT_ONCE: usize = 2;

/// Credentials that were right lately and are known again, so that a page that asks often does not cost a hash each time.
const REMEMBERED: usize = 32;

/// Longest header that is looked at, in bytes.
const HEADER_BYTES_MAX: usize = 4_096;

type Seal = [u8; 32];

/// Who has proved to be somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub name: Arc<str>,
    pub role: Role,
}

/// All that are accepted. New settings make new ones, so nothing that is not valid any more is remembered.
#[derive(Debug)]
pub(super) struct Credentials {
    users: Vec<(Known, Password)>,
    tokens: Vec<(Known, Seal)>,
    /// Of this object alone: what was sealed with it means nothing elsewhere.
    key: Seal,
    right: Mutex<Vec<(Seal, Known)>>,
    hashing: Semaphore,
}

#[derive(Debug)]
enum Password {
    /// Sealed, so that all are compared in the same time, and none is in memory twice.
    Clear(Seal),
    Argon2(Arc<str>),
}

impl Credentials {
    pub fn new(settings: &ApiSettings) -> Credentials {
        let key = random_key();
        let known = |name: &str, role| Known { name: name.into(), role };
        let users = settings.users().into_iter().map(|user| {
            let text = user.password.reveal();
            let password = match text.starts_with("$argon2") {
                true => Password::Argon2(text.into()),
                false => Password::Clear(seal(&key, &[text.as_bytes()])),
            };
            (known(&user.name, user.role), password)
        });
        let tokens = settings.tokens.iter().map(|token| {
            let digest = match &token.token {
                Token::Clear(text) => Sha256::digest(text.reveal().as_bytes()).into(),
                Token::Hash(digest) => *digest,
            };
            (known(&token.name, token.role), digest)
        });
        Credentials {
            users: users.collect(),
            tokens: tokens.collect(),
            key,
            right: Mutex::default(),
            hashing: Semaphore::new(HASHES_AT_ONCE),
        }
    }

    /// Whether nobody is asked who he is.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.tokens.is_empty()
    }

    /// The challenges for who has not said who he is (RFC 9110 §11.6.1). A token may be sent as a password as well, by its
    /// name, since browsers ask for no tokens.
    pub fn challenges(&self) -> impl Iterator<Item = HeaderValue> {
        let bearer = (!self.tokens.is_empty()).then(|| HeaderValue::from_static(r#"Bearer realm="mailfail2ban""#));
        let basic = HeaderValue::from_static(r#"Basic realm="mailfail2ban", charset="UTF-8""#);
        std::iter::once(basic).chain(bearer)
    }

    /// Who sends this `Authorization`; `None` if it is nobody who is known.
    pub async fn check(&self, header: &HeaderValue) -> Option<Known> {
        let sent = Sent::parse(header)?;
        match &sent {
            Sent::Bearer(token) => self.of_token(token.as_bytes(), None),
            Sent::Basic { name, password } => match self.of_token(password.as_bytes(), Some(name)) {
                Some(known) => Some(known),
                None => self.of_user(name, password).await,
            },
        }
    }

    fn of_token(&self, token: &[u8], name: Option<&str>) -> Option<Known> {
        let digest: Seal = Sha256::digest(token).into();
        let mut found = None;
        // All of them, wherever the right one is.
        for (known, right) in &self.tokens {
            let is_right: bool = digest.ct_eq(right).into();
            if is_right && name.is_none_or(|name| *known.name == *name) {
                found = Some(known);
            }
        }
        found.cloned()
    }

    async fn of_user(&self, name: &str, password: &str) -> Option<Known> {
        let sealed = seal(&self.key, &[name.as_bytes(), password.as_bytes()]);
        let remembered = |right: &[(Seal, Known)]| {
            let found = right.iter().find(|(seal, _)| seal.ct_eq(&sealed).into());
            found.map(|(_, known)| known.clone())
        };
        if let Some(known) = remembered(&self.right.lock().await) {
            return Some(known);
        }
        let user = self.users.iter().find(|(known, _)| *known.name == *name);
        let is_right = match user {
            Some((_, Password::Clear(right))) => seal(&self.key, &[password.as_bytes()]).ct_eq(right).into(),
            Some((_, Password::Argon2(hash))) => self.verify(password, hash).await,
            // As long as for a user that there is.
            None => {
                let hash = self.users.iter().find_map(|(_, password)| match password {
                    Password::Argon2(hash) => Some(hash),
                    Password::Clear(_) => None,
                });
                if let Some(hash) = hash {
                    self.verify(password, hash).await;
                }
                false
            }
        };
        let (known, password) = user.filter(|_| is_right)?;
        if matches!(password, Password::Argon2(_)) {
            let mut right = self.right.lock().await;
            if right.len() >= REMEMBERED {
                right.remove(0);
            }
            right.push((sealed, known.clone()));
        }
        Some(known.clone())
    }

    /// Computes a hash, on a thread that may take its time.
    async fn verify(&self, password: &str, hash: &Arc<str>) -> bool {
        let Ok(_turn) = self.hashing.acquire().await else { return false };
        let (password, hash) = (password.to_owned(), Arc::clone(hash));
        let verify = move || Argon2::default().verify_password(password.as_bytes(), &*hash).is_ok();
        tokio::task::spawn_blocking(verify).await.unwrap_or(false)
    }
}

/// What was sent.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Basic { name: String, password: String },
    Bearer(String),
}

impl Sent {
    fn parse(header: &HeaderValue) -> Option<Sent> {
        let text = header.to_str().ok().filter(|text| text.len() <= HEADER_BYTES_MAX)?;
        let (scheme, rest) = text.split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Sent::Bearer(rest.to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
        let (name, password) = text.split_once(':')?;
        Some(Sent::Basic { name: name.to_owned(), password: password.to_owned() })
    }
}

/// A digest that only who has the key can make, of parts that cannot be moved into each other.
fn seal(key: &Seal, parts: &[&[u8]]) -> Seal {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// A key that nobody outside can know, from the randomness that the standard library seeds its tables with.
fn random_key() -> Seal {
    let mut key = [0; 32];
    for part in key.as_chunks_mut::<8>().0 {
        *part = RandomState::new().hash_one(0u8).to_be_bytes();
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    /// Of `secret`, cheaply.
    const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$";

    fn settings(hash: &str) -> ApiSettings {
        let yaml = format!(
            "api:
  tokens:
    - {{name: ci, token: 0123456789abcdef}}
    - {{name: hashed, hash: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08, role: read}}
  basic_auth:
    enabled: true
    users: {{ada: secret, bob: {{password: 'bob:s', role: read}}, eve: '{hash}'}}
"
        );
        parse("x", &yaml, std::iter::empty()).unwrap().api
    }

    fn hash_of_secret() -> String {
        let mut output = [0; 32];
        let params = argon2::Params::new(8, 1, 1, Some(32)).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        argon2.hash_password_into(b"secret", b"somesalt", &mut output).unwrap();
        format!("{HASH}{}", base64::engine::general_purpose::STANDARD_NO_PAD.encode(output))
    }

    async fn who(credentials: &Credentials, header: &str) -> Option<String> {
        let known = credentials.check(&HeaderValue::from_str(header).unwrap()).await?;
        Some(format!("{} {}", known.name, known.role))
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[tokio::test]
    async fn who_has_the_secret_is_known_and_nobody_else() {
        let credentials = Credentials::new(&settings(&hash_of_secret()));
        for (header, want) in [
            (basic("ada:secret"), Some("ada admin")),
            (basic("bob:bob:s"), Some("bob read")),
            (basic("eve:secret"), Some("eve admin")),
            (basic("eve:secret"), Some("eve admin")),
            ("bAsIc YWRhOnNlY3JldA==".to_owned(), Some("ada admin")),
            ("Bearer 0123456789abcdef".to_owned(), Some("ci admin")),
            ("bearer test".to_owned(), Some("hashed read")),
            // A token as a password, by its name.
            (basic("ci:0123456789abcdef"), Some("ci admin")),
            (basic("ada:0123456789abcdef"), None),
            (basic("ada:secre"), None),
            (basic("ada:secrets"), None),
            (basic("ada:"), None),
            (basic("ada"), None),
            (basic(":"), None),
            (basic("nobody:secret"), None),
            (basic("eve:wrong"), None),
            (basic(&format!("eve:{}", hash_of_secret())), None),
            ("Basic !!!".to_owned(), None),
            ("Basic".to_owned(), None),
            ("Bearer ".to_owned(), None),
            ("Bearer ada:secret".to_owned(), None),
            ("Digest x".to_owned(), None),
            (format!("Bearer {}", "x".repeat(9_000)), None),
        ] {
            assert_eq!(who(&credentials, &header).await.as_deref(), want, "{header}");
        }
        // What was right once is known again; what was wrong is not.
        assert_eq!(credentials.right.lock().await.len(), 1);
        assert!(!credentials.is_empty());
        assert_eq!(credentials.challenges().count(), 2);
        let nobody = Credentials::new(&parse("x", "", std::iter::empty()).unwrap().api);
        assert!(nobody.is_empty());
        assert_eq!(who(&nobody, &basic(":")).await, None);
    }

    #[test]
    fn parts_cannot_be_moved_into_each_other() {
        let key = random_key();
        assert_ne!(key, random_key());
        assert_ne!(seal(&key, &[b"ab", b"c"]), seal(&key, &[b"a", b"bc"]));
        assert_ne!(seal(&key, &[b"a"]), seal(&random_key(), &[b"a"]));
        assert!(!format!("{:?}", Credentials::new(&settings(&hash_of_secret()))).contains("secret"));
    }
}
