// The products of 16-bit weights, and what adds the parts of any. The template is tiles.cuh.

TILE(matmul_skinny_16, 4, 16, 16, 64, 64, 1, 1, 4, 4)
TILE(matmul_skinny_32, 3, 16, 32, 64, 64, 1, 1, 4, 4)
TILE(matmul_skinny_64, 2, 16, 64, 64, 64, 1, 1, 4, 4)
TILE(matmul_gemm, 2, 16, 128, 128, 32, 2, 2, 1, 3)

struct ReduceParams {
    const float *partials; // [splits, rows, n]
    void *out;             // as in TileParams
    u32 rows, n, splits;
    u32 epilogue; // Epilogue
};
static_assert(sizeof(ReduceParams) == 32, "ReduceParams");

// The epilogue of tiles whose columns were split. Mapping: a thread has one output; grid (outputs of a row / 256, rows).
// Preconditions: the launch before it, of gridDim.z == splits blocks a tile, has written all of partials; rows <= 65,535, the
// blocks of a grid in y; with SwiGLU n is even.
// Bytes moved: splits * 4 read for each sum, 2 or 4 written for each output, with ADD_F32 4 read.
extern "C" __global__ void __launch_bounds__(256) matmul_reduce(const ReduceParams p) {
    const u32 r = blockIdx.y, c = blockIdx.x * 256 + threadIdx.x;
    const u32 width = p.epilogue == SWIGLU ? p.n / 2 : p.n;
    if (c >= width) return;
    const float *from = p.partials + u64(r) * p.n + c;
    const u64 split = u64(p.rows) * p.n, at = u64(r) * width + c;
    float sum = 0.0f, up = 0.0f;
    for (u32 s = 0; s < p.splits; s++, from += split) {
        sum += from[0];
        if (p.epilogue == SWIGLU) up += from[width];
    }
    if (p.epilogue == STORE) {
        static_cast<A *>(p.out)[at] = to_a(sum);
    } else if (p.epilogue == ADD_F32) {
        static_cast<float *>(p.out)[at] += sum;
    } else if (p.epilogue == STORE_F32) {
        static_cast<float *>(p.out)[at] = sum;
    } else {
        static_cast<A *>(p.out)[at] = to_a(silu(sum) * up);
    }
}
