//! Races between lanes of one warp in shared memory. Lanes run side by side here; since sm_70 nothing promises that, and what one
//! lane stores others see behind a barrier of the block or a `bar.warp.sync` that names both. Lanes that the instructions of one warp
//! keep in step by chance (shuffles, votes) are not ordered by them.

use std::ops::Range;

use super::warp::{Exec, Warp, fault, lanes};
use super::{Block, ComplaintKind};

/// Epochs that an entry can tell apart. After so many, a worker looks no more for these races: four million blocks at least.
const MAX_EPOCH: u32 = 1 << 27;
/// Barriers of parts of a warp that are remembered; what was before the others counts as ordered.
const MAX_OPEN: usize = 32;

/// An epoch that ended with a barrier of a part of the warp: over for some of its lanes, not for all.
struct Open {
    epoch: u32,
    /// For each lane, the lanes whose accesses of then are before its own of now.
    before: [u32; 32],
}

/// A lane now.
struct Now<'a> {
    epoch: u32,
    lane: u32,
    open: &'a [Open],
}

impl Now<'_> {
    /// Whether an access of these lanes in an epoch, one of them another lane, may not have happened before.
    fn is_unordered(&self, epoch: u32, lanes: u32) -> bool {
        let before = if epoch == self.epoch {
            1 << self.lane
        } else {
            let Some(open) = self.open.iter().find(|open| open.epoch == epoch) else { return false };
            open.before[self.lane as usize]
        };
        lanes & !before != 0
    }
}

/// What lanes did to places of one size. An epoch is the time between two barriers of one warp; no two warps or blocks share one, so
/// that nothing need be reset. Of several epochs, the last is kept.
#[derive(Default)]
struct Places {
    /// The lane that last wrote, as epoch * 32 + lane.
    writers: Vec<u32>,
    /// The lanes that last read, and their epoch.
    readers: Vec<u32>,
    read_in: Vec<u32>,
}

impl Places {
    fn new(len: usize) -> Self {
        Self { writers: vec![0; len], readers: vec![0; len], read_in: vec![0; len] }
    }

    /// The first place that another lane wrote without order, and that lane.
    #[inline]
    fn written(&self, now: &Now<'_>, range: Range<usize>) -> Option<(usize, u32)> {
        let (own, epoch) = (now.epoch << 5 | now.lane, now.epoch);
        let writers = &self.writers[range.clone()];
        // Without a way out of the loop it is done in vectors.
        let any = |any: bool, &writer: &u32| any | ((writer >> 5 == epoch) & (writer != own));
        if now.open.is_empty() && !writers.iter().fold(false, any) {
            return None;
        }
        let first = writers.iter().position(|&writer| now.is_unordered(writer >> 5, 1 << (writer & 31)))?;
        Some((range.start + first, writers[first] & 31))
    }

    /// The first place that another lane read without order.
    #[inline]
    fn read(&self, now: &Now<'_>, range: Range<usize>) -> Option<usize> {
        let (others, epoch) = (!(1 << now.lane), now.epoch);
        let mut reads = self.readers[range.clone()].iter().zip(&self.read_in[range.clone()]);
        let any = |any: bool, (&lanes, &then): (&u32, &u32)| any | ((then == epoch) & (lanes & others != 0));
        if now.open.is_empty() && !reads.clone().fold(false, any) {
            return None;
        }
        reads.position(|(&lanes, &then)| now.is_unordered(then, lanes)).map(|first| range.start + first)
    }

    #[inline]
    fn note_read(&mut self, epoch: u32, lane: usize, range: Range<usize>) {
        for (lanes, then) in self.readers[range.clone()].iter_mut().zip(&mut self.read_in[range]) {
            let others = if *then == epoch { *lanes } else { 0 };
            (*lanes, *then) = (others | 1 << lane, epoch);
        }
    }
}

/// Who of a warp accessed what: by words of four bytes, and by bytes for accesses of less. What is told of a word holds for each of
/// its bytes.
pub(super) struct LaneRaces {
    words: Places,
    /// Empty before the first access of less than a word.
    bytes: Places,
    len: usize,
    /// Of each warp.
    epochs: [u32; 32],
    open: [Vec<Open>; 32],
    last: u32,
}

/// The words of bytes.
#[inline]
fn words(at: usize, bytes: usize) -> Range<usize> {
    at / 4..(at + bytes).div_ceil(4)
}

impl LaneRaces {
    /// For so many bytes.
    pub fn new(len: usize) -> Self {
        Self {
            words: Places::new(len.div_ceil(4)),
            bytes: Places::default(),
            len,
            epochs: [0; 32],
            open: std::array::from_fn(|_| Vec::new()),
            last: 0,
        }
    }

    /// Orders all that the warp did before all that it does from now on.
    pub fn order(&mut self, warp: u32) {
        self.open[warp as usize].clear();
        self.next_epoch(warp);
    }

    /// Orders what lanes of the warp did before what the same lanes do from now on.
    pub fn order_lanes(&mut self, warp: u32, group: u32) {
        let (open, epoch) = (&mut self.open[warp as usize], self.epochs[warp as usize]);
        // What one of them has seen, all have.
        for one in open.iter_mut() {
            let before = lanes(group).fold(0, |all, lane| all | one.before[lane]);
            lanes(group).for_each(|lane| one.before[lane] = before);
        }
        if open.len() == MAX_OPEN {
            open.remove(0);
        }
        let before = |lane: usize| if group >> lane & 1 == 1 { group } else { 1 << lane };
        open.push(Open { epoch, before: std::array::from_fn(before) });
        self.next_epoch(warp);
    }

    fn next_epoch(&mut self, warp: u32) {
        self.last = (self.last + 1).min(MAX_EPOCH);
        self.epochs[warp as usize] = self.last;
    }

    /// `None` when there are no epochs left.
    #[inline]
    fn now(&self, warp: u32, lane: usize) -> Option<Now<'_>> {
        let (epoch, open) = (self.epochs[warp as usize], &self.open[warp as usize]);
        (epoch < MAX_EPOCH).then_some(Now { epoch, lane: lane as u32, open })
    }

    /// The bytes, or none where none has been noted.
    fn noted(&self, at: usize, bytes: usize) -> Range<usize> {
        if self.bytes.writers.is_empty() { 0..0 } else { at..at + bytes }
    }

    /// The first byte that another lane wrote without order, and that lane.
    #[inline]
    fn written(&self, now: &Now<'_>, at: usize, bytes: usize) -> Option<(usize, u32)> {
        let word = self.words.written(now, words(at, bytes));
        let byte = || self.bytes.written(now, self.noted(at, bytes));
        word.map(|(word, lane)| (at.max(word * 4), lane)).or_else(byte)
    }

    /// The first byte that another lane read without order.
    #[inline]
    fn read(&self, now: &Now<'_>, at: usize, bytes: usize) -> Option<usize> {
        let word = self.words.read(now, words(at, bytes));
        let byte = || self.bytes.read(now, self.noted(at, bytes));
        word.map(|word| at.max(word * 4)).or_else(byte)
    }

    /// Where accesses of so many bytes are noted, and the place there.
    #[inline]
    fn places(&mut self, at: usize, bytes: usize) -> (&mut Places, Range<usize>) {
        if bytes >= 4 {
            return (&mut self.words, words(at, bytes));
        }
        if self.bytes.writers.is_empty() {
            self.bytes = Places::new(self.len);
        }
        (&mut self.bytes, at..at + bytes)
    }
}

impl Block<'_> {
    fn lane_clash(&self, warp: &Warp, lane: usize, at: usize, did: &str, other: &str) -> Exec {
        let what = format!(
            "lane {lane} of warp {} {did} byte {at} of shared memory, {other} of the warp with no barrier between",
            warp.index
        );
        fault(ComplaintKind::Race, 1 << lane, what)
    }

    /// Checks a load of a lane against stores of the others.
    #[inline]
    pub(super) fn lane_check_read(&self, warp: &Warp, at: usize, bytes: usize, lane: usize) -> Exec {
        let races = &self.shared.lanes;
        let Some(now) = races.now(warp.index, lane).filter(|_| self.launch.checks) else {
            return Ok(());
        };
        match races.written(&now, at, bytes) {
            Some((at, other)) => {
                self.lane_clash(warp, lane, at, "reads", &format!("written by lane {other}"))
            }
            None => Ok(()),
        }
    }

    /// Notes a load.
    #[inline]
    pub(super) fn lane_note_read(&mut self, warp: &Warp, at: usize, bytes: usize, lane: usize) {
        let epoch = self.shared.lanes.epochs[warp.index as usize];
        if self.launch.checks && epoch < MAX_EPOCH {
            let (places, range) = self.shared.lanes.places(at, bytes);
            places.note_read(epoch, lane, range);
        }
    }

    /// Checks a store of a lane against loads and stores of the others. All lanes are to be checked before any is noted: what one
    /// instruction stores is looked at by itself.
    #[inline]
    pub(super) fn lane_check_write(&self, warp: &Warp, at: usize, bytes: usize, lane: usize) -> Exec {
        let races = &self.shared.lanes;
        let Some(now) = races.now(warp.index, lane).filter(|_| self.launch.checks) else {
            return Ok(());
        };
        if let Some((at, other)) = races.written(&now, at, bytes) {
            return self.lane_clash(warp, lane, at, "writes", &format!("written by lane {other}"));
        }
        match races.read(&now, at, bytes) {
            Some(at) => self.lane_clash(warp, lane, at, "writes", "read by another lane"),
            None => Ok(()),
        }
    }

    /// Notes a store.
    #[inline]
    pub(super) fn lane_note_write(&mut self, warp: &Warp, at: usize, bytes: usize, lane: usize) {
        let epoch = self.shared.lanes.epochs[warp.index as usize];
        if self.launch.checks && epoch < MAX_EPOCH {
            let (places, range) = self.shared.lanes.places(at, bytes);
            places.writers[range].fill(epoch << 5 | lane as u32);
        }
    }
}
