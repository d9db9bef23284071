// Dropout: y = x * keep / (1 - p), the mask drawn in registers from a Philox stream and never stored.
//
// Element i takes word i of the stream, as random.keep_mask does, whatever its type; so backward is the same kernel on dy.
//
// threshold: words below it drop; scale: 1 / (1 - p). A dropped NaN or infinity gives NaN, as the product does. The stream's step is `step`
// plus *offset, where that is given: a captured graph, whose arguments stay what they were, draws new numbers by it.

#pragma once

#include "lanes.cuh"
#include "philox.cuh"

struct DropoutStream {
    unsigned threshold;
    float scale;
    unsigned long long seed, step;
    unsigned purpose;

    __device__ __forceinline__ PhiloxWords block(long long i) const { return philox_block(i, seed, step, purpose); }
    __device__ __forceinline__ float factor(unsigned word) const { return word >= threshold ? scale : 0.0f; }
};

__device__ __forceinline__ DropoutStream dropout_stream(
    IN long long* __restrict__ offset, unsigned threshold, float scale, unsigned long long seed, unsigned long long step,
    unsigned purpose) {
    const unsigned long long moved = offset == nullptr ? 0 : static_cast<unsigned long long>(*offset);
    return {threshold, scale, seed, step + moved, purpose};
}

// A thread owns one Philox block, that is four neighbouring elements, and moves them one by one.
template <typename M>
__device__ __forceinline__ void dropout_elements(
    IN M* __restrict__ x, M* __restrict__ y, long long size, const DropoutStream& stream) {
    for (long long block = grid_stride_begin(); 4 * block < size; block += grid_stride_step()) {
        const PhiloxWords drawn = stream.block(block);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const long long i = 4 * block + j;
            if (i < size) y[i] = from_float<M>(to_float(x[i]) * stream.factor(drawn.w[j]));
        }
    }
}

// A thread owns one M, and the Philox blocks of its four or eight elements.
template <typename M>
__device__ __forceinline__ void dropout_vectors(
    IN M* __restrict__ x, M* __restrict__ y, long long vectors, const DropoutStream& stream) {
    constexpr int BLOCKS = Lanes<M>::COUNT / 4;
    for (long long i = grid_stride_begin(); i < vectors; i += grid_stride_step()) {
        Lanes<M> value = Lanes<M>::load(x + i);
#pragma unroll
        for (int b = 0; b < BLOCKS; ++b) {
            const PhiloxWords drawn = stream.block(i * BLOCKS + b);
#pragma unroll
            for (int j = 0; j < 4; ++j) value.at[4 * b + j] *= stream.factor(drawn.w[j]);
        }
        value.store(y + i);
    }
}
