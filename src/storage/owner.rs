//! Who may read what this process makes, and what is there.

use std::path::Path;

use super::StorageError;

/// The rights of all but the owner.
#[cfg(unix)]
const OF_OTHERS: u32 = 0o077;

/// From now on nobody but its owner may read, write or enter what this process makes, through whatever library. What
/// the process was kept from before, it still is.
#[cfg(feature = "server")]
pub fn keep_new_files_to_owner() {
    #[cfg(unix)]
    {
        let of_others = OF_OTHERS as libc::mode_t;
        // SAFETY: it sets one number of the process, cannot fail, and touches no memory of ours.
        let before = unsafe { libc::umask(of_others) };
        // SAFETY: as before.
        unsafe { libc::umask(before | of_others) };
    }
}

/// Whether others than its owner may read, write or enter a file or directory; `false` where nobody can tell.
#[cfg(feature = "server")]
pub fn is_open_to_others(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & OF_OTHERS != 0)
    }
    #[cfg(not(unix))]
    {
        _ = path;
        false
    }
}

/// Lets nobody but its owner read or write a file that others may read or write.
///
/// # Errors
/// [`StorageError::Io`].
#[cfg(feature = "postgres")]
pub fn keep_to_owner(path: &Path) -> Result<(), StorageError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let found = std::fs::metadata(path).map_err(|e| StorageError::io(path, "look at", e))?;
        if found.permissions().mode() & OF_OTHERS != 0 {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
                .map_err(|e| StorageError::io(path, "protect", e))?;
        }
    }
    Ok(())
}
