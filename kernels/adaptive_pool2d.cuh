// Adaptive max and average pooling of channels-last images: x (N, H, W, C), y (N, P, Q, C) of the wanted size.
//
// Output row p sees the input rows [floor(p H / P), ceil((p + 1) H / P)), and columns alike: PyTorch's windows, which differ
// in size by one and may share a row. Turned around, input row h is seen by the output rows [floor(h P / H), ceil((h + 1) P /
// H)). Both passes are gathers: forward, a thread owns an output and walks its window; backward, a thread owns an input and
// walks, in order of p and q, the windows that hold it. So nothing is written twice and nothing is atomic. Where P divides
// H and Q divides W, kernels/pool2d.cuh is called instead.
//
// Launch: block (bx, by) with bx * by = 256, any grid. y and blockIdx.y walk the rows of the image that is written
// (N * P or N * H), x and blockIdx.x the Q * C (or W * C) elements of a row, neighbours in c next to each other. In the
// *_vec4 and *x8 instances a thread owns four or eight neighbouring channels and moves them as 16 bytes (lanes.cuh): C a multiple of
// 4 or 8, arrays 16-byte aligned. H * P and W * Q stay below 2^31.

#pragma once

#include "pool2d.cuh"

// The places [first, end) of an axis of `inputs` that place i of an axis of `outputs` meets, in either direction.
struct Span {
    int first, end;
};

__device__ __forceinline__ Span span(int i, int inputs, int outputs) {
    const unsigned from = static_cast<unsigned>(i) * inputs, to = from + inputs;
    return {static_cast<int>(from / outputs), static_cast<int>(ceil_div(to, static_cast<unsigned>(outputs)))};
}

// The largest of a window and its place h * W + w in the image: the first of equals, the first NaN above all.
template <typename M>
__device__ __forceinline__ void adaptive_max_forward(
    IN M* __restrict__ x, M* __restrict__ y, IntsOf<M>* __restrict__ index, const AdaptivePool2dGeometry& g) {
    constexpr int V = Lanes<M>::COUNT;
    const int vectors = g.C / V;
    const int rows = g.N * g.P;
    const Walk at = walk();
    for (int row = at.row; row < rows; row += at.row_step) {
        const long long n = row / g.P;
        const Span down = span(row % g.P, g.H, g.P);
        for (int j = at.first; j < g.Q * vectors; j += at.step) {
            const int q = j / vectors, c = j % vectors;
            const Span across = span(q, g.W, g.Q);
            Largest<V> largest(down.first * g.W + across.first);
            for (int h = down.first; h < down.end; ++h) {
                for (int w = across.first; w < across.end; ++w) {
                    largest.take(x[((n * g.H + h) * g.W + w) * vectors + c], h * g.W + w);
                }
            }
            const long long out = static_cast<long long>(row) * g.Q * vectors + j;
            largest.store(y + out, index + out);
        }
    }
}

template <typename M>
__device__ __forceinline__ void adaptive_max_backward(
    IN M* __restrict__ dy, IN IntsOf<M>* __restrict__ index, M* __restrict__ dx, const AdaptivePool2dGeometry& g) {
    constexpr int V = Lanes<M>::COUNT;
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
            Lanes<M> sum = {};
            for (int p = down.first; p < down.end; ++p) {
                for (int q = across.first; q < across.end; ++q) {
                    const long long window = ((n * g.P + p) * g.Q + q) * vectors + c;
                    int winner[V];
                    unpack_index(winner, index[window]);
                    const Lanes<M> gradient = Lanes<M>::load(dy + window);
#pragma unroll
                    for (int v = 0; v < V; ++v) sum.at[v] += winner[v] == h * g.W + w ? gradient.at[v] : 0.0f;
                }
            }
            sum.store(dx + static_cast<long long>(row) * g.W * vectors + j);
        }
    }
}

template <typename M>
__device__ __forceinline__ void adaptive_avg_forward(
    IN M* __restrict__ x, M* __restrict__ y, const AdaptivePool2dGeometry& g) {
    constexpr int V = Lanes<M>::COUNT;
    const int vectors = g.C / V;
    const int rows = g.N * g.P;
    const Walk at = walk();
    for (int row = at.row; row < rows; row += at.row_step) {
        const long long n = row / g.P;
        const Span down = span(row % g.P, g.H, g.P);
        for (int j = at.first; j < g.Q * vectors; j += at.step) {
            const int q = j / vectors, c = j % vectors;
            const Span across = span(q, g.W, g.Q);
            Lanes<M> sum = {};
            for (int h = down.first; h < down.end; ++h) {
                for (int w = across.first; w < across.end; ++w) {
                    const Lanes<M> value = Lanes<M>::load(x + ((n * g.H + h) * g.W + w) * vectors + c);
#pragma unroll
                    for (int v = 0; v < V; ++v) sum.at[v] += value.at[v];
                }
            }
            const float count = static_cast<float>((down.end - down.first) * (across.end - across.first));
#pragma unroll
            for (int v = 0; v < V; ++v) sum.at[v] /= count;
            sum.store(y + static_cast<long long>(row) * g.Q * vectors + j);
        }
    }
}

template <typename M>
__device__ __forceinline__ void adaptive_avg_backward(
    IN M* __restrict__ dy, M* __restrict__ dx, const AdaptivePool2dGeometry& g) {
    constexpr int V = Lanes<M>::COUNT;
    const int vectors = g.C / V;
    const int rows = g.N * g.H;
    const Walk at = walk();
    for (int row = at.row; row < rows; row += at.row_step) {
        const long long n = row / g.H;
        const Span down = span(row % g.H, g.P, g.H);
        for (int j = at.first; j < g.W * vectors; j += at.step) {
            const int w = j / vectors, c = j % vectors;
            const Span across = span(w, g.Q, g.W);
            Lanes<M> sum = {};
            for (int p = down.first; p < down.end; ++p) {
                const Span height = span(p, g.H, g.P);
                for (int q = across.first; q < across.end; ++q) {
                    const Span width = span(q, g.W, g.Q);
                    const float count = static_cast<float>((height.end - height.first) * (width.end - width.first));
                    const Lanes<M> gradient = Lanes<M>::load(dy + ((n * g.P + p) * g.Q + q) * vectors + c);
#pragma unroll
                    for (int v = 0; v < V; ++v) sum.at[v] += gradient.at[v] / count;
                }
            }
            sum.store(dx + static_cast<long long>(row) * g.W * vectors + j);
        }
    }
}
