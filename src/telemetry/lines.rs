//! Log lines on their way out: a buffer and a thread of its own, so that a reader who has stopped reading stops nobody else.
//!
//! Whoever logs appends to the buffer and goes on; the thread writes what has gathered. When the buffer is full, lines are lost and counted, and as
//! soon as it flows again one line tells how many. Errors may still be added where others are lost. At the end everything is written, unless
//! the reader takes nothing for [`PATIENCE`].
//!
//! A line that comes alone is written at once. After each write the thread rests for [`REST`]: under load many lines then go with one call, and
//! nobody who logs has to wake it.
//!
//! Limits: [`USUAL`] and [`WITH_ERRORS`] octets, with those that are being written. What was not written yet goes with a process that is
//! killed.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Stderr, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use super::events;

/// Octets that wait at most: some thousand lines.
const USUAL: usize = 1 << 20;
/// The same where it is an error that is added.
const WITH_ERRORS: usize = USUAL + (256 << 10);
/// How long the end waits for a reader that takes nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long lines gather while they never cease to come.
const REST: Duration = Duration::from_millis(2);

/// Where lines are written, by the thread that does nothing else.
pub(super) trait Output: Send {
    /// Writes whole lines. What cannot be written is lost: nobody is left to tell.
    fn put(&mut self, lines: &[u8]);

    /// Begins anew with what may have been moved away.
    fn reopen(&mut self) {}
}

impl Output for Stderr {
    fn put(&mut self, lines: &[u8]) {
        let _ = self.write_all(lines).and_then(|()| self.flush());
    }
}

/// The lines that wait. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Shared>);

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something has come or was written.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whole lines.
    waiting: Vec<u8>,
    /// Octets that are being written.
    writing: usize,
    /// Lines that had no room.
    lost: u64,
    /// What is done once so many octets of what waits are written, in that order.
    changes: VecDeque<(usize, Change)>,
    /// No more will come.
    closing: bool,
}

/// A change of where lines are written.
enum Change {
    Reopen,
    Replace(Box<dyn Output>),
}

/// The log, as long as this lives; when it goes, what waits is written.
#[derive(Debug)]
#[must_use = "what waits is written when this goes"]
pub struct Log(pub(super) Lines);

impl Log {
    /// Adds a line for people, behind all that was logged.
    pub fn say(&self, line: &str) {
        self.0.add(format!("{line}\n").as_bytes(), WITH_ERRORS);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Lines {
    /// Starts the thread that writes them.
    ///
    /// # Errors
    /// If the system gives none.
    pub fn start(output: Box<dyn Output>) -> io::Result<Self> {
        let lines = Self::default();
        let own = lines.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || own.run(output))?;
        Ok(lines)
    }

    fn add(&self, line: &[u8], room: usize) {
        let mut state = self.state();
        if state.waiting.len() + state.writing + line.len() > room {
            state.lost += 1;
            return;
        }
        // Where something waits already, the thread does not sleep for want of it.
        let first = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if first {
            self.0.changed.notify_all();
        }
    }

    /// Has the output begin anew, before the next line is written.
    pub fn reopen(&self) {
        let mut state = self.state();
        match state.changes.back() {
            // One that waits will do for all who ask.
            Some((_, Change::Reopen)) => {}
            Some((_, Change::Replace(_))) => {
                let before = state.waiting.len();
                state.changes.push_back((before, Change::Reopen));
            }
            None => state.changes.push_back((0, Change::Reopen)),
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// Writes elsewhere what comes from here on; what waits still goes where it was meant to go.
    pub fn replace(&self, output: Box<dyn Output>) {
        let mut state = self.state();
        let before = state.waiting.len();
        state.changes.push_back((before, Change::Replace(output)));
        drop(state);
        self.0.changed.notify_all();
    }

    /// Writes until the end.
    fn run(&self, mut output: Box<dyn Output>) {
        let mut batch = Vec::new();
        loop {
            let mut state = self.state();
            while state.waiting.is_empty() && !state.closing && state.changes.is_empty() {
                state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if let Some((_, change)) = state.changes.pop_front_if(|(before, _)| *before == 0) {
                // It may have to wait for the disk, and tells of trouble in the log.
                drop(state);
                match change {
                    Change::Reopen => output.reopen(),
                    Change::Replace(other) => output = other,
                }
                continue;
            }
            if state.waiting.is_empty() {
                return;
            }
            match state.changes.front().map(|(before, _)| *before) {
                None => std::mem::swap(&mut batch, &mut state.waiting),
                Some(before) => {
                    batch.extend(state.waiting.drain(..before));
                    state.changes.iter_mut().for_each(|(later, _)| *later -= before);
                }
            }
            state.writing = batch.len();
            drop(state);
            output.put(&batch);
            batch.clear();
            let lost = std::mem::take(&mut self.state().lost);
            if lost > 0 {
                // Nobody may take the buffer for written before this is in it.
                events::log_lost(lost);
            }
            let mut state = self.state();
            state.writing = 0;
            if state.closing {
                self.0.changed.notify_all();
                continue;
            }
            drop(state);
            std::thread::sleep(REST);
        }
    }

    /// Waits until everything is written.
    fn close(&self) {
        let mut state = self.state();
        state.closing = true;
        self.0.changed.notify_all();
        while !state.waiting.is_empty() || state.writing > 0 {
            let (next, waited) = self.0.changed.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
            state = next;
            if waited.timed_out() {
                return;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No step leaves the state half changed.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One event's way into the buffer: the formatter hands it over in one piece.
#[derive(Debug)]
pub(super) struct Line<'a> {
    lines: &'a Lines,
    room: usize,
}

impl Write for Line<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.lines.add(octets, self.room);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, room: USUAL }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        let room = if *meta.level() == Level::ERROR { WITH_ERRORS } else { USUAL };
        Line { lines: self, room }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// Writes nothing until it is let.
    struct Gate(Receiver<()>, SyncSender<Vec<u8>>);

    impl Output for Gate {
        fn put(&mut self, lines: &[u8]) {
            let _ = self.0.recv();
            let _ = self.1.send(lines.to_vec());
        }
    }

    #[test]
    fn a_reader_that_stops_holds_nobody_up_and_costs_no_more_than_it_may() {
        let (open, gate) = sync_channel(100);
        let (output, written) = sync_channel(100);
        let lines = Lines::start(Box::new(Gate(gate, output))).expect("a thread");
        let line = [b'x'; 1_023].into_iter().chain(*b"\n").collect::<Vec<u8>>();
        for _ in 0..USUAL / line.len() + 100 {
            lines.add(&line, USUAL);
        }
        assert!(lines.state().lost >= 100);
        let before = lines.state().lost;
        lines.add(b"an error\n", WITH_ERRORS);
        assert_eq!(lines.state().lost, before, "there is still room for it");
        (0..100).for_each(|_| open.send(()).expect("it waits"));
        lines.close();
        let all: Vec<u8> = written.try_iter().flatten().collect();
        assert!(all.ends_with(b"x\nan error\n") && all.len() <= WITH_ERRORS);
        assert_eq!(lines.state().lost, 0, "that was told");
    }

    #[test]
    fn what_was_said_before_another_output_goes_to_the_one_before() {
        let (open, gate) = sync_channel(100);
        let (output, first) = sync_channel(100);
        let lines = Lines::start(Box::new(Gate(gate, output))).expect("a thread");
        // The thread is busy with it, and the rest waits.
        lines.add(b"0\n", USUAL);
        let mut others = Vec::new();
        for number in 1..=3 {
            lines.add(format!("{number} before\n").as_bytes(), USUAL);
            let (always, gate) = sync_channel::<()>(0);
            drop(always);
            let (output, written) = sync_channel(100);
            lines.replace(Box::new(Gate(gate, output)));
            lines.reopen();
            lines.add(format!("{number} behind\n").as_bytes(), USUAL);
            others.push(written);
        }
        (0..100).for_each(|_| open.send(()).expect("it waits"));
        lines.close();
        let all = |written: &Receiver<Vec<u8>>| String::from_utf8(written.try_iter().flatten().collect()).expect("UTF-8");
        assert_eq!(all(&first), "0\n1 before\n");
        assert_eq!(others.iter().map(all).collect::<Vec<_>>(), ["1 behind\n2 before\n", "2 behind\n3 before\n", "3 behind\n"]);
    }

    #[test]
    fn the_end_writes_all_that_was_said() {
        let (open, gate) = sync_channel::<()>(0);
        drop(open);
        let (output, written) = sync_channel(100);
        let log = Log(Lines::start(Box::new(Gate(gate, output))).expect("a thread"));
        for number in 0..10 {
            log.say(&number.to_string());
        }
        drop(log);
        let all: Vec<u8> = written.try_iter().flatten().collect();
        assert_eq!(all, b"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    }
}
