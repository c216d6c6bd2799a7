//! A real browser: Chromium without a window, driven as WebDriver says (<https://www.w3.org/TR/webdriver2/>), which is
//! JSON over HTTP.

use super::peers::{Peer, Program};
use super::{DEADLINE, Directory, Http, PAUSE};
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread::sleep;
use std::time::Instant;

/// The name under which WebDriver hands out elements (§12.3).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The key that submits a form (§17.4.2).
pub const ENTER: &str = "\u{e007}";

/// A browser with one page.
pub struct Browser {
    driver: SocketAddr,
    session: String,
    /// Ends before its files go.
    _chromedriver: Peer,
    _profile: Directory,
}

impl Browser {
    /// Starts it. If Chromium or its driver is not installed, the calling test is skipped.
    #[track_caller]
    pub fn start() -> Option<Browser> {
        Program::installed("chromium")?;
        let mut command = Program::installed("chromedriver")?.command();
        let profile = Directory::new();
        let mut chromedriver = Peer::start({
            // Whatever it and the browser leave behind goes with the directory.
            command.arg("--port=0").env("TMPDIR", &profile.0).env("HOME", &profile.0);
            command
        });
        let started = "was started successfully on port ";
        let line = chromedriver.wait_for_line("a port of chromedriver", |line| line.contains(started));
        let port = line.split(started).nth(1).and_then(|rest| rest.trim_end_matches('.').parse().ok());
        let driver = SocketAddr::from((Ipv4Addr::LOCALHOST, port.expect("a port")));
        // Root may not use the sandbox, and containers have a small /dev/shm.
        let arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"];
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let mut browser = Browser { driver, session: String::new(), _chromedriver: chromedriver, _profile: profile };
        let session = browser.order("POST", "", &capabilities).unwrap_or_else(|why| panic!("no browser: {why}"));
        browser.session = format!("/{}", session["sessionId"].as_str().expect("the session's name"));
        Some(browser)
    }

    /// One command of WebDriver. An error is its name and what it says.
    fn order(&self, method: &str, path: &str, parameters: &Value) -> Result<Value, String> {
        let body = if method == "POST" { parameters.to_string() } else { String::new() };
        let request = format!(
            "{method} /session{}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.session,
            body.len(),
        );
        let answer = Http::connect(self.driver).and_then(|mut http| {
            http.send(request.as_bytes())?;
            http.answer()
        });
        let answer = answer.map_err(|why: io::Error| why.to_string())?;
        let mut said: Value = serde_json::from_str(&answer.body).map_err(|why| why.to_string())?;
        let value = said["value"].take();
        if answer.status == 200 { Ok(value) } else { Err(format!("{}: {}", value["error"], value["message"])) }
    }

    #[track_caller]
    fn must(&self, path: &str, parameters: &Value) -> Value {
        self.order("POST", path, parameters).unwrap_or_else(|why| panic!("{path} {parameters}: {why}"))
    }

    #[track_caller]
    pub fn open(&self, url: &str) {
        self.must("/url", &json!({"url": url}));
    }

    /// Runs a script in the page, and returns what it returns.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.must("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Tries something again and again: a page may be about to move or replace what it is done to.
    #[track_caller]
    fn until<T>(&self, what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match attempt() {
                Ok(done) => return done,
                Err(why) => assert!(Instant::now() < deadline, "{what}: {why}\nthe page: {}", self.page()),
            }
            sleep(PAUSE);
        }
    }

    /// What can be read on the page.
    fn page(&self) -> String {
        let script = json!({"script": "return document.body.innerText", "args": []});
        self.order("POST", "/execute/sync", &script)
            .map_or_else(|why| why, |text| text.as_str().unwrap_or("").to_owned())
    }

    /// Waits until an expression in JavaScript is true.
    #[track_caller]
    pub fn wait_for(&self, expression: &str) {
        let script = json!({"script": format!("return !!({expression})"), "args": []});
        self.until(expression, || match self.order("POST", "/execute/sync", &script)? {
            Value::Bool(true) => Ok(()),
            other => Err(other.to_string()),
        });
    }

    /// Waits until the first element that a selector of CSS finds has a text in it.
    #[track_caller]
    pub fn wait_for_text(&self, selector: &str, text: &str) {
        self.wait_for(&format!("document.querySelector({})?.textContent.includes({})", json!(selector), json!(text)));
    }

    /// The text in the first element that a selector of CSS finds.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let text = self.run(&format!("return document.querySelector({})?.textContent", json!(selector)));
        text.as_str().unwrap_or_else(|| panic!("there is no {selector}: {}", self.page())).to_owned()
    }

    fn element(&self, selector: &str) -> Result<String, String> {
        let found = self.order("POST", "/element", &json!({"using": "css selector", "value": selector}))?;
        Ok(format!("/element/{}", found[ELEMENT].as_str().unwrap_or_default()))
    }

    /// Clicks as a mouse does: what is hidden or covered is not clicked.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.until(&format!("to click {selector}"), || {
            self.order("POST", &format!("{}/click", self.element(selector)?), &json!({}))
        });
    }

    /// Types into a field, in place of what is there.
    #[track_caller]
    pub fn fill(&self, selector: &str, text: &str) {
        self.until(&format!("to type into {selector}"), || {
            let element = self.element(selector)?;
            self.order("POST", &format!("{element}/clear"), &json!({}))?;
            self.order("POST", &format!("{element}/value"), &json!({"text": text}))
        });
    }

    /// Commands of Chromium's own that WebDriver has no words for.
    #[track_caller]
    fn chromium(&self, command: &str, parameters: &Value) {
        self.must("/goog/cdp/execute", &json!({"cmd": command, "params": parameters}));
    }

    /// As wide and as high as a screen, in pixels.
    #[track_caller]
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.chromium("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Whether whoever looks prefers it `dark` or `light`.
    #[track_caller]
    pub fn prefer(&self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.chromium("Emulation.setEmulatedMedia", &features);
    }

    /// What the browser has to say of the page since it was last asked: `(source, message)` of warnings and errors.
    #[track_caller]
    pub fn complaints(&self) -> Vec<(String, String)> {
        let lines = self.must("/se/log", &json!({"type": "browser"}));
        let grave = |line: &&Value| line["level"] == "SEVERE" || line["level"] == "WARNING";
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let lines = lines.as_array().expect("lines").iter().filter(grave);
        lines.map(|line| (text(&line["source"]), text(&line["message"]))).collect()
    }

    /// Keeps a picture of what is seen.
    #[track_caller]
    pub fn screenshot(&self, file: &Path) {
        let picture = self.order("GET", "/screenshot", &Value::Null).unwrap_or_else(|why| panic!("no picture: {why}"));
        let picture = from_base64(picture.as_str().expect("a text"));
        assert!(picture.starts_with(b"\x89PNG"), "not a picture");
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder for pictures");
        fs::write(file, picture).expect("a place for a picture");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium is no child of this process, and ends with its session.
        drop(self.order("DELETE", "", &Value::Null));
    }
}

/// Base 64 of RFC 4648 §4.
fn from_base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|byte| ALPHABET.iter().position(|digit| *digit == byte));
    let digits: Vec<usize> = digits.collect();
    let bytes = digits.chunks(4).flat_map(|four| {
        let bits = four.iter().enumerate().fold(0, |bits, (i, digit)| bits | digit << (18 - 6 * i));
        [bits >> 16, bits >> 8, bits].into_iter().take(four.len() - 1)
    });
    bytes.map(|byte| byte as u8).collect()
}
