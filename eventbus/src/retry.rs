//! What a caller may do after an error.

/// What a caller may do after an error: each port's error gives this one verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Nothing: the same call fails again.
    Never,
    /// Read the state again, decide again, then try.
    AfterReload,
    /// Try the same again, later.
    AfterBackoff,
}
