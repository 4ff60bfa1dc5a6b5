//! Shell completions and man pages, made from the command line's own declaration. Packages are built
//! with both.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::{Cli, print};
use crate::error::{AgentError, Exit};

const NAME: &str = "heliograph-agent";

pub(super) fn completions(shell: Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    print(String::from_utf8_lossy(&script).trim_end());
    Exit::Success
}

/// One page for the program and one for each command, as `NAME.1` and `NAME-COMMAND.1`.
pub(super) fn man_pages(directory: &Path) -> Result<Exit, AgentError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |source: io::Error| AgentError::ReadFile { path, source }
    };
    std::fs::create_dir_all(directory).map_err(failed(directory))?;
    let mut root = Cli::command().name(NAME);
    root.build();
    // Building gives each command the name of its page, `NAME-COMMAND`.
    let commands = root.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let pages = commands.filter(|command| command.get_name() != "help");
    for command in [root.clone()].into_iter().chain(pages) {
        let name = command.get_display_name().unwrap_or(NAME).to_owned();
        let path = directory.join(format!("{name}.1"));
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(command).render(&mut page);
        let written = rendered.and_then(|()| File::create(&path)?.write_all(&page));
        written.map_err(failed(&path))?;
    }
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        man_pages(directory.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(read("heliograph-agent.1").contains("heliograph\\-agent"));
        assert!(read("heliograph-agent-run.1").contains("\\-\\-state\\-dir"));
        let hidden = directory.path().join("heliograph-agent-fault-points.1");
        assert!(!hidden.exists());
    }
}
