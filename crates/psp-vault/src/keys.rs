use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// A 32-byte master key. Boxed, so that moving it leaves no copy behind.
pub(crate) struct MasterKey {
    secret: Box<Zeroizing<[u8; 32]>>,
    id: [u8; 4],
}

impl MasterKey {
    /// How names of local keys begin. No key in KMS has such a name.
    pub(crate) const NAMES: &str = "local:";

    fn from_base64(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
        let mut secret = Box::new(Zeroizing::new([0; 32]));
        if bytes.len() != secret.len() {
            return None;
        }
        secret.copy_from_slice(&bytes);
        let mut id = [0; 4];
        id.copy_from_slice(&digest(&SHA256, &**secret).as_ref()[..4]);
        Some(Self { secret, id })
    }

    /// Names the key in what it sealed; tells nothing of it.
    pub(crate) fn id(&self) -> [u8; 4] {
        self.id
    }

    /// The same as text, as envelopes have it.
    pub(crate) fn name(&self) -> String {
        format!("{}{:08x}", Self::NAMES, u32::from_be_bytes(self.id))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &**self.secret
    }
}

/// The keys of a vault: the first seals, all open.
pub struct VaultKeys {
    sealing: MasterKey,
    older: Vec<MasterKey>,
}

/// Why keys are refused. Never carries a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("key {number} must be 32 bytes in base64, as `openssl rand -base64 32` prints them")]
pub struct InvalidKeys {
    number: usize,
}

impl VaultKeys {
    /// The most keys.
    pub const MAX_KEYS: usize = 8;
    /// The longest key file, in bytes: more than [`Self::MAX_KEYS`] keys with their commas take.
    const MAX_FILE_LEN: usize = 1024;

    /// Reads 32-byte keys in base64, separated by commas.
    ///
    /// # Errors
    /// [`InvalidKeys`] names the first that is not one, or the ninth.
    pub fn parse(text: &SecretString) -> Result<Self, InvalidKeys> {
        let mut keys = Vec::new();
        for (index, part) in text.expose_secret().split(',').enumerate() {
            let key = MasterKey::from_base64(part.trim()).filter(|_| index < Self::MAX_KEYS);
            keys.push(key.ok_or(InvalidKeys { number: index + 1 })?);
        }
        let older = keys.split_off(1.min(keys.len()));
        let sealing = keys.pop().ok_or(InvalidKeys { number: 1 })?;
        Ok(Self { sealing, older })
    }

    /// Reads the key file, making it with a random key and mode 0600 when there is none. Two processes that start at once
    /// end with the same key.
    ///
    /// # Errors
    /// When the file cannot be read or made, does not hold keys, or can be read by others than its owner.
    pub fn load_or_create_file(path: &Path) -> io::Result<Self> {
        if !path.try_exists()? {
            create(path)?;
        }
        let file = OpenOptions::new().read(true).open(path)?;
        refuse_if_readable_by_others(&file, path)?;
        // Room for all of it at once: a text that grew would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(2 * Self::MAX_FILE_LEN));
        file.take(Self::MAX_FILE_LEN as u64).read_to_string(&mut text)?;
        Self::parse(&SecretString::from(text.trim()))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))
    }

    pub(crate) fn sealing(&self) -> &MasterKey {
        &self.sealing
    }

    pub(crate) fn by_id(&self, id: &[u8]) -> Option<&MasterKey> {
        self.all().find(|key| key.id() == id)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&MasterKey> {
        self.all().find(|key| key.name() == name)
    }

    fn all(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.sealing).chain(&self.older)
    }
}

impl fmt::Debug for VaultKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VaultKeys({} keys)", 1 + self.older.len())
    }
}

/// Writes a whole key file beside the path and links it in, so that nobody ever reads half a key and the first one wins.
fn create(path: &Path) -> io::Result<()> {
    let mut key = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(&mut *key).map_err(|_| io::Error::other("no random numbers"))?;
    let text = Zeroizing::new(STANDARD.encode(key.as_slice()));
    let mut name = [0; 8];
    SystemRandom::new().fill(&mut name).map_err(|_| io::Error::other("no random numbers"))?;
    let draft = path.with_extension(format!("draft-{:016x}", u64::from_ne_bytes(name)));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = (|| {
        let mut file = options.open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::hard_link(&draft, path)
    })();
    let _ = std::fs::remove_file(&draft);
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.try_exists()? => {}
        done => done?,
    }
    sync_directory(path)
}

/// Makes the file's name durable, too: what was sealed before a power cut opens after it.
#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn refuse_if_readable_by_others(file: &std::fs::File, path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // The six low bits are those of the group and of others.
    if file.metadata()?.permissions().mode().trailing_zeros() >= 6 {
        return Ok(());
    }
    let hint = format!("{0} can be read by others than its owner: chmod 600 {0}", path.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, hint))
}

#[cfg(not(unix))]
fn refuse_if_readable_by_others(_: &std::fs::File, _: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_not_32_bytes_of_base64_are_refused_by_number() {
        let good = STANDARD.encode([7; 32]);
        for (text, number) in [(String::new(), 1), ("x".into(), 1), (format!("{good},short"), 2)] {
            assert_eq!(VaultKeys::parse(&text.into()).map(drop).unwrap_err().number, number);
        }
        let keys = VaultKeys::parse(&format!("{good}, {good}").into()).unwrap();
        assert_eq!(format!("{keys:?}"), "VaultKeys(2 keys)");
    }

    #[test]
    fn more_keys_than_allowed_are_refused() {
        let text = vec![STANDARD.encode([7; 32]); VaultKeys::MAX_KEYS + 1].join(",");
        assert_eq!(VaultKeys::parse(&text.into()).map(drop), Err(InvalidKeys { number: VaultKeys::MAX_KEYS + 1 }));
    }

    /// Writes a key file by hand, for its owner only.
    fn key_file(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }

    #[test]
    fn a_key_file_that_holds_no_keys_is_named_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("psp.db.key");
        for text in ["", "not a key", &"A".repeat(100_000)] {
            key_file(&path, text);
            let refused = VaultKeys::load_or_create_file(&path).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
            let message = refused.to_string();
            assert!(message.contains("psp.db.key") && !message.contains("not a key"), "{message}");
        }
        let most = vec![STANDARD.encode([7; 32]); VaultKeys::MAX_KEYS].join(", ");
        key_file(&path, &format!("{most}\n"));
        VaultKeys::load_or_create_file(&path).unwrap();
    }

    #[test]
    fn a_key_file_is_made_once_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("psp.db.key");
        let ids: Vec<_> = std::thread::scope(|scope| {
            let make = || VaultKeys::load_or_create_file(&path).unwrap().sealing().id();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            let refused = VaultKeys::load_or_create_file(&path).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        }
    }
}
