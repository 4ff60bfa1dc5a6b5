//! The rules of the repository that can be seen in its source.
//!
//! Each rule is one test, and a finding names file and line. A rule that stands in the way of good
//! code is changed here, with its reason, not worked around there.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The longest module, in lines before its unit tests: what a reader can hold in mind.
const MAX_MODULE_LINES: usize = 400;

struct Source {
    /// Relative to the repository.
    path: String,
    text: String,
}

impl Source {
    /// Whether all of it is test code.
    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs")
            || self.path.ends_with("/conformance.rs")
            || self.path.contains("/tests/")
            || self.is_below(&["tests/"])
    }

    /// The lines before the unit tests, numbered from 1, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .take_while(|(_, line)| *line != "#[cfg(test)]")
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(index, line)| (index + 1, line))
    }

    fn is_below(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate has a parent").to_owned()
}

fn sources() -> Vec<Source> {
    let root = repository();
    let mut sources = Vec::new();
    for folder in ["agent", "signal-server", "tests"] {
        collect(&root, &root.join(folder), &mut sources);
    }
    assert!(sources.len() > 100, "only {} sources were found", sources.len());
    sources
}

fn collect(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).expect("readable folder") {
        let path = entry.expect("readable entry").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(root, &path, sources);
        }
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("readable source");
            let path = path.strip_prefix(root).expect("below the root").display().to_string();
            sources.push(Source { path, text });
        }
    }
}

/// Fails with every line of program code that `is_wrong` finds, or says nothing.
fn forbid(reason: &str, is_wrong: impl Fn(&Source, &str) -> bool) {
    let mut findings = String::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (number, line) in source.code() {
            if is_wrong(source, line) {
                let _ = writeln!(findings, "{}:{number}: {}", source.path, line.trim());
            }
        }
    }
    assert!(findings.is_empty(), "{reason}\n{findings}");
}

/// Fails with every line of any file that contains one of the words.
fn forbid_everywhere(reason: &str, words: &[&str]) {
    let mut findings = String::new();
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                let _ = writeln!(findings, "{}:{}: {}", source.path, index + 1, line.trim());
            }
        }
    }
    assert!(findings.is_empty(), "{reason}\n{findings}");
}

fn imports(line: &str, module: &str) -> bool {
    line.contains(&format!("crate::{module}::")) || line.contains(&format!("crate::{module};"))
}

#[test]
fn the_protocol_does_no_io_and_reads_no_clock() {
    let io = [
        "std::fs",
        "std::net",
        "std::env",
        "tokio::",
        "reqwest::",
        "SystemTime",
        "Instant::",
        "Timestamp::now",
    ];
    forbid("signal-protocol does no I/O and reads no clock", |source, line| {
        source.is_below(&["signal-server/protocol/src/"])
            && io.iter().any(|name| line.contains(name))
    });
}

#[test]
fn the_relay_imports_downwards_only() {
    let above = ["http", "app", "config", "cli", "client", "error"];
    forbid("the mailbox knows neither HTTP nor the configuration", |source, line| {
        source.is_below(&["signal-server/src/mailbox"])
            && above.iter().any(|module| imports(line, module))
    });
    forbid("a store knows nothing above its trait", |source, line| {
        source.is_below(&["signal-server/src/store"])
            && (imports(line, "mailbox") || above.iter().any(|module| imports(line, module)))
    });
    forbid("a surface goes through the domain, not to a kind of store", |source, line| {
        source.is_below(&["signal-server/src/http"])
            && ["embedded", "memory", "etcd"]
                .iter()
                .any(|store| line.contains(&format!("store::{store}")))
    });
}

#[test]
fn the_steps_of_the_agent_do_not_import_one_another() {
    let steps = ["datasource", "userdata", "plan", "engine", "outputs", "signal", "state", "boot"];
    let values_handed_on =
        [("plan", "userdata"), ("engine", "plan"), ("outputs", "plan"), ("outputs", "engine")];
    forbid("boot calls the steps; the steps do not call one another", |source, line| {
        let Some(step) = steps.iter().find(|step| {
            source.is_below(&[&format!("agent/src/{step}.rs"), &format!("agent/src/{step}/")])
        }) else {
            return false;
        };
        *step != "boot"
            && steps.iter().any(|other| {
                other != step && imports(line, other) && !values_handed_on.contains(&(step, other))
            })
    });
    let io = ["std::fs", "std::net::Tcp", "tokio::", "reqwest::"];
    forbid("userdata and plan do no I/O", |source, line| {
        source.is_below(&["agent/src/userdata", "agent/src/plan"])
            && io.iter().any(|name| line.contains(name))
    });
}

#[test]
fn a_crate_that_may_be_exchanged_is_named_in_one_place() {
    for (name, place) in [
        ("granit_parser", "agent/src/userdata/yaml.rs"),
        ("fjall", "signal-server/src/store/embedded"),
        ("tonic", "signal-server/src/store/etcd"),
    ] {
        forbid(&format!("only {place} names {name}"), |source, line| {
            line.contains(&format!("{name}::")) && !source.is_below(&[place])
        });
    }
}

#[test]
fn only_configuration_reads_the_environment() {
    forbid("only config.rs and main.rs read the environment", |source, line| {
        let allowed = source.path.contains("/config.rs")
            || source.path.contains("/config/")
            || source.path.ends_with("/main.rs")
            || source.path.contains("/benches/");
        !allowed && (line.contains("env::var") || line.contains("env::args"))
    });
}

#[test]
fn no_test_is_left_out() {
    // Spelled in two parts, so that this file does not find itself.
    let words = [concat!("#[ig", "nore"), concat!("should_", "panic")];
    forbid_everywhere("every test runs, and an error is looked at", &words);
}

#[test]
fn modules_are_of_a_size_to_hold_in_mind() {
    let mut findings = String::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let lines = source.text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        if lines > MAX_MODULE_LINES {
            let _ = writeln!(findings, "{}: {lines} lines", source.path);
        }
    }
    assert!(findings.is_empty(), "split these by meaning\n{findings}");
}

#[test]
fn modules_have_their_own_name_and_imports_name_what_they_import() {
    forbid("foo.rs and foo/bar.rs, not mod.rs", |source, _| source.path.ends_with("/mod.rs"));
    forbid("imports name what they import", |_, line| {
        let line = line.trim();
        line.starts_with("use ") && line.ends_with("::*;")
    });
}

#[test]
fn no_path_of_a_developers_machine_is_in_the_tree() {
    let homes = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];
    forbid_everywhere("the project does not know where it was written", &homes);
}

#[test]
fn every_crate_has_the_lints_of_the_workspace() {
    for crate_folder in ["agent", "signal-server", "signal-server/protocol", "tests"] {
        let manifest = repository().join(crate_folder).join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest).expect("readable manifest");
        assert!(text.contains("[lints]\nworkspace = true"), "{crate_folder} lacks the lints");
    }
}
