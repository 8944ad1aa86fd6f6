//! What shells, manuals and editors want to know: completions, man pages, JSON Schemas.

use super::Cli;
use clap::{CommandFactory, ValueEnum};
use hwsim::error::Error;
use hwsim::report::export::write_whole;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

/// `hwsim completions bash > /etc/bash_completion.d/hwsim`
pub fn completions(args: &Completions, out: &mut dyn Write) -> anyhow::Result<()> {
    // The generator panics where its writer fails, as at a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "hwsim", &mut script);
    out.write_all(&script)?;
    Ok(())
}

#[derive(clap::Args)]
pub struct Man {
    /// The folder, such as ~/.local/share/man/man1
    folder: PathBuf,
}

/// One page a command.
pub fn man(args: &Man) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.folder).map_err(|e| Error::io(&args.folder, e))?;
    let mut command = Cli::command();
    command.build();
    let pages = pages(&command, &args.folder)?;
    eprintln!("wrote {pages} pages into {}", args.folder.display());
    Ok(())
}

fn pages(command: &clap::Command, folder: &Path) -> anyhow::Result<usize> {
    let page = clap_mangen::Man::new(command.clone());
    write_whole(&folder.join(page.get_filename()), |mut to| page.render(&mut to))?;
    let mut written = 1;
    for sub in command.get_subcommands().filter(|s| s.get_name() != "help") {
        written += pages(sub, folder)?;
    }
    Ok(written)
}

#[derive(clap::Args)]
pub struct Schema {
    /// Which file
    #[arg(value_enum)]
    of: File,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum File {
    /// A hardware profile
    Profile,
    /// A network in TOML
    Workload,
}

/// The JSON Schema of a kind of TOML file.
pub fn schema(args: &Schema, out: &mut dyn Write) -> anyhow::Result<()> {
    let schema = match args.of {
        File::Profile => hwsim::profile::schema(),
        File::Workload => hwsim::workload::toml::schema(),
    };
    serde_json::to_writer_pretty(&mut *out, &schema)?;
    writeln!(out)?;
    Ok(())
}
