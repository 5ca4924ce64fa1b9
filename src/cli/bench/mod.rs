//! `pannier bench`: measures quality and speed on this machine, and compares with peers in the same run.

mod busy;
mod clients;
mod cranfield;
mod embed;
mod filters;
mod http;
mod ingest;
mod local_server;
mod machine;
mod oracle;
mod peers;
mod plot;
mod precision;
mod quality;
mod random;
mod ranking;
mod report;
mod rewrites;
mod rows;
mod samples;
mod scratch;
mod search;
mod stats;
mod store;
mod sweep;
mod vectors;
mod wire;
mod writes;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{CliError, Context};

/// What `pannier bench` measures.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// What every measurement shares.
    #[command(flatten)]
    places: Places,
    /// What to measure.
    #[command(subcommand)]
    command: BenchCommand,
}

/// Where measurements read from and write to.
#[derive(Args, Clone, Debug)]
struct Places {
    /// Directory of the data sets and the peers' scripts
    #[arg(long, global = true, value_name = "DIR", env = "PANNIER_SHARED", default_value = "../shared")]
    shared: PathBuf,
    /// Directory for temporary databases; its disk is the one that is measured
    /// [default: the system's temporary directory]
    #[arg(long, global = true, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

#[derive(Clone, Debug, Subcommand)]
enum BenchCommand {
    /// Relevance on the Cranfield collection, and whether exact search is exact
    Quality(quality::QualityArgs),
    /// Documents a second, latency of durable writes, disk and memory
    Ingest(ingest::IngestArgs),
    /// Recall, queries a second and latency over ef_search, build and open times
    Search(search::SearchArgs),
    /// Disk, recall and speed after every document was written again and again
    Rewrites(rewrites::RewritesArgs),
    /// Texts and tokens a second of the embedding model
    Embed(embed::EmbedArgs),
    /// Many clients of one text each, and queries during an import, over HTTP
    Clients(clients::ClientsArgs),
    /// Draw recall against queries a second from a report of `bench search`
    Plot(plot::PlotArgs),
    /// What HTTP costs beside the engine: one connection, many, and a text in, ten hits out
    Http(http::HttpArgs),
    /// Searches while graphs are built and right after many writes, over HTTP
    Busy(busy::BusyArgs),
    /// Write real vectors for `bench search` and its peers
    Vectors(vectors::VectorsArgs),
}

/// Runs a measurement and writes its report.
///
/// # Errors
/// [`CliError`]; [`CliError::Refused`] says what is missing and how to get it.
pub fn run(args: BenchArgs, context: &Context) -> Result<(), CliError> {
    let BenchArgs { places, command } = args;
    match command {
        BenchCommand::Quality(args) => quality::run(&args, &places, context),
        BenchCommand::Ingest(args) => ingest::run(&args, &places, context),
        BenchCommand::Search(args) => search::run(&args, &places, context),
        BenchCommand::Rewrites(args) => rewrites::run(&args, &places, context),
        BenchCommand::Embed(args) => embed::run(&args, &places, context),
        BenchCommand::Clients(args) => clients::run(&args, &places, context),
        BenchCommand::Plot(args) => plot::run(&args, context),
        BenchCommand::Http(args) => http::run(&args, &places, context),
        BenchCommand::Busy(args) => busy::run(&args, &places, context),
        BenchCommand::Vectors(args) => vectors::run(&args, &places, context),
    }
}
