// What the steps of all optimizers share: numbers from device memory, the gradients' scale, steps that are skipped, the moving average of
// the weights and the zeroing of gradients, all in the launch that updates the parameters. Tables, launch and mapping: chunks.cuh.
//
// Pointers that stand for something optional may be null: a whole table, or the entry of one parameter.
//
//     numbers[t]        the struct of the kernel, all floats; written by the host before the launch, so that a captured step sees
//                       new learning rates
//     inverse_scale     1: gradients are multiplied with it first (1 / loss scale)
//     found_inf         1: if it is not 0, the step is skipped: parameters and state stay as they are, skipped[t] counts it
//     averages, rate    average -= rate * (average - parameter), after the parameter's step
//     zero_gradients    gradients are left at 0

#pragma once

#include "chunks.cuh"

// Calls update(v) for every element of a chunk, v holding the element of each of the N arrays, and writes v back to those of `to` that are
// not null; v is 0 for those of `from` that are null. Four elements a thread and turn where all arrays start at multiples of 16 bytes.
template <int N, class Update>
__device__ __forceinline__ void update_chunk(
    const Chunk& part, const float* const (&from)[N], float* const (&to)[N], const Update& update) {
    unsigned long long addresses = 0;
#pragma unroll
    for (int n = 0; n < N; ++n) {
        addresses |= reinterpret_cast<unsigned long long>(from[n]) | reinterpret_cast<unsigned long long>(to[n]);
    }
    const int count = static_cast<int>(part.end - part.begin);
    const int fours = addresses % 16 == 0 ? count / 4 : 0;
    for (int i = threadIdx.x; i < fours; i += blockDim.x) {
        float4 values[N];
#pragma unroll
        for (int n = 0; n < N; ++n) {
            values[n] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (from[n]) values[n] = reinterpret_cast<const float4*>(from[n] + part.begin)[i];
        }
        float v[4][N];
#pragma unroll
        for (int n = 0; n < N; ++n) {
            v[0][n] = values[n].x, v[1][n] = values[n].y, v[2][n] = values[n].z, v[3][n] = values[n].w;
        }
#pragma unroll
        for (int k = 0; k < 4; ++k) update(v[k]);
#pragma unroll
        for (int n = 0; n < N; ++n) {
            if (to[n]) {
                reinterpret_cast<float4*>(to[n] + part.begin)[i] = make_float4(v[0][n], v[1][n], v[2][n], v[3][n]);
            }
        }
    }
    for (int i = fours * 4 + threadIdx.x; i < count; i += blockDim.x) {
        float v[N];
#pragma unroll
        for (int n = 0; n < N; ++n) v[n] = from[n] ? from[n][part.begin + i] : 0.0f;
        update(v);
#pragma unroll
        for (int n = 0; n < N; ++n) {
            if (to[n]) to[n][part.begin + i] = v[n];
        }
    }
}

__device__ __forceinline__ float* entry(float* const* table, int t) {
    return table ? table[t] : nullptr;
}

__device__ __forceinline__ bool overflowed(const float* found_inf) {
    return found_inf && found_inf[0] != 0.0f;
}

// What one launch knows of all parameters.
struct Along {
    bool skip, zero_gradients;
    float inverse_scale, rate;

    __device__ Along(const float* inverse, const float* found_inf, const float* average_rate, int zero)
        : skip(overflowed(found_inf)), zero_gradients(zero != 0), inverse_scale(inverse ? inverse[0] : 1.0f),
          rate(average_rate ? average_rate[0] : 0.0f) {}

    // Steps that were skipped before this one; a skipped step is counted here, once for the parameter, and nobody reads the count then.
    __device__ int skipped_before(int* const* skipped, const Chunk& part) const {
        if (!skipped) return 0;
        if (!skip) return skipped[part.array][0];
        if (part.begin == 0 && threadIdx.x == 0) skipped[part.array][0] += 1;
        return 0;
    }
};

// The places of the arrays that every optimizer has; its state stands between gradient and average.
constexpr int PARAMETER = 0, GRADIENT = 1, STATE = 2;

// Where a parameter's arrays are read and written: nothing but the average and the gradient's zeros where the step is skipped.
template <int N>
struct Arrays {
    const float* from[N];
    float* to[N];

    __device__ Arrays(const Along& along, float* parameter, float* gradient, float* average) {
        from[PARAMETER] = parameter, to[PARAMETER] = along.skip ? nullptr : parameter;
        from[GRADIENT] = along.skip ? nullptr : gradient, to[GRADIENT] = along.zero_gradients ? gradient : nullptr;
        from[N - 1] = to[N - 1] = average;
    }

    __device__ void state(const Along& along, int place, float* array) {
        from[place] = to[place] = along.skip ? nullptr : array;
    }

    // Calls step(v, g) with the unscaled gradient g, unless the step is skipped, and then does what goes along.
    template <class Step>
    __device__ __forceinline__ void run(const Chunk& part, const Along& along, const Step& step) const {
        if (along.skip && !to[N - 1] && !along.zero_gradients) return;
        update_chunk<N>(part, from, to, [&](float (&v)[N]) {
            if (!along.skip) step(v, v[GRADIENT] * along.inverse_scale);
            v[GRADIENT] = 0.0f;
            v[N - 1] = fmaf(-along.rate, v[N - 1] - v[PARAMETER], v[N - 1]);
        });
    }
};
