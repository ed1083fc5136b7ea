//! mma, ldmatrix, stmatrix through PTX: the order of registers and the forms' names. Arithmetic and lane maps: the unit tests of `mma`.

use super::harness::{check_warp, run_block, run_registers};

/// A form: name, m, k, elements of A and B per register, encodings of 0..=127 for A and B, of small integers for C and D.
struct Form {
    name: &'static str,
    m: usize,
    k: usize,
    per: usize,
    value: fn(u32) -> u32,
    sum: fn(u32) -> u32,
    /// Sums are packed pairs of f16.
    pairs: bool,
}

fn f16(x: u32) -> u32 {
    u32::from(::half::f16::from_f32(x as f32).to_bits())
}

fn bf16(x: u32) -> u32 {
    u32::from(::half::bf16::from_f32(x as f32).to_bits())
}

fn f32(x: u32) -> u32 {
    (x as f32).to_bits()
}

fn int(x: u32) -> u32 {
    x
}

const FORMS: [Form; 13] = [
    Form {
        name: "m16n8k16.row.col.f32.f16.f16.f32",
        m: 16,
        k: 16,
        per: 2,
        value: f16,
        sum: f32,
        pairs: false,
    },
    Form {
        name: "m16n8k16.row.col.f16.f16.f16.f16",
        m: 16,
        k: 16,
        per: 2,
        value: f16,
        sum: f16,
        pairs: true,
    },
    Form {
        name: "m16n8k16.row.col.f32.bf16.bf16.f32",
        m: 16,
        k: 16,
        per: 2,
        value: bf16,
        sum: f32,
        pairs: false,
    },
    Form { name: "m16n8k8.row.col.f32.f16.f16.f32", m: 16, k: 8, per: 2, value: f16, sum: f32, pairs: false },
    Form { name: "m16n8k8.row.col.f16.f16.f16.f16", m: 16, k: 8, per: 2, value: f16, sum: f16, pairs: true },
    Form {
        name: "m16n8k8.row.col.f32.bf16.bf16.f32",
        m: 16,
        k: 8,
        per: 2,
        value: bf16,
        sum: f32,
        pairs: false,
    },
    Form {
        name: "m16n8k8.row.col.f32.tf32.tf32.f32",
        m: 16,
        k: 8,
        per: 1,
        value: f32,
        sum: f32,
        pairs: false,
    },
    Form {
        name: "m16n8k4.row.col.f32.tf32.tf32.f32",
        m: 16,
        k: 4,
        per: 1,
        value: f32,
        sum: f32,
        pairs: false,
    },
    Form { name: "m16n8k32.row.col.s32.s8.s8.s32", m: 16, k: 32, per: 4, value: int, sum: int, pairs: false },
    Form {
        name: "m16n8k32.row.col.satfinite.s32.u8.s8.s32",
        m: 16,
        k: 32,
        per: 4,
        value: int,
        sum: int,
        pairs: false,
    },
    Form { name: "m16n8k16.row.col.s32.s8.u8.s32", m: 16, k: 16, per: 4, value: int, sum: int, pairs: false },
    Form { name: "m8n8k16.row.col.s32.u8.u8.s32", m: 8, k: 16, per: 4, value: int, sum: int, pairs: false },
    Form {
        name: "m8n8k16.row.col.satfinite.s32.s8.s8.s32",
        m: 8,
        k: 16,
        per: 4,
        value: int,
        sum: int,
        pairs: false,
    },
];

/// Element (k, n) of B: below 128, so exact in every format.
fn right(k: usize, n: usize) -> u32 {
    ((k * 5 + n * 3) % 128) as u32
}

/// Registers of a fragment from its elements: `at(register, lane, element)`.
fn fragment(count: usize, per: usize, bits: u32, at: impl Fn(usize, usize, usize) -> u32) -> Vec<[u32; 32]> {
    let word = |r, lane| (0..per).fold(0, |word, i| word | at(r, lane, i) << (bits * i as u32));
    (0..count).map(|r| std::array::from_fn(|lane| word(r, lane))).collect()
}

/// A is the identity (as far as it goes), so D = B + C, row for row; rows beyond k are C.
fn check_form(form: &Form) {
    let Form { m, k, per, .. } = *form;
    let (bits, chunks) = (32 / per as u32, k / (4 * per));
    let place = |lane: usize| (lane / 4, lane % 4);
    let a = fragment(chunks * m / 8, per, bits, |r, lane, i| {
        let (g, t) = place(lane);
        let row = g + if m == 16 { 8 * (r % 2) } else { 0 };
        let col = r / (m / 8) * 4 * per + t * per + i;
        (form.value)(u32::from(row == col))
    });
    let b = fragment(chunks, per, bits, |r, lane, i| {
        let (g, t) = place(lane);
        (form.value)(right(r * 4 * per + t * per + i, g))
    });
    let sums = |with_b: bool| {
        let at = |row: usize, col: usize| {
            let start = (row + 2 * col) as u32;
            (form.sum)(start + if with_b && row < k { right(row, col) } else { 0 })
        };
        if form.pairs {
            fragment(m / 8, 2, 16, |r, lane, i| at(lane / 4 + 8 * r, 2 * (lane % 4) + i))
        } else {
            fragment(m / 4, 1, 32, |r, lane, _| at(lane / 4 + 8 * (r / 2), 2 * (lane % 4) + r % 2))
        }
    };
    let (c, expect) = (sums(false), sums(true));
    // Registers 1.. are A, B, C in turn, lane l of register r at word 32 (r - 1) + l of the buffer; D in 9.. shares none with them.
    let all: Vec<u32> = [&a, &b, &c].into_iter().flatten().flatten().copied().collect();
    let mut body = String::from("mul.wide.u32 %d1, %r0, 4; add.u64 %d1, %in, %d1;");
    let names: Vec<String> = (0..all.len() / 32).map(|r| format!("%q{r}")).collect();
    body += ".reg .b32 %q<12>; .reg .b32 %e<4>;";
    for (r, name) in names.iter().enumerate() {
        body += &format!("ld.global.b32 {name}, [%d1+{}];", 128 * r);
    }
    let list = |names: &[String]| names.join(", ");
    let (a_names, rest) = names.split_at(a.len());
    let (b_names, c_names) = rest.split_at(b.len());
    let d_names: Vec<String> = (9..9 + c.len()).map(|r| format!("%r{r}")).collect();
    body += &format!(
        "mma.sync.aligned.{} {{{}}}, {{{}}}, {{{}}}, {{{}}};",
        form.name,
        list(&d_names),
        list(a_names),
        list(b_names),
        list(c_names)
    );
    let got = run_registers(&body, &all, 9..9 + c.len());
    assert_eq!(got, expect.iter().map(|lanes| lanes.to_vec()).collect::<Vec<_>>(), "{}", form.name);
}

#[test]
fn identity_times_b_plus_c() {
    FORMS.iter().for_each(check_form);
}

/// Shared memory becomes bytes of four matrices, 128 bytes each: element (r, c) of matrix m is 64 m + 8 r + c. A lane's address operand points
/// at row `lane % 8` of matrix `lane / 8`, the lanes that the form does not use at nonsense.
fn ldmatrix(form: &str, matrices: usize) -> Vec<Vec<u32>> {
    let input: Vec<u32> = (0..128).map(|w| (2 * w) | ((2 * w + 1) << 16)).collect();
    let list: Vec<String> = (9..9 + matrices).map(|r| format!("%r{r}")).collect();
    let body = format!(
        "mov.u32 %r1, tile; mad.lo.u32 %r1, %r0, 16, %r1; mul.wide.u32 %d1, %r0, 16; add.u64 %d1, %in, %d1;
        ld.global.v4.u32 {{%r2, %r3, %r4, %r5}}, [%d1]; st.shared.v4.u32 [%r1], {{%r2, %r3, %r4, %r5}}; bar.sync 0;
        setp.ge.u32 %p1, %r0, {}; @%p1 mov.u32 %r1, 0x7ffffff1;
        ldmatrix.sync.aligned.m8n8.{form}.b16 {{{}}}, [%r1];",
        8 * matrices,
        list.join(", ")
    );
    run_registers(&body, &input, 9..9 + matrices)
}

#[test]
fn matrices_are_loaded() {
    for (form, matrices, trans) in [
        ("x1.shared", 1, false),
        ("x2.shared", 2, false),
        ("x4.shared", 4, false),
        ("x4.shared::cta", 4, false),
        ("x1.trans.shared", 1, true),
        ("x2.trans.shared", 2, true),
        ("x4.trans.shared", 4, true),
    ] {
        let expect: Vec<Vec<u32>> = (0..matrices)
            .map(|m| {
                let element = |r: u32, c: u32| 64 * m + 8 * r + c;
                let word = |l: u32| {
                    let (g, t) = (l / 4, l % 4);
                    if trans {
                        element(2 * t, g) | element(2 * t + 1, g) << 16
                    } else {
                        element(g, 2 * t) | element(g, 2 * t + 1) << 16
                    }
                };
                (0..32).map(word).collect()
            })
            .collect();
        assert_eq!(ldmatrix(form, matrices as usize), expect, "{form}");
    }
}

#[test]
fn matrices_are_stored() {
    // stmatrix then ldmatrix of the same form gives the registers back; plain then read by rows, the layout.
    for form in ["", ".trans"] {
        let body = format!(
            "mov.u32 %r1, tile; mad.lo.u32 %r1, %r0, 16, %r1; add.u32 %r2, %r0, 100;
            stmatrix.sync.aligned.m8n8.x2{form}.shared.b16 [%r1], {{%r0, %r2}}; bar.sync 0;
            ldmatrix.sync.aligned.m8n8.x2{form}.shared.b16 {{%r3, %r9}}, [%r1];"
        );
        check_warp(&body, &[], |l| l + 100);
    }
    let rows = "mov.u32 %r1, tile; mad.lo.u32 %r2, %r0, 16, %r1; stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r2], {%r0}; bar.sync 0;
        mad.lo.u32 %r2, %r0, 4, %r1; ld.shared.u32 %r9, [%r2];";
    check_warp(rows, &[], |l| l);
    // Four matrices: register m of lane l is word l of matrix m, 128 bytes each.
    for m in 0..4 {
        let body = format!(
            "mov.u32 %r1, tile; mad.lo.u32 %r2, %r0, 16, %r1;
            add.u32 %r3, %r0, 1000; add.u32 %r4, %r0, 2000; add.u32 %r5, %r0, 3000;
            stmatrix.sync.aligned.m8n8.x4.shared::cta.b16 [%r2], {{%r0, %r3, %r4, %r5}}; bar.sync 0;
            mad.lo.u32 %r2, %r0, 4, %r1; ld.shared.u32 %r9, [%r2+{}];",
            128 * m
        );
        let (got, _) = run_block(1, 32, &body, &[]).unwrap_or_else(|e| panic!("{body}\n{e}"));
        assert_eq!(got, (0..32).map(|l| 1000 * m + l).collect::<Vec<_>>(), "matrix {m}");
    }
    // Transposed: lane 4 g + t holds elements (2 t, g) and (2 t + 1, g), here 4 g + t and 100 more. Lane l reads (row, 2 c) and (row, 2 c + 1).
    let turned = "mov.u32 %r1, tile; mad.lo.u32 %r2, %r0, 16, %r1; mad.lo.u32 %r3, %r0, 0x10001, 0x640000;
        stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%r2], {%r3}; bar.sync 0;
        mad.lo.u32 %r2, %r0, 4, %r1; ld.shared.u32 %r9, [%r2];";
    check_warp(turned, &[], |l| {
        let (row, c) = (l / 4, l % 4);
        let element = |col: u32| 4 * col + row / 2 + 100 * (row % 2);
        element(2 * c) | element(2 * c + 1) << 16
    });
}
