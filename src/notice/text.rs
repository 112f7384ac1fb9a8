//! Plain text for people: paragraphs of 72 columns where the words allow it, and durations as a person would say them.

use std::time::Duration;

const WIDTH: usize = 72;

/// Appends a paragraph with each line behind `indent`, broken between words.
pub fn wrap(out: &mut String, indent: &str, paragraph: &str) {
    let mut column = 0;
    for word in paragraph.split_whitespace() {
        let width = word.chars().count();
        if column > 0 && column + 1 + width <= WIDTH {
            out.push(' ');
            column += 1 + width;
        } else {
            out.push_str(if column > 0 { "\r\n" } else { "" });
            out.push_str(indent);
            column = indent.len() + width;
        }
        out.push_str(word);
    }
    out.push_str("\r\n");
}

/// As a person would say it: `5 days`, `1 hour`.
pub fn in_words(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    let (count, unit) = match minutes {
        0..=119 => (minutes.max(1), "minute"),
        120..=2_879 => (minutes / 60, "hour"),
        _ => (minutes / 1_440, "day"),
    };
    counted(count as usize, unit)
}

/// `1 recipient`, `2 recipients`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_durations_as_a_person_would() {
        for (seconds, said) in [(0, "1 minute"), (600, "10 minutes"), (7_200, "2 hours"), (172_799, "47 hours"), (432_003, "5 days")] {
            assert_eq!(in_words(Duration::from_secs(seconds)), said);
        }
    }

    #[test]
    fn breaks_lines_between_words_only() {
        let mut out = String::new();
        wrap(&mut out, "  ", &format!("{} {} x", "a ".repeat(40), "y".repeat(100)));
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[0].len() <= WIDTH && lines.iter().all(|line| line.starts_with("  ")), "{lines:?}");
        assert_eq!(lines[2].trim(), "y".repeat(100));
    }
}
