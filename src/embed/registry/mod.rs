//! The models that Pannier knows by name: where they come from, what their files must be, how they are used.

mod entries;

#[cfg(feature = "local-models")]
pub(super) use entries::CROSS_ENCODER_FILES;
pub use entries::KNOWN_MODELS;

use super::Pooling;

/// What a model makes of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// A vector of a text.
    Embedding,
    /// A score of a query and a text.
    CrossEncoder,
}

/// A model that can be fetched by its name.
#[derive(Debug)]
pub struct KnownModel {
    /// `organisation/model`, as on the model hub.
    pub name: &'static str,
    /// What it makes of texts.
    pub kind: ModelKind,
    /// Other names that mean this model.
    pub aliases: &'static [&'static str],
    /// SPDX identifier.
    pub licence: &'static str,
    /// Numbers in a vector; 1 of a cross-encoder.
    pub dim: usize,
    /// Tokens that the model reads of a text; the rest is cut and reported.
    pub max_tokens: usize,
    /// How it makes one vector of a text's tokens.
    pub pooling: Pooling,
    /// The fewest numbers that its vectors may be cut to; `None` where it was not trained for that.
    pub shortest: Option<usize>,
    /// Whether a whole vector passes a layer normalisation, without weights, before it is cut.
    pub layer_norm_before_cut: bool,
    /// Put before a text that is searched for.
    pub query_prefix: &'static str,
    /// Put before a text that is stored.
    pub document_prefix: &'static str,
    /// Branch, tag or commit of the hub's repository of this name.
    pub revision: &'static str,
    /// The Python packages that carry the same files.
    pub package: Option<KnownPackage>,
    /// What the model consists of. Empty where nobody has hashed its files: then its modules.json says.
    pub files: &'static [KnownFile],
}

/// Packages of the Python package index that carry a model's files.
#[derive(Debug)]
pub struct KnownPackage {
    /// The package whose wheel holds the files; or several, in order, whose wheels hold one part each of an archive
    /// that was cut.
    pub names: &'static [&'static str],
    /// The only version of each that is taken.
    pub version: &'static str,
}

/// A file of a model.
#[derive(Debug)]
pub struct KnownFile {
    /// Relative to the model's directory, parts joined by '/'.
    pub path: &'static str,
    /// Whether the model cannot be used without it.
    pub required: bool,
    /// What it must be. `None` where nobody has hashed the genuine file: then the first pull records what it got, and
    /// every later use must match that.
    pub digest: Option<KnownDigest>,
}

/// Length and hash of a genuine file.
#[derive(Debug)]
pub struct KnownDigest {
    /// In bytes.
    pub size_bytes: u64,
    /// In hexadecimal.
    pub sha256: &'static str,
}

/// The model that collections use unless they name another.
pub const DEFAULT_MODEL: &str = "sentence-transformers/all-MiniLM-L6-v2";

/// The known model of this name or alias, whatever the case of its letters.
pub fn find(name: &str) -> Option<&'static KnownModel> {
    KNOWN_MODELS.iter().find(|model| {
        model.name.eq_ignore_ascii_case(name) || model.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name))
    })
}

/// Names of the known models, of one kind or all, separated by commas.
#[cfg(feature = "local-models")]
pub(super) fn known_names(kind: Option<ModelKind>) -> String {
    let wanted = KNOWN_MODELS.iter().filter(|model| kind.is_none_or(|kind| model.kind == kind));
    wanted.map(|model| model.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_mean_one_model_each() {
        let mut names: Vec<String> = KNOWN_MODELS
            .iter()
            .flat_map(|model| std::iter::once(model.name).chain(model.aliases.iter().copied()))
            .map(str::to_ascii_lowercase)
            .collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert_eq!(find("ALL-minilm-L6-v2").unwrap().name, DEFAULT_MODEL);
        assert!(find("all-MiniLM").is_none());
    }

    #[test]
    fn digests_are_whole() {
        let mut whole = 0;
        for file in KNOWN_MODELS.iter().flat_map(|model| model.files) {
            let Some(digest) = &file.digest else { continue };
            assert_eq!(digest.sha256.len(), 64, "{}", file.path);
            assert!(digest.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{}", file.path);
            whole += 1;
        }
        assert_eq!(whole, 12);
    }

    #[test]
    fn every_entry_says_how_it_is_used() {
        for model in &KNOWN_MODELS {
            assert_eq!(model.kind == ModelKind::CrossEncoder, model.dim == 1, "{}", model.name);
            assert!(model.shortest.is_none_or(|shortest| (1..model.dim).contains(&shortest)), "{}", model.name);
            assert!(model.shortest.is_some() || !model.layer_norm_before_cut, "{}", model.name);
            assert!((1..=8192).contains(&model.max_tokens) && !model.licence.is_empty(), "{}", model.name);
            assert_eq!(find(model.aliases[0]).unwrap().name, model.name);
            assert_eq!(model.name.split('/').count(), 2, "{}", model.name);
        }
        let pooling = |name: &str| find(name).unwrap().pooling;
        assert_eq!((pooling("bge-base-en-v1.5"), pooling("gte-small")), (Pooling::FirstToken, Pooling::Mean));
    }
}
