//! The check of the page in a browser: `make report-check`.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::links;

/// What the page is asked. It returns a list of findings.
const QUESTIONS: &str = include_str!("../page/check.js");

/// How the page is shown.
struct View {
    name: &'static str,
    width: u32,
    height: u32,
    scheme: &'static str,
    scripts: bool,
}

const VIEWS: [View; 5] = [
    View { name: "light", width: 1280, height: 900, scheme: "light", scripts: true },
    View { name: "dark", width: 1280, height: 900, scheme: "dark", scripts: true },
    View { name: "narrow", width: 360, height: 740, scheme: "light", scripts: true },
    View { name: "narrow-dark", width: 360, height: 740, scheme: "dark", scripts: true },
    View { name: "no-script", width: 1280, height: 900, scheme: "light", scripts: false },
];

/// The answer to one question.
#[derive(Clone, Debug, Deserialize)]
struct Finding {
    name: String,
    /// What is wrong; empty if nothing is.
    wrong: Vec<String>,
}

/// Loads the page in every view, prints a line per question, and returns how many answers are wrong.
pub fn run(root: &Path, program: &str) -> Result<usize, String> {
    let dir = root.join(links::DIR);
    let dir = dir.canonicalize().map_err(|error| format!("{}: {error}", dir.display()))?;
    let page = dir.join("index.html");
    let url = format!("file://{}", page.display());
    let mut wrong = 0;
    for view in VIEWS {
        // A browser of its own, so that no state of one view reaches the next one.
        let mut browser = Browser::start(program, &dir)?;
        for finding in look(&mut browser, &view, &url, &dir)? {
            let (ok, why) = match finding.wrong.is_empty() {
                true => ("ok", String::new()),
                false => ("not ok", format!(": {}", finding.wrong.join("; "))),
            };
            println!("{ok} {}: {}{why}", view.name, finding.name);
            wrong += usize::from(!finding.wrong.is_empty());
        }
        let picture = dir.join(format!("{}.png", view.name));
        fs::write(&picture, screenshot(&mut browser, view.width)?)
            .map_err(|error| format!("{}: {error}", picture.display()))?;
    }
    println!("pictures of the page are in {}", dir.display());
    Ok(wrong)
}

/// Loads the page and returns what is to be said of it.
fn look(browser: &mut Browser, view: &View, url: &str, dir: &Path) -> Result<Vec<Finding>, String> {
    let View { width, height, scheme, scripts, .. } = view;
    let size = json!({
        "width": width, "height": height, "deviceScaleFactor": 1, "mobile": *width < 500,
    });
    browser.call("Emulation.setDeviceMetricsOverride", size)?;
    let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
    browser.call("Emulation.setEmulatedMedia", features)?;
    browser.call("Emulation.setScriptExecutionDisabled", json!({"value": !scripts}))?;
    browser.load(url)?;
    let answers = browser.evaluate(&format!("({QUESTIONS})({scripts})"))?;
    let mut findings: Vec<Finding> = serde_json::from_value(answers["findings"].clone())
        .map_err(|error| format!("the answers of the page: {error}"))?;
    let events = browser.take_events();
    findings.push(finding("the console has no errors", events.iter().filter_map(complaint)));
    let requests = events.iter().filter_map(|event| request(event, url));
    findings.push(finding("nothing is requested from the network", requests));
    let links = answers["links"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let dead = links.filter(|link| !exists(dir, link)).map(str::to_owned);
    findings.push(finding("every link leads to a file", dead));
    Ok(findings)
}

fn finding(name: &str, wrong: impl Iterator<Item = String>) -> Finding {
    Finding { name: name.to_owned(), wrong: wrong.collect() }
}

/// Returns the words of an error that the browser reports.
fn complaint(event: &Value) -> Option<String> {
    let parameters = &event["params"];
    let is_bad = match event["method"].as_str()? {
        "Runtime.exceptionThrown" => true,
        "Runtime.consoleAPICalled" => {
            matches!(parameters["type"].as_str(), Some("error" | "warning" | "assert"))
        }
        "Log.entryAdded" => {
            matches!(parameters["entry"]["level"].as_str(), Some("error" | "warning"))
        }
        _ => false,
    };
    is_bad.then(|| parameters.to_string())
}

/// Returns the address of a request for anything but the page itself.
fn request(event: &Value, page: &str) -> Option<String> {
    if event["method"] != "Network.requestWillBeSent" {
        return None;
    }
    let url = event["params"]["request"]["url"].as_str()?;
    (url != page && !url.starts_with("data:")).then(|| url.to_owned())
}

/// Returns true if a link relative to the page leads to a file.
fn exists(dir: &Path, link: &str) -> bool {
    let path = link.split('#').next().unwrap_or(link);
    path.is_empty() || dir.join(decoded(path)).exists()
}

/// Returns a path without the codes that an address has for special characters.
fn decoded(link: &str) -> String {
    let mut parts = link.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let code = part.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.extend(code);
        bytes.extend_from_slice(part.get(2..).unwrap_or_default().as_bytes());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns the whole page as a PNG file.
fn screenshot(browser: &mut Browser, width: u32) -> Result<Vec<u8>, String> {
    let size = browser.call("Page.getLayoutMetrics", json!({}))?;
    let height = &size["cssContentSize"]["height"];
    let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
    let picture = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
    let taken = browser.call("Page.captureScreenshot", picture)?;
    let data = taken["data"].as_str().ok_or("the browser gave no picture")?;
    BASE64_STANDARD.decode(data).map_err(|error| format!("the picture: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_looked_up_as_the_file_that_it_names() {
        assert_eq!(decoded("../a%20b/%22c%22.log"), "../a b/\"c\".log");
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(exists(dir, "src/check.rs#top") && exists(dir, "#top"));
        assert!(!exists(dir, "src/none.rs"));
    }

    #[test]
    fn errors_and_requests_are_found_among_the_events() {
        let level =
            |level| json!({"method": "Log.entryAdded", "params": {"entry": {"level": level}}});
        assert!(complaint(&level("error")).is_some() && complaint(&level("info")).is_none());
        assert!(complaint(&json!({"method": "Runtime.exceptionThrown", "params": {}})).is_some());
        let sent = |url| {
            let request = json!({"request": {"url": url}});
            request_of(json!({"method": "Network.requestWillBeSent", "params": request}))
        };
        assert_eq!(sent("file:///page"), None);
        assert_eq!(sent("data:image/png;base64,"), None);
        assert_eq!(sent("http://a/"), Some("http://a/".to_owned()));
    }

    fn request_of(event: Value) -> Option<String> {
        request(&event, "file:///page")
    }
}
