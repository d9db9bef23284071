// Uses of every wrapper of kernels/ptx.cuh.

#include "../../kernels/common.cuh"
#include "../../kernels/half.cuh"
#include "../../kernels/ptx.cuh"

// The neighbour's element comes through shared memory: y = x with the blocks of 128 floats reversed, copied 16 bytes at a time in two groups; zero from `size` on.
extern "C" __global__ void __launch_bounds__(32) reverse_by_16(IN float4* __restrict__ x, OUT float4* __restrict__ y, int size) {
    __shared__ float4 stage[2][32];
    const int first = blockIdx.x * 64 + threadIdx.x;
    cp_async_16(&stage[0][threadIdx.x], x + first);
    cp_async_commit();
    cp_async_16_zfill(&stage[1][threadIdx.x], x + first + 32, first + 32 < size);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    y[first] = stage[0][31 - threadIdx.x];
    cp_async_wait<0>();
    __syncthreads();
    y[first + 32] = stage[1][31 - threadIdx.x];
}

// The same for single floats in blocks of 32.
extern "C" __global__ void __launch_bounds__(32) reverse_by_4(IN float* __restrict__ x, OUT float* __restrict__ y, int size) {
    __shared__ float stage[2][32];
    const int first = blockIdx.x * 64 + threadIdx.x;
    cp_async_4(&stage[0][threadIdx.x], x + first);
    cp_async_4_zfill(&stage[1][threadIdx.x], x + first + 32, first + 32 < size);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    y[first] = stage[0][31 - threadIdx.x];
    y[first + 32] = stage[1][31 - threadIdx.x];
}

// A warp loads matrices of 16-bit words, 8 rows of 8 each, one below the other: y[lane][i] is lane's register i.
template <int N, bool transposed>
__device__ __forceinline__ void load_matrices(const uint4* x, unsigned* y) {
    __shared__ uint4 rows[32];
    rows[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    unsigned r[N];
    if constexpr (N == 2) {
        if constexpr (transposed) ldmatrix_x2_trans(r, &rows[threadIdx.x % 16]);
        else ldmatrix_x2(r, &rows[threadIdx.x % 16]);
    } else {
        if constexpr (transposed) ldmatrix_x4_trans(r, &rows[threadIdx.x]);
        else ldmatrix_x4(r, &rows[threadIdx.x]);
    }
    for (int i = 0; i < N; ++i) y[threadIdx.x * N + i] = r[i];
}

extern "C" __global__ void __launch_bounds__(32) load_x2(IN uint4* __restrict__ x, OUT unsigned* __restrict__ y) {
    load_matrices<2, false>(x, y);
}

extern "C" __global__ void __launch_bounds__(32) load_x2_trans(IN uint4* __restrict__ x, OUT unsigned* __restrict__ y) {
    load_matrices<2, true>(x, y);
}

extern "C" __global__ void __launch_bounds__(32) load_x4(IN uint4* __restrict__ x, OUT unsigned* __restrict__ y) {
    load_matrices<4, false>(x, y);
}

extern "C" __global__ void __launch_bounds__(32) load_x4_trans(IN uint4* __restrict__ x, OUT unsigned* __restrict__ y) {
    load_matrices<4, true>(x, y);
}

// One product: each lane's registers come from a, b and d and d goes back (lane after lane).
extern "C" __global__ void __launch_bounds__(32) product_m16n8k16_f16(IN unsigned* __restrict__ a, IN unsigned* __restrict__ b, INOUT float* __restrict__ d) {
    unsigned ra[4], rb[2];
    float rd[4];
    for (int i = 0; i < 4; ++i) ra[i] = a[threadIdx.x * 4 + i], rd[i] = d[threadIdx.x * 4 + i];
    for (int i = 0; i < 2; ++i) rb[i] = b[threadIdx.x * 2 + i];
    mma_m16n8k16_f16(rd, ra, rb);
    for (int i = 0; i < 4; ++i) d[threadIdx.x * 4 + i] = rd[i];
}

extern "C" __global__ void __launch_bounds__(32) product_m16n8k16_bf16(IN unsigned* __restrict__ a, IN unsigned* __restrict__ b, INOUT float* __restrict__ d) {
    unsigned ra[4], rb[2];
    float rd[4];
    for (int i = 0; i < 4; ++i) ra[i] = a[threadIdx.x * 4 + i], rd[i] = d[threadIdx.x * 4 + i];
    for (int i = 0; i < 2; ++i) rb[i] = b[threadIdx.x * 2 + i];
    mma_m16n8k16_bf16(rd, ra, rb);
    for (int i = 0; i < 4; ++i) d[threadIdx.x * 4 + i] = rd[i];
}

extern "C" __global__ void __launch_bounds__(32) product_m16n8k8_tf32(IN unsigned* __restrict__ a, IN unsigned* __restrict__ b, INOUT float* __restrict__ d) {
    unsigned ra[4], rb[2];
    float rd[4];
    for (int i = 0; i < 4; ++i) ra[i] = a[threadIdx.x * 4 + i], rd[i] = d[threadIdx.x * 4 + i];
    for (int i = 0; i < 2; ++i) rb[i] = b[threadIdx.x * 2 + i];
    mma_m16n8k8_tf32(rd, ra, rb);
    for (int i = 0; i < 4; ++i) d[threadIdx.x * 4 + i] = rd[i];
}

extern "C" __global__ void __launch_bounds__(32) product_m16n8k8_f16(IN unsigned* __restrict__ a, IN unsigned* __restrict__ b, INOUT float* __restrict__ d) {
    unsigned ra[2];
    float rd[4];
    for (int i = 0; i < 2; ++i) ra[i] = a[threadIdx.x * 2 + i];
    for (int i = 0; i < 4; ++i) rd[i] = d[threadIdx.x * 4 + i];
    mma_m16n8k8_f16(rd, ra, b[threadIdx.x]);
    for (int i = 0; i < 4; ++i) d[threadIdx.x * 4 + i] = rd[i];
}

extern "C" __global__ void __launch_bounds__(128) round_to_tf32(IN float* __restrict__ x, OUT float* __restrict__ y, long long size) {
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) y[i] = to_tf32(x[i]);
}

// C (64, 64) = A (64, k) B (64, k) transposed, halves, by four warps of 32x32 each: the way from global memory to the tensor cores and back.
extern "C" __global__ void __launch_bounds__(128) tile_f16(IN float16x8* __restrict__ a, IN float16x8* __restrict__ b, OUT float* __restrict__ c, int k) {
    __shared__ __align__(16) float16 stage_a[64][40], stage_b[64][40];  // 32 halves a row and 16 bytes of padding
    const int lane = threadIdx.x % 32, row = threadIdx.x / 64 * 32, column = threadIdx.x / 32 % 2 * 32;
    float d[2][4][4] = {};
    for (int k0 = 0; k0 < k; k0 += 32) {
        for (int i = threadIdx.x; i < 256; i += 128) {
            const int from = (i / 4 * k + k0) / 8 + i % 4;
            cp_async_16(&stage_a[i / 4][i % 4 * 8], a + from);
            cp_async_16(&stage_b[i / 4][i % 4 * 8], b + from);
        }
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        for (int kk = 0; kk < 32; kk += 16) {
            unsigned ra[2][4], rb[4][2];
            for (int i = 0; i < 2; ++i) ldmatrix_x4(ra[i], &stage_a[row + i * 16 + lane % 16][kk + lane / 16 * 8]);
            for (int j = 0; j < 4; ++j) ldmatrix_x2(rb[j], &stage_b[column + j * 8 + lane % 8][kk + lane / 8 % 2 * 8]);
            for (int i = 0; i < 2; ++i)
                for (int j = 0; j < 4; ++j) mma_m16n8k16_f16(d[i][j], ra[i], rb[j]);
        }
        __syncthreads();
    }
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 4; ++j)
            for (int e = 0; e < 4; ++e)
                c[(row + i * 16 + lane / 4 + e / 2 * 8) * 64 + column + j * 8 + lane % 4 * 2 + e % 2] = d[i][j][e];
}
