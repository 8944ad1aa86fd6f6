//! Where answers go: stdout, or a file that is written whole or not at all.

use clap::ValueEnum;
use hwsim::report::export::write_whole;
use std::io::{IsTerminal, Write};
use std::path::Path;

/// What to print, where an answer is a table.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// One record a row
    Csv,
    /// One object
    Json,
    /// Markdown
    Md,
    /// LaTeX, with the rules of booktabs
    Latex,
}

/// What to print, where an answer is more than one table.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum RowFormat {
    /// For people
    #[default]
    Table,
    /// One record a row
    Csv,
    /// One object
    Json,
}

/// What to print, where an answer is no table of rows.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum ObjectFormat {
    /// For people
    #[default]
    Table,
    /// One object
    Json,
}

/// Writes an answer to the file named, else to stdout.
pub fn deliver(
    to: Option<&Path>,
    out: &mut dyn Write,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    match to {
        Some(path) => {
            write_whole(path, |to| write(to))?;
            eprintln!("wrote {}", path.display());
        }
        None => write(out)?,
    }
    Ok(())
}

/// Whether stdout is a terminal that takes colour.
pub fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Columns of the terminal; unlimited into a pipe.
pub fn width() -> Option<u16> {
    std::io::stdout().is_terminal().then(|| terminal_width().unwrap_or(120))
}

fn terminal_width() -> Option<u16> {
    std::env::var("COLUMNS").ok()?.parse().ok()
}
