// The norm of all gradients of a network together, and what clips them: a norm from device memory, or a limit.
//
// total_norm: one value a chunk, of powers |x|^p added up (the largest |x| for the infinity norm). Block as in
// chunks.cuh; thread j adds its elements j, j + 256, ... of the chunk in order, then the 256 sums are added in a fixed
// tree. The block that arrives last does the same with the partial values and takes the root, so the result depends on
// the arrays' sizes alone. `kind`: 0 for the infinity norm, 1 and 2 for those norms, 3 for any other power.
//
// Tables, launch and mapping of the rest: chunks.cuh.

#include "chunks.cuh"
#include "last_block.cuh"

// NaN is larger than all, as in PyTorch.
__device__ __forceinline__ float norm_add(int kind, float sum, float value) {
    if (kind != 0) return sum + value;
    return value > sum || value != value ? value : sum;
}

// values[0] becomes the sum (or the largest) of 256 threads' values; thread 0, which writes it, may read it at once.
__device__ __forceinline__ void norm_of_block(int kind, float sum, float* values) {
    values[threadIdx.x] = sum;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) values[threadIdx.x] = norm_add(kind, values[threadIdx.x], values[threadIdx.x + half]);
    }
}

extern "C" __global__ void __launch_bounds__(256) total_norm(
    IN float* const* __restrict__ gradients, IN long long* __restrict__ first_chunk, IN long long* __restrict__ sizes,
    int arrays, OUT float* partial, OUT float* __restrict__ total, INOUT unsigned* __restrict__ counter, int kind,
    float order, float one_over_order) {
    __shared__ float values[256];
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        IN float* __restrict__ gradient = gradients[part.array];
        float sum = 0.0f;
        for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) {
            const float x = fabsf(gradient[i]);
            sum = norm_add(kind, sum, kind == 2 ? x * x : kind == 3 ? powf(x, order) : x);
        }
        norm_of_block(kind, sum, values);
        if (threadIdx.x == 0) partial[chunk] = values[0];
        __syncthreads();  // before the next chunk's values
    }
    if (!arrives_last(counter, gridDim.x)) return;
    float sum = 0.0f;
    for (long long i = threadIdx.x; i < first_chunk[arrays]; i += blockDim.x) {
        sum = norm_add(kind, sum, read_written(partial + i));
    }
    norm_of_block(kind, sum, values);
    if (threadIdx.x == 0) {
        const float all = values[0];
        total[0] = kind == 2 ? sqrtf(all) : kind == 3 ? powf(all, one_over_order) : all;
    }
}

// All gradients times min(1, limit / (norm + small)); NaN where the norm is.
extern "C" __global__ void __launch_bounds__(256) clip_all(
    INOUT float* const* __restrict__ gradients, IN long long* __restrict__ first_chunk,
    IN long long* __restrict__ sizes, int arrays, IN float* __restrict__ norm, float limit, float small) {
    const float wanted = limit / (norm[0] + small), by = wanted > 1.0f ? 1.0f : wanted;
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        float* __restrict__ gradient = gradients[part.array];
        for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) gradient[i] *= by;
    }
}

// All gradients cut to [-limit, limit].
extern "C" __global__ void __launch_bounds__(256) clamp_all(
    INOUT float* const* __restrict__ gradients, IN long long* __restrict__ first_chunk,
    IN long long* __restrict__ sizes, int arrays, float limit) {
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        float* __restrict__ gradient = gradients[part.array];
        for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) {
            const float x = gradient[i];
            gradient[i] = x > limit ? limit : x < -limit ? -limit : x;  // NaN stays
        }
    }
}
