//! A kernel decoded: one [`Op`] for each PTX instruction, its registers numbered by file, constants in registers of their own.

use crate::mma::Mma;
use crate::num::Ty;
use crate::ptx::Space;

/// A 32-bit register (or a narrower one, zero-extended) of a warp.
pub(super) type W = [u32; 32];
/// A 64-bit register of a warp.
pub(super) type D = [u64; 32];

/// A register: its file and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Up to 32 bits.
    W(u32),
    /// 64 bits.
    D(u32),
    /// A predicate.
    P(u32),
    /// Nobody's: what is written is lost.
    Sink,
}

/// A predicate operand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pred {
    pub index: u32,
    pub negated: bool,
}

/// Where an address comes from: a 64-bit or 32-bit register, plus an offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addr {
    /// `Sink`: nothing, the offset is the address.
    pub base: Slot,
    pub offset: i64,
}

pub(super) type WFn = fn(&mut W, &W, &W, &W);
pub(super) type DFn = fn(&mut D, &D, &D, &D);
/// `mul.wide`, `mad.wide`, and conversions to 64 bits.
pub(super) type WideFn = fn(&mut D, &W, &W, &D);
/// Conversions to 32 bits.
pub(super) type NarrowFn = fn(&mut W, &D);
/// 64-bit shifts.
pub(super) type ShiftFn = fn(&mut D, &D, &W);
pub(super) type ScalarFn = Box<dyn Fn(u64, u64, u64) -> u64 + Send + Sync>;
pub(super) type TestFn = Box<dyn Fn(u64, u64) -> bool + Send + Sync>;

/// A comparison, giving a mask of lanes.
pub(super) enum Compare {
    W(fn(&W, &W) -> u32),
    D(fn(&D, &D) -> u32),
    Scalar(TestFn),
}

/// Logic of predicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logic {
    And,
    Or,
    Xor,
    /// The first operand alone.
    First,
}

/// A load or store.
pub(super) struct Transfer {
    pub space: Space,
    /// Of one element.
    pub ty: Ty,
    /// Elements of a thread, in order.
    pub registers: Vec<Slot>,
    pub addr: Addr,
    /// Volatile, relaxed, acquire, release: no race with other such.
    pub is_atomic: bool,
}

/// What an atomic does with (old, operand b, operand c).
pub(super) struct Atomic {
    pub space: Space,
    pub bytes: usize,
    /// `Sink` for `red`.
    pub d: Slot,
    pub addr: Addr,
    pub b: Slot,
    pub c: Slot,
    pub f: ScalarFn,
    /// `exch`: what was there before does not matter.
    pub replaces: bool,
}

/// An asynchronous copy.
pub(super) struct Copy {
    pub shared: Addr,
    pub global: Addr,
    pub bytes: u32,
    /// Bytes taken from the source, the rest zero.
    pub source_bytes: Option<Slot>,
    /// `ignore-src`.
    pub ignore: Option<Pred>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShflMode {
    Up,
    Down,
    Bfly,
    Idx,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VoteMode {
    All,
    Any,
    Uni,
    Ballot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BarMode {
    Sync,
    Arrive,
    Popc,
    And,
    Or,
}

/// A barrier of the block.
pub(super) struct Barrier {
    pub mode: BarMode,
    pub id: Slot,
    /// Threads; all of the block if `None`.
    pub threads: Option<Slot>,
    /// `bar.red`.
    pub source: Option<Pred>,
    pub d: Slot,
}

/// What an instruction does.
pub(super) enum Kind {
    W {
        f: WFn,
        d: u32,
        s: [u32; 3],
    },
    D {
        f: DFn,
        d: u32,
        s: [u32; 3],
    },
    Wide {
        f: WideFn,
        d: u32,
        a: u32,
        b: u32,
        c: u32,
    },
    Narrow {
        f: NarrowFn,
        d: u32,
        a: u32,
    },
    Shift {
        f: ShiftFn,
        d: u32,
        a: u32,
        b: u32,
    },
    /// Lane by lane: slower.
    Scalar {
        f: ScalarFn,
        d: Slot,
        s: [Slot; 3],
    },
    /// `add.cc` and its like: (a, b, flag) -> (value, flag).
    Carry {
        f: fn(u64, u64, bool) -> (u64, bool),
        d: Slot,
        a: Slot,
        b: Slot,
        reads: bool,
        writes: bool,
    },
    SetP {
        f: Compare,
        d: Option<u32>,
        d2: Option<u32>,
        a: Slot,
        b: Slot,
        logic: Logic,
        c: Option<Pred>,
    },
    SelP {
        d: Slot,
        a: Slot,
        b: Slot,
        p: Pred,
    },
    Logic {
        f: Logic,
        d: u32,
        a: Pred,
        b: Pred,
    },
    /// `mov.b64 d, {a, b}`: the elements, low first, of `bits` each.
    Pack {
        d: Slot,
        s: Vec<Slot>,
        bits: u32,
    },
    Unpack {
        d: Vec<Slot>,
        s: Slot,
        bits: u32,
    },
    ReadParam {
        registers: Vec<Slot>,
        ty: Ty,
        offset: u32,
    },
    Load(Transfer),
    Store(Transfer),
    Atomic(Atomic),
    CopyAsync(Copy),
    CopyCommit,
    /// Groups that may be outstanding; `None`: not even copies without a group.
    CopyWait(Option<u32>),
    LdMatrix {
        d: Vec<u32>,
        addr: Addr,
        trans: bool,
    },
    StMatrix {
        s: Vec<u32>,
        addr: Addr,
        trans: bool,
    },
    Mma {
        form: Mma,
        d: Vec<u32>,
        a: Vec<u32>,
        b: Vec<u32>,
        c: Vec<u32>,
    },
    Shfl {
        mode: ShflMode,
        d: Slot,
        p: Option<u32>,
        a: Slot,
        b: Slot,
        c: Slot,
        members: Slot,
    },
    Vote {
        mode: VoteMode,
        d: Slot,
        p: Pred,
        members: Slot,
    },
    Match {
        all: bool,
        d: Slot,
        p: Option<u32>,
        a: Slot,
        members: Slot,
    },
    Redux {
        f: fn(u32, u32) -> u32,
        d: Slot,
        a: Slot,
        members: Slot,
    },
    ActiveMask {
        d: Slot,
    },
    WarpBarrier {
        members: Slot,
    },
    Barrier(Barrier),
    Branch {
        target: u32,
    },
    /// `brx.idx`.
    BranchTable {
        index: Slot,
        targets: Vec<u32>,
    },
    /// To a function; the place to return to goes to the register.
    Call {
        target: u32,
        link: u32,
    },
    /// From a function.
    Return {
        link: u32,
    },
    Exit,
    Trap,
    Nop,
}

/// An instruction.
pub(super) struct Op {
    pub kind: Kind,
    pub guard: Option<Pred>,
    /// Index into [`Code::classes`].
    pub class: u32,
}

/// What a register holds before the first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Initial {
    Const(u64),
    /// Component 0 to 2.
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    Lane,
    Warp,
    Warps,
    /// `%lanemask_eq`, `_lt`, `_le`, `_gt`, `_ge`, in this order.
    Mask(u8),
    DynamicShared,
    TotalShared,
}

/// A kernel, ready to run.
pub(super) struct Code {
    pub ops: Vec<Op>,
    /// For each op: kernel or function in the module, and instruction in it.
    pub places: Vec<(u32, u32)>,
    pub classes: Vec<String>,
    /// Registers of each file: (`W`, `D`, predicates).
    pub sizes: [usize; 3],
    pub initial_w: Vec<(u32, Initial)>,
    pub initial_d: Vec<(u32, Initial)>,
    pub local_bytes: usize,
    pub static_shared_bytes: u32,
    pub dynamic_shared_start: u32,
}
