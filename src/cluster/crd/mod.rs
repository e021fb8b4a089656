//! Typed structs of the fields that virtproof uses, per API group.
