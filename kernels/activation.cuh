// Activations: their values and derivatives, and the loops over whole arrays.
//
//     ReLU:          y = max(x, 0)                                            dx = dy where x > 0, else 0
//     GELU:          y = x Phi(x),  Phi(x) = (1 + erf(x / sqrt 2)) / 2        dx = dy (Phi(x) + x phi(x))
//     GELU by tanh:  y = x p,  p = (1 + tanh u) / 2,  u = sqrt(2 / pi) (x + 0.044715 x^3)
//                                                                             dx = dy (p + 2 x u' p (1 - p))
//     SiLU:          y = x p,  p = 1 / (1 + exp(-x))                          dx = dy (p + x p (1 - p))

#pragma once

#include "lanes.cuh"

constexpr float ROOT_HALF = 0.70710678118654752f, ROOT_2_OVER_PI = 0.79788456080286536f;
constexpr float INVERSE_ROOT_2_PI = 0.39894228040143268f, CUBIC = 0.044715f;

// An activation: its value at x, and what a gradient dy becomes behind it.
struct Identity {
    static constexpr int KIND = 0;  // the number by which a launch names it (ACTIVATIONS in gpucnn/backends/cuda/activation.py)
    static __device__ __forceinline__ float value(float x) { return x; }
    static __device__ __forceinline__ float gradient(float dy, float) { return dy; }
};

struct Relu {
    static constexpr int KIND = 1;
    // Every comparison with NaN is false, so NaN stays.
    static __device__ __forceinline__ float value(float x) { return x <= 0.0f ? 0.0f : x; }
    // The gradient at 0 is 0, as in PyTorch; x may be the value as well, for both are positive together.
    static __device__ __forceinline__ float gradient(float dy, float x) { return x > 0.0f ? dy : 0.0f; }
};

struct Gelu {
    static constexpr int KIND = 2;
    static __device__ __forceinline__ float cdf(float x) { return 0.5f + 0.5f * erff(x * ROOT_HALF); }
    static __device__ __forceinline__ float value(float x) { return x * cdf(x); }
    static __device__ __forceinline__ float gradient(float dy, float x) {
        return dy * (cdf(x) + x * (INVERSE_ROOT_2_PI * expf(-0.5f * x * x)));
    }
};

struct GeluTanh {
    static constexpr int KIND = 3;
    static __device__ __forceinline__ float part(float x) {
        return 0.5f + 0.5f * tanhf(x * (ROOT_2_OVER_PI + ROOT_2_OVER_PI * CUBIC * (x * x)));
    }
    static __device__ __forceinline__ float value(float x) { return x * part(x); }
    static __device__ __forceinline__ float gradient(float dy, float x) {
        const float p = part(x);
        const float twice = 2.0f * ROOT_2_OVER_PI + 6.0f * ROOT_2_OVER_PI * CUBIC * (x * x);  // 2 u'
        return dy * (p + twice * (x * p * (1.0f - p)));  // the factor that is 0 far out first: twice is of the order of x^2
    }
};

struct Silu {
    static constexpr int KIND = 4;
    static __device__ __forceinline__ float value(float x) { return x / (1.0f + expf(-x)); }
    static __device__ __forceinline__ float gradient(float dy, float x) {
        const float p = 1.0f / (1.0f + expf(-x));
        return dy * (p + x * p * (1.0f - p));
    }
};

// ---- whole arrays: a thread owns every grid-th M ----

template <typename Activation, typename M>
__device__ __forceinline__ void activation_forward(IN M* __restrict__ x, M* __restrict__ y, long long vectors) {
    for (long long i = grid_stride_begin(); i < vectors; i += grid_stride_step()) {
        Lanes<M> value = Lanes<M>::load(x + i);
#pragma unroll
        for (int j = 0; j < Lanes<M>::COUNT; ++j) value.at[j] = Activation::value(value.at[j]);
        value.store(y + i);
    }
}

template <typename Activation, typename M>
__device__ __forceinline__ void activation_backward(
    IN M* __restrict__ dy, IN M* __restrict__ x, M* __restrict__ dx, long long vectors) {
    for (long long i = grid_stride_begin(); i < vectors; i += grid_stride_step()) {
        Lanes<M> gradient = Lanes<M>::load(dy + i);
        const Lanes<M> value = Lanes<M>::load(x + i);
#pragma unroll
        for (int j = 0; j < Lanes<M>::COUNT; ++j) gradient.at[j] = Activation::gradient(gradient.at[j], value.at[j]);
        gradient.store(dx + i);
    }
}
