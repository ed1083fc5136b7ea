//! Control flow: calls, tables of labels, lanes that part and meet again.

#![allow(clippy::unwrap_used)]

use super::{Complaint, ComplaintKind, Launch, LoadedModule, RunOptions, run};
use crate::memory::Memory;
use crate::spec::DeviceSpec;

/// Runs a body over 32 threads: `%tid` is the thread, `[%out]` its 32-bit place. Returns what was stored.
fn results(body: &str) -> Result<Vec<u32>, Box<Complaint>> {
    let text = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n
.func (.param .b32 back) square(.param .b32 x)
{{ .reg .b32 %a; .reg .pred %odd; ld.param.u32 %a, [x]; mul.lo.u32 %a, %a, %a; setp.gt.u32 %odd, %a, 100;
   @%odd bra $large; st.param.b32 [back], %a; ret; $large: st.param.b32 [back], 100; ret; }}
.visible .entry test(.param .u64 to)
{{ .reg .b32 %tid, %a, %b, %c; .reg .b64 %out, %wide; .reg .pred %p, %q;
   mov.u32 %tid, %tid.x; ld.param.u64 %out, [to]; mul.wide.u32 %wide, %tid, 4; add.u64 %out, %out, %wide;
   {body}
   st.global.u32 [%out], %a; ret; }}"
    );
    let spec = DeviceSpec::sm(80);
    let memory = Memory::new(1 << 16);
    let module = LoadedModule::new(crate::ptx::parse(&text, &spec).unwrap(), &memory).unwrap();
    let to = memory.alloc(128).unwrap();
    let kernel = module.module.kernel("test").unwrap();
    let params = &to.to_le_bytes();
    let launch = Launch { kernel, grid: [1; 3], block: [32, 1, 1], dynamic_shared_bytes: 0, params };
    run(&launch, &module, &memory, &spec, &RunOptions::default()).map_err(Box::new)?;
    let mut bytes = [0; 128];
    memory.read(to, &mut bytes).unwrap();
    Ok(bytes.chunks(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect())
}

#[test]
fn a_function_is_called_by_the_lanes_that_want_it_and_returns_to_each_caller() {
    let call = "{ .param .b32 x1; .param .b32 r1; st.param.b32 [x1], %b; call.uni (r1), square, (x1); ld.param.b32 %a, [r1]; }";
    let body = format!(
        "mov.u32 %a, 7; mov.u32 %b, %tid; setp.lt.u32 %p, %tid, 4; @%p bra $skip; {call} $skip: add.u32 %b, %a, 1; {call}"
    );
    let expect = (0..32u32).map(|tid| {
        let square = |x: u32| (x * x).min(100);
        let first = if tid < 4 { 7 } else { square(tid) };
        square(first + 1)
    });
    assert_eq!(results(&body).unwrap(), expect.collect::<Vec<_>>());
}

#[test]
fn a_table_sends_each_lane_to_its_own_label() {
    let body = "and.b32 %b, %tid, 3; $table: .branchtargets $zero, $one, $two, $three; brx.idx %b, $table;
        $three: mov.u32 %a, 33; bra $end; $two: mov.u32 %a, 22; bra $end;
        $zero: mov.u32 %a, 0; bra $end; $one: mov.u32 %a, 11; $end: shfl.sync.bfly.b32 %a, %a, 1, 31, -1;";
    let expect: Vec<u32> = (0..32).map(|tid| 11 * ((tid ^ 1) & 3)).collect();
    assert_eq!(results(body).unwrap(), expect);
}

#[test]
fn lanes_wait_for_those_that_come_from_further_down() {
    // Odd lanes take a path that lies behind the shuffle and jumps back to it.
    let body = "and.b32 %b, %tid, 1; setp.ne.u32 %p, %b, 0; mov.u32 %a, %tid; @%p bra $cold;
        $meet: shfl.sync.bfly.b32 %a, %a, 1, 31, -1; bra $end;
        $cold: add.u32 %a, %a, 100; bra $meet; $end: add.u32 %a, %a, 0;";
    let expect: Vec<u32> = (0..32).map(|tid| (tid ^ 1) + if tid & 1 == 0 { 100 } else { 0 }).collect();
    assert_eq!(results(body).unwrap(), expect);
}

#[test]
fn halves_of_a_warp_shuffle_apart() {
    let body = "setp.lt.u32 %p, %tid, 16; mov.u32 %a, %tid; @%p bra $low;
        shfl.sync.bfly.b32 %a, %a, 1, 31, 0xffff0000; bra $end;
        $low: shfl.sync.bfly.b32 %a, %a, 2, 31, 0x0000ffff; $end: add.u32 %a, %a, 0;";
    let expect: Vec<u32> = (0..32).map(|tid| if tid < 16 { tid ^ 2 } else { tid ^ 1 }).collect();
    assert_eq!(results(body).unwrap(), expect);
}

#[test]
fn lanes_at_different_shuffles_wait_in_vain() {
    let body = "setp.lt.u32 %p, %tid, 16; mov.u32 %a, %tid; @%p bra $low;
        shfl.sync.bfly.b32 %a, %a, 1, 31, -1; bra $end;
        $low: shfl.sync.bfly.b32 %a, %a, 2, 31, -1; $end: add.u32 %a, %a, 0;";
    let complaint = results(body).unwrap_err();
    assert_eq!(complaint.kind, ComplaintKind::Divergence, "{complaint}");
    assert!(
        complaint.detail.contains("0xffff0000") && complaint.detail.contains("lane 0 waits at"),
        "{complaint}"
    );
}
