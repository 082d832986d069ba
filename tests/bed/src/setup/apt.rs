//! Fetches packages with an apt that knows nothing of this machine's: own sources, own lists,
//! own cache, and an empty list of installed packages. Signatures are checked with Debian's
//! archive keys, as ever.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::packages::{Group, VersionedPackage};
use super::{make_dir, space, write};
use crate::command;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::report::Reporter;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";
const DEFAULT_SECURITY: &str = "http://deb.debian.org/debian-security";

/// Fetches the packages of `group` and returns their files. What an earlier call fetched, for
/// this Xen or for another, is used again without asking the mirror.
pub fn fetch(group: &Group, context: &Context, reporter: &mut Reporter) -> Result<Vec<PathBuf>> {
    let dir = context.settings.target.join("packages").join(group.suite);
    let record = dir.join(format!("{}.fetched", group.label));
    if let Some(files) = fetched_before(&record, group, &dir.join("debs")) {
        return Ok(files);
    }
    let apt = Apt::configure(&dir, group.suite, context)?;
    reporter.step(format!("asking the mirror for Debian {}'s packages", group.suite), "download");
    apt.update(reporter)?;
    let mut names = group.names.clone();
    for package in group.versioned {
        names.push(apt.versioned(package)?);
    }
    reporter.step(
        format!("downloading {} packages of Debian {}", names.len(), group.suite),
        "unpacking",
    );
    let files = apt.download(&names, reporter)?;
    write(&record, format!("{}{}", group.wanted(), listed(&files)).as_bytes())?;
    Ok(files)
}

/// The record's first line says what was wanted, the others which files came.
fn fetched_before(record: &Path, group: &Group, debs: &Path) -> Option<Vec<PathBuf>> {
    let text = fs::read_to_string(record).ok()?;
    let names = text.strip_prefix(group.wanted().as_str())?;
    let files: Vec<PathBuf> = names.lines().map(|name| debs.join(name)).collect();
    (!files.is_empty() && files.iter().all(|file| file.exists())).then_some(files)
}

fn listed(files: &[PathBuf]) -> String {
    let names = files.iter().filter_map(|file| file.file_name());
    names.map(|name| format!("{}\n", name.to_string_lossy())).collect()
}

struct Apt {
    suite: &'static str,
    mirror: String,
    debs: PathBuf,
    config: PathBuf,
}

impl Apt {
    fn configure(dir: &Path, suite: &'static str, context: &Context) -> Result<Self> {
        make_dir(dir)?;
        let dir = fs::canonicalize(dir).map_err(|e| Error::file("resolving", dir, e))?;
        for sub in ["lists/partial", "cache/archives/partial", "debs"] {
            make_dir(&dir.join(sub))?;
        }
        let (mirror, security) = match &context.settings.mirror {
            Some(url) => {
                let url = url.trim_end_matches('/');
                (url.to_owned(), format!("{url}-security"))
            }
            None => machine_mirrors(),
        };
        let source =
            |url: &str, suite: &str| format!("deb [signed-by={KEYRING}] {url} {suite} main\n");
        let sources = [
            source(&mirror, suite),
            source(&mirror, &format!("{suite}-updates")),
            source(&security, &format!("{suite}-security")),
        ];
        write(&dir.join("sources.list"), sources.concat().as_bytes())?;
        write(&dir.join("status"), b"")?;
        let at = |name: &str| dir.join(name).display().to_string();
        let config = format!(
            "Dir::State \"{}\";\nDir::State::lists \"{}\";\nDir::State::status \"{}\";\n\
             Dir::Cache \"{}\";\nDir::Etc::sourcelist \"{}\";\nDir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\n\
             Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n\
             APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\n\
             APT::Sandbox::User \"root\";\nAPT::Update::Error-Mode \"any\";\n\
             Acquire::Languages \"none\";\nAcquire::Retries \"2\";\n\
             Acquire::http::Timeout \"30\";\n{}",
            at(""),
            at("lists"),
            at("status"),
            at("cache"),
            at("sources.list"),
            machine_proxies(),
        );
        let path = dir.join("apt.conf");
        write(&path, config.as_bytes())?;
        Ok(Self { suite, mirror, debs: dir.join("debs"), config: path })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // Messages are read below: they must be in a known language.
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C");
        command
    }

    fn echo(&self, words: &str, reporter: &Reporter) {
        reporter.echo(&format!("APT_CONFIG={} {words}", self.config.display()));
    }

    fn update(&self, reporter: &Reporter) -> Result<()> {
        self.echo("apt-get -q update", reporter);
        let out = command::output(self.command("apt-get").args(["-q", "update"]))?;
        self.check(&out, "fetching its lists").map(drop)
    }

    /// Returns the name that the package has on this mirror.
    fn versioned(&self, package: &VersionedPackage) -> Result<String> {
        let start = package.metapackage.to_owned();
        package.path.iter().try_fold(start, |name, prefix| self.dependency(&name, prefix))
    }

    /// The one dependency of `meta` that begins with `prefix`.
    fn dependency(&self, meta: &str, prefix: &str) -> Result<String> {
        let mut show = self.command("apt-cache");
        let out = command::output(show.args(["show", "--no-all-versions", meta]))?;
        let text = self.check(&out, "reading its lists")?;
        dependency_in(&text, prefix)
            .ok_or(Error::PackageNotFound { suite: self.suite, output: text })
    }

    fn download(&self, names: &[String], reporter: &Reporter) -> Result<Vec<PathBuf>> {
        let mut uris = self.command("apt-get");
        let out = command::output(uris.args(["-q", "--print-uris", "download"]).args(names))?;
        let files = file_names(&self.check(&out, "looking for packages")?);
        self.echo(&format!("apt-get -q download {}", names.join(" ")), reporter);
        let mut get = self.command("apt-get");
        let out =
            command::output(get.args(["-q", "download"]).args(names).current_dir(&self.debs))?;
        self.check(&out, "downloading packages")?;
        Ok(files.into_iter().map(|name| self.debs.join(name)).collect())
    }

    fn check(&self, out: &Output, what: &str) -> Result<String> {
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
        }
        let output = complaints(&command::both(out));
        Err(match AptProblem::of(&output) {
            AptProblem::NoSpace => space::explain(
                Error::CommandFailed { command: String::new(), status: String::new(), output },
                &self.debs,
                super::NEEDED_MIB,
            ),
            AptProblem::NoPackage => Error::PackageNotFound { suite: self.suite, output },
            AptProblem::Network => {
                Error::Network { mirror: self.mirror.clone(), what: what.to_owned(), output }
            }
            AptProblem::Other => Error::CommandFailed {
                command: format!("apt-get ({what})"),
                status: out.status.to_string(),
                output,
            },
        })
    }
}

/// What apt complains of, without its account of all that it did.
fn complaints(output: &str) -> String {
    let lines: Vec<&str> = output.lines().filter(|line| line.starts_with("E: ")).collect();
    if lines.is_empty() { output.to_owned() } else { lines.join("\n") }
}

#[derive(Debug, PartialEq, Eq)]
enum AptProblem {
    NoSpace,
    NoPackage,
    Network,
    Other,
}

impl AptProblem {
    fn of(output: &str) -> Self {
        let says = |words: &[&str]| words.iter().any(|word| output.contains(word));
        if says(&["No space left on device", "enough free space"]) {
            Self::NoSpace
        } else if says(&[
            "Unable to locate package",
            "No packages found",
            "no installation candidate",
        ]) {
            Self::NoPackage
        } else if says(&["Failed to fetch", "Could not resolve", "Could not connect", "timed out"])
        {
            Self::Network
        } else {
            Self::Other
        }
    }
}

fn dependency_in(text: &str, prefix: &str) -> Option<String> {
    let depends = text.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    depends
        .split(", ")
        .filter_map(|entry| entry.split_whitespace().next())
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned)
}

/// The file names in what `--print-uris` prints: `'uri' name size hash`, one a line.
fn file_names(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.starts_with('\''))
        .filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned))
        .collect()
}

/// The mirrors that this machine's own apt uses for Debian, if it uses any.
fn machine_mirrors() -> (String, String) {
    let mut list = Command::new("apt-get");
    list.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]);
    let text = command::succeed(&mut list).unwrap_or_default();
    mirrors_in(&text)
}

fn mirrors_in(text: &str) -> (String, String) {
    let find = |release: &str| {
        text.lines().find_map(|line| {
            let (url, found) = line.split_once(' ')?;
            let known = url.starts_with("http://") || url.starts_with("https://");
            (known && found.trim() == release).then(|| url.trim_end_matches('/').to_owned())
        })
    };
    (
        find("bookworm").unwrap_or_else(|| DEFAULT_MIRROR.to_owned()),
        find("bookworm-security").unwrap_or_else(|| DEFAULT_SECURITY.to_owned()),
    )
}

/// The machine's proxy settings, without which some machines reach no mirror.
fn machine_proxies() -> String {
    let text = command::succeed(Command::new("apt-config").args(["dump", "Acquire"]));
    text.unwrap_or_default()
        .lines()
        .filter(|line| line.to_ascii_lowercase().contains("proxy") && line.ends_with("\";"))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_told_apart() {
        let of = AptProblem::of;
        assert_eq!(of("E: Unable to locate package xen-hypervisor-9"), AptProblem::NoPackage);
        assert_eq!(
            of("E: Failed to fetch http://m/x  Could not connect to m"),
            AptProblem::Network
        );
        assert_eq!(of("E: Write error - write (28: No space left on device)"), AptProblem::NoSpace);
        assert_eq!(of("E: The method driver is missing"), AptProblem::Other);
    }

    #[test]
    fn the_kernel_behind_the_metapackage() {
        let text = "Package: linux-image-amd64\nDepends: linux-image-6.1.0-9-amd64 (= 6.1.9-1)\n";
        assert_eq!(dependency_in(text, "linux-image-").unwrap(), "linux-image-6.1.0-9-amd64");
        assert_eq!(dependency_in("Package: x\n", "linux-image-"), None);
    }

    #[test]
    fn files_are_named_as_apt_writes_them() {
        let text = "Reading…\n'http://m/x_1%3a2.deb' x_1%3a2_amd64.deb 12 SHA256:00\n";
        assert_eq!(file_names(text), ["x_1%3a2_amd64.deb"]);
    }

    #[test]
    fn the_machine_s_mirror_is_preferred() {
        let text = "https://packages.other.org/ nodistro\nhttp://near/debian/ bookworm\n\
                    http://near/debian/ bookworm-updates\n";
        let (main, security) = mirrors_in(text);
        assert_eq!((main.as_str(), security.as_str()), ("http://near/debian", DEFAULT_SECURITY));
        assert_eq!(mirrors_in("").0, DEFAULT_MIRROR);
    }
}
