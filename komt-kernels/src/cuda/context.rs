//! One device and its primary context.

/// One device and its primary context.
#[derive(Debug)]
pub(crate) struct Context {}
