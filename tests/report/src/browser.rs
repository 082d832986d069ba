//! A browser that runs without a window and is driven by the DevTools protocol through two pipes.
//!
//! A client crate would compile the whole protocol, which takes longer than the rest of the workspace.
//! The protocol itself is JSON, one message after the other, with a zero byte after each.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// How long an answer may take; a machine that does other work too is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// Descriptors 3 and 4 of the browser are its ends of the pipes.
const START: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>"$BROWSER_LOG""#;

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: Option<String>,
    profile: PathBuf,
    next: u64,
    /// What the browser reported by itself since the last call of [`Browser::take_events`].
    events: Vec<Value>,
}

impl Browser {
    /// Starts `program`, which keeps its files in `dir`.
    pub fn start(program: &str, dir: &Path) -> Result<Self, String> {
        let mut command = Command::new("sh");
        command.args(["-c", START, program, "--headless=new", "--remote-debugging-pipe"]);
        command.args(["--no-first-run", "--disable-gpu", "--hide-scrollbars"]);
        command.args(["--disable-background-networking", "--disable-component-update"]);
        // The sandbox needs a user of its own; the page is this repository's.
        command.arg("--no-sandbox");
        let profile = dir.join("profile");
        command.arg(format!("--user-data-dir={}", profile.display()));
        command.env("BROWSER_LOG", dir.join("browser.log"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("starting {program}: {error}"))?;
        let (to, out) = (child.stdin.take(), child.stdout.take());
        let (to, out) = to.zip(out).ok_or("the browser has no pipes")?;
        let (sender, from) = channel();
        thread::spawn(move || {
            let messages = BufReader::new(out).split(0).map_while(Result::ok);
            let parsed = messages.filter_map(|message| serde_json::from_slice(&message).ok());
            // The receiver ends first when the browser is dropped.
            parsed.map_while(|message| sender.send(message).ok()).for_each(drop);
        });
        let (session, events) = (None, Vec::new());
        let mut browser = Self { child, to, from, session, profile, next: 0, events };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let target = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", target)?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    /// Calls a method and returns its result.
    pub fn call(&mut self, method: &str, parameters: Value) -> Result<Value, String> {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let sent = self.to.write_all(&bytes).and_then(|()| self.to.flush());
        sent.map_err(|error| format!("{method}: the browser has ended: {error}"))?;
        loop {
            let answer = self.receive(method)?;
            if answer["id"] != json!(self.next) {
                self.events.push(answer);
            } else if let Some(error) = answer.get("error") {
                return Err(format!("{method}: {}", error["message"]));
            } else {
                return Ok(answer["result"].clone());
            }
        }
    }

    /// Loads a page and waits until all of it is there.
    pub fn load(&mut self, url: &str) -> Result<(), String> {
        let loaded = self.call("Page.navigate", json!({"url": url}))?;
        if let Some(error) = loaded.get("errorText") {
            return Err(format!("{url}: {error}"));
        }
        let is_end = |event: &Value| event["method"] == "Page.loadEventFired";
        while !self.events.iter().any(is_end) {
            let event = self.receive("loading the page")?;
            self.events.push(event);
        }
        Ok(())
    }

    /// Returns the value of an expression in the page.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value, String> {
        let parameters = json!({"expression": expression, "returnByValue": true});
        let result = self.call("Runtime.evaluate", parameters)?;
        match result.get("exceptionDetails") {
            Some(details) => Err(format!("the check itself failed: {details}")),
            None => Ok(result["result"]["value"].clone()),
        }
    }

    /// Returns what the browser has reported, and forgets it.
    pub fn take_events(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.events)
    }

    fn receive(&mut self, during: &str) -> Result<Value, String> {
        self.from.recv_timeout(PATIENCE).map_err(|_| {
            let seconds = PATIENCE.as_secs();
            format!(
                "{during}: the browser ended, or gave no answer in {seconds} s; browser.log in the \
                 directory of the page has its messages"
            )
        })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A browser that has ended already is what is wanted; a directory that remains is overwritten.
        let _ = self.call("Browser.close", json!({}));
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}
