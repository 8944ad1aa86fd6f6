//! `hwsim study`: experiments from training to time.

mod regularizers;
mod subnormals;

use std::io::Write;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    study: Study,
}

#[derive(clap::Subcommand)]
enum Study {
    /// Every regularizer over a path of strengths and several seeds: accuracy, structure, predicted and measured latency
    Regularizers(regularizers::Args),
    /// Draw the figures of `regularizers` again, from its table
    Redraw(regularizers::Redraw),
    /// Weights that decay without a penalty that removes them: when they are subnormal, and what that costs
    Subnormals(subnormals::Args),
}

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    match args.study {
        Study::Regularizers(args) => regularizers::run(args, out),
        Study::Redraw(args) => regularizers::redraw(&args, out),
        Study::Subnormals(args) => subnormals::run(args, out),
    }
}
