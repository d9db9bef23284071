// Max and average pooling of channels-last images: x (N, H, W, C), windows of R x S taps, y (N, P, Q, C).
//
// Window (p, q) has its tap (r, s) at h = p * stride_h - pad_top + r * dilation_h, w = q * stride_w - pad_left + s *
// dilation_w. Both passes are gathers: forward, a thread owns an output and walks its window; backward, a thread owns
// an input and walks, in order of p and q, the windows that hold it. So nothing is written twice and nothing is
// atomic. Bound by memory: forward reads x and writes y and one byte an output, backward reads dy and that byte and writes dx.
//
// Launch: block (bx, by) with bx * by = 256, any grid. y and blockIdx.y walk the rows of the image that is written
// (N * P or N * H), x and blockIdx.x the Q * C (or W * C) elements of a row, neighbours in c next to each other. In the
// *_vec4 and *x8 instances a thread owns four or eight neighbouring channels and moves them as 16 bytes (lanes.cuh): C a multiple of
// 4 or 8, arrays 16-byte aligned, and the index by its 4 or 8 bytes. Instances *_wide keep the index in an int, for windows of more than
// 256 taps.
//
// Instances *_2x2 and *_3x3 are for such windows of stride 2 and dilation 1, which nearly all networks have. Their loops are unrolled, so
// that a window's loads are under way together. Backward, a thread owns a stride x stride tile of inputs, which the same one (2x2) or four
// (3x3) windows hold: each dy and index is read once by the threads of a tile, not once by each of its inputs, and there the rows and
// elements are those of tiles. avg_pool2d_forward_global_* has a mapping of its own: see avg_forward_global.

#pragma once

#include "geometry.cuh"
#include "lanes.cuh"

// Of the taps start, start + dilation, ... (`taps` of them), those in [low, high): from tap `first` on, `count` of
// them.
struct Taps {
    int first, count;
};

// The least count of dilated taps that is not below a distance; without dilation it costs no division.
__device__ __forceinline__ int taps_over(int distance, int dilation) {
    return dilation == 1 ? distance : ceil_div(distance, dilation);
}

__device__ __forceinline__ Taps taps_inside(int start, int dilation, int taps, int low, int high) {
    const int first = start >= low ? 0 : taps_over(low - start, dilation);
    const int end = start >= high ? 0 : min(taps, taps_over(high - start, dilation));
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

// The largest of a window and where it stands: the first of equals, the first NaN above all. Padding never wins; a window without any
// data gives -inf at the place that it began with, to which no input answers.
template <int V>
struct Largest {
    float value[V];
    int place[V];

    __device__ __forceinline__ explicit Largest(int begin) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
            value[v] = -__int_as_float(INFINITY_BITS);
            place[v] = begin;
        }
    }

    template <typename M>
    __device__ __forceinline__ void take(const M& m, int at) {
        const Lanes<M> lanes = Lanes<M>::of(m);
#pragma unroll
        for (int v = 0; v < V; ++v) {
            const bool wins = !(lanes.at[v] <= value[v]) && value[v] == value[v];  // larger, or a NaN, and none was there before
            value[v] = wins ? lanes.at[v] : value[v];
            place[v] = wins ? at : place[v];
        }
    }

    template <typename M, typename Indices>
    __device__ __forceinline__ void store(M* __restrict__ y, Indices* __restrict__ index) const {
        Lanes<M> lanes;
#pragma unroll
        for (int v = 0; v < V; ++v) lanes.at[v] = value[v];
        lanes.store(y);
        *index = pack_index<Indices>(place);
    }
};

template <typename M, typename Indices>
__device__ __forceinline__ void max_forward(
    IN M* __restrict__ x, M* __restrict__ y, Indices* __restrict__ index, const Pool2dGeometry& g) {
    constexpr int V = Lanes<M>::COUNT;
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
            Largest<V> largest(down.count > 0 && across.count > 0 ? down.first * g.S + across.first : 0);
            for (int r = down.first; r < down.first + down.count; ++r) {
                const long long line = (n * g.H + h0 + r * g.dilation_h) * g.W;
                for (int s = across.first; s < across.first + across.count; ++s) {
                    largest.take(x[(line + w0 + s * g.dilation_w) * vectors + c], r * g.S + s);
                }
            }
            const long long out = static_cast<long long>(row) * g.Q * vectors + j;
            largest.store(y + out, index + out);
        }
    }
}

// Windows of SIZE x SIZE, stride 2, dilation 1.
template <int SIZE, typename M>
__device__ __forceinline__ void max_forward_square(
    IN M* __restrict__ x, M* __restrict__ y, BytesOf<M>* __restrict__ index, const Pool2dGeometry& g) {
    constexpr int V = Lanes<M>::COUNT, STRIDE = 2;
    const int vectors = g.C / V;
    const int rows = g.N * g.P;
    const Walk at = walk();
    for (int row = at.row; row < rows; row += at.row_step) {
        const long long n = row / g.P;
        const int h0 = row % g.P * STRIDE - g.pad_top;
        for (int j = at.first; j < g.Q * vectors; j += at.step) {
            const int q = j / vectors, c = j % vectors;
            const int w0 = q * STRIDE - g.pad_left;
            M taps[SIZE * SIZE];
#pragma unroll
            for (int r = 0; r < SIZE; ++r) {
                const long long line = (n * g.H + h0 + r) * g.W + w0;
#pragma unroll
                for (int s = 0; s < SIZE; ++s) {
                    const bool inside = h0 + r >= 0 && h0 + r < g.H && w0 + s >= 0 && w0 + s < g.W;
                    if (inside) taps[r * SIZE + s] = x[(line + s) * vectors + c];
                }
            }
            const bool data = h0 + SIZE > 0 && h0 < g.H && w0 + SIZE > 0 && w0 < g.W;
            Largest<V> largest(data ? max(-h0, 0) * SIZE + max(-w0, 0) : 0);
#pragma unroll
            for (int r = 0; r < SIZE; ++r) {
#pragma unroll
                for (int s = 0; s < SIZE; ++s) {
                    const bool inside = h0 + r >= 0 && h0 + r < g.H && w0 + s >= 0 && w0 + s < g.W;
                    if (inside) largest.take(taps[r * SIZE + s], r * SIZE + s);
                }
            }
            const long long out = static_cast<long long>(row) * g.Q * vectors + j;
            largest.store(y + out, index + out);
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

template <typename M, typename Indices>
__device__ __forceinline__ void max_backward(
    IN M* __restrict__ dy, IN Indices* __restrict__ index, M* __restrict__ dx, const Pool2dGeometry& g) {
    constexpr int V = Lanes<M>::COUNT;
    const int vectors = g.C / V;
    const int rows = g.N * g.H;
    const Walk at = walk();
    for (int row = at.row; row < rows; row += at.row_step) {
        for (int j = at.first; j < g.W * vectors; j += at.step) {
            Lanes<M> sum = {};
            for_windows(g, vectors, row, j, [&](long long window, int tap, int, int) {
                int winner[V];
                unpack_index(winner, index[window]);
                const Lanes<M> gradient = Lanes<M>::load(dy + window);
#pragma unroll
                for (int v = 0; v < V; ++v) sum.at[v] += winner[v] == tap ? gradient.at[v] : 0.0f;
            });
            sum.store(dx + static_cast<long long>(row) * g.W * vectors + j);
        }
    }
}

// Windows of SIZE x SIZE, stride 2, dilation 1. Tile (i, k) has the inputs at h = 2 i - pad_top and the next, w likewise; the windows
// i - DEEP + 1 .. i (and k - DEEP + 1 .. k) hold some of them. Taps are added in order of p and q.
template <int SIZE, typename M>
__device__ __forceinline__ void max_backward_square(
    IN M* __restrict__ dy, IN BytesOf<M>* __restrict__ index, M* __restrict__ dx, const Pool2dGeometry& g) {
    constexpr int V = Lanes<M>::COUNT, STRIDE = 2, DEEP = (SIZE + STRIDE - 1) / STRIDE;
    const int vectors = g.C / V;
    const int tile_rows = ceil_div(g.H + g.pad_top, STRIDE), tile_columns = ceil_div(g.W + g.pad_left, STRIDE);
    const int rows = g.N * tile_rows;
    const Walk at = walk();
    for (int row = at.row; row < rows; row += at.row_step) {
        const long long n = row / tile_rows;
        const int i = row % tile_rows;
        for (int j = at.first; j < tile_columns * vectors; j += at.step) {
            const int k = j / vectors, c = j % vectors;
            Lanes<M> sum[STRIDE][STRIDE] = {};
#pragma unroll
            for (int d = DEEP - 1; d >= 0; --d) {
#pragma unroll
                for (int e = DEEP - 1; e >= 0; --e) {
                    const int p = i - d, q = k - e;
                    if (p < 0 || p >= g.P || q < 0 || q >= g.Q) continue;
                    const long long window = ((n * g.P + p) * g.Q + q) * vectors + c;
                    int winner[V];
                    unpack_index(winner, index[window]);
                    const Lanes<M> gradient = Lanes<M>::load(dy + window);
#pragma unroll
                    for (int a = 0; a < STRIDE; ++a) {
#pragma unroll
                        for (int b = 0; b < STRIDE; ++b) {
                            const int r = a + d * STRIDE, s = b + e * STRIDE;
                            if (r >= SIZE || s >= SIZE) continue;
#pragma unroll
                            for (int v = 0; v < V; ++v) {
                                sum[a][b].at[v] += winner[v] == r * SIZE + s ? gradient.at[v] : 0.0f;
                            }
                        }
                    }
                }
            }
#pragma unroll
            for (int a = 0; a < STRIDE; ++a) {
                const int h = i * STRIDE - g.pad_top + a;
#pragma unroll
                for (int b = 0; b < STRIDE; ++b) {
                    const int w = k * STRIDE - g.pad_left + b;
                    if (h >= 0 && h < g.H && w >= 0 && w < g.W) sum[a][b].store(dx + ((n * g.H + h) * g.W + w) * vectors + c);
                }
            }
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

template <typename M>
__device__ __forceinline__ void avg_forward(
    IN M* __restrict__ x, M* __restrict__ y, const Pool2dGeometry& g, int count_include_pad, int divisor) {
    constexpr int V = Lanes<M>::COUNT;
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
            Lanes<M> sum = {};
            for (int r = down.first; r < down.first + down.count; ++r) {
                const long long line = (n * g.H + h0 + r * g.dilation_h) * g.W;
#pragma unroll 4
                for (int s = across.first; s < across.first + across.count; ++s) {
                    const Lanes<M> value = Lanes<M>::load(x + (line + w0 + s * g.dilation_w) * vectors + c);
#pragma unroll
                    for (int v = 0; v < V; ++v) sum.at[v] += value.at[v];
                }
            }
            const float share = 1.0f / divisor_of(g, p, q, count_include_pad, divisor);
#pragma unroll
            for (int v = 0; v < V; ++v) sum.at[v] *= share;
            sum.store(y + static_cast<long long>(row) * g.Q * vectors + j);
        }
    }
}

template <typename M>
__device__ __forceinline__ void avg_backward(
    IN M* __restrict__ dy, M* __restrict__ dx, const Pool2dGeometry& g, int count_include_pad, int divisor) {
    constexpr int V = Lanes<M>::COUNT;
    const int vectors = g.C / V;
    const int rows = g.N * g.H;
    const Walk at = walk();
    for (int row = at.row; row < rows; row += at.row_step) {
        for (int j = at.first; j < g.W * vectors; j += at.step) {
            Lanes<M> sum = {};
            for_windows(g, vectors, row, j, [&](long long window, int, int p, int q) {
                const float share = 1.0f / divisor_of(g, p, q, count_include_pad, divisor);
                const Lanes<M> gradient = Lanes<M>::load(dy + window);
#pragma unroll
                for (int v = 0; v < V; ++v) sum.at[v] = fmaf(gradient.at[v], share, sum.at[v]);
            });
            sum.store(dx + static_cast<long long>(row) * g.W * vectors + j);
        }
    }
}

// The mean over whole images (windows of H x W, no padding): few outputs of many taps each. Block (bx, by), both powers of two with bx * by =
// 256, grid (ceil(C / V / bx), N): thread (x, y) adds up every by-th pixel of column blockIdx.x * bx + x, and the threads of a column meet in a
// tree. x (N, pixels, C), y (N, C).
template <typename M>
__device__ __forceinline__ void avg_forward_global(IN M* __restrict__ x, M* __restrict__ y, int pixels, int columns, float share) {
    constexpr int V = Lanes<M>::COUNT;
    __shared__ float shared[V][256];
    const int column = blockIdx.x * blockDim.x + threadIdx.x, place = threadIdx.y * blockDim.x + threadIdx.x;
    IN M* image = x + static_cast<long long>(blockIdx.y) * pixels * columns + column;
    Lanes<M> sum = {};
    if (column < columns) {
#pragma unroll 4
        for (int pixel = threadIdx.y; pixel < pixels; pixel += blockDim.y) {
            const Lanes<M> value = Lanes<M>::load(image + static_cast<long long>(pixel) * columns);
#pragma unroll
            for (int v = 0; v < V; ++v) sum.at[v] += value.at[v];
        }
    }
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if (threadIdx.y >= half && threadIdx.y < 2 * half) {
#pragma unroll
            for (int v = 0; v < V; ++v) shared[v][place] = sum.at[v];
        }
        __syncthreads();
        if (threadIdx.y < half) {
#pragma unroll
            for (int v = 0; v < V; ++v) sum.at[v] += shared[v][place + half * blockDim.x];
        }
    }
    if (threadIdx.y == 0 && column < columns) {
#pragma unroll
        for (int v = 0; v < V; ++v) sum.at[v] *= share;
        sum.store(y + static_cast<long long>(blockIdx.y) * columns + column);
    }
}
