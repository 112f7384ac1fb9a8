//! What is set right when the store is opened: files that no row names go, and rows whose file is not as it should be are reported.

use std::collections::HashMap;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use super::place::Place;
use super::read::length_of;
use crate::mail::QueueId;

/// What was found when the store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Files that were removed: contents that were never acknowledged, and contents of messages that are settled.
    pub orphans: u64,
    /// Messages that are queued and whose content is not there as it was accepted. Nothing was done about them.
    pub damaged: Vec<Damaged>,
}

/// A queued message whose content is not there as it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the content of {id} must be in {} with {expected} octets, and {}", path.display(), as_found(*found))]
pub struct Damaged {
    /// Which message.
    pub id: QueueId,
    /// Where its content should be.
    pub path: PathBuf,
    /// The octets that it should have.
    pub expected: u64,
    /// The octets that are there; `None` if there is no file.
    pub found: Option<u64>,
}

/// Removes the orphans among the contents and looks for what is damaged. `in_files` are the messages whose content is in a file.
///
/// # Errors
/// If the directories cannot be read. What cannot be removed is left for the next start.
pub(super) fn recover(place: &Place, in_files: Vec<(QueueId, u64)>) -> io::Result<Recovered> {
    let named: HashMap<PathBuf, u64> = in_files.iter().map(|(id, size)| (place.content_of(*id), *size)).collect();
    let mut recovered = Recovered::default();
    for shelf in fs::read_dir(place.content())? {
        let shelf = shelf?;
        if !shelf.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(shelf.path())? {
            let file = file?;
            if is_ours(&file) && !named.contains_key(&file.path()) && fs::remove_file(file.path()).is_ok() {
                recovered.orphans += 1;
            }
        }
    }
    for (id, expected) in in_files {
        let path = place.content_of(id);
        let found = length_of(&path);
        if found != Some(expected) {
            recovered.damaged.push(Damaged { id, path, expected, found });
        }
    }
    Ok(recovered)
}

/// Whether the file has a name as this store gives it; what an operator may have put there stays.
pub(super) fn is_ours(file: &DirEntry) -> bool {
    let name = file.file_name();
    let stem = Path::new(&name).to_str().and_then(|name| name.strip_suffix(".eml").or_else(|| name.strip_suffix(".eml.part")));
    stem.is_some_and(|stem| stem.parse::<QueueId>().is_ok())
}

fn as_found(octets: Option<u64>) -> String {
    octets.map_or_else(|| "is missing".to_owned(), |octets| format!("has {octets}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_what_no_row_names_and_reports_what_is_damaged() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let (place, _lock) = Place::take(temp.path()).expect("a place");
        let id = |number: i64| QueueId::from_number(number << 22).expect("a queue id");
        let put = |path: PathBuf| {
            fs::create_dir_all(path.parent().expect("a shelf")).expect("created");
            fs::write(&path, b"1234").expect("written");
            path
        };
        let whole = put(place.content_of(id(1)));
        let short = put(place.content_of(id(2)));
        let orphans = [put(place.content_of(id(4))), put(place.content_of(id(1)).with_extension("eml.part"))];
        let foreign = put(whole.with_file_name("notes.txt"));

        let recovered = recover(&place, vec![(id(1), 4), (id(2), 5), (id(3), 6)]).expect("readable");
        assert_eq!(recovered.orphans, 2);
        assert!(orphans.iter().all(|orphan| !orphan.exists()));
        assert!(whole.exists() && short.exists() && foreign.exists());
        let damaged: Vec<_> = recovered.damaged.iter().map(|damaged| (damaged.id, damaged.found)).collect();
        assert_eq!(damaged, [(id(2), Some(4)), (id(3), None)]);
        assert!(recovered.damaged[1].to_string().ends_with("with 6 octets, and is missing"), "{}", recovered.damaged[1]);
    }
}
