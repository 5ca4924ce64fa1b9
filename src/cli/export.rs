//! `export`: the documents of a collection as JSON lines, in the form that `import` takes.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::path::Path;

use clap::Args;
use indicatif::ProgressDrawTarget;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::target::{Access, Target, collection_path};
use super::{CliError, Context, output};
use crate::storage::Publishing;
use crate::types::CollectionName;

/// Stands for stdout where a file is named.
const STDOUT: &str = "-";
/// Documents of a page: with the longest vectors some 12 MB of JSON.
const PAGE: usize = 250;
/// What is read of each document.
const PARTS: &str = "text,metadata,own_vector";
const PARTS_WITH_VECTORS: &str = "text,metadata,vector";
const PARTS_WITHOUT_VECTORS: &str = "text,metadata";

/// Arguments of `export`.
#[derive(Args, Debug)]
#[command(after_help = "\
Documents come by ascending id, a line each, with text and metadata. A vector, or chunks with vectors, is written where
it came with the document: an import embeds the texts of all others. A collection's template makes its texts of the
metadata again, so these are left out. Documents that are written meanwhile may be in it or not; all others are.

Examples:
  pannier export articles --out articles.jsonl
  pannier export articles --vectors | gzip > articles.jsonl.gz
  pannier export articles --server http://127.0.0.1:7117 | pannier import articles-2 - --server http://127.0.0.1:7117")]
pub struct ExportArgs {
    /// Collection to read
    collection: String,
    /// File to write, or - for stdout; a file appears once it is whole, and replaces what has its name
    #[arg(long, value_name = "FILE", default_value = STDOUT)]
    out: String,
    /// Write all vectors, so that an import embeds nothing; they count as the documents' own there
    #[arg(long)]
    vectors: bool,
    /// Write no vectors, also none that came with documents, so that an import embeds all texts
    #[arg(long, conflicts_with = "vectors")]
    without_vectors: bool,
    /// Where the collection has a template: write the texts that it made too, for a collection without one
    #[arg(long)]
    made_texts: bool,
}

/// Runs `export`.
///
/// # Errors
/// [`CliError::Api`] where the collection cannot be read, [`CliError::Io`] and [`CliError::Storage`] where the file
/// cannot be written; a file is then as it was.
pub(super) fn run(args: &ExportArgs, context: &Context) -> Result<(), CliError> {
    let name = CollectionName::new(&args.collection)?;
    let target = Target::of(context, Access::Existing)?;
    let path = collection_path(&name);
    let definition = target.value("GET", &path, None)?;
    let lines = Lines {
        target: &target,
        path: format!("{path}/documents"),
        parts: match (args.vectors, args.without_vectors) {
            (true, _) => PARTS_WITH_VECTORS,
            (false, true) => PARTS_WITHOUT_VECTORS,
            (false, false) => PARTS,
        },
        with_texts: args.made_texts || definition["embedding"]["template"].is_null(),
    };
    let mut out = Out::create(&args.out)?;
    let progress = output::count_progress(context);
    if out.is_seen() {
        progress.set_draw_target(ProgressDrawTarget::hidden());
    }
    progress.set_length(lines.expected()?);
    let written = lines.write(&mut out, |documents| progress.inc(documents));
    progress.finish_and_clear();
    let written = written?;
    out.finish()?;
    let is_file = args.out != STDOUT;
    if context.json && is_file {
        output::json(json!({"collection": name.as_str(), "documents": written, "file": args.out}))?;
    }
    let place = if is_file { args.out.as_str() } else { "stdout" };
    output::hint(context, format!("{} of {name} written to {place}.", output::counted(written, "document")));
    Ok(())
}

/// The documents of a collection, page by page.
struct Lines<'a> {
    target: &'a Target,
    /// The route of the listing.
    path: String,
    /// What is read of each document.
    parts: &'static str,
    with_texts: bool,
}

/// A page of the listing.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    documents: Vec<Document<'a>>,
    next_cursor: Option<String>,
}

/// What is written of a document, every part as the listing has it: numbers keep their digits.
#[derive(Deserialize, Serialize)]
struct Document<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    text: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    vector: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    chunks: Option<&'a RawValue>,
}

impl Lines<'_> {
    /// How many there are now.
    fn expected(&self) -> Result<u64, CliError> {
        let answer = self.target.value("POST", &format!("{}/count", self.path), Some(&json!({})))?;
        Ok(answer["count"].as_u64().unwrap_or(0))
    }

    /// Writes them all, a line each, and returns how many. `wrote` is told how many came.
    fn write(&self, out: &mut Out, wrote: impl Fn(u64)) -> Result<u64, CliError> {
        let first = format!("{}?limit={PAGE}&include={}", self.path, self.parts);
        let (mut written, mut path) = (0, first.clone());
        loop {
            let body = self.target.call("GET", &path, None)?;
            let page: Page<'_> = self.target.parse(&body)?;
            for document in &page.documents {
                out.line(&document.to_import(self.with_texts))?;
            }
            written += page.documents.len() as u64;
            wrote(page.documents.len() as u64);
            match page.next_cursor {
                // A cursor needs no escapes.
                Some(cursor) => path = format!("{first}&cursor={cursor}"),
                None => return Ok(written),
            }
        }
    }
}

impl<'a> Document<'a> {
    /// Without what an import would make again, or could not take.
    fn to_import(&self, with_text: bool) -> Document<'a> {
        Document {
            id: self.id,
            text: self.text.filter(|_| with_text),
            metadata: self.metadata.filter(|metadata| metadata.get() != "{}"),
            vector: self.vector,
            // Without vectors they only say how the text was split. A chunk has no other member that is text.
            chunks: self.chunks.filter(|chunks| chunks.get().contains("\"vector\"")),
        }
    }
}

/// Where lines go.
enum Out {
    Stdout(BufWriter<Stdout>),
    File { file: Box<Publishing>, name: String },
}

impl Out {
    /// # Errors
    /// [`CliError::Usage`] for what is no file, [`CliError::Storage`] when it cannot be made.
    fn create(name: &str) -> Result<Self, CliError> {
        if name == STDOUT {
            return Ok(Self::Stdout(BufWriter::new(io::stdout())));
        }
        let path = Path::new(name);
        if path.metadata().is_ok_and(|there| !there.is_file()) {
            return Err(CliError::Usage(format!("{name} is no file; name one, or {STDOUT} for stdout")));
        }
        Ok(Self::File { file: Box::new(Publishing::create_outside(path)?), name: name.to_owned() })
    }

    /// Whether a person looks at the lines, among which a bar has no place.
    fn is_seen(&self) -> bool {
        matches!(self, Self::Stdout(_)) && io::stdout().is_terminal()
    }

    fn line(&mut self, document: &Document<'_>) -> Result<(), CliError> {
        let written = match self {
            Self::Stdout(out) => write_line(out, document),
            Self::File { file, .. } => write_line(file, document),
        };
        written.map_err(|error| self.failed(error))
    }

    /// Gives a file its name.
    fn finish(self) -> Result<(), CliError> {
        match self {
            Self::Stdout(mut out) => out.flush().map_err(|e| CliError::io("write to stdout", e)),
            Self::File { file, .. } => Ok(file.commit()?),
        }
    }

    fn failed(&self, error: io::Error) -> CliError {
        match self {
            Self::Stdout(_) => CliError::io("write to stdout", error),
            Self::File { name, .. } => CliError::io(format!("write {name}"), error),
        }
    }
}

fn write_line(mut out: impl Write, document: &Document<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut out, document)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(document: &str, with_text: bool) -> String {
        let document: Document<'_> = serde_json::from_str(document).unwrap();
        let mut line = Vec::new();
        write_line(&mut line, &document.to_import(with_text)).unwrap();
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_line_has_what_an_import_takes_digit_by_digit() {
        let added = r#""seq":7,"created_at":"x","updated_at":"x","embedding":"ready"}"#;
        let of = |parts: &str, with_text| line(&format!("{{{parts},{added}"), with_text);
        let parts = r#""id":"a\n","text":"t","metadata":{"n":1.0,"e":1e+300},"vector":[0.1,-0.0]"#;
        assert_eq!(of(parts, true), format!("{{{parts}}}\n"));
        assert_eq!(of(parts, false), format!("{{{}}}\n", parts.replace(r#""text":"t","#, "")));
        assert_eq!(of(r#""id":"a","text":null,"metadata":{}"#, true), "{\"id\":\"a\"}\n");
        let own = r#""id":"a","text":"t","chunks":[{"start":0,"end":1,"vector":[1]},{"vector":[2]}]"#;
        assert_eq!(of(own, true), format!("{{{own}}}\n"));
        assert_eq!(of(r#""id":"a","chunks":[{"start":0,"end":1},{}]"#, true), "{\"id\":\"a\"}\n");
    }

    #[test]
    fn what_is_no_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let refused = Out::create(directory.path().to_str().unwrap()).err().map(|error| error.to_string());
        assert!(refused.as_deref().is_some_and(|refused| refused.contains("is no file")), "{refused:?}");
    }
}
