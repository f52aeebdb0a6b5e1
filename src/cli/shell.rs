//! `completions` and `man`: what a shell and `man` know of the program.

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use serde::Serialize;

use super::args::{Cli, CompletionsArgs, ManArgs};
use super::exit::Failure;
use super::output::Output;

/// What kubectl looks for in the search path when it is asked for `kubectl bouncert`.
const PLUGIN: &str = "kubectl-bouncert";

/// A text for another program.
#[derive(Serialize)]
struct Text {
    text: String,
}

/// Files that were written.
#[derive(Serialize)]
struct Files {
    files: Vec<String>,
}

/// The program as it was called: by its own name, or as a plugin of kubectl.
pub(super) fn command(called: &str) -> Command {
    let name = std::path::Path::new(called).file_stem();
    let command = Cli::command();
    if name.is_some_and(|name| name == PLUGIN) {
        command.bin_name("kubectl bouncert")
    } else {
        command
    }
}

/// Prints the script that completes arguments in a shell.
pub(super) fn completions(output: Output, args: CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bouncert", &mut script);
    let text = String::from_utf8_lossy(&script).into_owned();
    output.result(&Text { text }, |said| said.text.clone())?;
    Ok(())
}

/// Prints the page of the program, or writes a page for every verb.
pub(super) fn man(output: Output, args: &ManArgs) -> Result<(), Failure> {
    let mut command = Cli::command();
    command.build();
    let Some(folder) = &args.dir else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        let text = String::from_utf8_lossy(&page).into_owned();
        output.result(&Text { text }, |said| said.text.clone())?;
        return Ok(());
    };
    std::fs::create_dir_all(folder)?;
    let mut files = Vec::new();
    for (name, command) in pages(&command, "") {
        let path = folder.join(format!("{name}.1"));
        let mut page = Vec::new();
        Man::new(command).title(name).render(&mut page)?;
        std::fs::write(&path, page)?;
        files.push(path.display().to_string());
    }
    output.result(&Files { files }, |written| written.files.join("\n"))?;
    Ok(())
}

/// A command and all below it, with the names of their pages: `bouncert-policy-check`.
fn pages(command: &Command, above: &str) -> Vec<(String, Command)> {
    let name = format!("{above}{}", command.get_name());
    let below = command
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set() && verb.get_name() != "help");
    let mut all: Vec<(String, Command)> = below
        .flat_map(|verb| pages(verb, &format!("{name}-")))
        .collect();
    all.insert(0, (name, command.clone()));
    all
}
