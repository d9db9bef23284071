// One channel or four: how the pooling kernels move neighbouring channels, and how they walk over images.

#pragma once

// Four channels, or one, with one name for their lanes.
template <int V>
struct Lanes;
template <>
struct Lanes<1> {
    using Floats = float;
    using Bytes = unsigned char;
    using Ints = int;
};
template <>
struct Lanes<4> {
    using Floats = float4;
    using Bytes = uchar4;
    using Ints = int4;
};

template <int V>
__device__ __forceinline__ void unpack(float (&out)[V], const typename Lanes<V>::Floats& v) {
    if constexpr (V == 1) {
        out[0] = v;
    } else {
        out[0] = v.x;
        out[1] = v.y;
        out[2] = v.z;
        out[3] = v.w;
    }
}

template <typename Vector, typename From, int V>
__device__ __forceinline__ Vector pack(const From (&from)[V]) {
    if constexpr (V == 1) {
        return static_cast<Vector>(from[0]);
    } else {
        using Lane = decltype(Vector::x);
        return {static_cast<Lane>(from[0]), static_cast<Lane>(from[1]), static_cast<Lane>(from[2]),
                static_cast<Lane>(from[3])};
    }
}

template <int V>
__device__ __forceinline__ void unpack_index(int (&out)[V], const typename Lanes<V>::Bytes& v) {
    if constexpr (V == 1) {
        out[0] = v;
    } else {
        out[0] = v.x;
        out[1] = v.y;
        out[2] = v.z;
        out[3] = v.w;
    }
}

template <int V>
__device__ __forceinline__ void unpack_index(int (&out)[V], const typename Lanes<V>::Ints& v) {
    if constexpr (V == 1) {
        out[0] = v;
    } else {
        out[0] = v.x;
        out[1] = v.y;
        out[2] = v.z;
        out[3] = v.w;
    }
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
