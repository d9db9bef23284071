// Matrix products C = op(A) op(B) in float32 for linear layers and matmul: the main loop of gemm_simt.cuh on two plain matrices.
//
// The two letters of an instance say how A and B are stored: n as they are multiplied, A (M, K) and B (K, N); t transposed, A (K, M)
// and B (N, K). C is (M, N). `batch` products at once: each operand then has a leading axis.
//
// Launch: gridDim.x = tiles of C times batch (TileIndex), gridDim.y = splits of K, block = Tile::THREADS. With one split, C gets the
// results and bias[n] (or nothing, if bias is null); with more, C is (splits, batch, M, N), takes partial sums over K / k_per_split parts of K,
// and split_k.cu adds them up. vec4 instances need that each operand's rows in memory, and C's, are a multiple of 4 long and that arrays
// start at multiples of 16 bytes; scalar instances take everything.

#pragma once

#include "gemm_simt.cuh"

template <class T, int VEC, bool TRANSPOSE_A, bool TRANSPOSE_B>
__device__ __forceinline__ void gemm(
    const float* a_matrix, const float* b_matrix, const float* bias, float* c, int M, int N, int K, int batch, int k_per_split) {
    const TileIndex tile(blockIdx.x, ceil_div(M, T::BM), ceil_div(N, T::BN));
    __shared__ Block block;
    if (threadIdx.x == 0) block = Block{tile.m * T::BM, M, tile.n * T::BN, N, tile.outer};

    const int k_begin = blockIdx.y * k_per_split, k_end = min(K, k_begin + k_per_split);
    MatrixSource<T, T::BM, VEC, !TRANSPOSE_A> a(
        a_matrix + static_cast<long long>(tile.outer) * M * K, TRANSPOSE_A ? M : K, tile.m * T::BM, M, k_begin, k_end);
    MatrixSource<T, T::BN, VEC, TRANSPOSE_B> b(
        b_matrix + static_cast<long long>(tile.outer) * K * N, TRANSPOSE_B ? K : N, tile.n * T::BN, N, k_begin, k_end);
    float acc[T::TM][T::TN];
    gemm_mainloop<T>(a, b, ceil_div(k_end - k_begin, T::BK), acc);
    gemm_epilogue<T, VEC>(acc, c, bias, block, [&](int row) {
        return ((static_cast<long long>(blockIdx.y) * batch + block.outer) * M + row) * N;
    });
}
