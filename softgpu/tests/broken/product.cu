// c [16, 16] = a [16, 64] . b [16, 64]^T in bf16 on tensor cores: two warps of 8 columns each. Rows of shared memory have 128
// bytes, 8 chunks of 16; chunk c of row r lies at c ^ r % 8, so that the 8 rows of a matrix lie in different banks.
typedef unsigned int u32;

#ifdef LOST_SWIZZLE
#define SWIZZLE(row) 0
#else
#define SWIZZLE(row) ((row) % 8)
#endif
#ifdef SWIZZLE_OF_ONE_SIDE
#define SWIZZLE_OF_READER(row) 0
#else
#define SWIZZLE_OF_READER(row) SWIZZLE(row)
#endif

extern "C" __global__ void product(const uint4 *a, const uint4 *b, float *c, u32 rows) {
    __shared__ __align__(128) uint4 tile[32][8];
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (u32 i = threadIdx.x; i < 256; i += 64) {
        const u32 row = i / 8, chunk = i % 8;
        tile[row][chunk ^ SWIZZLE(row)] = row < 16 ? a[row * 8 + chunk] : b[(row - 16) * 8 + chunk]; // caught: missing_barrier
    }
#ifndef MISSING_BARRIER
    __syncthreads();
#endif
    float d[4] = {0, 0, 0, 0};
#ifdef GUARDED_MMA
    if (lane / 4 < rows)
#endif
#pragma unroll 1
    for (u32 k = 0; k < 4; k++) {
        u32 fa[4], fb[2];
        const u32 row_a = lane % 16, chunk_a = 2 * k + lane / 16;
        const u32 row_b = 16 + 8 * warp + lane % 8, chunk_b = 2 * k + lane / 8 % 2;
        const u32 at_a = u32(__cvta_generic_to_shared(&tile[row_a][chunk_a ^ SWIZZLE_OF_READER(row_a)]));
        const u32 at_b = u32(__cvta_generic_to_shared(&tile[row_b][chunk_b ^ SWIZZLE_OF_READER(row_b)]));
        // caught below: missing_barrier, guarded_mma, mma_of_part
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(fa[0]), "=r"(fa[1]), "=r"(fa[2]), "=r"(fa[3]) : "r"(at_a) : "memory");
        // caught below: missing_barrier
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(fb[0]), "=r"(fb[1]) : "r"(at_b) : "memory");
#ifdef MMA_OF_PART
        if (lane / 4 < rows)
#endif
        // caught below: mma_of_part
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[0]), "r"(fb[1]));
    }
    const u32 row = lane / 4, col = 8 * warp + lane % 4 * 2;
    if (row < rows) c[row * 16 + col] = d[0], c[row * 16 + col + 1] = d[1];
    if (row + 8 < rows) c[(row + 8) * 16 + col] = d[2], c[(row + 8) * 16 + col + 1] = d[3];
}
