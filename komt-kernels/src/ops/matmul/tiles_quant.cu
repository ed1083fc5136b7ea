// The products of quantised weights. The template is tiles.cuh, the format quant.cuh.

TILE(matmul_skinny_16_q8, 4, 8, 16, 64, 64, 1, 1, 4, 4)
TILE(matmul_skinny_32_q8, 3, 8, 32, 64, 64, 1, 1, 4, 4)
TILE(matmul_skinny_64_q8, 2, 8, 64, 64, 64, 1, 1, 4, 4)
TILE(matmul_gemm_q8, 2, 8, 128, 128, 32, 1, 4, 1, 3)

TILE(matmul_skinny_16_q4, 4, 4, 16, 64, 64, 1, 1, 4, 4)
TILE(matmul_skinny_32_q4, 3, 4, 32, 64, 64, 1, 1, 4, 4)
TILE(matmul_skinny_64_q4, 2, 4, 64, 64, 64, 1, 1, 4, 4)
TILE(matmul_gemm_q4, 2, 4, 128, 128, 32, 1, 4, 1, 3)
