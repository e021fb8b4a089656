//! A database in the guest: what was committed there, and what came back.

use serde::{Deserialize, Serialize};

/// What is seen of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum DatabaseFact {
    /// It was made, without a transaction.
    Made {
        /// Name and version, as it says them itself.
        version: String,
        /// Its folder in the guest.
        directory: String,
        /// Whether a hook of the guest agent's freeze is to quiesce it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        hook: bool,
        /// What that hook leaves behind.
        #[serde(default, skip_serializing_if = "Left::is_empty_log")]
        leaves: Left,
    },
    /// A transaction was committed, and every one before it: whoever did it says so, after the database
    /// said so. They are numbered from 1, one after the other.
    Acked {
        /// Its number.
        commit: u64,
    },
    /// Nothing more is heard of commits.
    Ended {
        /// Why.
        why: String,
    },
    /// It was opened and read, before anything but the guest's boot wrote where it lies.
    Read {
        /// Bytes of its log as they lay before it was opened, where it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log: Option<u64>,
        /// Its transactions that lay in its log alone before it was opened, behind its last checkpoint,
        /// where it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        redo: Option<u64>,
        /// How often a table without transactions stood open on the disk before it was opened, where it
        /// has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        open: Option<u64>,
        /// What its own check says: `ok`, or what is wrong.
        check: Vec<String>,
        /// Its transactions, if they could be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rows: Option<RowsFact>,
        /// Why they could not; empty where they were.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        unread: String,
    },
}

/// What the hook of a guest agent's freeze leaves of a database, by which it is seen that it ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Left {
    /// An empty log, behind which nobody wrote.
    #[default]
    EmptyLog,
    /// A checkpoint that was begun when the freeze had been asked for; others write behind it.
    Checkpoint,
    /// Tables that nobody has open.
    ClosedTables,
}

impl Left {
    /// Whether it is the first, which is not written down.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    fn is_empty_log(&self) -> bool {
        *self == Self::EmptyLog
    }
}

/// The transactions of a database that was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsFact {
    /// How many.
    pub count: u64,
    /// The smallest number; 0 without any.
    pub first: u64,
    /// The greatest.
    pub last: u64,
    /// How many carry something else than they should.
    pub strange: u64,
    /// The newest by a second table that each transaction changes too.
    pub second: u64,
    /// The first behind which one is missing; the last one where none is.
    pub upto: u64,
}
