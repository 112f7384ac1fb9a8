//! The data directory: whose it is, where it lies, how fast its disk syncs, and how much room there is.

use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Access, access, statvfs};

use super::findings::{Finding, Level};
use crate::store::{Settings, sqlite};
use crate::units::ByteSize;

/// Octets of one sync: what a small message takes.
const PIECE: usize = 4_096;
/// Syncs that are measured.
const SYNCS: usize = 25;
/// How long measuring may take.
const MEASURING: Duration = Duration::from_secs(3);
/// From here on a client that sends one message after the other feels the disk.
const SLOW: Duration = Duration::from_millis(30);
/// Inodes below which it is time to act: a message over 32 KiB takes one.
const INODES: u64 = 10_000;

const ABOUT: &str = "data directory";

/// Looks at all of it. Blocks.
pub(super) fn look(settings: &Settings, running: bool) -> Vec<Finding> {
    let dir = &settings.data_dir;
    let shown = dir.display();
    let facts = match fs::metadata(dir) {
        Ok(facts) if facts.is_dir() => facts,
        Ok(_) => {
            return vec![Finding::fail(ABOUT, format!("{shown} is no directory"), "name a directory in data_dir, or move this file away")];
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return vec![missing(dir)],
        Err(error) => {
            return vec![Finding::fail(ABOUT, format!("{shown} cannot be looked at: {error}"), "run this as the relay's user, or as root")];
        }
    };
    let mut findings = vec![owner(dir, &facts)];
    match sqlite::network_file_system(dir) {
        Ok(None) => findings.extend(speed(dir)),
        Ok(Some(name)) => {
            findings.push(Finding::fail(
                ABOUT,
                format!("{shown} is on a network file system ({name})"),
                "put data_dir on a local disk: the relay does not start here",
            ));
        }
        Err(error) => findings.push(Finding::fail(
            ABOUT,
            format!("the file system cannot be asked: {error}"),
            "look at the mount, and at the kernel's log",
        )),
    }
    findings.extend(room(settings));
    if running && !dir.join("ballast").exists() {
        let to_do = "make room on its file system: below queue.free_space_reserve and the ballast clients get 452. The relay takes the ballast again by itself";
        findings.push(Finding::warn("ballast", "it was given up, because the disk was full", to_do));
    }
    findings
}

fn missing(dir: &Path) -> Finding {
    let parent = dir.ancestors().skip(1).find(|above| above.exists()).unwrap_or(Path::new("/"));
    if access(parent, Access::WRITE_OK | Access::EXEC_OK).is_ok() {
        Finding::pass(ABOUT, format!("{} is not there yet, and is made at the first start", dir.display()))
    } else {
        let to_do = format!("make it for the relay's user: install -d -m 0700 -o hve-relay {}", dir.display());
        Finding::fail(ABOUT, format!("{} is not there, and cannot be made in {}", dir.display(), parent.display()), to_do)
    }
}

fn owner(dir: &Path, facts: &Metadata) -> Finding {
    let (mode, owner, me) = (facts.mode() & 0o7777, facts.uid(), rustix::process::geteuid());
    let found = format!("{}, mode {mode:04o}, of uid {owner}", dir.display());
    if mode & 0o077 != 0 {
        return Finding::warn(ABOUT, found, format!("it holds everybody's mail; close it to others: chmod 0700 {}", dir.display()));
    }
    if !me.is_root() && me.as_raw() != owner {
        return Finding::warn(
            ABOUT,
            format!("{found}; you are uid {}", me.as_raw()),
            "look as the user that the relay runs as: sudo -u hve-relay hve-relay doctor",
        );
    }
    Finding::pass(ABOUT, found)
}

/// Writes and syncs as the queue's log does: over and over at one place.
fn speed(dir: &Path) -> Vec<Finding> {
    const ABOUT: &str = "sync";
    let measured = match measure(dir) {
        Ok(measured) => measured,
        Err(error) => {
            let to_do = "the relay's user must be able to write there; look at the owner, at the mount, and at the kernel's log";
            return vec![Finding::fail(ABOUT, format!("nothing can be written to {}: {error}", dir.display()), to_do)];
        }
    };
    let (median, slowest) = (measured[measured.len() / 2], measured[measured.len() - 1]);
    let found = format!("a message is on disk after {} (median of {}; the slowest {})", millis(median), measured.len(), millis(slowest));
    let level = if median > SLOW { Level::Warn } else { Level::Pass };
    let to_do =
        "a device that sends one message after the other waits for each: put data_dir on a faster disk, or on one with a protected cache";
    vec![Finding::of(level, ABOUT, found, to_do)]
}

/// How long each sync took, shortest first; never empty.
fn measure(dir: &Path) -> io::Result<Vec<Duration>> {
    use std::io::Seek;
    let mut file = tempfile::Builder::new().prefix(".doctor-").tempfile_in(dir)?;
    let begun = Instant::now();
    let mut measured = Vec::with_capacity(SYNCS);
    // The first makes the file longer, which no later one does.
    file.write_all(&[0; PIECE])?;
    file.as_file().sync_all()?;
    while measured.is_empty() || (measured.len() < SYNCS && begun.elapsed() < MEASURING) {
        let one = Instant::now();
        file.rewind()?;
        file.write_all(&[measured.len() as u8; PIECE])?;
        file.as_file().sync_data()?;
        measured.push(one.elapsed());
    }
    measured.sort_unstable();
    Ok(measured)
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}

fn room(settings: &Settings) -> Vec<Finding> {
    let found = match statvfs(&settings.data_dir) {
        Ok(found) => found,
        Err(errno) => return vec![Finding::fail("free space", format!("the file system cannot be asked: {errno}"), "look at the mount")],
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let reserve = ByteSize(settings.reserve);
    let level = match free {
        _ if free < settings.reserve.saturating_add(settings.message_size) => Level::Fail,
        _ if free < settings.reserve.saturating_mul(2) => Level::Warn,
        _ => Level::Pass,
    };
    let to_do =
        format!("make room, or put data_dir elsewhere: below {reserve} (queue.free_space_reserve) clients get 452 and have to try again");
    let mib = free >> 20;
    let mut findings = vec![Finding::of(level, "free space", format!("{mib} MiB free; {reserve} are kept free"), to_do)];
    if found.f_files > 0 {
        let level = match found.f_favail {
            0..256 => Level::Fail,
            256..INODES => Level::Warn,
            _ => Level::Pass,
        };
        let to_do = "remove small files, or put data_dir on a file system with more inodes (df -i): each message over 32 KiB takes one";
        findings.push(Finding::of(level, "free inodes", format!("{} free", found.f_favail), to_do));
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn settings(data_dir: &Path, reserve: u64) -> Settings {
        Settings { data_dir: data_dir.to_owned(), reserve, message_size: 10_000_000 }
    }

    fn level(findings: &[Finding], about: &str) -> Option<Level> {
        findings.iter().find(|finding| finding.about == about).map(|finding| finding.level)
    }

    #[test]
    fn says_what_keeps_mail_from_being_safe_or_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("data");
        let findings = look(&settings(&dir, 0), false);
        assert_eq!((findings.len(), level(&findings, ABOUT)), (1, Some(Level::Pass)), "{findings:?}");

        fs::create_dir(&dir).expect("made");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("mode set");
        let findings = look(&settings(&dir, u64::MAX), true);
        assert_eq!(level(&findings, ABOUT), Some(Level::Warn), "{findings:?}");
        assert_eq!(level(&findings, "free space"), Some(Level::Fail), "{findings:?}");
        assert_eq!(level(&findings, "ballast"), Some(Level::Warn), "{findings:?}");
        assert!(level(&findings, "sync").is_some(), "{findings:?}");

        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("mode set");
        let findings = look(&settings(&dir, 0), false);
        assert_eq!([ABOUT, "free space"].map(|about| level(&findings, about)), [Some(Level::Pass); 2], "{findings:?}");
        assert_eq!(fs::read_dir(&dir).expect("read").count(), 0, "nothing is left behind");

        let file = folder.path().join("file");
        fs::write(&file, "").expect("written");
        assert_eq!(level(&look(&settings(&file, 0), false), ABOUT), Some(Level::Fail));
        assert_eq!(level(&look(&settings(Path::new("/proc/1/x"), 0), false), ABOUT), Some(Level::Fail));
    }
}
