//! Instructions that only touch the registers of a lane.

use super::code::{Compare, Kind, Logic, Slot};
use super::warp::{FULL, Warp};

impl Warp {
    /// Executes it for the lanes of a mask; false if it is not of this kind. A result is defined where all operands are.
    #[inline]
    pub fn alu(&mut self, kind: &Kind, mask: u32) -> bool {
        match kind {
            Kind::W { f, d, s } => {
                let [a, b, c] = s.map(|index| index as usize);
                let mut out = [0; 32];
                f(&mut out, &self.w[a], &self.w[b], &self.w[c]);
                let defined = self.w_defined[a] & self.w_defined[b] & self.w_defined[c];
                self.set_w(*d, &out, mask, defined);
            }
            Kind::D { f, d, s } => {
                let [a, b, c] = s.map(|index| index as usize);
                let mut out = [0; 32];
                f(&mut out, &self.d[a], &self.d[b], &self.d[c]);
                let defined = self.d_defined[a] & self.d_defined[b] & self.d_defined[c];
                self.set_d(*d, &out, mask, defined);
            }
            Kind::Wide { f, d, a, b, c } => {
                let (a, b, c) = (*a as usize, *b as usize, *c as usize);
                let mut out = [0; 32];
                f(&mut out, &self.w[a], &self.w[b], &self.d[c]);
                let defined = self.w_defined[a] & self.w_defined[b] & self.d_defined[c];
                self.set_d(*d, &out, mask, defined);
            }
            Kind::Narrow { f, d, a } => {
                let mut out = [0; 32];
                f(&mut out, &self.d[*a as usize]);
                self.set_w(*d, &out, mask, self.d_defined[*a as usize]);
            }
            Kind::Shift { f, d, a, b } => {
                let (a, b) = (*a as usize, *b as usize);
                let mut out = [0; 32];
                f(&mut out, &self.d[a], &self.w[b]);
                self.set_d(*d, &out, mask, self.d_defined[a] & self.w_defined[b]);
            }
            Kind::SelP { d, a, b, p } => self.selp(*d, *a, *b, self.pred(*p), mask),
            Kind::Logic { f, d, a, b } => {
                let ((a, a_defined), (b, b_defined)) = (self.pred(*a), self.pred(*b));
                let (value, defined) = logic(*f, (a, a_defined), (b, b_defined));
                self.set_p(*d, value, mask, defined);
            }
            Kind::SetP { .. } => self.setp(kind, mask),
            _ => return self.slow_alu(kind, mask),
        }
        true
    }

    fn slow_alu(&mut self, kind: &Kind, mask: u32) -> bool {
        match kind {
            Kind::Scalar { f, d, s } => {
                let [a, b, c] = s.map(|slot| self.get(slot));
                let defined = s.iter().fold(FULL, |all, slot| all & self.defined(*slot));
                let mut out = [0; 32];
                for lane in super::warp::lanes(mask) {
                    out[lane] = f(a[lane], b[lane], c[lane]);
                }
                self.set(*d, &out, mask, defined);
            }
            Kind::Carry { f, d, a, b, reads, writes } => {
                let defined = self.defined(*a) & self.defined(*b);
                let (a, b) = (self.get(*a), self.get(*b));
                let (mut out, mut flags) = ([0; 32], 0);
                for lane in super::warp::lanes(mask) {
                    let (value, flag) = f(a[lane], b[lane], *reads && self.carry >> lane & 1 == 1);
                    out[lane] = value;
                    flags |= u32::from(flag) << lane;
                }
                if *writes {
                    self.carry = self.carry & !mask | flags;
                }
                self.set(*d, &out, mask, defined);
            }
            Kind::Pack { d, s, bits } => self.pack(*d, s, *bits, mask),
            Kind::Unpack { d, s, bits } => {
                let (value, defined) = (self.get(*s), self.defined(*s));
                for (at, slot) in d.iter().enumerate() {
                    let by = at as u32 * bits;
                    let part = value.map(|value| value >> by & (u64::MAX >> (64 - bits)));
                    self.set(*slot, &part, mask, defined);
                }
            }
            _ => return false,
        }
        true
    }

    fn pack(&mut self, d: Slot, s: &[Slot], bits: u32, mask: u32) {
        let mut out = [0; 32];
        let mut defined = FULL;
        for (at, slot) in s.iter().enumerate() {
            let value = self.get(*slot);
            defined &= self.defined(*slot);
            for lane in 0..32 {
                out[lane] |= (value[lane] & (u64::MAX >> (64 - bits))) << (at as u32 * bits);
            }
        }
        self.set(d, &out, mask, defined);
    }

    /// Defined where the predicate and the operand chosen are.
    fn selp(&mut self, d: Slot, a: Slot, b: Slot, (p, p_defined): (u32, u32), mask: u32) {
        let defined = p_defined & (p & self.defined(a) | !p & self.defined(b));
        if let (Slot::W(d), Slot::W(a), Slot::W(b)) = (d, a, b) {
            let (a, b) = (&self.w[a as usize], &self.w[b as usize]);
            let out = std::array::from_fn(|lane| if p >> lane & 1 == 1 { a[lane] } else { b[lane] });
            return self.set_w(d, &out, mask, defined);
        }
        let (a, b) = (self.get(a), self.get(b));
        let out = std::array::from_fn(|lane| if p >> lane & 1 == 1 { a[lane] } else { b[lane] });
        self.set(d, &out, mask, defined);
    }

    fn setp(&mut self, kind: &Kind, mask: u32) {
        let Kind::SetP { f, d, d2, a, b, logic: how, c } = kind else {
            return;
        };
        let value = match (f, a, b) {
            (Compare::W(f), Slot::W(a), Slot::W(b)) => f(&self.w[*a as usize], &self.w[*b as usize]),
            (Compare::D(f), Slot::D(a), Slot::D(b)) => f(&self.d[*a as usize], &self.d[*b as usize]),
            (Compare::Scalar(f), ..) => {
                let (a, b) = (self.get(*a), self.get(*b));
                super::warp::lanes(mask).fold(0, |bits, lane| bits | u32::from(f(a[lane], b[lane])) << lane)
            }
            _ => 0,
        };
        let defined = self.defined(*a) & self.defined(*b);
        let c = c.map_or((FULL, FULL), |c| self.pred(c));
        for (target, value) in [(d, value), (d2, !value)] {
            if let Some(index) = target {
                let (value, defined) = logic(*how, (value, defined), c);
                self.set_p(*index, value, mask, defined);
            }
        }
    }
}

/// Value and definedness: a false `and` and a true `or` need only one operand.
fn logic(f: Logic, (a, a_defined): (u32, u32), (b, b_defined): (u32, u32)) -> (u32, u32) {
    let both = a_defined & b_defined;
    match f {
        Logic::And => (a & b, both | a_defined & !a | b_defined & !b),
        Logic::Or => (a | b, both | a_defined & a | b_defined & b),
        Logic::Xor => (a ^ b, both),
        Logic::First => (a, a_defined),
    }
}
