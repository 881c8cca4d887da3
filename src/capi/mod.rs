//! The C functions.
