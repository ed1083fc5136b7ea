//! Atomic operations.

use super::ComplaintKind;
use super::block::Block;
use super::code::{Atomic, D};
use super::global::Found;
use super::warp::{Exec, FULL, Warp, fault, lanes};
use crate::memory::Mark;
use crate::ptx::Space;

impl Block<'_> {
    pub(super) fn atomic(&mut self, warp: &mut Warp, one: &Atomic, mask: u32) -> Exec {
        let mut addrs = warp.addresses(&one.addr, mask)?;
        let (b, c) = (warp.get(one.b), warp.get(one.c));
        let given = warp.defined(one.b) & warp.defined(one.c);
        let (mut old, mut defined) = ([0; 32], FULL);
        for (space, mask) in Self::by_space(one.space, &mut addrs, mask) {
            if mask == 0 {
                continue;
            }
            match space {
                Space::Shared => {
                    self.count_shared(&addrs, mask, one.bytes);
                    for lane in lanes(mask) {
                        let at = self.shared_at(addrs[lane], one.bytes, lane)?;
                        let access = self.shared_access(warp).atomically();
                        self.shared_write_as(warp, &access, at, one.bytes, lane)?;
                        old[lane] = self.shared.load(at, one.bytes);
                        let known = self.shared.is_defined(at, one.bytes);
                        defined &= !(u32::from(!known) << lane);
                        self.shared.store(at, one.bytes, (one.f)(old[lane], b[lane], c[lane]));
                        let known = (known || one.replaces) && given >> lane & 1 == 1;
                        self.shared.defined[at..at + one.bytes].fill(u8::from(known));
                    }
                }
                Space::Global | Space::Generic => {
                    let found = self.find_global(&addrs, mask, |_| one.bytes, one.bytes)?;
                    self.count_global(&addrs, mask, one.bytes, true, &found);
                    defined &= self.atomic_global(warp, one, &found, mask, (&b, &c, given), &mut old)?;
                }
                _ => return fault(ComplaintKind::Unsupported, mask, "an atomic on local memory"),
            }
        }
        warp.set(one.d, &old, mask, defined | !self.checked());
        Ok(())
    }

    fn checked(&self) -> u32 {
        if self.launch.checks { FULL } else { 0 }
    }

    fn atomic_global(
        &self,
        warp: &Warp,
        one: &Atomic,
        found: &Found,
        mask: u32,
        (b, c, given): (&D, &D, u32),
        old: &mut D,
    ) -> Exec<u32> {
        let access = self.access(warp).atomically();
        let mut defined = FULL;
        for lane in lanes(mask) {
            let (index, offset) = found[lane];
            self.global_check(warp, &access, index, (offset, one.bytes), lane, true)?;
            let allocation = &self.launch.view.live[index];
            let known = allocation.is_defined(offset, one.bytes);
            defined &= !(u32::from(!known) << lane);
            old[lane] = allocation.update(offset, one.bytes, |old| (one.f)(old, b[lane], c[lane]));
            if given >> lane & 1 == 0 || !known && !one.replaces {
                allocation.mark(offset, one.bytes, Mark::Undefined);
                self.note_undefined(warp, index, offset, lane);
            } else if !known {
                allocation.mark(offset, one.bytes, Mark::Written);
            }
        }
        Ok(defined)
    }
}
