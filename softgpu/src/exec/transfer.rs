//! Loads and stores of all spaces.

use super::code::{D, Slot, Transfer, W};
use super::warp::{Exec, FULL, Warp, fault, lanes};
use super::{Block, ComplaintKind, LOCAL_BASE, SHARED_BASE, space_of};
use crate::memory::Mark;
use crate::num::Ty;
use crate::ptx::Space;

/// What undefined bytes read as, whatever is there.
const POISON: u64 = u64::MAX;

fn extend(ty: Ty, value: u64) -> u64 {
    match ty {
        Ty::S8 => i64::from(value as i8) as u64,
        Ty::S16 => i64::from(value as i16) as u64,
        Ty::S32 => i64::from(value as i32) as u64,
        _ => value,
    }
}

/// Values loaded: one vector for each register, and where they are defined.
#[derive(Default)]
pub(super) struct Loaded {
    values: [D; 8],
    defined: [u32; 8],
}

impl Block<'_> {
    /// Lanes by the space that their address is in, with the window taken off the addresses.
    pub(super) fn by_space(space: Space, addrs: &mut D, mask: u32) -> [(Space, u32); 3] {
        if space != Space::Generic {
            return [(space, mask), (Space::Shared, 0), (Space::Local, 0)];
        }
        let (mut shared, mut local) = (0, 0);
        for lane in lanes(mask) {
            match space_of(addrs[lane]) {
                Space::Shared => {
                    shared |= 1 << lane;
                    addrs[lane] -= SHARED_BASE;
                }
                Space::Local => {
                    local |= 1 << lane;
                    addrs[lane] -= LOCAL_BASE;
                }
                _ => {}
            }
        }
        [(Space::Global, mask & !shared & !local), (Space::Shared, shared), (Space::Local, local)]
    }

    pub(super) fn load(&mut self, warp: &mut Warp, one: &Transfer, mask: u32) -> Exec {
        let mut addrs = warp.addresses(&one.addr, mask)?;
        let mut out = self.scratch.take().unwrap_or_default();
        out.defined = [FULL; 8];
        for (space, mask) in Self::by_space(one.space, &mut addrs, mask) {
            if mask == 0 {
                continue;
            }
            match space {
                Space::Shared => self.load_shared(warp, one, &addrs, mask, &mut out)?,
                Space::Local => self.load_local(warp, one, &addrs, mask, &mut out)?,
                Space::Param => self.load_param(one, &addrs, mask, &mut out)?,
                _ => self.load_global(warp, one, &addrs, mask, &mut out)?,
            }
        }
        for (at, slot) in one.registers.iter().enumerate() {
            let (values, defined) = (&out.values[at], out.defined[at]);
            match slot {
                Slot::W(index) => {
                    let narrow: W = std::array::from_fn(|lane| extend(one.ty, values[lane]) as u32);
                    warp.set_w(*index, &narrow, mask, defined);
                }
                slot => warp.set(*slot, &values.map(|value| extend(one.ty, value)), mask, defined),
            }
        }
        self.scratch = Some(out);
        Ok(())
    }

    fn load_global(&mut self, warp: &Warp, one: &Transfer, addrs: &D, mask: u32, out: &mut Loaded) -> Exec {
        let width = one.ty.bytes() as usize;
        let bytes = width * one.registers.len();
        let found = self.find_global(addrs, mask, |_| bytes, bytes)?;
        self.count_global(addrs, mask, bytes, true, &found);
        let mut all_defined = true;
        if self.launch.checks {
            let access = self.access(warp);
            let access = if one.is_atomic { access.atomically() } else { access };
            Self::stretches(&found, mask, bytes, |index, offset, bytes, lane| {
                self.global_check(warp, &access, index, (offset, bytes), lane, false)?;
                all_defined &= self.launch.view.live[index].is_defined(offset, bytes);
                Ok(())
            })?;
        }
        for lane in lanes(mask) {
            let (index, offset) = found[lane];
            let allocation = &self.launch.view.live[index];
            if all_defined && width == 4 {
                for at in 0..one.registers.len() {
                    out.values[at][lane] = allocation.load(offset + at * 4, 4);
                }
                continue;
            }
            for at in 0..one.registers.len() {
                let place = offset + at * width;
                out.values[at][lane] = allocation.load(place, width);
                if !all_defined && !allocation.is_defined(place, width) {
                    out.values[at][lane] = POISON;
                    out.defined[at] &= !(1 << lane);
                }
            }
        }
        Ok(())
    }

    fn load_shared(&mut self, warp: &Warp, one: &Transfer, addrs: &D, mask: u32, out: &mut Loaded) -> Exec {
        let width = one.ty.bytes() as usize;
        let bytes = width * one.registers.len();
        self.count_shared(addrs, mask, bytes);
        let mut last = u64::MAX;
        for lane in lanes(mask) {
            let at = self.shared_at(addrs[lane], bytes, lane)?;
            // Lanes that read the same bytes are checked once.
            if addrs[lane] != last {
                self.shared_read_check(warp, at, bytes, lane)?;
                last = addrs[lane];
            }
            if !one.is_atomic {
                self.lane_check_read(warp, at, bytes, lane)?;
                self.lane_note_read(warp, at, bytes, lane);
            }
            for element in 0..one.registers.len() {
                let place = at + element * width;
                out.values[element][lane] = self.shared.load(place, width);
                if self.launch.checks && !self.shared.is_defined(place, width) {
                    out.values[element][lane] = POISON;
                    out.defined[element] &= !(1 << lane);
                }
            }
        }
        Ok(())
    }

    fn local_at(&self, addr: u64, bytes: usize, lane: usize) -> Exec<usize> {
        let size = self.launch.code.local_bytes;
        if !addr.is_multiple_of(bytes as u64) {
            return fault(
                ComplaintKind::Misaligned,
                1 << lane,
                format!("{bytes} bytes at local address {addr}"),
            );
        }
        if addr > size as u64 || bytes > size - addr as usize {
            let what =
                format!("{bytes} bytes at local address {addr}, the thread has {size} bytes of local memory");
            return fault(ComplaintKind::OutOfBounds, 1 << lane, what);
        }
        Ok(lane * size + addr as usize)
    }

    fn load_local(&self, warp: &Warp, one: &Transfer, addrs: &D, mask: u32, out: &mut Loaded) -> Exec {
        let width = one.ty.bytes() as usize;
        for lane in lanes(mask) {
            let at = self.local_at(addrs[lane], width * one.registers.len(), lane)?;
            for element in 0..one.registers.len() {
                let place = at + element * width;
                let mut bytes = [0; 8];
                bytes[..width].copy_from_slice(&warp.local[place..place + width]);
                out.values[element][lane] = u64::from_le_bytes(bytes);
                if warp.local_defined[place..place + width].contains(&0) {
                    out.values[element][lane] = POISON;
                    out.defined[element] &= !(1 << lane);
                }
            }
        }
        Ok(())
    }

    fn load_param(&self, one: &Transfer, addrs: &D, mask: u32, out: &mut Loaded) -> Exec {
        let width = one.ty.bytes() as usize;
        let bytes = width * one.registers.len();
        for lane in lanes(mask) {
            let at = usize::try_from(addrs[lane]).unwrap_or(usize::MAX);
            let Some(from) = self.launch.params.get(at..at.saturating_add(bytes)) else {
                let what = format!("{bytes} bytes at byte {at} of the parameters");
                return fault(ComplaintKind::OutOfBounds, 1 << lane, what);
            };
            for (element, part) in from.chunks(width).enumerate() {
                let mut value = [0; 8];
                value[..width].copy_from_slice(part);
                out.values[element][lane] = u64::from_le_bytes(value);
            }
        }
        Ok(())
    }

    pub(super) fn read_param(
        &self,
        warp: &mut Warp,
        registers: &[Slot],
        ty: Ty,
        offset: u32,
        mask: u32,
    ) -> Exec {
        let width = ty.bytes() as usize;
        for (element, slot) in registers.iter().enumerate() {
            let at = offset as usize + element * width;
            let Some(from) = self.launch.params.get(at..at + width) else {
                return fault(ComplaintKind::OutOfBounds, mask, format!("byte {at} of the parameters"));
            };
            let mut value = [0; 8];
            value[..width].copy_from_slice(from);
            warp.set(*slot, &[extend(ty, u64::from_le_bytes(value)); 32], mask, FULL);
        }
        Ok(())
    }

    pub(super) fn store(&mut self, warp: &mut Warp, one: &Transfer, mask: u32) -> Exec {
        let mut addrs = warp.addresses(&one.addr, mask)?;
        let mut from = self.scratch.take().unwrap_or_default();
        from.defined = [FULL; 8];
        for (at, slot) in one.registers.iter().enumerate() {
            (from.values[at], from.defined[at]) = (warp.get(*slot), warp.defined(*slot));
        }
        let bytes = one.ty.bytes() as usize * one.registers.len();
        for (space, mask) in Self::by_space(one.space, &mut addrs, mask) {
            if mask == 0 {
                continue;
            }
            if space != Space::Local {
                same_place(&addrs, mask, bytes, &from, one.registers.len())?;
            }
            match space {
                Space::Shared => self.store_shared(warp, one, &addrs, mask, &from)?,
                Space::Local => self.store_local(warp, one, &addrs, mask, &from)?,
                Space::Param | Space::Const => {
                    return fault(
                        ComplaintKind::Unsupported,
                        mask,
                        "a store to memory that cannot be written",
                    );
                }
                _ => self.store_global(warp, one, &addrs, mask, &from)?,
            }
        }
        self.scratch = Some(from);
        Ok(())
    }

    fn store_global(&mut self, warp: &Warp, one: &Transfer, addrs: &D, mask: u32, from: &Loaded) -> Exec {
        let width = one.ty.bytes() as usize;
        let bytes = width * one.registers.len();
        let found = self.find_global(addrs, mask, |_| bytes, bytes)?;
        self.count_global(addrs, mask, bytes, false, &found);
        let all_defined = from.defined.iter().all(|defined| mask & !defined == 0);
        if self.launch.checks {
            let access = self.access(warp);
            let access = if one.is_atomic { access.atomically() } else { access };
            Self::stretches(&found, mask, bytes, |index, offset, bytes, lane| {
                self.global_check(warp, &access, index, (offset, bytes), lane, true)
            })?;
        }
        Self::stretches(&found, mask, bytes, |index, offset, bytes, _| {
            self.launch.view.live[index].mark(offset, bytes, Mark::Written);
            Ok(())
        })?;
        let mut noted = None;
        for lane in lanes(mask) {
            let (index, offset) = found[lane];
            let allocation = &self.launch.view.live[index];
            for at in 0..one.registers.len() {
                let place = offset + at * width;
                allocation.store(place, width, from.values[at][lane]);
                if !all_defined && from.defined[at] >> lane & 1 == 0 {
                    allocation.mark(place, width, Mark::Undefined);
                    if noted.replace(index) != Some(index) {
                        self.note_undefined(warp, index, place, lane);
                    }
                }
            }
        }
        Ok(())
    }

    fn store_shared(&mut self, warp: &Warp, one: &Transfer, addrs: &D, mask: u32, from: &Loaded) -> Exec {
        let width = one.ty.bytes() as usize;
        let bytes = width * one.registers.len();
        self.count_shared(addrs, mask, bytes);
        for lane in lanes(mask) {
            let at = self.shared_at(addrs[lane], bytes, lane)?;
            self.shared_write_check(warp, at, bytes, lane)?;
            if !one.is_atomic {
                self.lane_check_write(warp, at, bytes, lane)?;
            }
        }
        for lane in lanes(mask) {
            let at = addrs[lane] as usize;
            if !one.is_atomic {
                self.lane_note_write(warp, at, bytes, lane);
            }
            for element in 0..one.registers.len() {
                let place = at + element * width;
                self.shared.store(place, width, from.values[element][lane]);
                let defined = (from.defined[element] >> lane & 1) as u8;
                self.shared.defined[place..place + width].fill(defined);
            }
        }
        Ok(())
    }

    fn store_local(&self, warp: &mut Warp, one: &Transfer, addrs: &D, mask: u32, from: &Loaded) -> Exec {
        let width = one.ty.bytes() as usize;
        for lane in lanes(mask) {
            let at = self.local_at(addrs[lane], width * one.registers.len(), lane)?;
            for element in 0..one.registers.len() {
                let place = at + element * width;
                let value = from.values[element][lane].to_le_bytes();
                warp.local[place..place + width].copy_from_slice(&value[..width]);
                warp.local_defined[place..place + width].fill((from.defined[element] >> lane & 1) as u8);
            }
        }
        Ok(())
    }
}

/// Lanes that store different values to one place in one instruction: which of them stays is not told.
fn same_place(addrs: &D, mask: u32, bytes: usize, from: &Loaded, registers: usize) -> Exec {
    let mut last = None;
    let sorted = lanes(mask).all(|lane| {
        let after = last.is_none_or(|last: u64| addrs[lane] >= last + bytes as u64);
        last = Some(addrs[lane]);
        after
    });
    if sorted {
        return Ok(());
    }
    for lane in lanes(mask) {
        for other in lanes(mask & ((1u64 << lane) - 1) as u32).filter(|&other| addrs[other] == addrs[lane]) {
            if (0..registers).any(|at| from.values[at][other] != from.values[at][lane]) {
                let what = format!("lanes {other} and {lane} store different values to {:#x}", addrs[lane]);
                return fault(ComplaintKind::Race, 1 << lane, what);
            }
        }
    }
    Ok(())
}
