//! The `virtproof` command.

fn main() {}
