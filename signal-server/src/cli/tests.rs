use clap::CommandFactory;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

/// Every command with its flags, so that a change of the interface shows in a review.
#[test]
fn the_help_is_as_reviewed() {
    let mut command = without_values(Cli::command().term_width(100));
    command.build();
    let mut text = String::new();
    let mut pending = vec![command];
    while let Some(mut command) = pending.pop() {
        text.push_str(&command.render_long_help().to_string());
        text.push_str("\n────────\n");
        let mut children: Vec<clap::Command> = command.get_subcommands().cloned().collect();
        children.reverse();
        pending.extend(children);
    }
    insta::assert_snapshot!(text);
}

/// The environment of whoever runs the test does not belong into the snapshot.
fn without_values(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|argument| argument.hide_env_values(true));
    let names: Vec<String> =
        command.get_subcommands().map(|child| child.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, without_values))
}

fn check(words: &[&str], expect: Exit) {
    let arguments = std::iter::once("heliograph-server").chain(words.iter().copied());
    assert_eq!(run(arguments.map(OsString::from)), expect, "{words:?}");
}

#[test]
fn a_wrong_command_line_is_told_from_a_handle_that_failed() {
    check(&["--version"], Exit::Success);
    check(&["wait", "--help"], Exit::Success);
    check(&[], Exit::CouldNotAsk);
    check(&["wait"], Exit::CouldNotAsk);
    check(&["wait", "not-a-handle"], Exit::CouldNotAsk);
    check(&["handle", "create", "--timeout", "soon"], Exit::CouldNotAsk);
    check(&["serve", "--listen", "everywhere"], Exit::CouldNotAsk);
    check(&["health", "--admin-listen", "nowhere"], Exit::CouldNotAsk);
}
