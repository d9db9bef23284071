// float to a half type and back: one array, or all arrays of a list in one launch.
// gpucnn: compiled on first use
//
// cast_to_*, cast_from_*: blocks of 256, any grid; a thread owns every grid-th element. Bound by memory, 6 bytes an element.
// cast_all_*: the weights of a network before a step in half types. Tables, launch and mapping: chunks.cuh; the copies may start anywhere.

#include "chunks.cuh"
#include "half.cuh"

template <typename From, typename To>
__device__ __forceinline__ void cast_elements(IN From* __restrict__ x, OUT To* __restrict__ y, long long size) {
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) y[i] = from_float<To>(to_float(x[i]));
}

template <typename To>
__device__ __forceinline__ void cast_chunks(
    IN float* const* __restrict__ xs, OUT To* const* __restrict__ ys, IN long long* __restrict__ first_chunk,
    IN long long* __restrict__ sizes, int arrays) {
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        IN float* __restrict__ x = xs[part.array];
        To* __restrict__ y = ys[part.array];
        for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) y[i] = from_float<To>(x[i]);
    }
}

extern "C" __global__ void __launch_bounds__(256) cast_to_float16(
    IN float* __restrict__ x, OUT float16* __restrict__ y, long long size) {
    cast_elements(x, y, size);
}

extern "C" __global__ void __launch_bounds__(256) cast_from_float16(
    IN float16* __restrict__ x, OUT float* __restrict__ y, long long size) {
    cast_elements(x, y, size);
}

extern "C" __global__ void __launch_bounds__(256) cast_all_float16(
    IN float* const* __restrict__ xs, OUT float16* const* __restrict__ ys, IN long long* __restrict__ first_chunk,
    IN long long* __restrict__ sizes, int arrays) {
    cast_chunks(xs, ys, first_chunk, sizes, arrays);
}

extern "C" __global__ void __launch_bounds__(256) cast_to_bfloat16(
    IN float* __restrict__ x, OUT bfloat16* __restrict__ y, long long size) {
    cast_elements(x, y, size);
}

extern "C" __global__ void __launch_bounds__(256) cast_from_bfloat16(
    IN bfloat16* __restrict__ x, OUT float* __restrict__ y, long long size) {
    cast_elements(x, y, size);
}

extern "C" __global__ void __launch_bounds__(256) cast_all_bfloat16(
    IN float* const* __restrict__ xs, OUT bfloat16* const* __restrict__ ys, IN long long* __restrict__ first_chunk,
    IN long long* __restrict__ sizes, int arrays) {
    cast_chunks(xs, ys, first_chunk, sizes, arrays);
}
