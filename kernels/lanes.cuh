// Neighbouring channels (or elements) that one thread owns: how they lie in memory, and as floats in registers.
//
// Lanes<M> is what one M in memory holds: one element (float, float16, bfloat16), or the 16 bytes that one instruction moves (float4 is
// four, float16x8 and bfloat16x8 are eight). Half types are widened when they are read, and rounded once, when they are written.

#pragma once

#include "common.cuh"
#include "half.cuh"

// Eight indices, of one byte or of four. A kernel that takes a pointer to one asks for an array whose size is a multiple of 8.
struct alignas(8) ucharx8 {
    unsigned char v[8];
};
struct alignas(16) intx8 {
    int v[8];
};

// How many elements an M holds, and the vectors of as many indices.
struct OneLane {
    static constexpr int COUNT = 1;
    using Bytes = unsigned char;
    using Ints = int;
};
struct FourLanes {
    static constexpr int COUNT = 4;
    using Bytes = uchar4;
    using Ints = int4;
};
struct EightLanes {
    static constexpr int COUNT = 8;
    using Bytes = ucharx8;
    using Ints = intx8;
};
template <typename M> struct Memory;
template <> struct Memory<float> : OneLane { using Scalar = float; };
template <> struct Memory<float16> : OneLane { using Scalar = float16; };
template <> struct Memory<bfloat16> : OneLane { using Scalar = bfloat16; };
template <> struct Memory<float4> : FourLanes { using Scalar = float; };
template <> struct Memory<float16x8> : EightLanes { using Scalar = float16; };
template <> struct Memory<bfloat16x8> : EightLanes { using Scalar = bfloat16; };

template <typename M>
using BytesOf = typename Memory<M>::Bytes;
template <typename M>
using IntsOf = typename Memory<M>::Ints;

template <typename M>
struct Lanes {
    static constexpr int COUNT = Memory<M>::COUNT;
    float at[COUNT];

    __device__ __forceinline__ static Lanes of(const M& m) {
        Lanes lanes;
        if constexpr (COUNT == 1) {
            lanes.at[0] = to_float(m);
        } else if constexpr (COUNT == 4) {
            lanes.at[0] = m.x;
            lanes.at[1] = m.y;
            lanes.at[2] = m.z;
            lanes.at[3] = m.w;
        } else {
#pragma unroll
            for (int i = 0; i < COUNT; ++i) lanes.at[i] = to_float(m.v[i]);
        }
        return lanes;
    }

    __device__ __forceinline__ static Lanes load(IN M* __restrict__ from) { return of(*from); }

    __device__ __forceinline__ void store(M* __restrict__ to) const {
        using Scalar = typename Memory<M>::Scalar;
        if constexpr (COUNT == 1) {
            *to = from_float<Scalar>(at[0]);
        } else if constexpr (COUNT == 4) {
            *to = make_float4(at[0], at[1], at[2], at[3]);
        } else {
            M m;
#pragma unroll
            for (int i = 0; i < COUNT; ++i) m.v[i] = from_float<Scalar>(at[i]);
            *to = m;
        }
    }
};

// A channel's values (C,), which are floats whatever M is, or `otherwise` where the array is left out.
template <typename M>
__device__ __forceinline__ Lanes<M> channel_values(IN float* __restrict__ values, int column, float otherwise) {
    Lanes<M> result;
#pragma unroll
    for (int i = 0; i < Lanes<M>::COUNT; ++i) {
        result.at[i] = values == nullptr ? otherwise : values[column * Lanes<M>::COUNT + i];
    }
    return result;
}

// Indices beside the lanes: V of them in a BytesOf<M> or an IntsOf<M>.
template <int V, typename Indices>
__device__ __forceinline__ void unpack_index(int (&out)[V], const Indices& m) {
    if constexpr (V == 1) {
        out[0] = m;
    } else if constexpr (V == 4) {
        out[0] = m.x;
        out[1] = m.y;
        out[2] = m.z;
        out[3] = m.w;
    } else {
#pragma unroll
        for (int i = 0; i < V; ++i) out[i] = m.v[i];
    }
}

template <typename Indices, int V>
__device__ __forceinline__ Indices pack_index(const int (&from)[V]) {
    Indices m;
    if constexpr (V == 1) {
        m = static_cast<Indices>(from[0]);
    } else if constexpr (V == 4) {
        using Lane = decltype(m.x);
        m = {static_cast<Lane>(from[0]), static_cast<Lane>(from[1]), static_cast<Lane>(from[2]), static_cast<Lane>(from[3])};
    } else {
#pragma unroll
        for (int i = 0; i < V; ++i) m.v[i] = from[i];
    }
    return m;
}

// The place of a thread's work in the launch: rows from `row` by `row_step`, elements of a row from `first` by
// `step`. Both stay below 2^31 (the host sees to it), so that divisions are of 32 bits; only offsets in memory have 64.
struct Walk {
    int row, row_step;
    int first, step;
};

__device__ __forceinline__ Walk walk() {
    return {static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y), static_cast<int>(gridDim.y * blockDim.y),
            static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x), static_cast<int>(gridDim.x * blockDim.x)};
}
