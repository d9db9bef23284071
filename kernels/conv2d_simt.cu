// Convolution and its two gradients as implicit GEMM in float32: the matrices of im2col, of which no element is ever stored.
//
//            rows M          columns N      sum over K        operand A              operand B
//   fprop    n, p, q         k              r, s, c           x, gathered            w as (K, R S C)
//   dgrad    n, h, w         c              r, s, k           dy, gathered           w, transposed while it is read
//   wgrad    k               r, s, c        n, p, q           dy as (N P Q, K)       x, gathered
//
// Any stride, padding (also asymmetric), dilation and number of groups; groups are separate GEMMs over slices of the channels.
//
// Launch: one block a tile and group, all folded into gridDim.x (TileIndex); block = Tile::THREADS. dgrad multiplies the tiles by the phases of
// its stride (DgradAxis). wgrad has few tiles and a long K, so gridDim.y blocks split K: each writes its own partial sum, which
// split_k.cu adds up in a fixed order. What a thread owns: TM x TN results in registers (gemm_simt.cuh).
//
// Instances named vec4 read and write 128 bits at a time: they need C / groups and K / groups divisible by 4 and arrays that start at multiples
// of 16 bytes. Instances named scalar take everything. Within an image int is enough for coordinates (the host checks); offsets
// into tensors are long long.

#include "convolution.cuh"
#include "gemm_simt.cuh"

// Windows of an image as rows of a matrix, K running over (tap row, tap column, channel), which is the order of memory.
// fprop: rows of x at steps of the dilation; dgrad: rows of dy at negative steps. It lies in shared memory, like Block and for its reason.
struct Windows {
    int height, width, channels;      // of the image; channels are the distance between pixels
    int taps_h, taps_w, depth;        // of K; depth is the channels of a group
    int tap_step_h, tap_step_w;
};

template <class T, int MN, int VEC_>
struct WindowSource {
    static constexpr int VEC = VEC_;
    static constexpr bool K_CONTIGUOUS = true;
    using share = Share<T, MN, VEC, true>;
    static constexpr int COUNT = share::COUNT;

    const float* images;
    const Windows& shape;
    Odometer tap;
    int h[COUNT], w[COUNT];  // where the windows begin, also outside of the image
    int pixel[COUNT];        // the same as an index into all pixels (n, h, w)

    // `place(row, n, h, w)` finds a row's image and where its window begins; false for rows that do not exist.
    template <class Place>
    __device__ WindowSource(const float* images_, const Windows& shape_, int first_row, Place place)
        : images(images_), shape(shape_), tap(share::k(), max(1, shape_.taps_w), shape_.depth) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            int n;
            const bool exists = place(first_row + share::row(i), n, h[i], w[i]);
            pixel[i] = exists ? (n * shape.height + h[i]) * shape.width + w[i] : 0;
            if (!exists) h[i] = OUTSIDE;
        }
    }

    __device__ __forceinline__ void fetch(float (&values)[COUNT][VEC]) const {
        const int tap_h = tap.high * shape.tap_step_h;
        const int tap_w = tap.middle * shape.tap_step_w;
        const float* channel = images + tap.low;
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            const bool valid = tap.high < shape.taps_h && inside(h[i] + tap_h, shape.height) && inside(w[i] + tap_w, shape.width);
            const long long place = pixel[i] + tap_h * shape.width + tap_w;
            zero_run(values[i]);
            if (valid) load_run(channel + place * shape.channels, values[i]);
        }
    }

    __device__ __forceinline__ void advance() {
        tap.advance(T::BK, shape.taps_w, shape.depth);
    }
};

template <class T, int VEC>
__device__ __forceinline__ void fprop(const float* x, const float* w, const float* bias, float* y, const Conv2dGeometry& g) {
    const int rows = g.N * g.P * g.Q, columns = g.K / g.groups, depth = g.C / g.groups;
    const int extent_k = g.R * g.S * depth;
    const TileIndex tile(blockIdx.x, ceil_div(rows, T::BM), ceil_div(columns, T::BN));
    const int group = tile.outer, first_row = tile.m * T::BM, first_column = tile.n * T::BN;
    __shared__ Block block;
    __shared__ Windows windows;
    if (threadIdx.x == 0) {
        block = Block{first_row, rows, first_column, columns, group};
        windows = Windows{g.H, g.W, g.C, g.R, g.S, depth, g.dilation_h, g.dilation_w};
    }
    __syncthreads();

    WindowSource<T, T::BM, VEC> a(
        x + group * depth, windows, first_row,
        [&](int row, int& n, int& h0, int& w0) {
            const int q = row % g.Q, p = row / g.Q % g.P;
            n = row / g.Q / g.P;
            h0 = p * g.stride_h - g.pad_top;
            w0 = q * g.stride_w - g.pad_left;
            return row < rows;
        });
    MatrixSource<T, T::BN, VEC, true> b(
        w + static_cast<long long>(group) * columns * extent_k, extent_k, first_column, columns, 0, extent_k);
    float acc[T::TM][T::TN];
    gemm_mainloop<T>(a, b, ceil_div(extent_k, T::BK), acc);
    const int first_k = block.outer * block.columns;  // the group's first output channel
    gemm_epilogue<T, VEC>(acc, y + first_k, bias == nullptr ? nullptr : bias + first_k, block, [&](int row) {
        return static_cast<long long>(row) * g.K;
    });
}

// The input pixels that a block of dgrad computes: those at first_h + i * stride_h, first_w + j * stride_w, for i < height, j < width.
struct Phase {
    int first_h, first_w, height, width;
};

// Filters as operand B of dgrad: rows are input channels, K runs over (tap row, tap column, output channel).
template <class T, int MN, int VEC_>
struct TransposedFilterSource {
    static constexpr int VEC = VEC_;
    static constexpr bool K_CONTIGUOUS = false;
    using share = Share<T, MN, VEC, false>;
    static constexpr int COUNT = share::COUNT;

    const float* filters;  // of the group, at this thread's first channel
    const Conv2dGeometry& g;
    const Windows& windows;
    const DgradAxis &vertical, &horizontal;
    Odometer tap;
    int channels_left;

    __device__ TransposedFilterSource(
        const float* group_filters, const Conv2dGeometry& g_, const Windows& windows_, const DgradAxis& vertical_,
        const DgradAxis& horizontal_, int first_channel)
        : g(g_), windows(windows_), vertical(vertical_), horizontal(horizontal_),
          tap(share::k(), max(1, windows_.taps_w), windows_.depth) {
        const int channel = first_channel + share::row(0);
        filters = group_filters + channel;
        channels_left = g.C / g.groups - channel;
    }

    __device__ __forceinline__ void fetch(float (&values)[COUNT][VEC]) const {
        const int r = vertical.first_tap + tap.high * vertical.tap_step;
        const int s = horizontal.first_tap + tap.middle * horizontal.tap_step;
        const float* run = filters + ((static_cast<long long>(tap.low) * g.R + r) * g.S + s) * (g.C / g.groups);
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            zero_run(values[i]);
            if (tap.high < vertical.taps && i * share::STEP < channels_left) load_run(run + i * share::STEP, values[i]);
        }
    }

    __device__ __forceinline__ void advance() {
        tap.advance(T::BK, windows.taps_w, windows.depth);
    }
};

template <class T, int VEC>
__device__ __forceinline__ void dgrad(const float* dy, const float* w, float* dx, const Conv2dGeometry& g) {
    // The first phase has the most rows; in the others the last blocks may find nothing to do.
    const int phases_h = min(g.stride_h, g.H), phases_w = min(g.stride_w, g.W);
    const int columns = g.C / g.groups, depth = g.K / g.groups;
    const int most_rows = g.N * ceil_div(g.H, g.stride_h) * ceil_div(g.W, g.stride_w);
    const TileIndex tile(blockIdx.x, ceil_div(most_rows, T::BM), ceil_div(columns, T::BN));
    const int group = tile.outer / (phases_h * phases_w);
    const int first_h = tile.outer / phases_w % phases_h, first_w = tile.outer % phases_w;
    const int phase_height = ceil_div(g.H - first_h, g.stride_h), phase_width = ceil_div(g.W - first_w, g.stride_w);
    const int rows = g.N * phase_height * phase_width;
    const int first_row = tile.m * T::BM, first_column = tile.n * T::BN;
    if (first_row >= rows) return;  // the whole block

    __shared__ Block block;
    __shared__ Phase phase;
    __shared__ Windows windows;
    __shared__ DgradAxis vertical, horizontal;
    if (threadIdx.x == 0) {
        block = Block{first_row, rows, first_column, columns, group};
        phase = Phase{first_h, first_w, phase_height, phase_width};
        vertical = dgrad_axis(first_h, g.R, g.stride_h, g.pad_top, g.dilation_h);
        horizontal = dgrad_axis(first_w, g.S, g.stride_w, g.pad_left, g.dilation_w);
        windows = Windows{g.P, g.Q, g.K, vertical.taps, horizontal.taps, depth, -vertical.row_step, -horizontal.row_step};
    }
    __syncthreads();

    WindowSource<T, T::BM, VEC> a(
        dy + group * depth, windows, first_row,
        [&](int row, int& n, int& p0, int& q0) {
            p0 = vertical.origin + row / phase_width % phase_height;
            q0 = horizontal.origin + row % phase_width;
            n = row / phase_width / phase_height;
            return row < rows;
        });
    TransposedFilterSource<T, T::BN, VEC> b(
        w + static_cast<long long>(group) * depth * g.R * g.S * columns, g, windows, vertical, horizontal, first_column);
    float acc[T::TM][T::TN];
    gemm_mainloop<T>(a, b, ceil_div(windows.taps_h * windows.taps_w * depth, T::BK), acc);
    gemm_epilogue<T, VEC>(acc, dx + block.outer * block.columns, nullptr, block, [&](int row) {
        const int j = row % phase.width, i = row / phase.width % phase.height, n = row / phase.width / phase.height;
        const long long image_row = static_cast<long long>(n) * g.H + phase.first_h + i * g.stride_h;
        return (image_row * g.W + phase.first_w + j * g.stride_w) * g.C;
    });
}

// Operand B of wgrad: rows are filter elements (r, s, c), K runs over output pixels (n, p, q).
template <class T, int MN, int VEC_>
struct PixelSource {
    static constexpr int VEC = VEC_;
    static constexpr bool K_CONTIGUOUS = false;
    using share = Share<T, MN, VEC, false>;
    static constexpr int COUNT = share::COUNT;

    const float* x;  // at the group's first channel
    const Conv2dGeometry& g;
    Odometer pixel;
    int k_left;
    int tap_h[COUNT], tap_w[COUNT], channel[COUNT];  // of each of this thread's runs of filter elements

    __device__ PixelSource(const float* x_, const Conv2dGeometry& g_, int first_element, int elements, int k_begin, int k_end)
        : x(x_), g(g_), pixel(k_begin + share::k(), g_.P, g_.Q), k_left(k_end - k_begin - share::k()) {
        const int depth = g.C / g.groups;
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            const int element = first_element + share::row(i);
            channel[i] = element % depth;
            tap_w[i] = element / depth % g.S * g.dilation_w - g.pad_left;
            tap_h[i] = element < elements ? element / depth / g.S * g.dilation_h - g.pad_top : OUTSIDE;
        }
    }

    __device__ __forceinline__ void fetch(float (&values)[COUNT][VEC]) const {
        const int h0 = pixel.middle * g.stride_h, w0 = pixel.low * g.stride_w;
        const float* image = x + static_cast<long long>(pixel.high) * g.H * g.W * g.C;
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            const int row = h0 + tap_h[i], column = w0 + tap_w[i];
            const bool valid = k_left > 0 && inside(row, g.H) && inside(column, g.W);
            zero_run(values[i]);
            if (valid) load_run(image + (static_cast<long long>(row) * g.W + column) * g.C + channel[i], values[i]);
        }
    }

    __device__ __forceinline__ void advance() {
        pixel.advance(T::BK, g.P, g.Q);
        k_left -= T::BK;
    }
};

// Block y sums K from y * k_per_split on, into the y-th of the arrays (K, R, S, C / groups) at `partial`.
template <class T, int VEC>
__device__ __forceinline__ void wgrad(
    const float* x, const float* dy, float* partial, int k_per_split, const Conv2dGeometry& g) {
    const int rows = g.K / g.groups, depth = g.C / g.groups, columns = g.R * g.S * depth;
    const TileIndex tile(blockIdx.x, ceil_div(rows, T::BM), ceil_div(columns, T::BN));
    const int group = tile.outer, first_row = tile.m * T::BM, first_column = tile.n * T::BN;
    __shared__ Block block;
    if (threadIdx.x == 0) block = Block{first_row, rows, first_column, columns, group};

    const int k_begin = blockIdx.y * k_per_split, k_end = min(g.N * g.P * g.Q, k_begin + k_per_split);

    MatrixSource<T, T::BM, VEC, false> a(dy + group * rows, g.K, first_row, rows, k_begin, k_end);
    PixelSource<T, T::BN, VEC> b(x + group * depth, g, first_column, columns, k_begin, k_end);
    float acc[T::TM][T::TN];
    gemm_mainloop<T>(a, b, ceil_div(k_end - k_begin, T::BK), acc);
    gemm_epilogue<T, VEC>(acc, partial, nullptr, block, [&](int row) {
        return (static_cast<long long>(blockIdx.y) * g.K + block.outer * block.rows + row) * block.columns;
    });
}

extern "C" __global__ void __launch_bounds__(128, 3) conv2d_fprop_128x64_vec4(
    IN float4* __restrict__ x, IN float4* __restrict__ w, IN float* __restrict__ bias, OUT float4* __restrict__ y,
    Conv2dGeometry g) {
    fprop<Tile128x64, 4>(floats(x), floats(w), bias, floats(y), g);
}

extern "C" __global__ void __launch_bounds__(128, 4) conv2d_fprop_64x64_vec4(
    IN float4* __restrict__ x, IN float4* __restrict__ w, IN float* __restrict__ bias, OUT float4* __restrict__ y,
    Conv2dGeometry g) {
    fprop<Tile64x64, 4>(floats(x), floats(w), bias, floats(y), g);
}

extern "C" __global__ void __launch_bounds__(128, 4) conv2d_fprop_64x64_scalar(
    IN float* __restrict__ x, IN float* __restrict__ w, IN float* __restrict__ bias, OUT float* __restrict__ y,
    Conv2dGeometry g) {
    fprop<Tile64x64Scalar, 1>(x, w, bias, y, g);
}

extern "C" __global__ void __launch_bounds__(128, 3) conv2d_dgrad_128x64_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ w, OUT float4* __restrict__ dx, Conv2dGeometry g) {
    dgrad<Tile128x64, 4>(floats(dy), floats(w), floats(dx), g);
}

extern "C" __global__ void __launch_bounds__(128, 4) conv2d_dgrad_64x64_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ w, OUT float4* __restrict__ dx, Conv2dGeometry g) {
    dgrad<Tile64x64, 4>(floats(dy), floats(w), floats(dx), g);
}

extern "C" __global__ void __launch_bounds__(128, 4) conv2d_dgrad_64x64_scalar(
    IN float* __restrict__ dy, IN float* __restrict__ w, OUT float* __restrict__ dx, Conv2dGeometry g) {
    dgrad<Tile64x64Scalar, 1>(dy, w, dx, g);
}

extern "C" __global__ void __launch_bounds__(128, 3) conv2d_wgrad_64x128_vec4(
    IN float4* __restrict__ x, IN float4* __restrict__ dy, OUT float4* __restrict__ partial, int k_per_split, Conv2dGeometry g) {
    wgrad<Tile64x128, 4>(floats(x), floats(dy), floats(partial), k_per_split, g);
}

extern "C" __global__ void __launch_bounds__(128, 4) conv2d_wgrad_64x64_vec4(
    IN float4* __restrict__ x, IN float4* __restrict__ dy, OUT float4* __restrict__ partial, int k_per_split, Conv2dGeometry g) {
    wgrad<Tile64x64, 4>(floats(x), floats(dy), floats(partial), k_per_split, g);
}

extern "C" __global__ void __launch_bounds__(128, 4) conv2d_wgrad_64x64_scalar(
    IN float* __restrict__ x, IN float* __restrict__ dy, OUT float* __restrict__ partial, int k_per_split, Conv2dGeometry g) {
    wgrad<Tile64x64Scalar, 1>(x, dy, partial, k_per_split, g);
}
