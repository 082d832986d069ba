//! Reads what the Linux dom0 reports. A line after a `|` is the output of another program. Among such
//! lines dom0 says `again N` where the line before came N times more, `cut N` where N bytes are
//! missing, and `lost N` where Xen dropped lines because its ring of N bytes was full.

use std::collections::BTreeMap;

use crate::guest::{End, LogLines, names_a_cut};

/// All that dom0 reported so far.
#[derive(Clone, Debug, Default)]
pub struct SessionReport {
    /// Whether the daemons are up.
    pub ready: bool,
    /// Whether every job is over.
    pub done: bool,
    /// The jobs, in order; the last may still be running.
    pub jobs: Vec<JobReport>,
}

/// One job as reported.
#[derive(Clone, Debug, Default)]
pub struct JobReport {
    /// The job's name.
    pub name: String,
    /// Whether `xl create` has succeeded.
    pub running: bool,
    /// The lines of the console that came while it ran.
    pub live: Vec<String>,
    /// How the domain ended.
    pub end: Option<End>,
    /// Quoted texts: `command`, `create`, `list`, `console`, `dmesg`, `xl`.
    pub sections: BTreeMap<String, Vec<String>>,
    /// Whether the job is over and reported whole.
    pub finished: bool,
}

impl JobReport {
    /// A quoted text, empty if it did not come.
    pub fn section(&self, name: &str) -> &[String] {
        self.sections.get(name).map_or(&[], Vec::as_slice)
    }

    /// What the guest printed: its console's log, or else what Xen logged for it.
    pub fn guest_lines(&self) -> Vec<String> {
        let console = self.section("console");
        if console.iter().any(|line| !line.trim().is_empty()) {
            return console.to_vec();
        }
        let cut = |line: &String| names_a_cut(line).then(|| line.clone());
        let dmesg = self.section("dmesg").iter();
        dmesg.filter_map(|line| cut(line).or_else(|| domain_line(line))).collect()
    }
}

/// The text of `(XEN) (d7) text` or `(d7) text`.
fn domain_line(line: &str) -> Option<String> {
    let line = line.strip_prefix("(XEN) ").unwrap_or(line);
    let (number, text) = line.strip_prefix("(d")?.split_once(')')?;
    number.parse::<u32>().ok()?;
    Some(text.strip_prefix(' ').unwrap_or(text).to_owned())
}

impl SessionReport {
    /// Reads the whole line's text; a last line without its end is left for later.
    pub fn parse(text: &str) -> Self {
        let mut report = Self::default();
        let mut section: Option<(String, LogLines)> = None;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            if let Some((_, log)) = &mut section
                && quoted(line, log)
            {
                continue;
            }
            if let Some(text) = line.strip_prefix('>') {
                report.jobs.last_mut().into_iter().for_each(|job| job.live.push(text.to_owned()));
                continue;
            }
            report.end_section(section.take());
            if let Some(name) = line.strip_prefix("section ") {
                section = Some((name.to_owned(), LogLines::default()));
                continue;
            }
            match line {
                "ready" => report.ready = true,
                "all done" => report.done = true,
                _ => {}
            }
            if let Some(name) = line.strip_prefix("begin ") {
                report.jobs.push(JobReport { name: name.to_owned(), ..JobReport::default() });
            } else if let Some(job) = report.jobs.last_mut() {
                match line {
                    "running" => job.running = true,
                    "finish" => job.finished = true,
                    _ => {}
                }
                if let Some(how) = line.strip_prefix("end-of-domain ") {
                    job.end = Some(end_of(how, job));
                }
            }
        }
        report.end_section(section);
        report
    }

    fn end_section(&mut self, section: Option<(String, LogLines)>) {
        if let (Some((name, log)), Some(job)) = (section, self.jobs.last_mut()) {
            job.sections.entry(name).or_default().extend(log.into_lines());
        }
    }
}

/// Adds a line of a section. Returns false if the line is not of a section.
fn quoted(line: &str, log: &mut LogLines) -> bool {
    let count = |word| line.strip_prefix(word).and_then(|number: &str| number.parse().ok());
    if let Some(text) = line.strip_prefix('|') {
        log.push(text);
    } else if let Some(times) = count("again ") {
        log.push_again(times);
    } else if let Some(bytes) = count("cut ") {
        log.push_cut(bytes);
    } else if let Some(bytes) = count("lost ") {
        log.push_lost(bytes);
    } else {
        return false;
    }
    true
}

fn end_of(how: &str, job: &JobReport) -> End {
    let (kind, number) = how.split_once(' ').unwrap_or((how, ""));
    match (kind, number.parse::<u32>()) {
        ("running", _) => End::StillRunning,
        ("shutdown", Ok(code)) => End::from_shutdown_code(code),
        ("create-failed", Ok(status)) => {
            let said = job.section("create").iter().filter(|line| line.contains("error"));
            let said: Vec<&str> = said.map(String::as_str).collect();
            End::NotStarted(format!("xl create failed ({status}): {}", said.join("; ")))
        }
        _ => End::Lost(format!("dom0 reported `{how}`")),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const TEXT: &str = "section info\n|xen_major : 4\nend\nready\nbegin pv-domu\n\
        section command\n|xl create xen-configs/pv.cfg\nend\nsection create\n|Parsing\nend\n\
        running\nend-of-domain shutdown 0\nsection console\n|KTAP version 1\n\
        |end-of-domain shutdown 3\n|finish\nend\nsection dmesg\n|(XEN) (d1) boo\nend\nfinish\nall done\n";

    #[test]
    fn a_session_is_read() {
        let report = SessionReport::parse(TEXT);
        assert!(report.ready && report.done);
        let [job] = report.jobs.as_slice() else { panic!("{report:?}") };
        assert_eq!(job.name, "pv-domu");
        assert_eq!(job.end, Some(End::PowerOff));
        assert!(job.finished);
        assert_eq!(job.guest_lines().len(), 3);
    }

    #[test]
    fn a_guest_can_t_speak_for_dom0() {
        let cut = TEXT.split("finish\nall done").next().unwrap();
        let report = SessionReport::parse(cut);
        assert!(!report.jobs[0].finished && !report.done);
        let within = TEXT.split("|finish").next().unwrap();
        assert_eq!(SessionReport::parse(within).jobs[0].section("console").len(), 2);
        assert_eq!(report.jobs[0].end, Some(End::PowerOff), "the guest's `reason 3` is its own");
    }

    #[test]
    fn folds_and_cuts_are_dom0_s_to_report() {
        let text = "begin x\nsection console\n|a\nagain 3\ncut 12\n|again 9\n|cut 9\nend\nfinish\n";
        let job = SessionReport::parse(text).jobs.remove(0);
        assert_eq!(
            job.section("console"),
            [
                "a",
                "… the line above came 3 more times",
                "[bed: 12 bytes cut here]",
                "again 9",
                "cut 9"
            ]
        );
    }

    /// Has the function of `init.sh` send a log, with at most `limit` bytes.
    fn sent(log: &str, limit: u32) -> Vec<String> {
        const INIT: &str = include_str!("init.sh");
        let from = INIT.find("quote() {").unwrap();
        let function = &INIT[from..from + INIT[from..].find("\n}\n").unwrap() + 2];
        let script = format!("LIMIT={limit}\n{function}\nprintf %s \"$1\" | quote 3>&1");
        let out = Command::new("sh").args(["-c", &script, "sh", log]).output().unwrap();
        assert!(out.status.success(), "{out:?}");
        let text = String::from_utf8(out.stdout).unwrap();
        let report = format!("begin x\nsection console\n{text}end\nfinish\n");
        SessionReport::parse(&report).jobs[0].section("console").to_vec()
    }

    #[test]
    fn dom0_sends_a_log_folded() {
        let log = "a\nb\nb\nb\n1\n1.0\n\n\n\nok 1 a\nok 1 a\nok 1 a\nagain 3\nend";
        let expected = [
            "a",
            "b",
            "… the line above came 2 more times",
            "1",
            "1.0",
            "",
            "… the line above came 2 more times",
            "ok 1 a",
            "ok 1 a",
            "ok 1 a",
            "again 3",
            "end",
        ];
        assert_eq!(sent(log, 1000), expected);
        assert_eq!(sent("", 1000), Vec::<String>::new());
    }

    #[test]
    fn dom0_cuts_the_middle_of_a_log_and_keeps_its_end() {
        let log: String = (1..=20).map(|n| format!("{n}\n")).collect();
        let expected = [
            "1",
            "2",
            "3",
            "4",
            "5",
            "6",
            "[bed: 33 bytes cut here]",
            "16",
            "17",
            "18",
            "19",
            "20",
        ];
        assert_eq!(sent(&log, 40), expected);
    }

    #[test]
    fn lines_that_come_while_the_guest_runs_are_kept_apart() {
        let text = TEXT.replace("running\n", "running\n>hello\n>finish\n");
        let report = SessionReport::parse(&text);
        assert_eq!(report.jobs[0].live, ["hello", "finish"]);
        assert_eq!(report.jobs[0].guest_lines(), SessionReport::parse(TEXT).jobs[0].guest_lines());
    }

    #[test]
    fn dom0_keeps_the_first_and_the_last_piece_of_a_long_console() {
        const INIT: &str = include_str!("init.sh");
        let from = |start: &str| &INIT[INIT.find(start).unwrap()..];
        let until_end = |text: &'static str| &text[..text.find("\n}\n").unwrap() + 3];
        let quote = until_end(from("quote() {"));
        let console = from("logs() {");
        let send = until_end(from("send_console() {"));
        let console = &console[..console.find("send_console() {").unwrap()];
        let dir = std::env::temp_dir().join(format!("bed-console-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let script = format!(
            "say() {{ echo \"$*\"; }}\nkill() {{ :; }}\nLIMIT=1000\n{quote}\n{console}\n{send}\n\
             PIECE=5 CONSOLE=$1 PIECES=$1/pieces\n\
             for words in $2; do echo $words >>$1/guest-x.log; rotate 2>/dev/null; done\n\
             send_console 3>&1"
        );
        let sent = |words: &str| {
            let args = ["-c", script.as_str(), "sh", dir.to_str().unwrap(), words];
            let out = Command::new("sh").args(args).output().unwrap();
            std::fs::remove_file(dir.join("guest-x.log")).unwrap_or_default();
            assert!(out.status.success(), "{out:?}");
            let text = format!("begin x\n{}finish\n", String::from_utf8(out.stdout).unwrap());
            SessionReport::parse(&text).jobs[0].section("console").to_vec()
        };
        assert_eq!(sent("a b"), ["a", "b"]);
        assert_eq!(sent("first1 second2 c"), ["first1", "second2", "c"]);
        let long = sent("first1 second2 third3 fourth4 fifth5 c");
        assert_eq!(long, ["first1", "[bed: 23 bytes cut here]", "fifth5", "c"]);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_ring_that_was_full_is_named() {
        let text = "begin x\nsection dmesg\nlost 16384\n|(XEN) (d3) ok 1 a\nend\nfinish\n";
        let job = SessionReport::parse(text).jobs.remove(0);
        let lines = job.guest_lines();
        assert!(lines[0].contains("16,384 bytes") && names_a_cut(&lines[0]), "{lines:?}");
        assert_eq!(lines[1..], ["ok 1 a"]);
    }

    #[test]
    fn a_line_still_under_way_waits() {
        assert!(!SessionReport::parse("section info\nend\nread").ready);
        assert!(!SessionReport::parse("ready").ready);
        assert!(SessionReport::parse("ready\nbeg").ready);
    }

    #[test]
    fn every_end_of_a_domain() {
        let end = |how: &str| {
            let text = format!(
                "begin x\nsection create\n|Parsing config\n|libxl: error: no memory\nend\nend-of-domain {how}\n"
            );
            SessionReport::parse(&text).jobs.remove(0).end.unwrap()
        };
        assert_eq!(end("shutdown 1"), End::Reboot);
        assert_eq!(end("shutdown 3"), End::Crash);
        assert_eq!(end("running"), End::StillRunning);
        assert!(
            matches!(end("create-failed 1"), End::NotStarted(why) if why.contains("no memory"))
        );
        assert!(matches!(end("shutdown "), End::Lost(_)));
    }

    #[test]
    fn xen_s_log_stands_in_for_a_silent_console() {
        let text = "begin x\nsection console\n|\nend\nsection dmesg\n|(XEN) (d3) KTAP version 1\n\
                    |(d3) ok 1 a\n|(XEN) (d3 x\n|(XEN) mm.c: odd\nend\nfinish\n";
        let job = SessionReport::parse(text).jobs.remove(0);
        assert_eq!(job.guest_lines(), ["KTAP version 1", "ok 1 a"]);
    }
}
