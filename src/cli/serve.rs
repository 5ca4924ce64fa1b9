//! `serve`: runs the server until a signal, or until the disk fails.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::RangeInclusive;
use std::process;
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::sync::oneshot;

use super::signals::{SECOND_SIGNAL, Signals};
use super::target::{ADDRESS_VARIABLE, DEFAULT_ADDRESS, read_key};
use super::{CliError, Context, output};
use crate::collection::{DEFAULT_SAMPLED_ONE_IN, Frame};
use crate::database::{Database, Options};
use crate::embed::DEFAULT_MODEL;
use crate::http::{self, ApiKey, AppState, AuthPolicy, HttpConfig, ServeError, Starting};
use crate::snapshot::{Retention, Schedule};
use crate::source::duration;
use crate::telemetry;
use crate::types::Chain;

/// Threads that move bytes and answer small searches, one a core within these bounds; the engine's other calls run on
/// threads of their own.
const WORKER_THREADS: RangeInclusive<usize> = 2..=16;
/// Longest wait for engine calls whose client was cut off at the shutdown's deadline.
const LAST_CALLS: Duration = Duration::from_secs(5);

/// Arguments of `serve`.
#[derive(Args, Debug)]
#[command(after_help = "\
The first SIGINT or SIGTERM finishes what was accepted within 30 s, ends import streams with a report of how far they
got, and exits, with 1 where requests had to be cut off; a second one exits at once. Nothing that was answered is lost
either way. Keys, names, origins, TLS, limits: docs/operations/serving.md.")]
pub struct ServeArgs {
    /// Address to listen at, without TLS; one beyond this machine needs --api-key-file
    #[arg(long, value_name = "HOST:PORT", env = ADDRESS_VARIABLE, default_value = DEFAULT_ADDRESS)]
    addr: String,
    /// Name that clients may put into the Host header beside localhost and the address; may be repeated, or joined by
    /// commas
    #[arg(
        id = "allow_host",
        long = "allow-host",
        value_name = "HOST",
        env = "PANNIER_ALLOW_HOSTS",
        value_delimiter = ',',
        value_parser = parse_host
    )]
    allow_hosts: Vec<String>,
    /// Origin whose web pages may call, such as `https://app.example`; may be repeated, or joined by commas
    #[arg(
        id = "allow_origin",
        long = "allow-origin",
        value_name = "ORIGIN",
        env = "PANNIER_ALLOW_ORIGINS",
        value_delimiter = ',',
        value_parser = parse_origin
    )]
    allow_origins: Vec<String>,
    /// Most documents of a collection in memory before they are written to a segment [default and most: 16384]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_384))]
    memtable_documents: Option<u32>,
    /// Model of the routes whose requests name none: /embed, /tokenize and /info
    #[arg(long, value_name = "NAME", env = "PANNIER_DEFAULT_MODEL", default_value = DEFAULT_MODEL)]
    default_model: String,
    /// Answer one search in N again without the graph, in the background, to sample recall; 0 samples none
    #[arg(long, value_name = "N", env = "PANNIER_RECALL_ONE_IN", default_value_t = DEFAULT_SAMPLED_ONE_IN,
          allow_negative_numbers = true)]
    recall_one_in: u32,
    /// Memory for packed copies of the rows that frequent filters let through, which are searched faster, in MiB; 0
    /// keeps none
    #[arg(long, value_name = "N", env = "PANNIER_PACKED_FILTERS_MIB", default_value_t = 16)]
    packed_filters_mib: u16,
    /// Most MiB a second that merging segments writes [default: no limit]
    #[arg(long, value_name = "N", env = "PANNIER_MERGE_MIB_PER_S", value_parser = clap::value_parser!(u32).range(1..))]
    merge_mib_per_s: Option<u32>,
    /// Take a snapshot so often, such as 30m, 6h or 1d [default: never]
    #[arg(long, value_name = "TIME", env = "PANNIER_SNAPSHOT_EVERY", value_parser = parse_time)]
    snapshot_every: Option<Duration>,
    /// How many of those snapshots are kept; others are never removed
    #[arg(long, value_name = "N", env = "PANNIER_SNAPSHOT_KEEP", default_value = "7", value_parser = parse_count)]
    snapshot_keep: NonZeroUsize,
    /// Most MiB of log kept for copies that have not read it; one that falls further behind is compared as a whole
    #[arg(long, value_name = "N", env = "PANNIER_COPIES_LOG_MIB", default_value_t = 1_024)]
    copies_log_mib: u32,
}

/// Runs `serve`.
///
/// # Errors
/// [`CliError::DiskFailed`] when the database stopped; [`CliError::Usage`] for an address that needs an API key.
pub(super) fn run(args: &ServeArgs, context: &Context) -> Result<(), CliError> {
    let config = args.config(context)?;
    context.model_store().check_device().map_err(|error| CliError::Usage(error.to_string()))?;
    // Before the database is opened: a port in use costs nothing then, and health checks are answered meanwhile.
    let listener = bind(&args.addr, matches!(config.auth, AuthPolicy::Key(_)))?;
    let address = listener.local_addr().map_err(|e| CliError::io("read the listener's address", e))?;
    let metrics = telemetry::install_recorder().map_err(|error| CliError::Other(Box::new(error)))?;
    let runtime = runtime()?;
    let stop = runtime.block_on(async { Stop::listen(context) })?;
    let starting = runtime.block_on(async { Starting::begin(tokio::net::TcpListener::from_std(listener)?, &config) });
    let starting = starting.map_err(|e| CliError::io("listen", e))?;
    let options = Options {
        memtable_documents: args.memtable_documents,
        sampled_one_in: Some(args.recall_one_in),
        packed_bytes: Some(usize::from(args.packed_filters_mib) << 20),
        copies_log_bytes: Some(u64::from(args.copies_log_mib) << 20),
        merge_bytes_per_s: args.merge_mib_per_s.and_then(|mib| NonZeroU64::new(u64::from(mib) << 20)),
        ..context.options()
    };
    let database = Database::open_with(&context.data, options)?;
    let checked = database.models().check_name(&args.default_model);
    checked.map_err(|error| CliError::Usage(format!("--default-model: {error}")))?;
    log_recovery(&database);
    let has_models = warm_up(&database);
    let schedule = args.schedule(&database)?;
    let state = AppState::new(database.clone(), config, Some(metrics));
    if let Err(reason) = state.start_replication() {
        tracing::error!(reason, "copies are not kept up to date");
    }
    let served = runtime.block_on(async {
        let signal = stop.once_open();
        let listener = starting.end().await.map_err(|e| CliError::io("listen", e))?;
        if let Err(error) = announce(context, address, &database, has_models) {
            tracing::warn!(error = %Chain(&error), "the server's address could not be written to stdout");
        }
        Ok::<_, CliError>(http::serve(listener, state.clone(), signal).await)
    });
    state.stop_replication();
    drop(state);
    runtime.shutdown_timeout(LAST_CALLS);
    // It holds the database too.
    drop(schedule);
    database.close();
    match served? {
        Ok(()) => Ok(()),
        Err(ServeError::DatabaseStopped { reason }) => Err(CliError::DiskFailed { reason }),
        Err(error) => Err(CliError::Other(Box::new(error))),
    }
}

/// The threads that move bytes.
fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(*WORKER_THREADS.start(), *WORKER_THREADS.end()))
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(|e| CliError::io("start the server's threads", e))
}

/// Reads a name as a Host header has it.
fn parse_host(text: &str) -> Result<String, String> {
    match text.is_empty() || text.contains(|c: char| c == '/' || c == '*' || c.is_whitespace()) {
        true => Err("write the name alone, such as search.example or search.example:8080".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// Reads an origin as browsers send it.
fn parse_origin(text: &str) -> Result<String, String> {
    let host =
        text.split_once("://").filter(|(scheme, _)| !scheme.is_empty()).map(|(_, host)| host.trim_end_matches('/'));
    match host.map(parse_host) {
        Some(Ok(_)) => Ok(text.to_owned()),
        _ => Err("write its scheme and its name, such as https://app.example or http://localhost:3000".to_owned()),
    }
}

/// Reads a number of which there is at least one.
fn parse_count(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "write a whole number from 1".to_owned())
}

/// Reads the time between two snapshots.
fn parse_time(text: &str) -> Result<Duration, String> {
    let time =
        duration(text).ok_or_else(|| format!("{text:?} is no time; write a number and s, m, h or d, such as 6h"))?;
    match (1..=366 * 86_400).contains(&time.as_secs()) {
        true => Ok(time),
        false => Err(format!("{text:?} is not between 1s and 366d")),
    }
}

impl ServeArgs {
    /// Starts to take snapshots, where that is asked for.
    fn schedule(&self, database: &Database) -> Result<Option<Schedule>, CliError> {
        let Some(every) = self.snapshot_every else { return Ok(None) };
        let retention = Retention { every, keep: self.snapshot_keep.get() };
        let started = Schedule::start(database.clone(), retention);
        started.map(Some).map_err(|e| CliError::io("start the thread that takes snapshots", e))
    }

    fn config(&self, context: &Context) -> Result<HttpConfig, CliError> {
        let auth = match &context.api_key_file {
            None => AuthPolicy::Open,
            Some(path) => {
                let key = ApiKey::new(&read_key(path)?)
                    .map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))?;
                AuthPolicy::Key(key)
            }
        };
        Ok(HttpConfig {
            allowed_hosts: self.allow_hosts.clone(),
            allowed_origins: self.allow_origins.clone(),
            auth,
            default_model: self.default_model.clone(),
            ..HttpConfig::default()
        })
    }
}

/// Takes the address. Beyond loopback everybody in the network could read and delete, so that needs a key.
fn bind(address: &str, has_key: bool) -> Result<TcpListener, CliError> {
    let resolved: Vec<SocketAddr> = address
        .to_socket_addrs()
        .map_err(|error| CliError::Usage(format!("{address:?} is no address to listen at ({error}); write HOST:PORT")))?
        .collect();
    if !has_key && resolved.iter().any(|address| !address.ip().is_loopback()) {
        return Err(CliError::Usage(format!(
            "{address} can be reached from other machines, so an API key is needed: write one of at least 16 characters \
             into a file and name it with --api-key-file, or listen at {DEFAULT_ADDRESS}"
        )));
    }
    let listener = TcpListener::bind(&*resolved).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => CliError::Refused(format!(
            "{address} is in use, perhaps by another pannier; stop it, or choose another port with --addr"
        )),
        _ => CliError::io(format!("listen at {address}"), error),
    })?;
    listener.set_nonblocking(true).map_err(|e| CliError::io(format!("listen at {address}"), e))?;
    Ok(listener)
}

fn log_recovery(database: &Database) {
    let recovered = database.recovered();
    tracing::info!(
        data = %database.path().display(),
        last_seq = recovered.last_seq.0,
        replayed = recovered.replayed,
        "the store is open"
    );
    if recovered.torn_bytes > 0 {
        tracing::warn!(bytes = recovered.torn_bytes, "a write that was never answered was cut off the log");
    }
    if let Some(reason) = &recovered.index_rebuilt {
        tracing::info!(reason, "the document index was made again");
    }
}

/// Loads the collections' models, so that the first query does not wait for them. Returns whether each is there, and
/// the one that made the collection's vectors.
fn warm_up(database: &Database) -> bool {
    let mut has_models = true;
    for collection in database.collections().iter().filter(|collection| collection.definition().embedding.is_some()) {
        if let Err(error) = Frame::new(collection.name(), collection.definition(), database.models()).model() {
            tracing::warn!(collection = %collection.name(), %error, "texts of this collection cannot be embedded");
            has_models = false;
        }
    }
    has_models
}

/// Says where the server is: on stdout, for a person or as JSON for a program that started it.
fn announce(context: &Context, address: SocketAddr, database: &Database, has_models: bool) -> Result<(), CliError> {
    let mut reachable = address;
    if address.ip().is_unspecified() {
        reachable.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { [0u16, 0, 0, 0, 0, 0, 0, 1].into() });
    }
    let base = format!("http://{reachable}");
    if context.json {
        let version = env!("CARGO_PKG_VERSION");
        return output::json(json!({"address": base, "version": version, "pid": process::id()}));
    }
    if !has_models {
        let lacks = "and not ready: texts of some collections cannot be embedded, the log says why";
        return output::line(format!("Pannier {} is up at {base}, {lacks}", env!("CARGO_PKG_VERSION")));
    }
    output::line(format!("Pannier {} is ready at {base}", env!("CARGO_PKG_VERSION")))?;
    let key = context.api_key_file.as_ref().map(|file| format!("-H \"x-api-key: $(cat '{}')\" ", file.display()));
    let key = key.unwrap_or_default();
    let collections = database.collections();
    let hint = match collections.iter().find(|collection| collection.definition().embedding.is_some()) {
        Some(found) => format!("curl {key}'{base}/v1/collections/{}/search?q=something+warm&limit=3'", found.name()),
        None => format!("curl {key}-X PUT {base}/v1/collections/articles"),
    };
    output::hint(context, format!("Try it:  {hint}"));
    Ok(())
}

/// What signals do. While the store is being opened the first one ends the process, which a store bears at any time.
struct Stop {
    open: oneshot::Sender<()>,
    first: oneshot::Receiver<()>,
}

impl Stop {
    /// From now on signals are heard: as process 1 of a container none would end the program by itself. Needs a
    /// runtime.
    fn listen(context: &Context) -> Result<Self, CliError> {
        let mut signals = Signals::listen().map_err(|e| CliError::io("listen for signals", e))?;
        let ((open, opened), (sender, first)) = (oneshot::channel(), oneshot::channel());
        let context = context.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = signals.next() => {
                    output::hint(&context, "stopped while the store was being opened");
                    process::exit(0);
                }
                _ = opened => {}
            }
            signals.next().await;
            output::hint(&context, "finishing what was accepted; once more to stop at once");
            // The server may have stopped by itself meanwhile.
            let _ = sender.send(());
            signals.next().await;
            process::exit(SECOND_SIGNAL);
        });
        Ok(Self { open, first })
    }

    /// Completes at the first signal from now on; the second ends the process.
    fn once_open(self) -> impl Future<Output = ()> {
        let Self { open, first } = self;
        // It fails where the runtime has gone.
        let _ = open.send(());
        async {
            // The sender is only dropped with the runtime.
            let _ = first.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;
    use crate::cli::{Cli, Command, command};

    #[test]
    fn beyond_loopback_a_key_is_needed() {
        for address in ["0.0.0.0:0", "[::]:0"] {
            let error = bind(address, false).unwrap_err();
            assert!(matches!(&error, CliError::Usage(text) if text.contains("--api-key-file")), "{error}");
        }
        assert!(bind("127.0.0.1:0", false).is_ok());
        assert!(bind("0.0.0.0:0", true).is_ok());
        assert!(matches!(bind("nonsense", false), Err(CliError::Usage(_))));
    }

    #[test]
    fn times_have_a_unit() {
        let times = ["90s", "30m", "30min", "6 h", "1d"].map(|text| parse_time(text).unwrap().as_secs());
        assert_eq!(times, [90, 1_800, 1_800, 21_600, 86_400]);
        for wrong in ["", "6", "h", "0s", "-1h", "1.5h", "367d", "99999999999999999999s", "6é"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_that_cannot_be_are_refused_in_plain_words() {
        let refused = |flag: &str, value: &str| {
            command().try_get_matches_from(["pannier", "serve", flag, value]).unwrap_err().to_string()
        };
        assert!(refused("--snapshot-keep", "0").contains("write a whole number from 1"));
        assert!(refused("--recall-one-in", "-1").contains("invalid value '-1' for '--recall-one-in <N>'"));
    }

    #[test]
    fn hosts_and_origins_that_no_header_can_be_are_refused() {
        assert!(["a.example", "a.example:80", "[::1]:80", "localhost"].iter().all(|host| parse_host(host).is_ok()));
        assert!(
            ["http://a.example", "a.example/", "", "*.example", "a b"].iter().all(|host| parse_host(host).is_err())
        );
        let good = ["https://app.example", "http://localhost:3000", "https://app.example/", "chrome-extension://abc"];
        assert!(good.iter().all(|origin| parse_origin(origin).is_ok()));
        let bad = ["app.example", "https://app.example/page", "https://", "*", "://a", "localhost:3000"];
        assert!(bad.iter().all(|origin| parse_origin(origin).is_err()));
    }

    #[test]
    fn hosts_and_origins_may_be_joined_as_in_a_variable() {
        let given = ["--allow-host", "a,b:80", "--allow-host", "c", "--allow-origin", "http://a:1,https://b"];
        let matches = command().try_get_matches_from(["pannier", "serve"].into_iter().chain(given)).unwrap();
        let Command::Serve(args) = Cli::from_arg_matches(&matches).unwrap().command else { panic!("another command") };
        assert_eq!(
            (args.allow_hosts.join(" "), args.allow_origins.join(" ")),
            ("a b:80 c".into(), "http://a:1 https://b".into())
        );
        assert!(command().try_get_matches_from(["pannier", "serve", "--allow-host", "a,*.b"]).is_err());
    }

    #[test]
    fn the_page_on_serving_has_every_flag_and_variable() {
        let page = include_str!("../../docs/operations/serving.md");
        let command = command();
        let serve = command.find_subcommand("serve").unwrap();
        let flags: Vec<_> = serve.get_arguments().filter(|argument| !argument.is_global_set()).collect();
        assert!(flags.len() >= 11, "{}", flags.len());
        for flag in flags.iter().filter(|flag| flag.get_id() != "help" && flag.get_id() != "version") {
            let name = format!("`--{}`", flag.get_long().unwrap());
            assert!(page.contains(&name), "{name}");
            let variable = flag.get_env().map(|variable| format!("`{}`", variable.to_str().unwrap()));
            assert!(variable.as_ref().is_none_or(|variable| page.contains(variable)), "{variable:?}");
        }
    }

    #[test]
    fn a_port_in_use_is_named() {
        let first = bind("127.0.0.1:0", false).unwrap();
        let address = first.local_addr().unwrap().to_string();
        let error = bind(&address, false).unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("--addr"), "{error}");
    }
}
