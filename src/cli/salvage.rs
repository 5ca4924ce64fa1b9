//! `salvage`: rescues what can be read of a damaged data directory into a new one.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{CliError, Context, output};
use crate::salvage::salvage;

/// Arguments of `salvage`.
#[derive(Args, Debug)]
#[command(after_help = "\
The damaged directory is only read. Restoring a snapshot loses less, where there is one: `pannier snapshot list`.")]
pub struct SalvageArgs {
    /// New directory for what is rescued
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// Runs `salvage`.
///
/// # Errors
/// [`CliError::Lost`] after everything readable was written and every loss was printed; [`CliError::Salvage`] when
/// nothing was.
pub(super) fn run(args: &SalvageArgs, context: &Context) -> Result<(), CliError> {
    context.refuse_server("salvage reads the data directory itself: stop the server")?;
    let bar = output::count_progress(context);
    let report = salvage(&context.data, &args.to, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = report?;
    if context.json {
        output::json(
            json!({"collections": report.collections, "documents": report.documents(), "losses": report.losses,
                "left_behind": report.left_behind}),
        )?;
    } else {
        report.losses.iter().for_each(|loss| output::complain(format!("lost: {loss}")));
        report.left_behind.iter().for_each(|left| output::complain(format!("not taken over: {left}")));
        let collections = output::counted(report.collections.len() as u64, "collection");
        let documents = output::counted(report.documents(), "document");
        output::line(format!("{documents} of {collections} rescued into {}", args.to.display()))?;
    }
    match report.losses.len() {
        0 => Ok(()),
        losses => Err(CliError::Lost { path: context.data.clone(), losses }),
    }
}
