//! Files that hold a key of 32 bytes in base64: made once, whole, and for their owner alone. For keys that mustn't stand in
//! the database, where whoever can read it would find them.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::base::rng::Rng;
use crate::infra::config::thirty_two;

/// A file's name with something behind it.
#[must_use]
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// The key in a file.
///
/// # Errors
/// The file isn't there, can't be read, or holds something else.
pub fn read(path: &Path) -> io::Result<[u8; 32]> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(4096).read_to_string(&mut text)?;
    thirty_two(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "expected 32 bytes in base64"))
}

/// The key in a file, which is made if it isn't there and `make` says so.
///
/// # Errors
/// See [`read`]; or the file can't be made.
pub fn read_or_make(path: &Path, rng: &dyn Rng, make: bool) -> io::Result<[u8; 32]> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && make => create(path, rng),
        result => result,
    }
}

/// Makes the file, or reads the one that another process has made in the same moment. It gets its name when it is whole.
fn create(path: &Path, rng: &dyn Rng) -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    rng.fill(&mut seed);
    let mut name = [0; 8];
    rng.fill(&mut name);
    let temporary = beside(path, &hex::encode(name));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = (|| {
        let mut file = options.open(&temporary)?;
        writeln!(file, "{}", STANDARD.encode(seed))?;
        file.sync_all()?;
        // Refuses where the name is taken, unlike a rename.
        std::fs::hard_link(&temporary, path)
    })();
    // Whatever became of it, nobody needs it any more.
    drop(std::fs::remove_file(&temporary));
    match written {
        Ok(()) => Ok(seed),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::SystemRng;

    #[test]
    fn the_file_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let seed = create(&path, &SystemRng).unwrap();
        assert_eq!((read(&path).unwrap(), create(&path, &SystemRng).unwrap()), (seed, seed));
        assert_eq!(read_or_make(&path, &SystemRng, false).unwrap(), seed);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(create(&dir.path().join("missing/key"), &SystemRng).is_err());
        assert!(read_or_make(&dir.path().join("other"), &SystemRng, false).is_err());
    }
}
