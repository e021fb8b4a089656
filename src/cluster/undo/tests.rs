//! Undo log tests.
