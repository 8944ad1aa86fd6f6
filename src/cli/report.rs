//! `hwsim report`: results become one page and figures for papers.

use hwsim::error::Error;
use hwsim::report::export::write_whole;
use hwsim::report::html::page;
use hwsim::report::inputs::read;
use hwsim::report::sections::sections;
use std::collections::BTreeSet;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// Results: JSON of `estimate`, `compare`, `validate`; CSV of `sweep`, `compare`, `search`, `validate --predictions`,
    /// `bench`
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// The page: one HTML file that needs nothing else
    #[arg(short, long, value_name = "report.html")]
    output: PathBuf,
    /// Write each figure into this folder too, as an SVG file of its own
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// The page's title
    #[arg(long, default_value = "hwsim report")]
    title: String,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let inputs: Vec<_> = args.results.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
    let sections = sections(&inputs);
    let files: Vec<String> = args.results.iter().map(|p| p.display().to_string()).collect();
    let footer = format!(
        "Made by hwsim {} from {}. MACs: one multiply–accumulate each; bias, norms and activations not counted; attention \
         products counted in full.",
        env!("CARGO_PKG_VERSION"),
        files.join(", ")
    );
    write_whole(&args.output, |to| to.write_all(page(&args.title, &sections, &footer).as_bytes()))?;
    eprintln!("wrote {}", args.output.display());
    if let Some(folder) = &args.svg {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let mut taken = BTreeSet::new();
        for figure in sections.iter().flat_map(|s| &s.figures) {
            let stem = figure.stem();
            let numbered = (2..).map(|i| format!("{stem}-{i}"));
            let name = std::iter::once(stem.clone()).chain(numbered).find(|n| taken.insert(n.clone())).unwrap_or(stem);
            write_whole(&folder.join(format!("{name}.svg")), |to| to.write_all(figure.standalone().as_bytes()))?;
        }
        eprintln!("wrote {} figures into {}", taken.len(), folder.display());
    }
    Ok(())
}
