//! Where the running relay listens for the operator's commands: `control_socket`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::problem::{At, Findings};
use super::reader::Document;
use super::value;

/// Octets of the path: the address of a Unix socket has room for 108 on Linux and for 104 elsewhere, with the octet that ends it.
const LONGEST: usize = 100;

/// The socket's path, by default in the data directory.
pub(super) fn socket(document: &Document<'_>, findings: &Findings<'_>, data_dir: &Path) -> PathBuf {
    let top = document.top();
    top.note("control_socket", data_dir.join("control.sock"), "default, in data_dir");
    let (path, place) = match top.get("control_socket", value::path) {
        Some(At { value, place }) => (value, place),
        None => (data_dir.join("control.sock"), top.place_of("data_dir")),
    };
    let octets = path.as_os_str().as_bytes().len();
    if octets > LONGEST {
        let found = format!("{} has {octets} octets, and the path of a socket may have {LONGEST}", path.display());
        findings.problem(&place, found, "write control_socket = \"/run/hve-relay/control.sock\", or another short path");
    } else if path.is_dir() {
        findings.problem(&place, format!("{} is a directory", path.display()), "write the path of the socket itself");
    }
    path
}
