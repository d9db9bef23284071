// Matrix products C = op(A) op(B) in float32 for linear layers and matmul: the main loop of gemm_simt.cuh on two plain matrices.
//
// The two letters of an instance say how A and B are stored: n as they are multiplied, A (M, K) and B (K, N); t transposed, A (K, M)
// and B (N, K). C is (M, N). `batch` products at once: each operand then has a leading axis.
//
// A linear layer's products: y = x w^T is nt with bias and ReLU, dx = dy w is nn with a mask, and dw = dy^T x is tn, which also takes the
// sums of dy's columns, the gradient of the bias, as row_sums (M,) where that is given (batch 1; the blocks of the first column of tiles do it).
//
// Launch: gridDim.x = tiles of C times batch (TileIndex), gridDim.y = parts of K, k_per_part terms each (join_parts; with one part workspace and
// counters are not used), block = Tile::THREADS. vec4 instances need that each operand's rows in memory, and C's, are a multiple of 4
// long and that arrays start at multiples of 16 bytes; scalar instances take everything.

#pragma once

#include "gemm_simt.cuh"

struct GemmShape {
    int M, N, K, batch, k_per_part, relu;
};

template <class T, int VEC, bool TRANSPOSE_A, bool TRANSPOSE_B>
__device__ __forceinline__ void gemm(
    const float* a_matrix, const float* b_matrix, const float* bias, const float* mask, float* c, float* row_sums, float* workspace,
    unsigned* counters, const GemmShape& shape) {
    const int M = shape.M, N = shape.N, K = shape.K;
    const TileIndex tile(blockIdx.x, ceil_div(M, T::BM), ceil_div(N, T::BN));
    __shared__ RowOffsets<T> rows;
    rows.fill([&](int row) {
        return tile.m * T::BM + row < M ? (static_cast<long long>(tile.outer) * M + tile.m * T::BM + row) * N : -1;
    });

    const int k_begin = blockIdx.y * shape.k_per_part, k_end = min(K, k_begin + shape.k_per_part);
    MatrixSource<T, OperandA<T>, VEC, !TRANSPOSE_A> a(
        a_matrix + static_cast<long long>(tile.outer) * M * K, TRANSPOSE_A ? M : K, tile.m * T::BM, M, k_begin, k_end);
    MatrixSource<T, OperandB<T>, VEC, TRANSPOSE_B> b(
        b_matrix + static_cast<long long>(tile.outer) * K * N, TRANSPOSE_B ? K : N, tile.n * T::BN, N, k_begin, k_end);
    float acc[T::TM][T::TN];
    constexpr bool SUMS = TRANSPOSE_A && !TRANSPOSE_B;
    const int stages = ceil_div(max(k_end - k_begin, 0), T::BK);
    float row_sum;
    if constexpr (SUMS) {
        RowSums<T> sums;
        gemm_mainloop<T>(a, b, stages, acc, sums, row_sums != nullptr && tile.n == 0);
        row_sum = sums.sum;
    } else {
        NoRowSums sums;
        gemm_mainloop<T>(a, b, stages, acc, sums, false);
    }
    if (!join_parts<T, SUMS>(workspace, counters, acc, row_sum)) return;
    gemm_epilogue<T, VEC>(acc, c, Epilogue{bias, mask, shape.relu != 0}, rows, tile.n * T::BN, N);
    if (SUMS && row_sums != nullptr && tile.n == 0 && threadIdx.x < T::BM) {
        const int row = tile.m * T::BM + threadIdx.x;
        if (row < M) row_sums[row] = row_sum;
    }
}
