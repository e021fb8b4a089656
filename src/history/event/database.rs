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
        /// Whether a hook of the guest agent's freeze is to leave its log empty.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        hook: bool,
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
