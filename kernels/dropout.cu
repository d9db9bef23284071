// Dropout: y = x * keep / (1 - p), the mask drawn in registers from a Philox stream and never stored.
//
// Launch: blocks of 256, any grid. A thread owns one Philox block, that is four neighbouring elements, of which
// element i takes word i of the stream, as random.keep_mask does; so backward is the same kernel on dy. dropout_vec4
// moves them as one float4 (16-byte aligned arrays, sizes a multiple of 4), dropout one by one.
//
// threshold: words below it drop; scale: 1 / (1 - p). A dropped NaN or infinity gives NaN, as the product does.

#include "common.cuh"
#include "philox.cuh"

__device__ __forceinline__ float dropped_or_scaled(float x, unsigned word, unsigned threshold, float scale) {
    return x * (word >= threshold ? scale : 0.0f);
}

extern "C" __global__ void __launch_bounds__(256) dropout(
    IN float* __restrict__ x, OUT float* __restrict__ y, long long size, unsigned threshold, float scale,
    unsigned long long seed, unsigned long long step, unsigned purpose) {
    for (long long block = grid_stride_begin(); 4 * block < size; block += grid_stride_step()) {
        const PhiloxWords drawn = philox_block(block, seed, step, purpose);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const long long i = 4 * block + j;
            if (i < size) y[i] = dropped_or_scaled(x[i], drawn.w[j], threshold, scale);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) dropout_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, long long vectors, unsigned threshold, float scale,
    unsigned long long seed, unsigned long long step, unsigned purpose) {
    for (long long i = grid_stride_begin(); i < vectors; i += grid_stride_step()) {
        const PhiloxWords drawn = philox_block(i, seed, step, purpose);
        const float4 v = x[i];
        y[i] = make_float4(dropped_or_scaled(v.x, drawn.w[0], threshold, scale),
                           dropped_or_scaled(v.y, drawn.w[1], threshold, scale),
                           dropped_or_scaled(v.z, drawn.w[2], threshold, scale),
                           dropped_or_scaled(v.w, drawn.w[3], threshold, scale));
    }
}
