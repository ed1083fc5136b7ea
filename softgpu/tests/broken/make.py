#!/usr/bin/env python3
"""Compiles the kernels of this directory to the PTX beside them.

usage: softgpu/tests/broken/make.py [LIBNVRTC]        default: target/cuda/lib/libnvrtc.so.12, see tools/fetch-cuda

NAME.right.ARCH.ptx is NAME.cu as it is; NAME.FORM.ARCH.ptx is NAME.cu with the macro FORM (in upper case), which makes the one
edit that breaks it. The texts in the repository are those of NVRTC 12.9.86. Another version may move instructions between lines.
"""

import ctypes
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Forms of each file. For compute_100 and up NVRTC has another front end: other opcodes for the same source.
FORMS = {
    "reduce": (
        [80, 100],
        [
            "missing_first_barrier",
            "missing_barrier",
            "barrier_of_warps_only",
            "warp_in_step",
            "divergent_barrier",
            "early_return",
        ],
    ),
    "scale": ([80, 100], ["off_by_one", "dropped_guard", "misaligned_load"]),
    "copy": ([80, 100], ["missing_wait", "missing_barrier", "dropped_zero_fill", "misaligned"]),
    "pipeline": (
        [80, 100],
        ["missing_trailing_barrier", "missing_barrier", "wait_for_one_less", "one_buffer"],
    ),
    "transpose": ([80], ["lost_swizzle", "swizzle_of_one_side"]),
    "product": (
        [80, 100],
        ["lost_swizzle", "swizzle_of_one_side", "missing_barrier", "guarded_mma", "mma_of_part"],
    ),
    "shuffle": ([80, 100], ["guarded_shuffle", "missing_member", "guarded_vote", "from_absent_lane"]),
    "races": (
        [80],
        [
            "two_lanes_one_place",
            "missing_warp_barrier",
            "not_atomic",
            "read_beside_atomics",
            "overlap",
            "missing_global_barrier",
        ],
    ),
    "unwritten": ([80, 100], ["fill_one_short", "seconds"]),
    "hanging": ([80], ["dropped_arrive", "wrong_count", "dropped_signal", "past_zero"]),
    "bounds": (
        [80, 100],
        [
            "shared_one_short",
            "local_one_too_many",
            "const_one_too_many",
            "const_written",
            "param_one_too_many",
            "trapped",
        ],
    ),
    "coalesced": ([80], ["piece_of_its_own"]),
}


def check(nvrtc, result, what):
    if result != 0:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(f"{what}: {nvrtc.nvrtcGetErrorString(result).decode()}")


def text_of(nvrtc, program, name):
    size = ctypes.c_size_t()
    check(nvrtc, getattr(nvrtc, f"nvrtcGet{name}Size")(program, ctypes.byref(size)), name)
    buffer = ctypes.create_string_buffer(size.value)
    check(nvrtc, getattr(nvrtc, f"nvrtcGet{name}")(program, buffer), name)
    return buffer.value.decode()


def compile_to_ptx(nvrtc, name, arch, macros):
    program = ctypes.c_void_p()
    source = (HERE / name).read_bytes()
    result = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, name.encode(), 0, None, None)
    check(nvrtc, result, name)
    options = [f"--gpu-architecture=compute_{arch}", "-lineinfo", "--std=c++17", *(f"-D{macro}" for macro in macros)]
    array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    if nvrtc.nvrtcCompileProgram(program, len(options), array) != 0:
        sys.exit(f"{name} {options}:\n{text_of(nvrtc, program, 'ProgramLog')}")
    ptx = text_of(nvrtc, program, "PTX")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return ptx


def main():
    default = HERE.parents[2] / "target/cuda/lib/libnvrtc.so.12"
    nvrtc = ctypes.CDLL(sys.argv[1] if len(sys.argv) > 1 else str(default))
    for old in HERE.glob("*.*.*.ptx"):
        old.unlink()
    for name, (archs, forms) in FORMS.items():
        for arch in archs:
            for form in ["right", *forms]:
                macros = [] if form == "right" else [form.upper()]
                ptx = compile_to_ptx(nvrtc, f"{name}.cu", arch, macros)
                # The compiler may put its working directory before the name.
                ptx = ptx.replace(f'"{Path.cwd()}/', '"')
                (HERE / f"{name}.{form}.{arch}.ptx").write_text(ptx)


main()
