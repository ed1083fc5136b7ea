"""Compiles the Triton kernels below to PTX text: programs for the software GPU that none of us wrote instruction by instruction.

    python -m venv venv && venv/bin/pip install triton==3.9.0 && venv/bin/python make.py

No GPU and no CUDA toolkit is needed: compilation stops at PTX. The PTX is committed as it comes, but for the line table (left out) and trailing
blanks. Each kernel's launch (threads, dynamic shared bytes) stands in a comment at the head of its file; tests/triton.rs reads it there.
The last two parameters of every kernel are scratch pointers that Triton adds; these kernels use none, so the tests pass zeros.
"""
import pathlib

import triton
import triton.language as tl
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

knobs.compilation.disable_line_info = True
HERE = pathlib.Path(__file__).parent


@triton.jit
def matmul(a, b, c, m, n, k, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, ACC: tl.constexpr):
    """c [m, n] = a [m, k] b [n, k]^T, all row-major; edges of every dimension masked."""
    rows = tl.program_id(0) * M + tl.arange(0, M)
    cols = tl.program_id(1) * N + tl.arange(0, N)
    inner = tl.arange(0, K)
    acc = tl.zeros((M, N), dtype=ACC)
    for start in range(0, k, K):
        at = start + inner
        x = tl.load(a + rows[:, None] * k + at[None, :], mask=(rows[:, None] < m) & (at[None, :] < k), other=0)
        y = tl.load(b + cols[None, :] * k + at[:, None], mask=(cols[None, :] < n) & (at[:, None] < k), other=0)
        acc = tl.dot(x, y, acc, out_dtype=ACC)
    out = acc.to(c.dtype.element_ty)
    tl.store(c + rows[:, None] * n + cols[None, :], out, mask=(rows[:, None] < m) & (cols[None, :] < n))


@triton.jit
def matmul_nn(a, b, c, m, n, k, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, ACC: tl.constexpr):
    """c [m, n] = a [m, k] b [k, n], all row-major: B comes through ldmatrix.trans."""
    rows = tl.program_id(0) * M + tl.arange(0, M)
    cols = tl.program_id(1) * N + tl.arange(0, N)
    inner = tl.arange(0, K)
    acc = tl.zeros((M, N), dtype=ACC)
    for start in range(0, k, K):
        at = start + inner
        x = tl.load(a + rows[:, None] * k + at[None, :], mask=(rows[:, None] < m) & (at[None, :] < k), other=0)
        y = tl.load(b + at[:, None] * n + cols[None, :], mask=(cols[None, :] < n) & (at[:, None] < k), other=0)
        acc = tl.dot(x, y, acc, out_dtype=ACC)
    out = acc.to(c.dtype.element_ty)
    tl.store(c + rows[:, None] * n + cols[None, :], out, mask=(rows[:, None] < m) & (cols[None, :] < n))


@triton.jit
def softmax(y, x, n, N: tl.constexpr):
    """y [rows, n] = softmax of x's rows; one program a row."""
    at = tl.arange(0, N)
    row = tl.program_id(0) * n
    v = tl.load(x + row + at, mask=at < n, other=-float("inf")).to(tl.float32)
    e = tl.exp(v - tl.max(v, axis=0))
    tl.store(y + row + at, (e / tl.sum(e, axis=0)).to(y.dtype.element_ty), mask=at < n)


@triton.jit
def layer_norm(y, x, w, b, n, eps, N: tl.constexpr):
    """y [rows, n] = (x - mean) / sqrt(var + eps) * w + b."""
    at = tl.arange(0, N)
    row = tl.program_id(0) * n
    v = tl.load(x + row + at, mask=at < n, other=0.0).to(tl.float32)
    mean = tl.sum(v, axis=0) / n
    d = tl.where(at < n, v - mean, 0.0)
    var = tl.sum(d * d, axis=0) / n
    scale = tl.load(w + at, mask=at < n, other=0.0)
    shift = tl.load(b + at, mask=at < n, other=0.0)
    out = d * tl.rsqrt(var + eps) * scale + shift
    tl.store(y + row + at, out.to(y.dtype.element_ty), mask=at < n)


@triton.jit
def attention(out, q, k, v, n, scale, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr):
    """Flash attention, causal: q, k, v, out [heads, n, D]; program (tile of M queries, head). `scale` includes log2 e."""
    head = tl.program_id(1) * n * D
    rows = tl.program_id(0) * M + tl.arange(0, M)
    dims = tl.arange(0, D)
    query = tl.load(q + head + rows[:, None] * D + dims[None, :], mask=rows[:, None] < n, other=0.0)
    top = tl.full((M,), -float("inf"), tl.float32)
    total = tl.zeros((M,), tl.float32)
    acc = tl.zeros((M, D), tl.float32)
    for start in range(0, tl.minimum(n, (tl.program_id(0) + 1) * M), N):
        keys = start + tl.arange(0, N)
        key = tl.load(k + head + keys[None, :] * D + dims[:, None], mask=keys[None, :] < n, other=0.0)
        s = tl.dot(query, key) * scale
        s = tl.where((keys[None, :] <= rows[:, None]) & (keys[None, :] < n), s, -1.0e30)
        new = tl.maximum(top, tl.max(s, axis=1))
        p = tl.exp2(s - new[:, None])
        shrink = tl.exp2(top - new)
        total = total * shrink + tl.sum(p, axis=1)
        value = tl.load(v + head + keys[:, None] * D + dims[None, :], mask=keys[:, None] < n, other=0.0)
        acc = tl.dot(p.to(value.dtype), value, acc * shrink[:, None])
        top = new
    acc = acc / total[:, None]
    tl.store(out + head + rows[:, None] * D + dims[None, :], acc.to(out.dtype.element_ty), mask=rows[:, None] < n)


@triton.jit
def scan(sums, places, x, n, N: tl.constexpr):
    """sums [n] = running sum of x, places [0] = index of the largest (a reduction of pairs), places [1..] counted by atomics."""
    at = tl.arange(0, N)
    v = tl.load(x + at, mask=at < n, other=0)
    tl.store(sums + at, tl.cumsum(v, axis=0), mask=at < n)
    tl.store(places, tl.argmax(tl.where(at < n, v, -(2**31)), axis=0))
    tl.atomic_add(places + 1 + (v & 3), 1, mask=at < n)


def write(name, kernel, types, constants, warps=4, stages=3, arch=80):
    """`types` of the leading parameters: *pointer types are divisible by 16, `k16` is an i32 divisible by 16."""
    names = kernel.arg_names
    signature = {n: t.replace("k16", "i32") for n, t in zip(names, types)} | {n: "constexpr" for n in constants}
    attrs = {(i,): [["tt.divisibility", 16]] for i, t in enumerate(types) if t[0] == "*" or t == "k16"}
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=attrs)
    made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": warps, "num_stages": stages})
    meta = made.metadata
    assert meta.global_scratch_size == 0 and meta.profile_scratch_size == 0
    head = f"// {name}: Triton {triton.__version__}, made by make.py. threads {meta.num_warps * 32} shared {meta.shared}\n"
    text = "\n".join(line.rstrip() for line in made.asm["ptx"].strip().splitlines())
    (HERE / f"{name}.ptx").write_text(head + text + "\n")


def main():
    tiles = {"M": 64, "N": 64, "K": 32}
    for name, a, c, acc in [("bf16", "*bf16", "*bf16", tl.float32), ("f16", "*fp16", "*fp32", tl.float32), ("i8", "*i8", "*i32", tl.int32)]:
        k = {"K": 64} if name == "i8" else {}
        write(f"matmul_{name}", matmul, [a, a, c, "i32", "i32", "k16"], tiles | k | {"ACC": acc})
    write("matmul_nn_f16", matmul_nn, ["*fp16", "*fp16", "*fp16", "i32", "k16", "k16"], tiles | {"ACC": tl.float16})
    write("matmul_tf32", matmul, ["*fp32", "*fp32", "*fp32", "i32", "i32", "k16"], tiles | {"ACC": tl.float32}, stages=2)
    write("softmax", softmax, ["*fp16", "*fp16", "i32"], {"N": 1024})
    write("softmax_odd", softmax, ["*fp32", "*fp32", "i32"], {"N": 128}, warps=1)
    write("layer_norm", layer_norm, ["*bf16", "*fp32", "*fp32", "*fp32", "i32", "fp32"], {"N": 512})
    for name, t in [("bf16", "*bf16"), ("f16", "*fp16")]:
        write(f"attention_{name}", attention, [t, t, t, t, "i32", "fp32"], {"M": 64, "N": 32, "D": 64}, stages=2)
    write("scan", scan, ["*i32", "*i32", "*i32", "i32"], {"N": 512})


if __name__ == "__main__":
    main()
