//! Other people's clients against a server: the scripts of `tests/clients`, with the versions that `make clients` gets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pannier::http::{ApiKey, AuthPolicy, HttpConfig, Limits};

use crate::api::server::Server;
use crate::support::model::{SMALL_CROSS_ENCODER, UNSCALED_MODEL};

const SCRIPTS: &str = "tests/clients";
const KEY: &str = "the-key-of-the-clients";

/// Where `make clients` put a language's clients; `None`, loudly, where they are not those of `versions`; in CI they
/// are.
fn installed(language: &str, versions: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let directory = test.ancestors().nth(3).unwrap().join("clients").join(language);
    let wanted = fs::read_to_string(Path::new(SCRIPTS).join(versions)).unwrap();
    if fs::read_to_string(directory.join("ready")).is_ok_and(|found| found == wanted) {
        return Some(directory);
    }
    let missing = format!("{} has not the clients of {versions} (make clients)", directory.display());
    assert!(std::env::var_os("CI").is_none(), "{missing}");
    eprintln!("NOT TESTED: {missing}");
    None
}

/// Runs a script against a server that wants a key, and one that has no place for any call.
#[track_caller]
fn passes(interpreter: &mut Command, script: &str) {
    let auth = AuthPolicy::Key(ApiKey::new(KEY).unwrap());
    let no_places = Limits { engine_calls: 0, embedding_calls: 0, waiting_calls: 0, ..Limits::default() };
    let server = Server::with_models(HttpConfig {
        auth: auth.clone(),
        default_model: UNSCALED_MODEL.to_owned(),
        ..HttpConfig::default()
    });
    let busy = Server::with_models(HttpConfig { auth, limits: no_places, ..HttpConfig::default() });
    let home = tempfile::tempdir().unwrap();
    let output = interpreter
        .arg(Path::new(SCRIPTS).join(script))
        .env("PANNIER_URL", format!("http://{}", server.address))
        .env("PANNIER_BUSY_URL", format!("http://{}", busy.address))
        .env("PANNIER_KEY", KEY)
        .env("PANNIER_MODEL", UNSCALED_MODEL)
        .env("PANNIER_OTHER_MODEL", SMALL_CROSS_ENCODER)
        // Neither a user's login nor a proxy.
        .env("HF_HOME", home.path())
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .unwrap_or_else(|error| panic!("{:?}: {error}", interpreter.get_program()));
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{script}: {}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn passes_in_python(script: &str) {
    if let Some(directory) = installed("python", "requirements.txt") {
        // -B: no files beside the scripts.
        passes(Command::new(directory.join("bin/python")).arg("-B"), script);
    }
}

#[test]
fn openai_of_python() {
    passes_in_python("with_openai.py");
}

#[test]
fn langchain_of_python() {
    passes_in_python("with_langchain.py");
}

#[test]
fn huggingface_hub_of_python() {
    passes_in_python("with_huggingface_hub.py");
}

#[test]
fn ollama_of_python() {
    passes_in_python("with_ollama.py");
}

#[test]
fn openai_of_node() {
    if let Some(directory) = installed("node", "package-lock.json") {
        passes(Command::new("node").env("NODE_PATH", directory.join("node_modules")), "with_openai.cjs");
    }
}
