// Max and average pooling of channels-last images: x (N, H, W, C), windows of R x S taps, y (N, P, Q, C).
//
// Window (p, q) has its tap (r, s) at h = p * stride_h - pad_top + r * dilation_h, w = q * stride_w - pad_left + s *
// dilation_w. Both passes are gathers: forward, a thread owns an output and walks its window; backward, a thread owns
// an input and walks, in order of p and q, the windows that hold it. So nothing is written twice and nothing is
// atomic.
//
// Launch: block (bx, by) with bx * by = 256, any grid. y and blockIdx.y walk the rows of the image that is written
// (N * P or N * H), x and blockIdx.x the Q * C (or W * C) elements of a row, neighbours in c next to each other. In the
// *_vec4 instances a thread owns four neighbouring channels and moves them as one float4: C a multiple of 4, arrays
// 16-byte aligned. Instances *_wide keep the index in an int, for windows of more than 256 taps. The launch bounds name
// four blocks a multiprocessor because ptxas, left to itself, caps registers lower at sm_50 and sm_120, and spills.

#include "common.cuh"
#include "geometry.cuh"
#include "lanes.cuh"

// Of the taps start, start + dilation, ... (`taps` of them), those in [low, high): from tap `first` on, `count` of
// them.
struct Taps {
    int first, count;
};

__device__ __forceinline__ Taps taps_inside(int start, int dilation, int taps, int low, int high) {
    const int first = start >= low ? 0 : ceil_div(low - start, dilation);
    const int end = start >= high ? 0 : min(taps, ceil_div(high - start, dilation));
    return {first, max(end - first, 0)};
}

// The windows that hold an input at `place` (its coordinate plus the padding before): first .. last, in an axis with
// `outputs` windows.
struct Windows {
    int first, last;
};

__device__ __forceinline__ Windows windows_over(int place, int stride, int dilation, int taps, int outputs) {
    const int before = place - (taps - 1) * dilation;
    return {before > 0 ? ceil_div(before, stride) : 0, min(place / stride, outputs - 1)};
}

// The largest of a window and its tap r * S + s: the first of equals, the first NaN above all. Padding never wins; a
// window without any data gives -inf at tap 0, which no input answers to.
template <int V, typename Indices>
__device__ __forceinline__ void max_forward(
    IN typename Lanes<V>::Floats* __restrict__ x, typename Lanes<V>::Floats* __restrict__ y,
    Indices* __restrict__ index, const Pool2dGeometry& g) {
    const int vectors = g.C / V;
    const int rows = g.N * g.P;
    const Walk at = walk();
    for (int row = at.row; row < rows; row += at.row_step) {
        const long long n = row / g.P;
        const int h0 = row % g.P * g.stride_h - g.pad_top;
        const Taps down = taps_inside(h0, g.dilation_h, g.R, 0, g.H);
        for (int j = at.first; j < g.Q * vectors; j += at.step) {
            const int q = j / vectors, c = j % vectors;
            const int w0 = q * g.stride_w - g.pad_left;
            const Taps across = taps_inside(w0, g.dilation_w, g.S, 0, g.W);
            float best[V];
            int tap[V];
#pragma unroll
            for (int v = 0; v < V; ++v) {
                best[v] = -__int_as_float(INFINITY_BITS);
                tap[v] = -1;
            }
            for (int r = down.first; r < down.first + down.count; ++r) {
                const long long line = (n * g.H + h0 + r * g.dilation_h) * g.W;
                for (int s = across.first; s < across.first + across.count; ++s) {
                    float value[V];
                    unpack<V>(value, x[(line + w0 + s * g.dilation_w) * vectors + c]);
#pragma unroll
                    for (int v = 0; v < V; ++v) {
                        const bool first_nan = value[v] != value[v] && best[v] == best[v];
                        const bool wins = tap[v] < 0 || value[v] > best[v] || first_nan;
                        if (wins) {
                            best[v] = value[v];
                            tap[v] = r * g.S + s;
                        }
                    }
                }
            }
#pragma unroll
            for (int v = 0; v < V; ++v) tap[v] = max(tap[v], 0);
            const long long out = static_cast<long long>(row) * g.Q * vectors + j;
            y[out] = pack<typename Lanes<V>::Floats>(best);
            index[out] = pack<Indices>(tap);
        }
    }
}

// Calls use(window's index in dy, tap) for the windows that hold the input in row `row`, element j of that row.
template <typename Use>
__device__ __forceinline__ void for_windows(const Pool2dGeometry& g, int vectors, int row, int j, Use use) {
    const long long n = row / g.H;
    const int h = row % g.H + g.pad_top, w = j / vectors + g.pad_left, c = j % vectors;
    const Windows down = windows_over(h, g.stride_h, g.dilation_h, g.R, g.P);
    const Windows across = windows_over(w, g.stride_w, g.dilation_w, g.S, g.Q);
    for (int p = down.first; p <= down.last; ++p) {
        const int drop = h - p * g.stride_h;
        if (g.dilation_h > 1 && drop % g.dilation_h != 0) continue;
        const int r = g.dilation_h > 1 ? drop / g.dilation_h : drop;
        for (int q = across.first; q <= across.last; ++q) {
            const int shift = w - q * g.stride_w;
            if (g.dilation_w > 1 && shift % g.dilation_w != 0) continue;
            const int s = g.dilation_w > 1 ? shift / g.dilation_w : shift;
            use(((n * g.P + p) * g.Q + q) * vectors + c, r * g.S + s, p, q);
        }
    }
}

template <int V, typename Indices>
__device__ __forceinline__ void max_backward(
    IN typename Lanes<V>::Floats* __restrict__ dy, IN Indices* __restrict__ index,
    typename Lanes<V>::Floats* __restrict__ dx, const Pool2dGeometry& g) {
    const int vectors = g.C / V;
    const int rows = g.N * g.H;
    const Walk at = walk();
    for (int row = at.row; row < rows; row += at.row_step) {
        for (int j = at.first; j < g.W * vectors; j += at.step) {
            float sum[V] = {};
            for_windows(g, vectors, row, j, [&](long long window, int tap, int, int) {
                int winner[V];
                float gradient[V];
                unpack_index<V>(winner, index[window]);
                unpack<V>(gradient, dy[window]);
#pragma unroll
                for (int v = 0; v < V; ++v) sum[v] += winner[v] == tap ? gradient[v] : 0.0f;
            });
            dx[static_cast<long long>(row) * g.W * vectors + j] = pack<typename Lanes<V>::Floats>(sum);
        }
    }
}

// What a window's sum is divided by, PyTorch's rules: `divisor` where it is not 0, else the taps in the padded input
// or in the input itself.
__device__ __forceinline__ float divisor_of(const Pool2dGeometry& g, int p, int q, int count_include_pad, int divisor) {
    if (divisor != 0) return static_cast<float>(divisor);
    const int top = count_include_pad ? g.pad_top : 0, bottom = count_include_pad ? g.pad_bottom : 0;
    const int left = count_include_pad ? g.pad_left : 0, right = count_include_pad ? g.pad_right : 0;
    const Taps down = taps_inside(p * g.stride_h - g.pad_top, g.dilation_h, g.R, -top, g.H + bottom);
    const Taps across = taps_inside(q * g.stride_w - g.pad_left, g.dilation_w, g.S, -left, g.W + right);
    return static_cast<float>(max(down.count * across.count, 1));  // an empty window's sum is 0, and so is its mean
}

template <int V>
__device__ __forceinline__ void avg_forward(
    IN typename Lanes<V>::Floats* __restrict__ x, typename Lanes<V>::Floats* __restrict__ y, const Pool2dGeometry& g,
    int count_include_pad, int divisor) {
    const int vectors = g.C / V;
    const int rows = g.N * g.P;
    const Walk at = walk();
    for (int row = at.row; row < rows; row += at.row_step) {
        const long long n = row / g.P;
        const int p = row % g.P, h0 = p * g.stride_h - g.pad_top;
        const Taps down = taps_inside(h0, g.dilation_h, g.R, 0, g.H);
        for (int j = at.first; j < g.Q * vectors; j += at.step) {
            const int q = j / vectors, c = j % vectors;
            const int w0 = q * g.stride_w - g.pad_left;
            const Taps across = taps_inside(w0, g.dilation_w, g.S, 0, g.W);
            float sum[V] = {};
            for (int r = down.first; r < down.first + down.count; ++r) {
                const long long line = (n * g.H + h0 + r * g.dilation_h) * g.W;
                for (int s = across.first; s < across.first + across.count; ++s) {
                    float value[V];
                    unpack<V>(value, x[(line + w0 + s * g.dilation_w) * vectors + c]);
#pragma unroll
                    for (int v = 0; v < V; ++v) sum[v] += value[v];
                }
            }
            const float by = divisor_of(g, p, q, count_include_pad, divisor);
#pragma unroll
            for (int v = 0; v < V; ++v) sum[v] /= by;
            y[static_cast<long long>(row) * g.Q * vectors + j] = pack<typename Lanes<V>::Floats>(sum);
        }
    }
}

template <int V>
__device__ __forceinline__ void avg_backward(
    IN typename Lanes<V>::Floats* __restrict__ dy, typename Lanes<V>::Floats* __restrict__ dx, const Pool2dGeometry& g,
    int count_include_pad, int divisor) {
    const int vectors = g.C / V;
    const int rows = g.N * g.H;
    const Walk at = walk();
    for (int row = at.row; row < rows; row += at.row_step) {
        for (int j = at.first; j < g.W * vectors; j += at.step) {
            float sum[V] = {};
            for_windows(g, vectors, row, j, [&](long long window, int, int p, int q) {
                const float by = divisor_of(g, p, q, count_include_pad, divisor);
                float gradient[V];
                unpack<V>(gradient, dy[window]);
#pragma unroll
                for (int v = 0; v < V; ++v) sum[v] += gradient[v] / by;
            });
            dx[static_cast<long long>(row) * g.W * vectors + j] = pack<typename Lanes<V>::Floats>(sum);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_forward(
    IN float* __restrict__ x, OUT float* __restrict__ y, OUT unsigned char* __restrict__ index, Pool2dGeometry g) {
    max_forward<1>(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_forward_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, OUT uchar4* __restrict__ index, Pool2dGeometry g) {
    max_forward<4>(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_forward_wide(
    IN float* __restrict__ x, OUT float* __restrict__ y, OUT int* __restrict__ index, Pool2dGeometry g) {
    max_forward<1>(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_backward(
    IN float* __restrict__ dy, IN unsigned char* __restrict__ index, OUT float* __restrict__ dx, Pool2dGeometry g) {
    max_backward<1>(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_backward_vec4(
    IN float4* __restrict__ dy, IN uchar4* __restrict__ index, OUT float4* __restrict__ dx, Pool2dGeometry g) {
    max_backward<4>(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_backward_wide(
    IN float* __restrict__ dy, IN int* __restrict__ index, OUT float* __restrict__ dx, Pool2dGeometry g) {
    max_backward<1>(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) avg_pool2d_forward(
    IN float* __restrict__ x, OUT float* __restrict__ y, Pool2dGeometry g, int count_include_pad, int divisor) {
    avg_forward<1>(x, y, g, count_include_pad, divisor);
}

extern "C" __global__ void __launch_bounds__(256, 4) avg_pool2d_forward_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, Pool2dGeometry g, int count_include_pad, int divisor) {
    avg_forward<4>(x, y, g, count_include_pad, divisor);
}

extern "C" __global__ void __launch_bounds__(256, 4) avg_pool2d_backward(
    IN float* __restrict__ dy, OUT float* __restrict__ dx, Pool2dGeometry g, int count_include_pad, int divisor) {
    avg_backward<1>(dy, dx, g, count_include_pad, divisor);
}

extern "C" __global__ void __launch_bounds__(256, 4) avg_pool2d_backward_vec4(
    IN float4* __restrict__ dy, OUT float4* __restrict__ dx, Pool2dGeometry g, int count_include_pad, int divisor) {
    avg_backward<4>(dy, dx, g, count_include_pad, divisor);
}
