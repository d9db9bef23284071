// Each kernel is wrong in one way, which the emulator must catch; the test of the same name says how.
// Lines that a test expects in a message end with a mark, `// !name`.
#define IN const
#define OUT
#define INOUT

extern "C" __global__ void __launch_bounds__(64) read_at(IN float* __restrict__ x, OUT float* __restrict__ y, long long index) {
  y[threadIdx.x] = x[threadIdx.x == 2 ? index : 0];  // !read_at
}

extern "C" __global__ void __launch_bounds__(64) write_at(INOUT float* __restrict__ y, long long index) {
  if (threadIdx.x == 1) y[index] = 1.0f;  // !write_at
}

extern "C" __global__ void __launch_bounds__(64) write_byte_at(INOUT unsigned char* __restrict__ y, int index) {
  if (threadIdx.x == 1) y[index] = 1;
}

extern "C" __global__ void __launch_bounds__(64) write_input(IN float* __restrict__ x, OUT float* __restrict__ y) {
  const_cast<float*>(x)[threadIdx.x] = 1.0f;  // !write_input
  y[threadIdx.x] = x[threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(64) follow_null(IN float* __restrict__ x, OUT float* __restrict__ y) {
  y[threadIdx.x] = x[threadIdx.x];  // !follow_null
}

extern "C" __global__ void __launch_bounds__(64) misaligned(IN float* __restrict__ x, OUT float* __restrict__ y, int shift) {
  float4 v = *reinterpret_cast<const float4*>(x + shift);  // !misaligned
  y[threadIdx.x] = v.x + v.y + v.z + v.w;
}

extern "C" __global__ void __launch_bounds__(64) index_overflow(IN float* __restrict__ x, OUT float* __restrict__ y, int rows, int columns) {
  int index = rows * columns;  // !index_overflow
  y[threadIdx.x] = x[index == 0];
}

extern "C" __global__ void __launch_bounds__(64) shift_too_far(OUT int* __restrict__ y, int count) {
  y[threadIdx.x] = 1 << (count + threadIdx.x);  // !shift_too_far
}

extern "C" __global__ void __launch_bounds__(64) divide(OUT int* __restrict__ y, int by) {
  y[threadIdx.x] = 7 / (by - (int)threadIdx.x);  // !divide
}

extern "C" __global__ void __launch_bounds__(64) shared_overrun(OUT float* __restrict__ y, int index) {
  __shared__ float tile[4][16];
  tile[threadIdx.x / 16][threadIdx.x % 16] = 1.0f;
  __syncthreads();
  y[threadIdx.x] = tile[0][index];  // !shared_overrun
}

extern "C" __global__ void __launch_bounds__(64) dynamic_overrun(OUT float* __restrict__ y, int index) {
  extern __shared__ float dynamic[];
  dynamic[threadIdx.x] = 1.0f;
  __syncthreads();
  y[threadIdx.x] = dynamic[threadIdx.x == 5 ? index : 0];  // !dynamic_overrun
}

extern "C" __global__ void __launch_bounds__(64) leave_out(OUT float* __restrict__ y, int index) {
  if ((int)threadIdx.x != index) y[threadIdx.x] = 1.0f;
}

extern "C" __global__ void __launch_bounds__(64) leave_out_byte(OUT unsigned char* __restrict__ y, int index) {
  if ((int)threadIdx.x != index) y[threadIdx.x] = (unsigned char)threadIdx.x;
}

extern "C" __global__ void __launch_bounds__(64) missing_barrier(IN float* __restrict__ x, OUT float* __restrict__ y) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = tile[63 - threadIdx.x];  // a barrier belongs before this
}

extern "C" __global__ void __launch_bounds__(64) missing_second_barrier(IN float* __restrict__ x, OUT float* __restrict__ y) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  float neighbour = tile[(threadIdx.x + 1) % 64];
  tile[threadIdx.x] = 2.0f * neighbour;  // a barrier belongs before this
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(64) unwritten_shared(OUT float* __restrict__ y) {
  __shared__ float tile[64];
  if (threadIdx.x != 7) tile[threadIdx.x] = 1.0f;
  __syncthreads();
  y[threadIdx.x] = tile[63 - threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(64) divergent_barrier(OUT float* __restrict__ y) {
  if (threadIdx.x < 32) {
    __syncthreads();  // !divergent_barrier
  } else {
    __syncthreads();
  }
  y[threadIdx.x] = 1.0f;
}

extern "C" __global__ void __launch_bounds__(64) early_exit(OUT float* __restrict__ y, int size) {
  if ((int)threadIdx.x >= size) return;
  __syncthreads();  // !early_exit
  y[threadIdx.x] = 1.0f;
}

extern "C" __global__ void __launch_bounds__(64) absent_lane(OUT int* __restrict__ y) {
  y[threadIdx.x] = 0;
  if (threadIdx.x % 32 == 3) return;
  y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, (int)threadIdx.x, 1);  // !absent_lane
}

extern "C" __global__ void __launch_bounds__(64) lane_elsewhere(OUT int* __restrict__ y) {
  if (threadIdx.x % 32 == 3) __syncthreads();
  y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, (int)threadIdx.x, 1);  // !lane_elsewhere
  if (threadIdx.x % 32 != 3) __syncthreads();
}

extern "C" __global__ void __launch_bounds__(64) lane_outside_mask(OUT int* __restrict__ y) {
  y[threadIdx.x] = 0;
  if (threadIdx.x % 32 < 16) y[threadIdx.x] = __shfl_sync(0x0000ffffu, (int)threadIdx.x, 20);  // !lane_outside_mask
}

extern "C" __global__ void __launch_bounds__(64) order_of_threads(INOUT float* __restrict__ y) {
  y[0] = y[0] * 0.5f + (float)threadIdx.x;
}

extern "C" __global__ void __launch_bounds__(64) order_of_blocks(OUT int* __restrict__ y) {
  if (threadIdx.x == 0) y[0] = (int)blockIdx.x;
}

extern "C" __global__ void __launch_bounds__(64) reads_other_block(INOUT int* __restrict__ y) {
  if (threadIdx.x == 0 && blockIdx.x > 0) y[blockIdx.x] = y[blockIdx.x - 1] + 1;
}

extern "C" __global__ void __launch_bounds__(32) missing_wait(IN float* __restrict__ x, OUT float* __restrict__ y) {
  __shared__ __align__(16) float stage[128];
  cp_async_16(stage + 4 * threadIdx.x, x + 4 * threadIdx.x);
  cp_async_commit();
  __syncthreads();  // cp_async_wait<0>() belongs before this
  for (int i = 0; i < 4; ++i) y[4 * threadIdx.x + i] = stage[127 - (4 * threadIdx.x + i)];
}

extern "C" __global__ void __launch_bounds__(32) early_wait(IN float* __restrict__ x, OUT float* __restrict__ y) {
  __shared__ __align__(16) float stage[128];
  cp_async_16(stage + 4 * threadIdx.x, x + 4 * threadIdx.x);
  cp_async_commit();
  cp_async_wait<1>();  // one group may still be in flight: this one
  __syncthreads();
  for (int i = 0; i < 4; ++i) y[4 * threadIdx.x + i] = stage[4 * threadIdx.x + i];
}

extern "C" __global__ void __launch_bounds__(32) copy_far(IN float* __restrict__ x, OUT float* __restrict__ y, int index) {
  __shared__ __align__(16) float stage[128];
  cp_async_16(stage + 4 * threadIdx.x, x + index);  // !copy_far
  cp_async_commit();
  cp_async_wait<0>();
  y[threadIdx.x] = stage[4 * threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(32) copy_misaligned(IN float* __restrict__ x, OUT float* __restrict__ y) {
  __shared__ __align__(16) float stage[128];
  cp_async_16(stage + 4 * threadIdx.x, x + 1);  // !copy_misaligned
  cp_async_commit();
  cp_async_wait<0>();
  y[threadIdx.x] = stage[4 * threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(64) trap(OUT float* __restrict__ y) {
  if (threadIdx.x == 9) __trap();  // !trap
  y[threadIdx.x] = 1.0f;
}

extern "C" __global__ void __launch_bounds__(64) failed_assert(OUT float* __restrict__ y, int most) {
  assert((int)threadIdx.x < most);  // !failed_assert
  y[threadIdx.x] = 1.0f;
}

__device__ int depth(int n, volatile int* below) {
  volatile int frame[64];
  frame[n % 64] = n;
  return n == 0 ? *below : depth(n - 1, frame) + frame[n % 64];
}

extern "C" __global__ void __launch_bounds__(64) stack_overflow(OUT int* __restrict__ y, int n) {
  volatile int zero = 0;
  y[threadIdx.x] = depth(n, &zero) != 0;
}

extern "C" __global__ void __launch_bounds__(64) runs_away(OUT int* __restrict__ y) {
  volatile int stop = 0;
  while (!stop) {}
  y[threadIdx.x] = 1;
}

extern "C" __global__ void __launch_bounds__(64) add(IN float* x, INOUT float* y) { y[threadIdx.x] += x[threadIdx.x]; }
