// Convolution and its two gradients as implicit GEMM in float32: the matrices of im2col, of which no element is ever stored.
//
//            rows M          columns N      sum over K        operand A              operand B
//   fprop    n, p, q         k              r, s, c           x, gathered            w as (K, R S C)
//   dgrad    n, h, w         c              r, s, k           dy, gathered           w, transposed while it is read
//   wgrad    k               r, s, c        n, p, q           dy as (N P Q, K)       x, gathered
//
// Any stride, padding (also asymmetric), dilation and number of groups; groups are separate GEMMs over slices of the channels. Fused: bias and
// ReLU into fprop, the mask of the layer before into dgrad, the gradient of the bias (sums of dy's columns) into wgrad.
//
// Launch: one block a tile and group, all folded into gridDim.x (TileIndex); block = Tile::THREADS. dgrad multiplies the tiles by the phases of
// its stride (DgradAxis). gridDim.y blocks split K, k_per_part terms each, where tiles are too few to fill a GPU (join_parts; with one part
// workspace and counters are not used). What a thread owns: TM x TN results in registers (gemm_simt.cuh).
//
// Instances named vec4 read and write 128 bits at a time: they need C / groups and K / groups divisible by 4 and arrays that start at multiples
// of 16 bytes. Those named few gather single floats of x, for layers of few channels: K lies along all of r, s and c, without gaps, and only K / groups
// need be divisible by 4. Those named scalar take everything. Within an image int is enough for coordinates (the host checks); offsets
// into tensors are long long.

#pragma once

#include "convolution.cuh"
#include "gemm_simt.cuh"
#include "geometry.cuh"

constexpr int FPROP_RESIDENT = __CUDA_ARCH__ == 900 ? 3 : 2;  // blocks of fprop's vec4 instance on a multiprocessor: registers decide

// What fprop, dgrad and wgrad take besides arrays and geometry.
struct ConvolutionOptions {
    int k_per_part;  // a multiple of 16
    int relu;
};

// Windows of an image as rows of a matrix, K running over (tap row, tap column, channel), which is the order of memory.
// fprop: rows of x at steps of the dilation; dgrad: rows of dy at negative steps. It lies in shared memory: the main loop has no
// registers to spare for what it seldom needs.
struct Windows {
    int height, width, channels;      // of the image; channels are the distance between pixels
    int taps_h, taps_w, depth;        // of K; depth is the channels of a group
    int tap_step_h, tap_step_w;
    int filter_step, filter_step_h, filter_step_w;  // dgrad: in the filters, from one output channel to the next, from one tap to the next
};

constexpr int MOST_TAPS = 31;  // rows and columns of a filter together that fit a mask, with one bit to spare
constexpr unsigned NO_WINDOW = 1u << 31;  // the bit that no mask has

// Which of `taps` places begin, begin + step, ... lie in [0, size): bit i for place i.
__device__ inline unsigned places_inside(int begin, int step, int taps, int size) {
    if (step == 1) {
        const int first = min(max(-begin, 0), taps), end = min(max(size - begin, 0), taps);
        return (1u << end) - 1 & ~((1u << first) - 1);
    }
    unsigned mask = 0;
    for (int i = 0; i < taps; ++i) mask |= static_cast<unsigned>(inside(begin + i * step, size)) << i;
    return mask;
}

// One K of a stage of fprop and dgrad: where it lies in a window, in bytes from where the window begins, whether it lies inside the image, and (dgrad) where
// it lies in the filters. There are two ways to see whether it lies inside: by the bits of its row and column, which the window's mask must have (`need`;
// one comparison, for filters of at most MOST_TAPS rows and columns), or by coordinates, h being OUTSIDE beyond the end of K.
struct __align__(16) MaskTap {
    long long bytes;
    unsigned need;
    int filter;
    __device__ bool exists() const {
        return need != NO_WINDOW;
    }
};

struct __align__(16) PlaceTap {
    int offset;  // floats
    int h, w, filter;
    __device__ bool exists() const {
        return h != OUTSIDE;
    }
};

// The taps of a stage are the same for all rows, so a few threads work them out, one K each, a stage ahead, and the others read them from
// shared memory: no division and no carry in the main loop, but for that warp.
template <class T, class Tap_>
struct TapTable {
    using Tap = Tap_;

    Tap* taps;  // [2][BK]: of this stage and of the next
    const Windows& shape;
    Odometer next;  // place threadIdx.x of the stage that is written next
    int stage;

    __device__ TapTable(Tap* taps_, const Windows& shape_, int k_begin)
        : taps(taps_), shape(shape_), next(k_begin + threadIdx.x, max(1, shape_.taps_w), shape_.depth), stage(0) {
        write(0);
        write(T::BK);
        __syncthreads();
    }

    __device__ static void set(MaskTap& tap, const Odometer& at, bool exists, int, int, int offset, int filter, const Windows& shape) {
        tap = MaskTap{4ll * offset, exists ? 1u << at.high | 1u << (shape.taps_h + at.middle) : NO_WINDOW, filter};
    }

    __device__ static void set(PlaceTap& tap, const Odometer&, bool exists, int h, int w, int offset, int filter, const Windows&) {
        tap = PlaceTap{offset, exists ? h : OUTSIDE, w, filter};
    }

    __device__ __forceinline__ void write(int buffer) {
        if (threadIdx.x >= T::BK) return;
        const int h = next.high * shape.tap_step_h, w = next.middle * shape.tap_step_w;
        const int offset = (h * shape.width + w) * shape.channels + next.low;
        const int filter = next.low * shape.filter_step + next.high * shape.filter_step_h + next.middle * shape.filter_step_w;
        set(taps[buffer + threadIdx.x], next, next.high < shape.taps_h, h, w, offset, filter, shape);
        next.advance(T::BK, shape.taps_w, shape.depth);
    }

    __device__ __forceinline__ const Tap& at(int k) const {
        return taps[stage + k];
    }

    __device__ __forceinline__ void advance() {
        write(stage);  // everybody has finished with it
        stage ^= T::BK;
    }
};

// Where a window begins, and what decides which of its taps lie inside the image.
struct MaskedWindow {
    unsigned mask;

    __device__ void set(bool exists, int h, int w, const Windows& shape) {
        mask = 0;
        if (exists) {
            mask = places_inside(h, shape.tap_step_h, shape.taps_h, shape.height)
                | places_inside(w, shape.tap_step_w, shape.taps_w, shape.width) << shape.taps_h;
        }
    }
    __device__ __forceinline__ bool sees(const MaskTap& at) const {
        return (at.need & ~mask) == 0;
    }
};

struct PlacedWindow {
    int h, w, height, width;

    __device__ void set(bool exists, int h_, int w_, const Windows& shape) {
        h = exists ? h_ : OUTSIDE, w = w_, height = shape.height, width = shape.width;
    }
    __device__ __forceinline__ bool sees(const PlaceTap& at) const {
        return inside(h + at.h, height) & inside(w + at.w, width);
    }
};

__device__ __forceinline__ const float* moved(const float* from, const MaskTap& at) {
    return reinterpret_cast<const float*>(reinterpret_cast<const char*>(from) + at.bytes);
}

__device__ __forceinline__ const float* moved(const float* from, const PlaceTap& at) {
    return from + at.offset;
}

// Runs of four channels of windows. Offsets count from the image of the tile's first row (the host checks that int is enough).
template <class T>
struct WindowSource {
    static constexpr int VEC = 4;
    static constexpr bool K_CONTIGUOUS = true;
    using share = Share<T, OperandA<T>, VEC, true>;
    static constexpr int COUNT = share::COUNT;
    using Table = TapTable<T, MaskTap>;

    struct Place {
        const float* images;  // moved on by the tap
        unsigned need;
    };

    const float* images;
    Table& table;
    int begin[COUNT];  // where the windows begin, perhaps outside of the image
    MaskedWindow window[COUNT];

    // `place(row, n, h, w)` finds where the window of the tile's row begins; false for rows that do not exist.
    template <class FindPlace>
    __device__ WindowSource(const float* images_, Table& table_, FindPlace place) : images(images_), table(table_) {
        const Windows& shape = table.shape;
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            int n, h, w;
            const bool exists = place(share::row() + share::step(i), n, h, w);
            begin[i] = exists ? ((n * shape.height + h) * shape.width + w) * shape.channels : 0;
            window[i].set(exists, h, w, shape);
        }
    }

    __device__ __forceinline__ Place tap() const {
        const MaskTap& at = table.at(share::k());
        return Place{moved(images, at), at.need};
    }

    __device__ __forceinline__ const float* run(int i, const Place& at, bool& valid) const {
        valid = (at.need & ~window[i].mask) == 0;
        return at.images + begin[i];
    }

    __device__ __forceinline__ void advance() {
        table.advance();
    }
};

// Single elements of windows, whatever the channels. A thread has one row of the tile and takes all K of a stage.
template <class T, class Tap, class Window>
struct GatherSource {
    static constexpr int VEC = 1;
    static constexpr bool K_CONTIGUOUS = false;
    static constexpr int COUNT = T::BK;
    struct share {
        static constexpr int PITCH = T::BM, SIZE = T::BK * T::BM;
        __device__ static int place(int i) {
            return i * PITCH + threadIdx.x;
        }
    };
    static_assert(T::BM == T::THREADS, "a thread has one row");
    using Table = TapTable<T, Tap>;

    const float* begin;  // of this thread's window, perhaps outside of the image
    Table& table;
    Window window;

    template <class FindPlace>
    __device__ GatherSource(const float* images, Table& table_, FindPlace place) : table(table_) {
        const Windows& shape = table.shape;
        int n, h, w;
        const bool exists = place(threadIdx.x, n, h, w);
        begin = images + (exists ? ((n * shape.height + h) * shape.width + w) * shape.channels : 0);
        window.set(exists, h, w, shape);
    }

    __device__ __forceinline__ int tap() const {
        return 0;
    }

    __device__ __forceinline__ const float* run(int i, int, bool& valid) const {
        const Tap at = table.at(i);
        valid = window.sees(at);
        return moved(begin, at);
    }

    __device__ __forceinline__ void advance() {
        table.advance();
    }
};

template <class T>
using FewSource = GatherSource<T, MaskTap, MaskedWindow>;
template <class T>
using ScalarSource = GatherSource<T, PlaceTap, PlacedWindow>;

// `W_VEC`: how filters are read, `VEC`: how y is written.
template <class T, class Source, int W_VEC, int VEC>
__device__ __forceinline__ void fprop(
    const float* x, const float* w, const float* bias, float* y, float* workspace, unsigned* counters, const ConvolutionOptions& options,
    const Conv2dGeometry& g) {
    const int pixels = g.N * g.P * g.Q, columns = g.K / g.groups, depth = g.C / g.groups;
    const int extent_k = g.R * g.S * depth;
    const TileIndex tile(blockIdx.x, ceil_div(pixels, T::BM), ceil_div(columns, T::BN));
    const int group = tile.outer, first_row = tile.m * T::BM, first_column = tile.n * T::BN;
    __shared__ RowOffsets<T> rows;
    __shared__ Windows windows;
    __shared__ typename Source::Table::Tap taps[2 * T::BK];
    rows.fill([&](int row) { return first_row + row < pixels ? static_cast<long long>(first_row + row) * g.K : -1; });
    if (threadIdx.x == 0) windows = Windows{g.H, g.W, g.C, g.R, g.S, depth, g.dilation_h, g.dilation_w, 0, 0, 0};
    __syncthreads();

    const int k_begin = blockIdx.y * options.k_per_part, k_end = min(extent_k, k_begin + options.k_per_part);
    typename Source::Table table(taps, windows, k_begin);
    const int first_image = first_row / g.Q / g.P;
    const float* images = x + static_cast<long long>(first_image) * g.H * g.W * g.C + group * depth;
    Source a(images, table, [&](int tile_row, int& n, int& h0, int& w0) {
        const int row = first_row + tile_row;
        const int q = row % g.Q, p = row / g.Q % g.P;
        n = row / g.Q / g.P - first_image;
        h0 = p * g.stride_h - g.pad_top;
        w0 = q * g.stride_w - g.pad_left;
        return row < pixels;
    });
    MatrixSource<T, OperandB<T>, W_VEC, true> b(
        w + static_cast<long long>(group) * columns * extent_k, extent_k, first_column, columns, k_begin, k_end);
    float acc[T::TM][T::TN];
    NoRowSums sums;
    gemm_mainloop<T>(a, b, ceil_div(k_end - k_begin, T::BK), acc, sums, false);
    float no_sum;
    if (!join_parts<T, false>(workspace, counters, acc, no_sum)) return;
    const int first_k = group * columns;  // the group's first output channel
    const Epilogue epilogue{bias == nullptr ? nullptr : bias + first_k, nullptr, options.relu != 0};
    gemm_epilogue<T, VEC>(acc, y + first_k, epilogue, rows, first_column, columns);
}

// Filters as operand B of dgrad: rows are input channels, K runs over (tap row, tap column, output channel), as the table has it that the windows
// of dy move on.
template <class T, int VEC_, class Table>
struct TransposedFilterSource {
    static constexpr int VEC = VEC_;
    static constexpr bool K_CONTIGUOUS = false;
    using share = Share<T, OperandB<T>, VEC, false>;
    static constexpr int COUNT = share::COUNT;

    const float* filters;  // of the group, at this thread's first channel of the phase's first tap
    const Table& table;
    int channels_left;

    __device__ TransposedFilterSource(const float* phase_filters, const Table& table_, int first_channel, int channels)
        : filters(phase_filters + first_channel + share::row()), table(table_), channels_left(channels - first_channel - share::row()) {
    }

    __device__ __forceinline__ typename Table::Tap tap() const {
        return table.at(share::k());
    }

    __device__ __forceinline__ const float* run(int i, const typename Table::Tap& at, bool& valid) const {
        valid = at.exists() & (share::step(i) < channels_left);
        return filters + at.filter + share::step(i);
    }

    __device__ __forceinline__ void advance() {}
};

template <class T, class Source, int VEC>
__device__ __forceinline__ void dgrad(
    const float* dy, const float* w, const float* mask, float* dx, float* workspace, unsigned* counters, const ConvolutionOptions& options,
    const Conv2dGeometry& g) {
    // The first phase has the most rows; in the others the last blocks may find nothing to do.
    const int phases_h = min(g.stride_h, g.H), phases_w = min(g.stride_w, g.W);
    const int columns = g.C / g.groups, depth = g.K / g.groups;
    const int most_rows = g.N * ceil_div(g.H, g.stride_h) * ceil_div(g.W, g.stride_w);
    const TileIndex tile(blockIdx.x, ceil_div(most_rows, T::BM), ceil_div(columns, T::BN));
    const int group = tile.outer / (phases_h * phases_w);
    // The input pixels of this phase: those at first_h + i * stride_h, first_w + j * stride_w, for i < height, j < width.
    const int first_h = tile.outer / phases_w % phases_h, first_w = tile.outer % phases_w;
    const int height = ceil_div(g.H - first_h, g.stride_h), width = ceil_div(g.W - first_w, g.stride_w);
    const int pixels = g.N * height * width;
    const int first_row = tile.m * T::BM, first_column = tile.n * T::BN;
    if (first_row >= pixels) return;  // the whole block, and all parts of this tile

    __shared__ RowOffsets<T> rows;
    __shared__ Windows windows;
    __shared__ DgradAxis vertical, horizontal;
    __shared__ typename Source::Table::Tap taps[2 * T::BK];
    rows.fill([&](int tile_row) {
        const int row = first_row + tile_row;
        const int j = row % width, i = row / width % height, n = row / width / height;
        const long long image_row = static_cast<long long>(n) * g.H + first_h + i * g.stride_h;
        return row < pixels ? (image_row * g.W + first_w + j * g.stride_w) * g.C : -1;
    });
    if (threadIdx.x == 0) {
        vertical = dgrad_axis(first_h, g.R, g.stride_h, g.pad_top, g.dilation_h);
        horizontal = dgrad_axis(first_w, g.S, g.stride_w, g.pad_left, g.dilation_w);
        const int step_w = columns, step_h = g.S * columns;  // in the filters
        windows = Windows{
            g.P, g.Q, g.K, vertical.taps, horizontal.taps, depth, -vertical.row_step, -horizontal.row_step,
            g.R * step_h, vertical.tap_step * step_h, horizontal.tap_step * step_w};
    }
    __syncthreads();

    const int extent_k = windows.taps_h * windows.taps_w * depth;
    const int k_begin = blockIdx.y * options.k_per_part, k_end = min(extent_k, k_begin + options.k_per_part);
    typename Source::Table table(taps, windows, k_begin);
    const int first_image = first_row / width / height;
    const float* images = dy + static_cast<long long>(first_image) * g.P * g.Q * g.K + group * depth;
    Source a(images, table, [&](int tile_row, int& n, int& p0, int& q0) {
        const int row = first_row + tile_row;
        p0 = vertical.origin + row / width % height;
        q0 = horizontal.origin + row % width;
        n = row / width / height - first_image;
        return row < pixels;
    });
    const float* phase_filters =
        w + static_cast<long long>(group) * depth * g.R * g.S * columns + (vertical.first_tap * g.S + horizontal.first_tap) * columns;
    TransposedFilterSource<T, VEC, typename Source::Table> b(phase_filters, table, first_column, columns);
    float acc[T::TM][T::TN];
    NoRowSums sums;
    gemm_mainloop<T>(a, b, ceil_div(max(k_end - k_begin, 0), T::BK), acc, sums, false);
    float no_sum;
    if (!join_parts<T, false>(workspace, counters, acc, no_sum)) return;
    const int first_c = group * columns;
    const Epilogue epilogue{nullptr, mask == nullptr ? nullptr : mask + first_c, false};
    gemm_epilogue<T, VEC>(acc, dx + first_c, epilogue, rows, first_column, columns);
}

// The windows of wgrad's output pixels, one K each, as the stages' few threads write them; and the filter elements that meet them, as the table of a block's
// columns has them. Again by masks or by coordinates.
struct MaskedPixels {
    struct __align__(16) Pixel {
        long long bytes;
        unsigned mask;
    };
    struct __align__(16) Element {
        long long bytes;
        unsigned need;
    };

    __device__ static Pixel pixel(bool exists, long long offset, int h, int w, const Conv2dGeometry& g) {
        const unsigned rows = places_inside(h, g.dilation_h, g.R, g.H), columns = places_inside(w, g.dilation_w, g.S, g.W);
        return Pixel{4 * offset, exists ? rows | columns << g.R : 0};
    }
    __device__ static Element element(bool exists, int offset, int r, int s, const Conv2dGeometry& g) {
        return Element{4ll * offset, exists ? 1u << r | 1u << (g.R + s) : NO_WINDOW};
    }
    __device__ static __forceinline__ bool meet(const Pixel& pixel, const Element& element, const Conv2dGeometry&) {
        return (element.need & ~pixel.mask) == 0;
    }
};

struct PlacedPixels {
    struct __align__(16) Pixel {
        long long bytes;
        int h, w;
    };
    struct __align__(16) Element {
        long long bytes;
        int h, w;
    };

    __device__ static Pixel pixel(bool exists, long long offset, int h, int w, const Conv2dGeometry&) {
        return Pixel{4 * offset, exists ? h : OUTSIDE, w};
    }
    __device__ static Element element(bool exists, int offset, int r, int s, const Conv2dGeometry& g) {
        return Element{4ll * offset, exists ? r * g.dilation_h : OUTSIDE, s * g.dilation_w};
    }
    __device__ static __forceinline__ bool meet(const Pixel& pixel, const Element& element, const Conv2dGeometry& g) {
        return inside(pixel.h + element.h, g.H) & inside(pixel.w + element.w, g.W);
    }
};

// Operand B of wgrad: rows are filter elements (r, s, c), K runs over output pixels (n, p, q). A thread has one pixel a stage, which a
// few threads work out for all, a stage ahead, as in TapTable, and meets the same elements in all of them.
template <class T, int VEC_, class Pixels>
struct PixelSource {
    static constexpr int VEC = VEC_;
    static constexpr bool K_CONTIGUOUS = false;
    using share = Share<T, OperandB<T>, VEC, false>;
    static constexpr int COUNT = share::COUNT;
    static constexpr int ELEMENTS = T::BN / VEC;
    using Pixel = typename Pixels::Pixel;
    using Element = typename Pixels::Element;

    const char* x;            // at the group's first channel
    const Conv2dGeometry& g;
    const Element* elements;  // of this thread's first run
    Pixel* pixels;            // [2][BK]
    Odometer next;
    int k_left, stage;

    __device__ PixelSource(const float* x_, const Conv2dGeometry& g_, const Element* elements_, Pixel* pixels_, int k_begin, int k_end)
        : x(reinterpret_cast<const char*>(x_)), g(g_), elements(elements_ + share::row() / VEC), pixels(pixels_),
          next(k_begin + threadIdx.x, g_.P, g_.Q), k_left(k_end - k_begin - static_cast<int>(threadIdx.x)), stage(0) {
        write(0);
        write(T::BK);
        __syncthreads();
    }

    // The table of filter elements, from first_element on.
    __device__ static void fill(Element* elements, int first_element, int count, const Conv2dGeometry& g) {
        const int depth = g.C / g.groups;
        for (int i = threadIdx.x; i < ELEMENTS; i += T::THREADS) {
            const int element = first_element + i * VEC;
            const int r = element / depth / g.S, s = element / depth % g.S;
            const int offset = (r * g.dilation_h * g.W + s * g.dilation_w) * g.C + element % depth;
            elements[i] = Pixels::element(element < count, offset, r, s, g);
        }
    }

    __device__ __forceinline__ void write(int buffer) {
        if (threadIdx.x >= T::BK) return;
        const int h = next.middle * g.stride_h - g.pad_top, w = next.low * g.stride_w - g.pad_left;
        const long long offset = ((static_cast<long long>(next.high) * g.H + h) * g.W + w) * g.C;
        pixels[buffer + threadIdx.x] = Pixels::pixel(k_left > 0, offset, h, w, g);
        next.advance(T::BK, g.P, g.Q);
        k_left -= T::BK;
    }

    __device__ __forceinline__ Pixel tap() const {
        Pixel at = pixels[stage + share::k()];
        at.bytes += reinterpret_cast<long long>(x);
        return at;
    }

    __device__ __forceinline__ const float* run(int i, const Pixel& at, bool& valid) const {
        const Element element = elements[share::step(i) / VEC];
        valid = Pixels::meet(at, element, g);
        return reinterpret_cast<const float*>(at.bytes + element.bytes);
    }

    __device__ __forceinline__ void advance() {
        write(stage);
        stage ^= T::BK;
    }
};

// dw (K, R, S, C / groups) and, where db is given, db (K,). `VEC`: how x is read and dw written, `DY_VEC`: how dy is read.
template <class T, int VEC, int DY_VEC, class Windows_>
__device__ __forceinline__ void wgrad(
    const float* x, const float* dy, float* dw, float* db, float* workspace, unsigned* counters, const ConvolutionOptions& options,
    const Conv2dGeometry& g) {
    const int filters = g.K / g.groups, depth = g.C / g.groups, columns = g.R * g.S * depth;
    const TileIndex tile(blockIdx.x, ceil_div(filters, T::BM), ceil_div(columns, T::BN));
    const int group = tile.outer, first_row = tile.m * T::BM, first_column = tile.n * T::BN;
    using Pixels = PixelSource<T, VEC, Windows_>;
    __shared__ RowOffsets<T> rows;
    __shared__ typename Pixels::Element elements[Pixels::ELEMENTS];
    __shared__ typename Pixels::Pixel pixels[2 * T::BK];
    rows.fill([&](int row) {
        return first_row + row < filters ? static_cast<long long>(group * filters + first_row + row) * columns : -1;
    });
    Pixels::fill(elements, first_column, columns, g);
    __syncthreads();

    const int k_begin = blockIdx.y * options.k_per_part, k_end = min(g.N * g.P * g.Q, k_begin + options.k_per_part);
    MatrixSource<T, OperandA<T>, DY_VEC, false> a(dy + group * filters, g.K, first_row, filters, k_begin, k_end);
    Pixels b(x + group * depth, g, elements, pixels, k_begin, k_end);
    float acc[T::TM][T::TN];
    RowSums<T> sums;
    gemm_mainloop<T>(a, b, ceil_div(k_end - k_begin, T::BK), acc, sums, db != nullptr && tile.n == 0);
    float row_sum = sums.sum;
    if (!join_parts<T, true>(workspace, counters, acc, row_sum)) return;
    gemm_epilogue<T, VEC>(acc, dw, Epilogue{nullptr, nullptr, false}, rows, first_column, columns);
    if (db != nullptr && tile.n == 0 && threadIdx.x < T::BM && first_row + threadIdx.x < filters) {
        db[group * filters + first_row + threadIdx.x] = row_sum;
    }
}
