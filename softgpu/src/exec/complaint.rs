//! What a kernel did wrong, and where.

use std::fmt;

use crate::ptx::Kernel;

/// The kinds of wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum ComplaintKind {
    /// The launch itself: too many threads, too much shared memory, wrong parameters.
    Launch,
    /// Memory outside of every allocation.
    OutOfBounds,
    /// Memory that has been freed.
    UseAfterFree,
    /// An address that is not a multiple of the size of the access.
    Misaligned,
    /// An undefined value decided something.
    Undefined,
    /// Two accesses without order, one of them a write.
    Race,
    /// A copy's destination was touched before the copy was waited for.
    AsyncCopy,
    /// A warp-wide or block-wide instruction that some of its threads do not reach.
    Divergence,
    /// Threads that wait for ever, or do not end.
    Deadlock,
    /// `trap`, or a failed assertion.
    Trap,
    /// What the interpreter does not do.
    Unsupported,
}

/// A complaint. Its text is one line.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Complaint {
    /// What is wrong.
    pub kind: ComplaintKind,
    /// Name of the kernel.
    pub kernel: String,
    /// Block, as `blockIdx`.
    pub block: [u32; 3],
    /// Thread, as `threadIdx`.
    pub thread: [u32; 3],
    /// PTX of the instruction.
    pub instruction: String,
    /// Its line in the PTX text; 0 when there is no instruction.
    pub ptx_line: u32,
    /// File and line of the source, if the PTX tells.
    pub source: Option<(String, u32)>,
    /// The rest in words.
    pub detail: String,
}

impl Complaint {
    /// One about the launch as a whole.
    pub(crate) fn of_launch(kernel: &Kernel, kind: ComplaintKind, detail: String) -> Self {
        Self {
            kind,
            kernel: kernel.name.clone(),
            block: [0; 3],
            thread: [0; 3],
            instruction: String::new(),
            ptx_line: 0,
            source: None,
            detail,
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            ComplaintKind::Launch => "invalid launch",
            ComplaintKind::OutOfBounds => "out of bounds",
            ComplaintKind::UseAfterFree => "use after free",
            ComplaintKind::Misaligned => "misaligned address",
            ComplaintKind::Undefined => "undefined value",
            ComplaintKind::Race => "race",
            ComplaintKind::AsyncCopy => "unfinished asynchronous copy",
            ComplaintKind::Divergence => "divergence",
            ComplaintKind::Deadlock => "deadlock",
            ComplaintKind::Trap => "trap",
            ComplaintKind::Unsupported => "unsupported",
        };
        write!(f, "kernel `{}`: {name}: {}", self.kernel, self.detail)?;
        if self.ptx_line > 0 {
            let ([bx, by, bz], [tx, ty, tz]) = (self.block, self.thread);
            write!(f, "; block ({bx}, {by}, {bz}), thread ({tx}, {ty}, {tz})")?;
            write!(f, ", `{}` (PTX line {}", self.instruction, self.ptx_line)?;
            if let Some((file, line)) = &self.source {
                write!(f, ", {file}:{line}")?;
            }
            write!(f, ")")?;
        }
        Ok(())
    }
}

impl std::error::Error for Complaint {}
