//! What a command prints, held against a file: `tests/cli/NAME.txt`. With `BLESS=1` in the environment the file is written anew instead, to be looked
//! at in the difference.

use std::fs;
use std::path::Path;

/// Compares, after what differs from run to run was made the same: each of `names` by what stands for it, then every number by `#`, and any
/// number of blanks or of lines of a table by one.
pub fn same(name: &str, text: &str, names: &[(&str, &str)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(format!("{name}.txt"));
    let found = steady(text, names);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &found).expect("written");
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{} says\n{wanted}\nand this was printed:\n{found}", path.display());
}

fn steady(text: &str, names: &[(&str, &str)]) -> String {
    let text = names.iter().fold(text.to_owned(), |text, (name, instead)| text.replace(name, instead));
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let c = if c.is_ascii_digit() { '#' } else { c };
        let repeated = matches!(c, '#' | ' ' | '─') && out.ends_with(c);
        if !repeated {
            out.push(c);
        }
    }
    out
}
