//! What to do about a failure, where its message does not say that.

use super::snapshot::SnapshotCommand;
use super::target::{ADDRESS_VARIABLE, DEFAULT_ADDRESS, shown};
use super::{CliError, Command, Failure};
use crate::meta::is_disk_full;

/// Who carries a command out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoneBy {
    /// A server that was named or holds the data directory; else this process.
    Anyone,
    /// This process, as a server.
    Server,
    /// This process, and no server may hold the data directory if it needs that.
    ThisProcess,
}

impl Command {
    /// Who carries it out.
    pub fn done_by(&self) -> DoneBy {
        match self {
            Self::Serve(_) => DoneBy::Server,
            Self::Model(_) | Self::Embed(_) | Self::Bench(_) | Self::Doctor(_) => DoneBy::ThisProcess,
            Self::Verify(_) | Self::Salvage(_) | Self::Migrate(_) => DoneBy::ThisProcess,
            Self::Snapshot(SnapshotCommand::Restore(_)) => DoneBy::ThisProcess,
            Self::Snapshot(_) | Self::Import(_) | Self::Export(_) | Self::Search(_) | Self::Collection(_) => {
                DoneBy::Anyone
            }
            Self::Template(_) | Self::Replicate(_) => DoneBy::Anyone,
        }
    }
}

/// What to do about a failure; `None` where its message says all.
pub fn advice(error: &CliError, done_by: DoneBy) -> Option<String> {
    match (error.failure(), done_by) {
        (Failure::Locked, DoneBy::Anyone) => {
            let named = std::env::var(ADDRESS_VARIABLE).ok().filter(|address| !address.is_empty());
            let address = named.map_or_else(|| DEFAULT_ADDRESS.to_owned(), |address| shown(&address));
            Some(format!(
                "where a server holds it, --server URL sends the command there; none that serves this directory, and \
                 takes the API key if it wants one, was found at {address}"
            ))
        }
        (Failure::Locked, DoneBy::Server) => Some("--data names another data directory to serve".to_owned()),
        // It says so itself, as it does of a snapshot.
        (Failure::Damaged, _) if !matches!(error, CliError::Damaged { .. }) => Some(
            "restore a snapshot (`pannier snapshot list` shows them), or let `pannier salvage` take what can be read to a \
             new directory"
                .to_owned(),
        ),
        _ if is_disk_full(error) => Some("the disk is full: free some space and run it again".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;
    use crate::collection::CollectionError;
    use crate::database::OpenError;
    use crate::manifest::ManifestError;
    use crate::meta::MetaError;
    use crate::storage::StorageError;

    fn advised(error: CliError, arguments: &[&str]) -> String {
        let cli = Cli::try_parse_from([&["pannier"], arguments].concat()).unwrap();
        advice(&error, cli.command.done_by()).unwrap_or_default()
    }

    #[test]
    fn a_server_is_advised_where_one_can_carry_the_command_out() {
        let locked = || CliError::Open(OpenError::Storage(StorageError::Locked { path: "LOCK".into(), holder: None }));
        for asking in [&["collection", "list"][..], &["snapshot", "create"], &["import", "c", "f.jsonl"]] {
            assert!(advised(locked(), asking).contains("--server URL"), "{asking:?}");
        }
        for own in [&["verify"][..], &["migrate", "status"], &["snapshot", "restore", "a"], &["salvage", "--to", "x"]] {
            assert_eq!(advised(locked(), own), "", "{own:?}");
        }
        assert!(advised(locked(), &["serve"]).contains("--data"));
    }

    #[test]
    fn damage_and_a_full_disk_come_with_a_way_out() {
        let damaged = ManifestError::Damaged { path: "MANIFEST".into(), offset: 0, reason: "r".into() };
        let advised_of_damage = advised(CliError::Open(OpenError::Manifest(damaged)), &["verify"]);
        assert!(advised_of_damage.contains("`pannier salvage`"), "{advised_of_damage}");
        let said = CliError::Damaged { path: "data".into(), count: 1 };
        assert!(said.to_string().contains("`pannier salvage`"));
        assert_eq!(advised(said, &["verify"]), "");
        let full = CliError::io("write", std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert!(advised(full, &["serve"]).contains("free some space"));
        let full = MetaError::Sled {
            path: "meta.sled".into(),
            source: std::io::Error::from(std::io::ErrorKind::StorageFull).into(),
        };
        let full = OpenError::Recover { path: "data".into(), source: Box::new(CollectionError::Meta(full)) };
        assert!(advised(CliError::Open(full), &["serve"]).contains("free some space"));
        assert_eq!(advised(CliError::Refused("no".to_owned()), &["serve"]), "");
    }
}
