//! The database's tables, version by version.
//!
//! What a version says is never changed once it was released: a queue that was written by it is brought up by what comes behind, and a new one
//! is made by going through all of them, so that both end with the same tables. Times are milliseconds since the Unix epoch, UTC.

use rusqlite::{Connection, Result, TransactionBehavior};

/// What each version adds to the one before; the first makes a database out of nothing. Their number is the version of this program.
const STEPS: [fn() -> String; 4] = [version_1, version_2, version_3, version_4];

/// The version that [`bring_up`] ends with.
pub(super) const VERSION: i64 = STEPS.len() as i64;

/// Brings tables of version `found` (0: there are none) to [`VERSION`], in one transaction.
///
/// # Errors
/// As SQLite has them; then the tables are as they were.
pub(super) fn bring_up(connection: &mut Connection, found: i64) -> Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(usize::MAX)) {
        transaction.execute_batch(&step())?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// The tables of version 1.
fn version_1() -> String {
    format!(
        "
-- What was accepted. It never changes; it goes when its last delivery is settled.
CREATE TABLE message (
    id           INTEGER PRIMARY KEY,
    queue_id     TEXT NOT NULL AS ({queue_id}) VIRTUAL,
    accepted_at  INTEGER NOT NULL,
    kind         TEXT NOT NULL CHECK (kind IN ('mail', 'notice')),
    client       TEXT NOT NULL,
    peer         TEXT,
    reverse_path TEXT NOT NULL,  -- empty for <>
    author       TEXT,
    subject      TEXT NOT NULL,
    message_id   TEXT NOT NULL,
    size         INTEGER NOT NULL,
    eight_bit    INTEGER NOT NULL,
    smtputf8     INTEGER NOT NULL,
    stored_in    TEXT NOT NULL CHECK (stored_in IN ('row', 'file'))  -- file: content/<characters 7 and 8>/<queue id>.eml
) STRICT;

-- The octets of messages stored in a row, apart from the messages so that these are read fast.
CREATE TABLE content (
    message INTEGER PRIMARY KEY REFERENCES message,
    octets  BLOB NOT NULL
) STRICT;

-- The recipients of a message that travel together.
CREATE TABLE delivery (
    message  INTEGER NOT NULL REFERENCES message,
    part     INTEGER NOT NULL,
    route    TEXT NOT NULL,
    class    TEXT NOT NULL CHECK (class IN ('internal', 'external')),
    attempts INTEGER NOT NULL,
    due      INTEGER NOT NULL,
    account  TEXT,     -- while an attempt is under way: on which account
    started  INTEGER,  -- and since when; found set after a crash, the attempt's end is not known
    PRIMARY KEY (message, part)
) STRICT, WITHOUT ROWID;

-- Those that are not settled yet.
CREATE TABLE recipient (
    message INTEGER NOT NULL,
    part    INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    address TEXT NOT NULL,
    PRIMARY KEY (message, part, ordinal),
    FOREIGN KEY (message, part) REFERENCES delivery
) STRICT, WITHOUT ROWID;

-- The highest id ever given out, so that none is given twice although messages go.
CREATE TABLE newest (
    message INTEGER NOT NULL
) STRICT;
INSERT INTO newest VALUES (-1);

-- For people.
CREATE VIEW queue AS
SELECT queue_id || '.' || part AS delivery,
       strftime('%Y-%m-%dT%H:%M:%SZ', accepted_at / 1000, 'unixepoch') AS accepted,
       strftime('%Y-%m-%dT%H:%M:%SZ', due / 1000, 'unixepoch') AS next_attempt,
       client, route, class, attempts, account AS attempt_on,
       (SELECT count(*) FROM recipient r WHERE (r.message, r.part) = (d.message, d.part)) AS recipients,
       size, reverse_path, subject
  FROM delivery d JOIN message m ON m.id = d.message
 ORDER BY d.message, d.part;
",
        queue_id = queue_id_expression()
    )
}

/// Priorities, what an operator decides, what the last attempt came to, and what is used of the budgets.
fn version_2() -> String {
    "
ALTER TABLE message ADD COLUMN priority TEXT NOT NULL DEFAULT 'normal' CHECK (priority IN ('high', 'normal', 'bulk'));
ALTER TABLE delivery ADD COLUMN held INTEGER NOT NULL DEFAULT 0;         -- by an operator
ALTER TABLE delivery ADD COLUMN trying INTEGER;                          -- with account and started: to how many of the recipients
ALTER TABLE delivery ADD COLUMN last_reply TEXT NOT NULL DEFAULT '';     -- what the last attempt came to
-- The first version tried all of them at once.
UPDATE delivery SET trying = (SELECT count(*) FROM recipient r WHERE (r.message, r.part) = (delivery.message, delivery.part))
 WHERE started IS NOT NULL;

-- What is used of the budgets: for each limit of an account its ledger, line by line.
CREATE TABLE budget (
    account    TEXT NOT NULL,  -- empty: the tenant
    limit_name TEXT NOT NULL,
    idx        INTEGER NOT NULL,
    at         INTEGER,        -- none: in flight
    amount     INTEGER NOT NULL,
    PRIMARY KEY (account, limit_name, idx)
) STRICT, WITHOUT ROWID;

-- The accounts that an operator has suspended.
CREATE TABLE suspension (
    account TEXT NOT NULL PRIMARY KEY,
    until   INTEGER,  -- none: until it is resumed
    reason  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Which point of the boot clock is which point of the relay's time; one row.
CREATE TABLE anchor (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    boot_id TEXT NOT NULL,
    boot    INTEGER NOT NULL,  -- milliseconds since that boot
    at      INTEGER NOT NULL
) STRICT;

DROP VIEW queue;
CREATE VIEW queue AS
SELECT queue_id || '.' || part AS delivery,
       strftime('%Y-%m-%dT%H:%M:%SZ', accepted_at / 1000, 'unixepoch') AS accepted,
       strftime('%Y-%m-%dT%H:%M:%SZ', due / 1000, 'unixepoch') AS next_attempt,
       priority, held, client, route, class, attempts, account AS attempt_on,
       (SELECT count(*) FROM recipient r WHERE (r.message, r.part) = (d.message, d.part)) AS recipients,
       size, reverse_path, subject, last_reply
  FROM delivery d JOIN message m ON m.id = d.message
 ORDER BY d.message, d.part;
"
    .into()
}

/// What clients ask of notices, what they and the operators have been told, and what they are to be told.
fn version_3() -> String {
    "
-- RFC 3461; none: not said.
ALTER TABLE message ADD COLUMN ret TEXT;       -- FULL or HDRS
ALTER TABLE message ADD COLUMN envid TEXT;     -- decoded
ALTER TABLE recipient ADD COLUMN notify TEXT;  -- NEVER, or any of SUCCESS, FAILURE and DELAY
ALTER TABLE recipient ADD COLUMN orcpt TEXT;   -- as in the parameter: type;xtext
ALTER TABLE delivery ADD COLUMN hold_reason TEXT NOT NULL DEFAULT '';  -- why it is held, if no operator did it
ALTER TABLE delivery ADD COLUMN doubts INTEGER NOT NULL DEFAULT 0;     -- attempts of which nobody knows whether they delivered it
ALTER TABLE anchor ADD COLUMN ahead INTEGER NOT NULL DEFAULT 0;  -- milliseconds by which the wall clock was ahead of the relay's time

ALTER TABLE delivery ADD COLUMN warned INTEGER NOT NULL DEFAULT 0;  -- of its delay was told

-- What somebody is to be told together with other things: what became of one recipient.
CREATE TABLE gathered (
    id           INTEGER PRIMARY KEY,
    reader       TEXT NOT NULL,
    at           INTEGER NOT NULL,
    message      INTEGER NOT NULL,  -- it may have left
    client       TEXT NOT NULL,
    accepted_at  INTEGER NOT NULL,
    subject      TEXT NOT NULL,
    envid        TEXT,
    address      TEXT NOT NULL,
    orcpt        TEXT,
    action       TEXT NOT NULL,
    status       TEXT NOT NULL,
    diagnostic   TEXT NOT NULL,
    remote_mta   TEXT,
    last_attempt INTEGER
) STRICT;
CREATE INDEX gathered_for ON gathered (reader, id);

-- The alarms that are raised, or of whose end the operators do not know.
CREATE TABLE alarm (
    name    TEXT NOT NULL PRIMARY KEY,
    since   INTEGER NOT NULL,
    why     TEXT NOT NULL,
    cleared INTEGER,           -- none: it is still so
    told    INTEGER NOT NULL   -- the operators know that it was raised
) STRICT, WITHOUT ROWID;
"
    .into()
}

/// The numbers of deliveries that recipients part into, and what is not well with accounts.
fn version_4() -> String {
    "
-- The highest number that a delivery of it got when recipients parted from theirs; 0: none did. It is never given again.
ALTER TABLE message ADD COLUMN parts INTEGER NOT NULL DEFAULT 0;

-- What was learned of accounts, applications, routes and the tenant, as long as they are not well.
CREATE TABLE health (
    holder     TEXT NOT NULL,     -- account, app or route with its name, or tenant
    about      TEXT NOT NULL,     -- internal or external mail, connections; empty: all mail
    since      INTEGER NOT NULL,
    met        INTEGER NOT NULL,  -- the last time
    until      INTEGER NOT NULL,  -- when it is over, or is looked at again
    level      INTEGER NOT NULL,  -- how often in a row
    logins     INTEGER NOT NULL,  -- tried in it
    passed     INTEGER NOT NULL,  -- the last of them
    uses       INTEGER,           -- connections
    scope      TEXT NOT NULL,
    length     TEXT NOT NULL,
    lasts      INTEGER,           -- milliseconds
    every      INTEGER,           -- milliseconds
    limit_name TEXT,
    step       TEXT NOT NULL,
    kind       TEXT NOT NULL,
    reason     TEXT NOT NULL,
    advice     TEXT NOT NULL,
    PRIMARY KEY (holder, about)
) STRICT, WITHOUT ROWID;

-- Which point of the boot clock is which point of the time in that table; one row, as in anchor.
CREATE TABLE health_anchor (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    boot_id TEXT NOT NULL,
    boot    INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    ahead   INTEGER NOT NULL
) STRICT;
"
    .into()
}

/// The text of a queue id from its number (see [`crate::mail::QueueId`]); computed when it is read, so it takes no room.
fn queue_id_expression() -> String {
    let digit = |i: u32| format!("substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', ((id >> {}) & 31) + 1, 1)", 5 * (12 - i));
    (0..13).map(digit).collect::<Vec<_>>().join(" || ")
}
