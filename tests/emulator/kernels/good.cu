// Kernels that do nothing wrong: the emulator must run them, strictly, and give the right values.
#define IN const
#define OUT
#define INOUT

struct Affine { int scale; int shift; };

constexpr int kTile = 16;

// c (M, N) = a (M, K) b (K, N), one thread an element.
extern "C" __global__ void __launch_bounds__(256) tiled_gemm(
    IN float* __restrict__ a, IN float* __restrict__ b, OUT float* __restrict__ c, int M, int N, int K) {
  __shared__ float tile_a[kTile][kTile];
  __shared__ float tile_b[kTile][kTile];
  int row = blockIdx.y * kTile + threadIdx.y, column = blockIdx.x * kTile + threadIdx.x;
  float sum = 0.0f;
  for (int k0 = 0; k0 < K; k0 += kTile) {
    int ka = k0 + threadIdx.x, kb = k0 + threadIdx.y;
    tile_a[threadIdx.y][threadIdx.x] = row < M && ka < K ? a[row * K + ka] : 0.0f;
    tile_b[threadIdx.y][threadIdx.x] = column < N && kb < K ? b[kb * N + column] : 0.0f;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kTile; ++k) sum = fmaf(tile_a[threadIdx.y][k], tile_b[k][threadIdx.x], sum);
    __syncthreads();
  }
  if (row < M && column < N) c[row * N + column] = sum;
}

// The sum of each block's elements, by shuffles within warps and extern shared memory between them.
extern "C" __global__ void __launch_bounds__(256) block_sums(
    IN float* __restrict__ x, OUT float* __restrict__ sums, int size) {
  extern __shared__ float of_warp[];
  int index = blockIdx.x * blockDim.x + threadIdx.x;
  float value = index < size ? x[index] : 0.0f;
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x < 32) {
    value = threadIdx.x < blockDim.x / 32 ? of_warp[threadIdx.x] : 0.0f;
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffffu, value, offset);
    if (threadIdx.x == 0) sums[blockIdx.x] = value;
  }
}

// Every array of a table in one launch: p -= rate * g. One block an array.
extern "C" __global__ void __launch_bounds__(64) step_all(
    INOUT float* const* __restrict__ parameters, IN float* const* __restrict__ gradients, IN int* __restrict__ sizes,
    float rate) {
  float* p = parameters[blockIdx.x];
  const float* g = gradients[blockIdx.x];
  for (int i = threadIdx.x; i < sizes[blockIdx.x]; i += blockDim.x) p[i] = fmaf(-rate, g[i], p[i]);
}

// y = x * scale + shift (+ bias where there is one).
extern "C" __global__ void __launch_bounds__(64) affine(
    IN int* __restrict__ x, IN int* __restrict__ bias, OUT int* __restrict__ y, Affine f, long long size) {
  long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < size) y[i] = x[i] * f.scale + f.shift + (bias ? bias[i] : 0);
}

// Four at a time: size is a multiple of 4.
extern "C" __global__ void __launch_bounds__(64) double_vectors(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, int vectors) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= vectors) return;
  float4 v = x[i];
  y[i] = make_float4(2.0f * v.x, 2.0f * v.y, 2.0f * v.z, 2.0f * v.w);
}

// A histogram with integer atomics, whose result does not depend on the order; and votes.
extern "C" __global__ void __launch_bounds__(64) histogram(
    IN unsigned char* __restrict__ x, INOUT int* __restrict__ counts, INOUT unsigned long long* __restrict__ total, int size) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < size) atomicAdd(counts + x[i], 1);
  unsigned votes = __ballot_sync(0xffffffffu, i < size && x[min(i, size - 1)] > 2);
  if (threadIdx.x % 32 == 0) atomicAdd(total, (unsigned long long)__popc(votes));
  if (__syncthreads_count(i < size) > 0 && threadIdx.x == 0) atomicMax(counts + 8, (int)blockIdx.x);
}

// Two stages of cp.async: y = x, through shared memory.
extern "C" __global__ void __launch_bounds__(32) staged_copy(
    IN float* __restrict__ x, OUT float* __restrict__ y, int tiles, int size) {
  __shared__ __align__(16) float stage[2][128];
  int own = threadIdx.x * 4;
  cp_async_16_zfill(&stage[0][own], x + own, own < size);
  cp_async_commit();
  for (int tile = 0; tile < tiles; ++tile) {
    int next = (tile + 1) * 128 + own;
    if (tile + 1 < tiles) cp_async_16_zfill(&stage[(tile + 1) % 2][own], x + next, next < size);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    int other = 127 - threadIdx.x;
    for (int i = other; i >= 0; i -= 32)
      if (tile * 128 + i < size) y[tile * 128 + i] = stage[tile % 2][i];
    __syncthreads();
  }
}

extern "C" __global__ void __launch_bounds__(1) which_architecture(OUT int* __restrict__ y) { y[0] = __CUDA_ARCH__; }
