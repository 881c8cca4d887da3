//! The kernels, written once over [`Simd`](super::simd::Simd). `super::scalar` says what each computes and is what
//! they are tested against, bit for bit.

// Loops over columns and rows index several arrays at once.
#![allow(clippy::needless_range_loop)]

pub(super) mod attention;
mod cached;
mod codes;
mod floats;
pub(super) mod linear;
mod panels;
pub(super) mod quantise;
pub(super) mod rows;
mod two_vectors;
mod unpacked;
