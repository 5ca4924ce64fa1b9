//! Asking before something is replaced or removed.

use std::io::{self, IsTerminal, Write};

use super::{CliError, Context};

/// Asks on the terminal; anything but yes is no.
///
/// # Errors
/// [`CliError::Usage`] where nobody can be asked, [`CliError::Refused`] after a no.
pub(super) fn confirm(question: &str, context: &Context) -> Result<(), CliError> {
    if context.no_input || !io::stdin().is_terminal() {
        return Err(CliError::Usage("this needs a yes: add --yes where nobody can be asked".to_owned()));
    }
    let asked = write!(io::stderr(), "{question} [y/N] ");
    asked.map_err(|e| CliError::io("write to stderr", e))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|e| CliError::io("read the answer", e))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CliError::Refused("nothing was changed".to_owned())),
    }
}
