//! The settings: what each of them is, and where it comes from.

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory};

use super::super::target::shown;
use super::super::{Cli, command};
use super::{Finding, Status};

/// Variables that are settings of no command's own.
const OTHER_VARIABLES: [&str; 3] = ["PANNIER_LOG", "PANNIER_SHARED", "PANNIER_CPU_LEVEL"];

/// Lists the settings that this command and `serve` take, with their sources. A secret is in none of them: keys are
/// read from files, and addresses are shown without a login.
pub(super) fn check() -> Vec<Finding> {
    let mut findings = of_arguments(std::env::args_os().collect());
    findings.extend(unknown(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())));
    findings
}

fn of_arguments(arguments: Vec<std::ffi::OsString>) -> Vec<Finding> {
    // The line was parsed before; what the server would take from the environment is seen by parsing its own command.
    let everywhere = command().try_get_matches_from(arguments).ok();
    let serve = command().try_get_matches_from(["pannier", "serve"]).ok();
    let own = everywhere.as_ref().map(|matches| matches.subcommand().map_or(matches, |(_, own)| own));
    let of_server = serve.as_ref().and_then(|matches| matches.subcommand()).map(|(_, matches)| matches);
    let shared =
        ["data", "server", "api_key_file", "addr", "models", "threads", "precision", "device"].map(str::to_owned);
    let (mut listed, mut findings) = (Vec::new(), Vec::new());
    for (matches, ids) in [(own, shared.to_vec()), (of_server, of_serve())] {
        for id in ids {
            if let Some(finding) = matches.filter(|_| !listed.contains(&id)).and_then(|matches| setting(matches, &id)) {
                findings.push(finding);
                listed.push(id);
            }
        }
    }
    findings
}

/// The settings of `serve` that have a variable.
fn of_serve() -> Vec<String> {
    let all = command();
    let serve = all.find_subcommand("serve").expect("there is such a command");
    serve
        .get_arguments()
        .filter(|argument| argument.get_env().is_some())
        .map(|argument| argument.get_id().to_string())
        .collect()
}

fn setting(matches: &ArgMatches, id: &str) -> Option<Finding> {
    let source = match matches.value_source(id)? {
        ValueSource::CommandLine => "the command line",
        ValueSource::EnvVariable => "the environment",
        _ => "the default",
    };
    let value = |value: &std::ffi::OsStr| match (id, value.to_string_lossy()) {
        // A password may stand in it.
        ("server" | "addr", value) => shown(&value),
        (_, value) => value.into_owned(),
    };
    let values = matches.get_raw(id)?.map(value).collect::<Vec<_>>();
    let name = format!("--{}", id.replace('_', "-"));
    Some(Finding::new(Status::Ok, "setting", format!("{name} = {}, from {source}", values.join(", "))))
}

/// Variables that look like settings and are none: most likely misspelt.
fn unknown(names: impl Iterator<Item = String>) -> Vec<Finding> {
    let mut known = OTHER_VARIABLES.map(str::to_owned).to_vec();
    collect_variables(&Cli::command(), &mut known);
    let is_ours = |name: &String| name.starts_with("PANNIER_") && !name.starts_with("PANNIER_TEST_");
    let strange = names.filter(|name| is_ours(name) && !known.contains(name));
    strange
        .map(|name| Finding::new(Status::Warn, "setting", format!("{name} is set, and no setting has this name")))
        .collect()
}

fn collect_variables(command: &clap::Command, known: &mut Vec<String>) {
    known.extend(
        command.get_arguments().filter_map(|argument| Some(argument.get_env()?.to_string_lossy().into_owned())),
    );
    command.get_subcommands().for_each(|command| collect_variables(command, known));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_says_where_it_comes_from() {
        let line = "pannier --data /d --server https://me:secret@host doctor --addr 127.0.0.1:7200";
        let line = line.split(' ').map(Into::into).collect();
        let details: Vec<String> = of_arguments(line).into_iter().map(|finding| finding.detail).collect();
        assert!(details.contains(&"--data = /d, from the command line".to_owned()), "{details:?}");
        assert!(details.contains(&"--server = https://host, from the command line".to_owned()), "{details:?}");
        assert!(details.contains(&"--addr = 127.0.0.1:7200, from the command line".to_owned()), "{details:?}");
        assert!(details.iter().any(|detail| detail.starts_with("--snapshot-keep = 7")), "{details:?}");
        assert_eq!(details.iter().filter(|detail| detail.starts_with("--addr = ")).count(), 1, "{details:?}");
        // Those without a value are not listed.
        const UNSET: [&str; 4] = ["snapshot_every", "merge_mib_per_s", "allow_host", "allow_origin"];
        for id in of_serve().iter().filter(|id| !UNSET.contains(&id.as_str())) {
            let start = format!("--{} = ", id.replace('_', "-"));
            assert!(details.iter().any(|detail| detail.starts_with(&start)), "{start} {details:?}");
        }
    }

    #[test]
    fn misspelt_variables_are_named() {
        let names = [
            "PANNIER_DATA",
            "PANNIER_ADDRESS",
            "PANNIER_TEST_CYCLES",
            "HOME",
            "PANNIER_SNAPSHOT_EVERY",
            "PANNIER_CPU_LEVEL",
        ];
        let found = unknown(names.map(str::to_owned).into_iter());
        assert_eq!(found.len(), 1);
        assert!(found[0].detail.contains("PANNIER_ADDRESS") && found[0].status == Status::Warn);
    }
}
