//! Races between lanes of one warp in shared memory. Lanes run side by side here; since sm_70 nothing promises that, and what one
//! lane stores others see behind `bar.warp.sync` or a barrier of the block. Lanes that the instructions of one warp keep in step
//! by chance (shuffles, votes) are not ordered by them.

use std::ops::Range;

use super::warp::{Exec, Warp, fault};
use super::{Block, ComplaintKind};

/// In an entry of readers: other lanes, too.
const MANY: u32 = 1 << 31;
/// Epochs that an entry can tell apart. After so many, a worker looks no more for these races: two million blocks at least.
const MAX_EPOCH: u32 = 1 << 26;

/// For each word of shared memory, the lane that last wrote it and the first that read it, each as epoch * 32 + lane. Accesses of
/// less than a word are checked, but not noted: two of them to one place go unseen. An epoch
/// is the time between two barriers of one warp; no two warps or blocks share one, so that nothing need be reset.
pub(super) struct LaneRaces {
    writers: Vec<u32>,
    readers: Vec<u32>,
    /// Of each warp.
    epochs: [u32; 32],
    last: u32,
}

/// The entries of bytes.
#[inline]
fn words(at: usize, bytes: usize) -> Range<usize> {
    at / 4..(at + bytes).div_ceil(4)
}

impl LaneRaces {
    pub fn new(bytes: usize) -> Self {
        Self {
            writers: vec![0; bytes.div_ceil(4)],
            readers: vec![0; bytes.div_ceil(4)],
            epochs: [0; 32],
            last: 0,
        }
    }

    /// Orders all that the warp did before all that it does from now on.
    pub fn order(&mut self, warp: u32) {
        self.last = (self.last + 1).min(MAX_EPOCH);
        self.epochs[warp as usize] = self.last;
    }

    /// The entry of a lane; `None` when there are no epochs left.
    fn entry(&self, warp: u32, lane: usize) -> Option<u32> {
        let epoch = self.epochs[warp as usize];
        (epoch < MAX_EPOCH).then_some(epoch << 5 | lane as u32)
    }

    /// The first word that another lane wrote in the same epoch, and that lane.
    #[inline]
    fn written(&self, entry: u32, at: usize, bytes: usize) -> Option<(usize, u32)> {
        let clash = |writer: u32| writer != entry && writer >> 5 == entry >> 5;
        let writers = &self.writers[words(at, bytes)];
        // Without a way out of the loop it is done in vectors.
        if !writers.iter().fold(false, |any, &writer| any | clash(writer)) {
            return None;
        }
        let first = writers.iter().position(|&writer| clash(writer))?;
        Some((at / 4 * 4 + 4 * first, writers[first] & 31))
    }

    /// The first word that another lane read in the same epoch.
    #[inline]
    fn read(&self, entry: u32, at: usize, bytes: usize) -> Option<usize> {
        // Equal but for the lane, or for `MANY`.
        let clash = |reader: u32| reader != entry && (reader & !MANY) >> 5 == entry >> 5;
        let readers = &self.readers[words(at, bytes)];
        if !readers.iter().fold(false, |any, &reader| any | clash(reader)) {
            return None;
        }
        readers.iter().position(|&reader| clash(reader)).map(|first| at / 4 * 4 + 4 * first)
    }

    #[inline]
    fn note_read(&mut self, entry: u32, at: usize, bytes: usize) {
        for reader in &mut self.readers[words(at, bytes)] {
            let others = (*reader & !MANY) >> 5 == entry >> 5 && *reader != entry;
            *reader = if others { *reader | MANY } else { entry };
        }
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
        let Some(entry) = races.entry(warp.index, lane).filter(|_| self.launch.checks) else {
            return Ok(());
        };
        match races.written(entry, at, bytes) {
            Some((at, other)) => {
                self.lane_clash(warp, lane, at, "reads", &format!("written by lane {other}"))
            }
            None => Ok(()),
        }
    }

    /// Notes a load.
    #[inline]
    pub(super) fn lane_note_read(&mut self, warp: &Warp, at: usize, bytes: usize, lane: usize) {
        if bytes < 4 {
            return;
        }
        let races = &mut self.shared.lanes;
        if let Some(entry) = races.entry(warp.index, lane).filter(|_| self.launch.checks) {
            races.note_read(entry, at, bytes);
        }
    }

    /// Checks a store of a lane against loads and stores of the others. All lanes are to be checked before any is noted: what one
    /// instruction stores is looked at by itself.
    #[inline]
    pub(super) fn lane_check_write(&self, warp: &Warp, at: usize, bytes: usize, lane: usize) -> Exec {
        let races = &self.shared.lanes;
        let Some(entry) = races.entry(warp.index, lane).filter(|_| self.launch.checks) else {
            return Ok(());
        };
        if let Some((at, other)) = races.written(entry, at, bytes) {
            return self.lane_clash(warp, lane, at, "writes", &format!("written by lane {other}"));
        }
        match races.read(entry, at, bytes) {
            Some(at) => self.lane_clash(warp, lane, at, "writes", "read by another lane"),
            None => Ok(()),
        }
    }

    /// Notes a store.
    #[inline]
    pub(super) fn lane_note_write(&mut self, warp: &Warp, at: usize, bytes: usize, lane: usize) {
        if bytes < 4 {
            return;
        }
        let races = &mut self.shared.lanes;
        if let Some(entry) = races.entry(warp.index, lane).filter(|_| self.launch.checks) {
            races.writers[words(at, bytes)].fill(entry);
        }
    }
}
