// GELU, exact and by tanh, and SiLU, forward and backward. Bound by memory: 8 bytes an element forward, 12 backward; so
// backward computes what it needs anew from x, which costs less than to write and read it.
//
//     GELU:          y = x Phi(x),  Phi(x) = (1 + erf(x / sqrt 2)) / 2        dx = dy (Phi(x) + x phi(x))
//     GELU by tanh:  y = x p,  p = (1 + tanh u) / 2,  u = sqrt(2 / pi) (x + 0.044715 x^3)
//                                                                             dx = dy (p + 2 x u' p (1 - p))
//     SiLU:          y = x p,  p = 1 / (1 + exp(-x))                          dx = dy (p + x p (1 - p))
//
// Launch: blocks of 256, any grid; a thread owns every grid-th element, or every grid-th float4 in the *_vec4
// instances, which need 16-byte aligned arrays and a size that is a multiple of 4.

#include "common.cuh"

constexpr float ROOT_HALF = 0.70710678118654752f, ROOT_2_OVER_PI = 0.79788456080286536f;
constexpr float INVERSE_ROOT_2_PI = 0.39894228040143268f, CUBIC = 0.044715f;

// An activation: its value and its derivative at x.
struct Gelu {
    static __device__ __forceinline__ float cdf(float x) {
        return 0.5f + 0.5f * erff(x * ROOT_HALF);
    }
    static __device__ __forceinline__ float value(float x) {
        return x * cdf(x);
    }
    static __device__ __forceinline__ float slope(float x) {
        return cdf(x) + x * (INVERSE_ROOT_2_PI * expf(-0.5f * x * x));
    }
};

struct GeluTanh {
    static __device__ __forceinline__ float part(float x) {
        return 0.5f + 0.5f * tanhf(x * (ROOT_2_OVER_PI + ROOT_2_OVER_PI * CUBIC * (x * x)));
    }
    static __device__ __forceinline__ float value(float x) {
        return x * part(x);
    }
    static __device__ __forceinline__ float slope(float x) {
        const float p = part(x);
        const float twice = 2.0f * ROOT_2_OVER_PI + 6.0f * ROOT_2_OVER_PI * CUBIC * (x * x);  // 2 u'
        return p + twice * (x * p * (1.0f - p));  // the factor that is 0 far out first: twice is of the order of x^2
    }
};

struct Silu {
    static __device__ __forceinline__ float value(float x) {
        return x / (1.0f + expf(-x));
    }
    static __device__ __forceinline__ float slope(float x) {
        const float p = 1.0f / (1.0f + expf(-x));
        return p + x * p * (1.0f - p);
    }
};

template <typename Activation>
__device__ __forceinline__ void forward(IN float* __restrict__ x, float* __restrict__ y, long long size) {
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) y[i] = Activation::value(x[i]);
}

template <typename Activation>
__device__ __forceinline__ void forward(IN float4* __restrict__ x, float4* __restrict__ y, long long vectors) {
    for (long long i = grid_stride_begin(); i < vectors; i += grid_stride_step()) {
        const float4 v = x[i];
        y[i] = make_float4(Activation::value(v.x), Activation::value(v.y), Activation::value(v.z),
                           Activation::value(v.w));
    }
}

template <typename Activation>
__device__ __forceinline__ void backward(
    IN float* __restrict__ dy, IN float* __restrict__ x, float* __restrict__ dx, long long size) {
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) {
        dx[i] = dy[i] * Activation::slope(x[i]);
    }
}

template <typename Activation>
__device__ __forceinline__ void backward(
    IN float4* __restrict__ dy, IN float4* __restrict__ x, float4* __restrict__ dx, long long vectors) {
    for (long long i = grid_stride_begin(); i < vectors; i += grid_stride_step()) {
        const float4 d = dy[i], v = x[i];
        dx[i] = make_float4(d.x * Activation::slope(v.x), d.y * Activation::slope(v.y), d.z * Activation::slope(v.z),
                            d.w * Activation::slope(v.w));
    }
}

extern "C" __global__ void __launch_bounds__(256) gelu_forward(
    IN float* __restrict__ x, OUT float* __restrict__ y, long long size) {
    forward<Gelu>(x, y, size);
}

extern "C" __global__ void __launch_bounds__(256) gelu_forward_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, long long vectors) {
    forward<Gelu>(x, y, vectors);
}

extern "C" __global__ void __launch_bounds__(256) gelu_backward(
    IN float* __restrict__ dy, IN float* __restrict__ x, OUT float* __restrict__ dx, long long size) {
    backward<Gelu>(dy, x, dx, size);
}

extern "C" __global__ void __launch_bounds__(256) gelu_backward_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ x, OUT float4* __restrict__ dx, long long vectors) {
    backward<Gelu>(dy, x, dx, vectors);
}

extern "C" __global__ void __launch_bounds__(256) gelu_tanh_forward(
    IN float* __restrict__ x, OUT float* __restrict__ y, long long size) {
    forward<GeluTanh>(x, y, size);
}

extern "C" __global__ void __launch_bounds__(256) gelu_tanh_forward_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, long long vectors) {
    forward<GeluTanh>(x, y, vectors);
}

extern "C" __global__ void __launch_bounds__(256) gelu_tanh_backward(
    IN float* __restrict__ dy, IN float* __restrict__ x, OUT float* __restrict__ dx, long long size) {
    backward<GeluTanh>(dy, x, dx, size);
}

extern "C" __global__ void __launch_bounds__(256) gelu_tanh_backward_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ x, OUT float4* __restrict__ dx, long long vectors) {
    backward<GeluTanh>(dy, x, dx, vectors);
}

extern "C" __global__ void __launch_bounds__(256) silu_forward(
    IN float* __restrict__ x, OUT float* __restrict__ y, long long size) {
    forward<Silu>(x, y, size);
}

extern "C" __global__ void __launch_bounds__(256) silu_forward_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, long long vectors) {
    forward<Silu>(x, y, vectors);
}

extern "C" __global__ void __launch_bounds__(256) silu_backward(
    IN float* __restrict__ dy, IN float* __restrict__ x, OUT float* __restrict__ dx, long long size) {
    backward<Silu>(dy, x, dx, size);
}

extern "C" __global__ void __launch_bounds__(256) silu_backward_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ x, OUT float4* __restrict__ dx, long long vectors) {
    backward<Silu>(dy, x, dx, vectors);
}
