//! The dashboard in a real browser: what an operator sees and clicks, and what the server does then.

#![allow(clippy::disallowed_methods, reason = "tests measure how long a client waits")]

mod harness;

use harness::browser::{Browser, ENTER};
use harness::{Config, Server, failed_login, wait_for};
use std::path::{Path, PathBuf};

/// Who is banned by what it does.
const CLIENT: &str = "203.0.113.7";

/// Who writes markup into the log, in the place of a user's name.
const ATTACKER: &str = "203.0.113.66";

/// A user's name that would run, were it put into the page as markup. The pattern of Dovecot lets any name be.
const MARKUP: &str = "<script>window.ran='script'</script><img src=nowhere onerror=\"window.ran='image'\">\
                      <svg onload=\"window.ran='svg'\">&lt;b&gt;";

/// The views that have a name in the navigation.
const VIEWS: [&str; 4] = ["now", "bans", "lists", "audit"];

/// A server with some bans, and a browser that shows its page and knows that all is well. `None`: the test is skipped.
#[track_caller]
fn open() -> Option<(Server, Browser)> {
    let browser = Browser::start()?;
    browser.resize(1280, 960);
    let server = Server::start(Config::new());
    let threshold = 5;
    server.fail(CLIENT, threshold);
    server.send_tcp(std::iter::repeat_n(hostile_login(), threshold));
    for client in [CLIENT, ATTACKER] {
        server.wait_for_status(client, 403);
    }
    browser.open(&page(&server));
    browser.wait_for("document.querySelector('#health[data-state=good]')");
    Some((server, browser))
}

fn page(server: &Server) -> String {
    format!("http://{}/", server.config.nginx)
}

fn hostile_login() -> String {
    failed_login(ATTACKER).replace("user=<bob>", &format!("user=<{MARKUP}>"))
}

/// The row of a ban.
fn row_of(client: &str) -> String {
    format!("#bans tr[data-client='{client}']")
}

#[track_caller]
fn show(browser: &Browser, view: &str) {
    browser.click(&format!("nav a[data-view='{view}']"));
    browser.wait_for(&format!("document.querySelector('#view-{view}:not([hidden])')"));
}

/// Explains an address as an operator asks for it.
#[track_caller]
fn explain(browser: &Browser, client: &str) {
    browser.fill("#look-address", &format!("{client}{ENTER}"));
    browser.wait_for_text("#explain-title", client);
    browser.wait_for("document.querySelector('#verdict')");
}

/// Nothing went wrong in the page, its policy for content was never broken, and no request failed.
#[track_caller]
fn assert_quiet(browser: &Browser) {
    assert_eq!(browser.complaints(), [], "the browser complains");
}

fn picture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots").join(format!("dashboard-{name}.png"))
}

#[test]
fn an_operator_bans_and_unbans() {
    let Some((server, browser)) = open() else { return };
    show(&browser, "bans");
    let unban = format!("{} .unban", row_of(CLIENT));
    browser.click(&unban);
    browser.wait_for(&format!("!document.querySelector(\"{unban}\")"));
    assert_eq!(server.status(CLIENT), 200, "unbanned");
    assert_eq!(server.status(ATTACKER), 403, "the other one is not");

    browser.fill("#ban-address", CLIENT);
    browser.fill("#ban-duration", "1h");
    browser.fill("#ban-reason", "called at night");
    browser.click("#ban-submit");
    browser.wait_for_text("#ban-said", CLIENT);
    assert_eq!(server.status(CLIENT), 403, "banned by the form");
    browser.wait_for_text(&row_of(CLIENT), "manual");
    browser.wait_for_text(&row_of(CLIENT), "59m");

    // A network is banned, and unbanned, after a question only.
    let within = "198.51.100.9";
    browser.fill("#ban-address", "198.51.100.0/24");
    browser.click("#ban-submit");
    browser.wait_for_text("#ask[open] #ask-text", "256 addresses");
    assert_eq!(server.status(within), 200, "asked, and not done");
    browser.click("#ask-yes");
    browser.wait_for_text("#ban-said", "198.51.100.0/24");
    assert_eq!(server.status(within), 403, "banned with its network");
    let unban = format!("{} .unban", row_of("198.51.100.0/24"));
    browser.click(&unban);
    browser.click("#ask-no");
    browser.wait_for("!document.querySelector('#ask').open");
    assert_eq!(server.status(within), 403, "left as it is");
    browser.click(&unban);
    browser.click("#ask-yes");
    browser.wait_for(&format!("!document.querySelector(\"{unban}\")"));
    assert_eq!(server.status(within), 200, "unbanned with its network");

    show(&browser, "audit");
    browser.wait_for_text("#audit", CLIENT);
    assert_quiet(&browser);

    // What is refused is said where it was asked for.
    show(&browser, "bans");
    browser.fill("#ban-address", "300.1.2.3");
    browser.click("#ban-submit");
    browser.wait_for_text("#ban-error", "300.1.2.3");
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|(source, _)| source == "network"), "{complaints:?}");
    server.stop();
}

#[test]
fn an_operator_keeps_the_lists_and_purges() {
    let Some((server, browser)) = open() else { return };
    show(&browser, "lists");
    browser.fill("#whitelist-address", CLIENT);
    browser.fill("#whitelist-reason", "our own <b>relay</b>");
    browser.click("#whitelist-add");
    browser.wait_for_text("#whitelist-said", CLIENT);
    assert_eq!(server.status(CLIENT), 200, "whitelisted");
    browser.wait_for_text("#whitelist-entries", "our own <b>relay</b>");

    explain(&browser, CLIENT);
    browser.wait_for("document.querySelector('#verdict[data-verdict=whitelisted]')");
    browser.wait_for_text("#verdict", "our own <b>relay</b>");
    browser.click("#verdict .remove");
    browser.wait_for("document.querySelector('#verdict:not([data-verdict=whitelisted])')");

    show(&browser, "lists");
    browser.fill("#blacklist-address", "192.0.2.99");
    browser.click("#blacklist-add");
    browser.wait_for_text("#blacklist-said", "192.0.2.99");
    assert_eq!(server.status("192.0.2.99"), 403, "blacklisted");
    browser.click("#blacklist-entries tr[data-client='192.0.2.99'] .remove");
    browser.wait_for("!document.querySelector(\"#blacklist-entries tr[data-client='192.0.2.99'] .remove\")");
    assert_eq!(server.status("192.0.2.99"), 200, "not blacklisted any more");

    show(&browser, "bans");
    browser.click("#purge");
    browser.click("#ask-no");
    assert_eq!(server.status(ATTACKER), 403, "asked, and left");
    browser.click("#purge");
    browser.click("#ask-yes");
    browser.wait_for_text("#bans-said", "ended");
    assert_eq!(server.status(ATTACKER), 200, "every ban has ended");
    assert_quiet(&browser);
    server.stop();
}

#[test]
fn what_attackers_write_stays_text() {
    let Some((server, browser)) = open() else { return };
    explain(&browser, ATTACKER);
    browser.wait_for("document.querySelector('#verdict[data-verdict=banned]')");
    browser.wait_for_text("#evidence", MARKUP);
    let elements =
        browser.run("return document.querySelectorAll('#main script, #main img, #main b, [onload], [onerror]').length");
    // The five numbers on the first view are the only <b> of the page.
    assert_eq!(elements, 5, "markup in the page:\n{}", browser.text("#evidence"));
    assert!(browser.run("return window.ran ?? null").is_null(), "it ran");
    // That it would be seen if it ran, or tried to.
    browser.run("document.body.append(Object.assign(document.createElement('div'), {innerHTML: '<img src=x onerror=window.ran=1>'}))");
    wait_for("the browser to stop it", || browser.complaints().into_iter().find(|(source, _)| source == "security"));
    assert!(browser.run("return window.ran ?? null").is_null(), "it ran in spite of the page's policy");
    server.stop();
}

#[test]
fn what_happens_is_seen_while_it_happens() {
    let Some((server, browser)) = open() else { return };
    server.fail("203.0.113.8", 5);
    browser.wait_for_text("#feed", "203.0.113.8");
    let config = server.config.clone();
    server.stop();
    browser.wait_for("document.querySelector('#health[data-state=bad]')");
    browser.wait_for_text("#health-title", "No connection");
    let server = Server::start(config);
    browser.wait_for("document.querySelector('#health[data-state=good]')");
    server.fail("203.0.113.9", 5);
    browser.wait_for_text("#feed", "203.0.113.9");

    // In a storm the page stays small, and knows how many there are.
    let storm = (0..2_000_u32).map(|i| format!("198.18.{}.{}", i / 256, i % 256));
    server.send_tcp(storm.flat_map(|client| std::iter::repeat_n(failed_login(&client), 5)));
    wait_for("the storm", || (server.status("198.18.7.207") == 403).then_some(()));
    browser.wait_for("document.querySelector('#banned').textContent === '2,001'");
    let lines = browser.run("return document.querySelector('#feed').childElementCount");
    assert!(lines.as_u64().is_some_and(|lines| lines <= 100), "{lines} lines in the feed");
    show(&browser, "bans");
    browser.wait_for_text("#bans-page", "1–50 of 2,001");
    browser.click("#bans-next");
    browser.wait_for_text("#bans-page", "51–100 of 2,001");
    browser.fill("#bans-search", "18.7.20");
    browser.wait_for_text("#bans-page", "1–9 of 9");
    server.stop();
}

#[test]
fn it_fits_every_screen_by_day_and_by_night() {
    let Some((server, browser)) = open() else { return };
    // Until there is something to draw.
    browser.wait_for("document.querySelector('.chart .curve')");
    browser.wait_for_text("#patterns", "dovecot");
    let mut grounds = Vec::new();
    for (name, scheme, width, height) in [
        ("light", "light", 1280, 960),
        ("dark", "dark", 1280, 960),
        ("phone", "light", 320, 640),
        ("wide", "dark", 2560, 1200),
    ] {
        browser.prefer(scheme);
        browser.resize(width, height);
        for view in VIEWS.into_iter().rev() {
            show(&browser, view);
            assert_no_sideways(&browser, &format!("{view}, {name}"));
        }
        browser.screenshot(&picture(name));
        grounds.push(browser.run("return getComputedStyle(document.body).backgroundColor"));
        explain(&browser, ATTACKER);
        browser.wait_for_text("#evidence", MARKUP);
        assert_no_sideways(&browser, &format!("explanation, {name}"));
    }
    assert_ne!(grounds[0], grounds[1], "dark is not light");
    // Everything that can be used has a name to be called by.
    let nameless = "return [...document.querySelectorAll('button, input, select, a')].filter((each) => \
                    !(each.textContent.trim() || each.getAttribute('aria-label') || each.labels?.length)).length";
    assert_eq!(browser.run(nameless), 0, "controls without a name");
    assert_quiet(&browser);
    server.stop();
}

#[test]
fn who_may_only_look_is_shown_no_orders() {
    let Some(browser) = Browser::start() else { return };
    let users = "{enabled: true, username: ada, password: secret, users: {bob: {password: builder, role: read}}}";
    let server = Server::start(Config::new().set("api.basic_auth", users).set("ban.blacklist", "[192.0.2.66]"));
    server.fail(CLIENT, 5);
    server.wait_for_status(CLIENT, 403);
    for (user, may_change) in [("bob:builder", false), ("ada:secret", true)] {
        browser.open(&format!("http://{user}@{}/", server.config.nginx));
        browser.open(&page(&server));
        browser.wait_for("document.querySelector('#health[data-state=good]')");
        let looks_only = "document.body.classList.contains('looks-only')";
        browser.wait_for(&format!("{looks_only} === {}", !may_change));
        show(&browser, "bans");
        browser.wait_for_text(&row_of(CLIENT), CLIENT);
        let shown =
            |selector: &str| browser.run(&format!("return document.querySelector(\"{selector}\").checkVisibility()"));
        for selector in ["#ban-box", "#purge", &format!("{} .unban", row_of(CLIENT))] {
            assert_eq!(shown(selector), may_change, "{user}: {selector}");
        }
    }
    server.stop();
}

/// Nothing is wider than the screen.
#[track_caller]
fn assert_no_sideways(browser: &Browser, what: &str) {
    let beyond = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(beyond, 0, "{what}: it scrolls sideways");
}
