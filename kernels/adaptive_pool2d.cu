// Adaptive max and average pooling of channels-last images: x (N, H, W, C), y (N, P, Q, C) of the wanted size.
//
// Output row p sees the input rows [floor(p H / P), ceil((p + 1) H / P)), and columns alike: PyTorch's windows, which differ
// in size by one and may share a row. Turned around, input row h is seen by the output rows [floor(h P / H), ceil((h + 1) P /
// H)). Both passes are gathers: forward, a thread owns an output and walks its window; backward, a thread owns an input and
// walks, in order of p and q, the windows that hold it. So nothing is written twice and nothing is atomic. Where P divides
// H and Q divides W, kernels/pool2d.cu is called instead.
//
// Launch: block (bx, by) with bx * by = 256, any grid. y and blockIdx.y walk the rows of the image that is written
// (N * P or N * H), x and blockIdx.x the Q * C (or W * C) elements of a row, neighbours in c next to each other. In the
// *_vec4 instances a thread owns four neighbouring channels and moves them as one float4: C a multiple of 4, arrays
// 16-byte aligned. H * P and W * Q stay below 2^31.

#include "common.cuh"
#include "geometry.cuh"
#include "lanes.cuh"

// The places [first, end) of an axis of `inputs` that place i of an axis of `outputs` meets, in either direction.
struct Span {
    int first, end;
};

__device__ __forceinline__ Span span(int i, int inputs, int outputs) {
    const unsigned from = static_cast<unsigned>(i) * inputs, to = from + inputs;
    return {static_cast<int>(from / outputs), static_cast<int>(ceil_div(to, static_cast<unsigned>(outputs)))};
}

// The largest of a window and its place h * W + w in the image: the first of equals, the first NaN above all.
template <int V>
__device__ __forceinline__ void max_forward(
    IN typename Lanes<V>::Floats* __restrict__ x, typename Lanes<V>::Floats* __restrict__ y,
    typename Lanes<V>::Ints* __restrict__ index, const AdaptivePool2dGeometry& g) {
    const int vectors = g.C / V;
    const int rows = g.N * g.P;
    const Walk at = walk();
    for (int row = at.row; row < rows; row += at.row_step) {
        const long long n = row / g.P;
        const Span down = span(row % g.P, g.H, g.P);
        for (int j = at.first; j < g.Q * vectors; j += at.step) {
            const int q = j / vectors, c = j % vectors;
            const Span across = span(q, g.W, g.Q);
            float best[V];
            int place[V];
#pragma unroll
            for (int v = 0; v < V; ++v) {
                best[v] = -__int_as_float(INFINITY_BITS);
                place[v] = down.first * g.W + across.first;
            }
            for (int h = down.first; h < down.end; ++h) {
                for (int w = across.first; w < across.end; ++w) {
                    float value[V];
                    unpack<V>(value, x[((n * g.H + h) * g.W + w) * vectors + c]);
#pragma unroll
                    for (int v = 0; v < V; ++v) {
                        const bool first_nan = value[v] != value[v] && best[v] == best[v];
                        if (value[v] > best[v] || first_nan) {
                            best[v] = value[v];
                            place[v] = h * g.W + w;
                        }
                    }
                }
            }
            const long long out = static_cast<long long>(row) * g.Q * vectors + j;
            y[out] = pack<typename Lanes<V>::Floats>(best);
            index[out] = pack<typename Lanes<V>::Ints>(place);
        }
    }
}

template <int V>
__device__ __forceinline__ void max_backward(
    IN typename Lanes<V>::Floats* __restrict__ dy, IN typename Lanes<V>::Ints* __restrict__ index,
    typename Lanes<V>::Floats* __restrict__ dx, const AdaptivePool2dGeometry& g) {
    const int vectors = g.C / V;
    const int rows = g.N * g.H;
    const Walk at = walk();
    for (int row = at.row; row < rows; row += at.row_step) {
        const long long n = row / g.H;
        const int h = row % g.H;
        const Span down = span(h, g.P, g.H);
        for (int j = at.first; j < g.W * vectors; j += at.step) {
            const int w = j / vectors, c = j % vectors;
            const Span across = span(w, g.Q, g.W);
            float sum[V] = {};
            for (int p = down.first; p < down.end; ++p) {
                for (int q = across.first; q < across.end; ++q) {
                    const long long window = ((n * g.P + p) * g.Q + q) * vectors + c;
                    int winner[V];
                    float gradient[V];
                    unpack_index<V>(winner, index[window]);
                    unpack<V>(gradient, dy[window]);
#pragma unroll
                    for (int v = 0; v < V; ++v) sum[v] += winner[v] == h * g.W + w ? gradient[v] : 0.0f;
                }
            }
            dx[static_cast<long long>(row) * g.W * vectors + j] = pack<typename Lanes<V>::Floats>(sum);
        }
    }
}

template <int V>
__device__ __forceinline__ void avg_forward(
    IN typename Lanes<V>::Floats* __restrict__ x, typename Lanes<V>::Floats* __restrict__ y,
    const AdaptivePool2dGeometry& g) {
    const int vectors = g.C / V;
    const int rows = g.N * g.P;
    const Walk at = walk();
    for (int row = at.row; row < rows; row += at.row_step) {
        const long long n = row / g.P;
        const Span down = span(row % g.P, g.H, g.P);
        for (int j = at.first; j < g.Q * vectors; j += at.step) {
            const int q = j / vectors, c = j % vectors;
            const Span across = span(q, g.W, g.Q);
            float sum[V] = {};
            for (int h = down.first; h < down.end; ++h) {
                for (int w = across.first; w < across.end; ++w) {
                    float value[V];
                    unpack<V>(value, x[((n * g.H + h) * g.W + w) * vectors + c]);
#pragma unroll
                    for (int v = 0; v < V; ++v) sum[v] += value[v];
                }
            }
            const float count = static_cast<float>((down.end - down.first) * (across.end - across.first));
#pragma unroll
            for (int v = 0; v < V; ++v) sum[v] /= count;
            y[static_cast<long long>(row) * g.Q * vectors + j] = pack<typename Lanes<V>::Floats>(sum);
        }
    }
}

template <int V>
__device__ __forceinline__ void avg_backward(
    IN typename Lanes<V>::Floats* __restrict__ dy, typename Lanes<V>::Floats* __restrict__ dx,
    const AdaptivePool2dGeometry& g) {
    const int vectors = g.C / V;
    const int rows = g.N * g.H;
    const Walk at = walk();
    for (int row = at.row; row < rows; row += at.row_step) {
        const long long n = row / g.H;
        const Span down = span(row % g.H, g.P, g.H);
        for (int j = at.first; j < g.W * vectors; j += at.step) {
            const int w = j / vectors, c = j % vectors;
            const Span across = span(w, g.Q, g.W);
            float sum[V] = {};
            for (int p = down.first; p < down.end; ++p) {
                const Span height = span(p, g.H, g.P);
                for (int q = across.first; q < across.end; ++q) {
                    const Span width = span(q, g.W, g.Q);
                    const float count = static_cast<float>((height.end - height.first) * (width.end - width.first));
                    float gradient[V];
                    unpack<V>(gradient, dy[((n * g.P + p) * g.Q + q) * vectors + c]);
#pragma unroll
                    for (int v = 0; v < V; ++v) sum[v] += gradient[v] / count;
                }
            }
            dx[static_cast<long long>(row) * g.W * vectors + j] = pack<typename Lanes<V>::Floats>(sum);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256, 4) adaptive_max_pool2d_forward(
    IN float* __restrict__ x, OUT float* __restrict__ y, OUT int* __restrict__ index, AdaptivePool2dGeometry g) {
    max_forward<1>(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) adaptive_max_pool2d_forward_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, OUT int4* __restrict__ index, AdaptivePool2dGeometry g) {
    max_forward<4>(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_max_pool2d_backward(
    IN float* __restrict__ dy, IN int* __restrict__ index, OUT float* __restrict__ dx, AdaptivePool2dGeometry g) {
    max_backward<1>(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_max_pool2d_backward_vec4(
    IN float4* __restrict__ dy, IN int4* __restrict__ index, OUT float4* __restrict__ dx, AdaptivePool2dGeometry g) {
    max_backward<4>(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) adaptive_avg_pool2d_forward(
    IN float* __restrict__ x, OUT float* __restrict__ y, AdaptivePool2dGeometry g) {
    avg_forward<1>(x, y, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) adaptive_avg_pool2d_forward_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, AdaptivePool2dGeometry g) {
    avg_forward<4>(x, y, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) adaptive_avg_pool2d_backward(
    IN float* __restrict__ dy, OUT float* __restrict__ dx, AdaptivePool2dGeometry g) {
    avg_backward<1>(dy, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) adaptive_avg_pool2d_backward_vec4(
    IN float4* __restrict__ dy, OUT float4* __restrict__ dx, AdaptivePool2dGeometry g) {
    avg_backward<4>(dy, dx, g);
}
