//! The certificate that a listener shows, kept up with its files.
//!
//! A [`Certificate`] is read once at start, where a fault is an error, and then looked at again: files that have changed are read anew, and a new
//! pair that cannot be used changes nothing. Each fault is told once for each change, because files are mostly replaced one after the other and
//! between the two the key does not belong to the certificate.
//!
//! Limit: a change that leaves inode, size and time of both files as they were is not seen.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::{TlsError, server_config};

/// Octets of a file: far more than any chain has.
const LONGEST: u64 = 1 << 20;

/// Where a certificate and its key lie, both in PEM form. One file may hold both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the server's own certificate first.
    pub chain: PathBuf,
    /// The key to it.
    pub key: PathBuf,
}

/// Why there is no certificate to show. The text names the file and holds nothing of its content.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{} cannot be read: {cause}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// A file is a folder or the like, or too large.
    #[error("{} is not a file in PEM form", path.display())]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
    /// Every user of the machine can read the key.
    #[error("{} holds a key and is open to every user of this machine (mode {mode:04o})", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// There is no usable certificate in the file.
    #[error("{} holds no certificate that can be used", path.display())]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
    /// There is no usable key in the file.
    #[error("{} holds no private key that can be used", path.display())]
    NoKey {
        /// Which.
        path: PathBuf,
    },
    /// The key does not belong to the certificate.
    #[error("the key in {} does not go with the certificate in {}", files.key.display(), files.chain.display())]
    Mismatch {
        /// Both.
        files: CertificateFiles,
    },
}

impl CertificateError {
    /// Whether the key's file is at fault, not the certificate's.
    pub fn is_about_the_key(&self, files: &CertificateFiles) -> bool {
        match self {
            Self::Unreadable { path, .. } | Self::NotAFile { path } => *path == files.key,
            Self::Open { .. } | Self::NoKey { .. } | Self::Mismatch { .. } => true,
            Self::NoCertificate { .. } => false,
        }
    }
}

/// A certificate in use.
#[derive(Debug)]
pub struct Certificate {
    files: CertificateFiles,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// How the files were when they were last read, with success or without.
    stamps: [Option<Stamp>; 2],
    config: Arc<ServerConfig>,
}

/// What changes when a file does: device, inode, size, and the time of the last change.
type Stamp = (u64, u64, u64, i64, i64);

/// What a look at the files has come to.
#[derive(Debug)]
pub enum Look {
    /// They are as they were.
    Same,
    /// There is a new certificate, and it is shown from now on.
    Renewed,
    /// They have changed and cannot be used; the certificate from before is still shown.
    Unusable(CertificateError),
}

impl Certificate {
    /// Reads the files. Blocks on the file system.
    ///
    /// # Errors
    /// If they cannot be used.
    pub fn load(files: CertificateFiles) -> Result<Self, CertificateError> {
        let stamps = stamps(&files);
        let config = read(&files)?;
        Ok(Self { files, kept: Mutex::new(Kept { stamps, config }) })
    }

    /// What is shown now.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).config.clone()
    }

    /// Looks whether the files have changed. Blocks on the file system.
    pub fn look(&self) -> Look {
        let stamps = stamps(&self.files);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.stamps == stamps {
            return Look::Same;
        }
        kept.stamps = stamps;
        match read(&self.files) {
            Ok(config) => {
                kept.config = config;
                Look::Renewed
            }
            Err(error) => Look::Unusable(error),
        }
    }

    /// The file of the chain, by which the certificate is known.
    pub fn path(&self) -> &Path {
        &self.files.chain
    }
}

fn stamps(files: &CertificateFiles) -> [Option<Stamp>; 2] {
    let stamp = |facts: Metadata| (facts.dev(), facts.ino(), facts.size(), facts.ctime(), facts.ctime_nsec());
    [&files.chain, &files.key].map(|path| fs::metadata(path).ok().map(stamp))
}

fn read(files: &CertificateFiles) -> Result<Arc<ServerConfig>, CertificateError> {
    let chain = octets(&files.chain)?;
    let key = octets(&files.key)?;
    let config = server_config(&*chain, &*key).map_err(|error| match error {
        TlsError::Refused(rustls::Error::InconsistentKeys(_)) => CertificateError::Mismatch { files: files.clone() },
        // rustls says no more about a key of a kind that it does not know.
        TlsError::Key(_) | TlsError::Refused(rustls::Error::General(_)) => CertificateError::NoKey { path: files.key.clone() },
        _ => CertificateError::NoCertificate { path: files.chain.clone() },
    });
    let mode = fs::metadata(&files.key).map_or(0, |facts| facts.mode() & 0o7777);
    let has_key = !matches!(config, Err(CertificateError::NoKey { .. }));
    if has_key && mode & 0o007 != 0 {
        return Err(CertificateError::Open { path: files.key.clone(), mode });
    }
    config
}

fn octets(path: &Path) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let unreadable = |cause| CertificateError::Unreadable { path: path.to_owned(), cause };
    // A pipe that nobody writes to would keep the reader for ever.
    let facts = fs::metadata(path).map_err(unreadable)?;
    if !facts.is_file() || facts.len() > LONGEST {
        return Err(CertificateError::NotAFile { path: path.to_owned() });
    }
    // With room for all of it from the start, so that growing leaves no copy of a key behind.
    let mut octets = Zeroizing::new(Vec::with_capacity(facts.len() as usize + 1));
    File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut octets)).map_err(unreadable)?;
    Ok(octets)
}

/// When the first certificate of a file in PEM form ends, in seconds since 1970; none if there is none that can be read. Blocks on the file system.
pub fn ends(chain: &Path) -> Option<i64> {
    let octets = octets(chain).ok()?;
    let certificate = CertificateDer::from_pem_slice(&octets).ok()?;
    let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

/// A certificate for these names, signed by itself, and its key: both in PEM form. An ECDSA key on P-256, which whatever speaks TLS 1.2 knows.
///
/// # Errors
/// If a name cannot stand in a certificate.
pub fn self_signed(names: &[String], from: SystemTime, until: SystemTime) -> Result<(String, Zeroizing<String>), rcgen::Error> {
    let mut params = CertificateParams::new(names.to_vec())?;
    if let Some(name) = names.first() {
        params.distinguished_name.push(DnType::CommonName, name.as_str());
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = (from.into(), until.into());
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), Zeroizing::new(key.serialize_pem())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::tls::tests::self_signed;

    fn write(path: &Path, text: &str, mode: u32) {
        // As certificate tools do: the new file takes the place of the old one.
        let new = path.with_extension("new");
        fs::write(&new, text).expect("written");
        fs::set_permissions(&new, fs::Permissions::from_mode(mode)).expect("mode set");
        fs::rename(&new, path).expect("renamed");
    }

    #[test]
    fn follows_its_files_and_keeps_what_it_has_as_long_as_they_cannot_be_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = CertificateFiles { chain: folder.path().join("relay.pem"), key: folder.path().join("relay.key") };
        let (chain, key) = self_signed();
        write(&files.chain, &chain, 0o644);
        write(&files.key, &key, 0o600);
        let certificate = Certificate::load(files.clone()).expect("usable");
        let first = certificate.config();
        assert!(matches!(certificate.look(), Look::Same));

        let (chain, key) = self_signed();
        write(&files.chain, &chain, 0o644);
        assert!(matches!(certificate.look(), Look::Unusable(CertificateError::Mismatch { .. })));
        assert!(matches!(certificate.look(), Look::Same), "told once");
        assert!(Arc::ptr_eq(&first, &certificate.config()));
        write(&files.key, &key, 0o600);
        assert!(matches!(certificate.look(), Look::Renewed));
        assert!(!Arc::ptr_eq(&first, &certificate.config()));

        fs::remove_file(&files.key).expect("removed");
        assert!(matches!(certificate.look(), Look::Unusable(CertificateError::Unreadable { .. })));
        write(&files.key, &key, 0o600);
        assert!(matches!(certificate.look(), Look::Renewed));
    }

    #[test]
    fn one_file_may_hold_both() {
        let folder = tempfile::tempdir().expect("a folder");
        let both = folder.path().join("both.pem");
        let (chain, key) = self_signed();
        write(&both, &format!("{key}{chain}"), 0o640);
        assert!(Certificate::load(CertificateFiles { chain: both.clone(), key: both }).is_ok());
    }

    #[test]
    fn says_which_file_is_at_fault_and_shows_nothing_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str, mode: u32| {
            let path = folder.path().join(name);
            write(&path, text, mode);
            path
        };
        let (chain, key) = self_signed();
        let (_, foreign) = self_signed();
        let good = (file("chain.pem", &chain, 0o644), file("key.pem", &key, 0o600));
        for (chain, key, wanted, about_the_key) in [
            (folder.path().join("none"), good.1.clone(), "cannot be read", false),
            (good.0.clone(), folder.path().join("none"), "cannot be read", true),
            (folder.path().to_owned(), good.1.clone(), "is not a file", false),
            (good.1.clone(), good.1.clone(), "holds no certificate", false),
            (good.0.clone(), good.0.clone(), "holds no private key", true),
            (good.0.clone(), file("no-key.pem", &chain, 0o600), "holds no private key", true),
            (good.0.clone(), file("foreign.pem", &foreign, 0o600), "does not go with", true),
            (good.0.clone(), file("open.pem", &key, 0o644), "is open to every user of this machine (mode 0644)", true),
        ] {
            let files = CertificateFiles { chain, key };
            let error = Certificate::load(files.clone()).expect_err(wanted);
            assert!(error.to_string().contains(wanted) && !error.to_string().contains("-----"), "{error}");
            assert_eq!(error.is_about_the_key(&files), about_the_key, "{error}");
        }
    }
}
