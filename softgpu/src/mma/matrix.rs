//! Which lane holds what of an 8x8 matrix of 16-bit elements (PTX ISA 9.7.14.5.15, `ldmatrix`, and .16, `stmatrix`).

/// The lane whose address operand points at row `row` (0..8) of matrix `matrix` (0..4). `.x1` reads lanes 0..8 only, `.x2` 0..16.
pub fn ldmatrix_lane(matrix: usize, row: usize) -> usize {
    matrix * 8 + row
}

/// What one matrix puts into its destination register: `rows[r]` are the 16 bytes of row r as four little-endian words (elements 2w and
/// 2w + 1 in word w). Plain: lane 4g + t gets elements (g, 2t) and (g, 2t + 1). `trans`: it gets (2t, g) low and (2t + 1, g) high.
/// The mapping is of bytes, so masks of defined bytes go through the same function.
#[inline]
pub fn ldmatrix(rows: &[[u32; 4]; 8], trans: bool) -> [u32; 32] {
    let mut out = [0; 32];
    for (lane, word) in out.iter_mut().enumerate() {
        let (g, t) = (lane / 4, lane % 4);
        *word = if trans { element(rows, 2 * t, g) | element(rows, 2 * t + 1, g) << 16 } else { rows[g][t] };
    }
    out
}

#[inline]
fn element(rows: &[[u32; 4]; 8], row: usize, col: usize) -> u32 {
    rows[row][col / 2] >> (16 * (col % 2)) & 0xffff
}

/// The inverse of [`ldmatrix`]: the rows that one source register stores.
#[inline]
pub fn stmatrix(register: &[u32; 32], trans: bool) -> [[u32; 4]; 8] {
    let mut rows = [[0; 4]; 8];
    for (lane, &word) in register.iter().enumerate() {
        let (g, t) = (lane / 4, lane % 4);
        if trans {
            rows[2 * t][g / 2] |= (word & 0xffff) << (16 * (g % 2));
            rows[2 * t + 1][g / 2] |= (word >> 16) << (16 * (g % 2));
        } else {
            rows[g][t] = word;
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Element (r, c) is 16 r + c.
    fn rows() -> [[u32; 4]; 8] {
        std::array::from_fn(|r| {
            std::array::from_fn(|w| (16 * r + 2 * w) as u32 | ((16 * r + 2 * w + 1) as u32) << 16)
        })
    }

    #[test]
    fn lanes_hold_what_the_isa_figure_says() {
        let plain = ldmatrix(&rows(), false);
        // Lane 0: (0,0),(0,1). Lane 5: row 1, columns 2 and 3. Lane 31: row 7, columns 6 and 7.
        assert_eq!((plain[0], plain[5], plain[31]), (0x0001_0000, 0x0013_0012, 0x0077_0076));
        let trans = ldmatrix(&rows(), true);
        // Lane 5 (g 1, t 1): (2,1),(3,1). Lane 31: (6,7),(7,7).
        assert_eq!((trans[0], trans[5], trans[31]), (0x0010_0000, 0x0031_0021, 0x0077_0067));
    }

    #[test]
    fn stmatrix_is_the_inverse() {
        for trans in [false, true] {
            assert_eq!(stmatrix(&ldmatrix(&rows(), trans), trans), rows());
        }
        assert_eq!(ldmatrix_lane(2, 3), 19);
    }
}
