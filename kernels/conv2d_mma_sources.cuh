// Where the operands of the tensor-core convolutions come from: the problem as the host describes it, and a source (conv2d_mma_tile.cuh) for each
// operand of the table in conv2d_mma.cuh. A source gives each thread its chunks of 16 bytes of the current stage, zero outside of the operand: whole
// (wide) or element by element (narrow).

#pragma once

#include "conv2d_mma_tile.cuh"
#include "convolution.cuh"

struct MmaProblem {
    int N, H, W, C, K, R, S, P, Q;  // C and K: of all groups, the distance between pixels in memory
    int stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w;
    int depth, filters;             // C and K of one group
    int pixels, plane, window;      // N P Q, P Q, R S depth
    int k_per_split;                // a multiple of BK
    int relu, vector;               // of the epilogue
    unsigned q_multiplier, q_shift, pq_multiplier, pq_shift;  // division by Q and by plane, see divide()
    long long x_outer, w_outer, y_outer;                      // elements from one group, or member of a batch, to the next
};

// n / d for n < 2^31: multiplier = ceil(2^(32 + shift) / d) - 2^32, shift = ceil(log2 d) (Granlund and Montgomery 1994).
__device__ __forceinline__ int divide(int n, unsigned multiplier, unsigned shift) {
    return static_cast<int>((__umulhi(static_cast<unsigned>(n), multiplier) + static_cast<unsigned>(n)) >> shift);
}

// The place of a block: tiles of a row of tiles are neighbours, so that blocks that run together share operand A.
struct MmaPlace {
    int m, n, outer;
    __device__ MmaPlace(unsigned index, int tiles_m, int tiles_n) {
        n = index % tiles_n;
        m = index / tiles_n % tiles_m;
        outer = index / tiles_n / tiles_m;
    }
};

// A matrix in memory: element (row, k) at row * pitch + k (K_CONTIGUOUS) or at k * pitch + row.
template <class T_, int ROWS, bool K_CONTIGUOUS, bool WIDE_>
struct MatrixSource {
    using T = T_;
    using share = Share<T, ROWS, K_CONTIGUOUS>;
    static constexpr bool WIDE = WIDE_;
    static constexpr int STEP = share::STEP;

    const T* run;         // the first chunk of the current stage
    long long chunk_step;
    long long stage_step;
    int rows_left, k_left;  // from the first chunk on

    __device__ MatrixSource(const T* matrix, long long pitch, int first_row, int rows, int k_begin, int k_end) {
        const int row = first_row + share::row(0), k = k_begin + share::k();
        run = matrix + (K_CONTIGUOUS ? row * pitch + k : k * pitch + row);
        chunk_step = K_CONTIGUOUS ? STEP * pitch : STEP;
        stage_step = K_CONTIGUOUS ? share::BK : share::BK * pitch;
        rows_left = rows - row;
        k_left = k_end - k;
    }
    struct Stage {};
    __device__ __forceinline__ Stage stage() const {
        return {};
    }
    __device__ __forceinline__ bool address(Stage, int i, const T*& from) const {
        from = run + i * chunk_step;
        return k_left > 0 && i * STEP < rows_left;
    }
    __device__ __forceinline__ void gather(Run<T> (&runs)[share::COUNT]) const {
#pragma unroll
        for (int i = 0; i < share::COUNT; ++i) {
#pragma unroll
            for (int e = 0; e < share::VEC; ++e) {
                const bool valid = K_CONTIGUOUS ? e < k_left && i * STEP < rows_left : k_left > 0 && i * STEP + e < rows_left;
                runs[i].v[e] = T();
                if (valid) runs[i].v[e] = run[i * chunk_step + e];
            }
        }
    }
    __device__ __forceinline__ void advance() {
        run += stage_step;
        k_left -= share::BK;
    }
};

// Windows of an image as rows of a matrix, K running over (tap row, tap column, channel), which is the order of memory.
// fprop: rows of x at steps of the dilation; dgrad: rows of dy at negative steps.
struct Windows {
    int height, width, channels;    // of the image; channels are the distance between pixels
    int taps_h, taps_w, depth;      // of K; depth is the channels of a group
    int tap_step_h, tap_step_w;
};

// `Shape` is Windows, or a reference to one in shared memory, for which the main loop then needs no registers.
// The narrow source compares coordinates.
template <class T_, int ROWS, bool WIDE_, class Shape>
struct WindowSource {
    using T = T_;
    using share = Share<T, ROWS, true>;
    static constexpr bool WIDE = false;

    Shape shape;
    Odometer tap;
    const T* windows[share::COUNT];        // where they begin, also outside of the image
    int h[share::COUNT], w[share::COUNT];  // the same as coordinates

    // `at(row, n, h, w)` finds a row's image and where its window begins; false for rows that do not exist.
    template <class At>
    __device__ WindowSource(const T* images, const Windows& shape_, int first_row, int k_begin, At at)
        : shape(shape_), tap(k_begin + share::k(), max(1, shape_.taps_w), shape_.depth) {
#pragma unroll
        for (int i = 0; i < share::COUNT; ++i) {
            int n;
            windows[i] = images;
            if (at(first_row + share::row(i), n, h[i], w[i])) {
                windows[i] += static_cast<long long>((n * shape.height + h[i]) * shape.width + w[i]) * shape.channels;
            } else {
                h[i] = OUTSIDE;
            }
        }
    }
    __device__ __forceinline__ void gather(Run<T> (&runs)[share::COUNT]) const {
        Odometer place = tap;
#pragma unroll
        for (int e = 0; e < share::VEC; ++e) {
            const int tap_h = place.high * shape.tap_step_h, tap_w = place.middle * shape.tap_step_w;
            const long long offset = static_cast<long long>(tap_h * shape.width + tap_w) * shape.channels + place.low;
            const bool exists = place.high < shape.taps_h;
#pragma unroll
            for (int i = 0; i < share::COUNT; ++i) {
                runs[i].v[e] = T();
                if (exists && inside(h[i] + tap_h, shape.height) && inside(w[i] + tap_w, shape.width)) runs[i].v[e] = windows[i][offset];
            }
            place.next(shape.taps_w, shape.depth);
        }
    }
    __device__ __forceinline__ void advance() {
        tap.advance(share::BK, shape.taps_w, shape.depth);
    }
};

// The wide one has worked out beforehand which taps of a window lie inside of the image: bit r for tap row r, bit 16 + s for tap column s. The
// host takes no filters above MOST_TAPS rows or columns, so that bits 15 and 31 are never set.
constexpr int MOST_TAPS = 15;

template <class T_, int ROWS, class Shape>
struct WindowSource<T_, ROWS, true, Shape> {
    using T = T_;
    using share = Share<T, ROWS, true>;
    static constexpr bool WIDE = true;

    Shape shape;
    Odometer tap;
    const T* windows[share::COUNT];  // where they begin, also outside of the image
    unsigned taps[share::COUNT];

    template <class At>
    __device__ WindowSource(const T* images, const Windows& shape_, int first_row, int k_begin, At at)
        : shape(shape_), tap(k_begin + share::k(), max(1, shape_.taps_w), shape_.depth) {
#pragma unroll
        for (int i = 0; i < share::COUNT; ++i) {
            int n, h, w;
            taps[i] = 0;
            windows[i] = images;
            if (!at(first_row + share::row(i), n, h, w)) continue;
            windows[i] += static_cast<long long>((n * shape.height + h) * shape.width + w) * shape.channels;
            for (int r = 0; r < shape.taps_h; ++r) taps[i] |= static_cast<unsigned>(inside(h + r * shape.tap_step_h, shape.height)) << r;
            for (int s = 0; s < shape.taps_w; ++s) taps[i] |= static_cast<unsigned>(inside(w + s * shape.tap_step_w, shape.width)) << (16 + s);
        }
    }
    struct Stage {
        long long offset;
        unsigned tap;
    };
    __device__ __forceinline__ Stage stage() const {
        const int pixels = tap.high * shape.tap_step_h * shape.width + tap.middle * shape.tap_step_w;
        return {static_cast<long long>(pixels) * shape.channels + tap.low, tap.high < shape.taps_h ? 1u << tap.high | 0x10000u << tap.middle : ~0u};
    }
    __device__ __forceinline__ bool address(const Stage& stage, int i, const T*& from) const {
        from = windows[i] + stage.offset;
        return (taps[i] & stage.tap) == stage.tap;
    }
    __device__ __forceinline__ void advance() {
        tap.advance(share::BK, shape.taps_w, shape.depth);
    }
};

// Filters as operand B of dgrad: rows are input channels, K runs over (tap row, tap column, output channel).
template <class T_, int ROWS, bool WIDE_>
struct TransposedFilterSource {
    using T = T_;
    using share = Share<T, ROWS, false>;
    static constexpr bool WIDE = WIDE_;
    static constexpr int STEP = share::STEP;

    const T* filters;  // of the group, at this thread's first channel
    const MmaProblem& g;
    const DgradAxis &vertical, &horizontal;  // in shared memory
    Odometer tap;
    int channels_left;

    __device__ TransposedFilterSource(
        const T* group_filters, const MmaProblem& g_, const DgradAxis& vertical_, const DgradAxis& horizontal_, int first_channel, int k_begin)
        : g(g_), vertical(vertical_), horizontal(horizontal_), tap(k_begin + share::k(), max(1, horizontal_.taps), g_.filters) {
        const int channel = first_channel + share::row(0);
        filters = group_filters + channel;
        channels_left = g.depth - channel;
    }
    struct Stage {
        const T* from;
        bool valid;
    };
    __device__ __forceinline__ Stage stage() const {
        const int r = vertical.first_tap + tap.high * vertical.tap_step, s = horizontal.first_tap + tap.middle * horizontal.tap_step;
        return {filters + static_cast<long long>((tap.low * g.R + r) * g.S + s) * g.depth, tap.high < vertical.taps};
    }
    __device__ __forceinline__ bool address(const Stage& line, int i, const T*& from) const {
        from = line.from + i * STEP;
        return line.valid && i * STEP < channels_left;
    }
    __device__ __forceinline__ void gather(Run<T> (&runs)[share::COUNT]) const {
        const Stage line = stage();
#pragma unroll
        for (int i = 0; i < share::COUNT; ++i) {
#pragma unroll
            for (int e = 0; e < share::VEC; ++e) {
                runs[i].v[e] = T();
                if (line.valid && i * STEP + e < channels_left) runs[i].v[e] = line.from[i * STEP + e];
            }
        }
    }
    __device__ __forceinline__ void advance() {
        tap.advance(share::BK, horizontal.taps, g.filters);
    }
};

// Operand B of wgrad: rows are filter elements (r, s, c), K runs over output pixels (n, p, q).
template <class T_, int ROWS, bool WIDE_>
struct PixelSource {
    using T = T_;
    using share = Share<T, ROWS, false>;
    static constexpr bool WIDE = WIDE_;

    const T* x;  // at the group's first channel
    const MmaProblem& g;
    int pixel;
    int taps[share::COUNT];     // of each chunk's first element: its row and column from where the window begins, 16 bits each
    int offsets[share::COUNT];  // the same in elements of x, the channel added

    __device__ PixelSource(const T* x_, const MmaProblem& g_, int first_element, int k_begin)
        : x(x_), g(g_), pixel(k_begin + share::k()) {
#pragma unroll
        for (int i = 0; i < share::COUNT; ++i) {
            const int element = first_element + share::row(i), tap = element / g.depth;
            const int h = tap / g.S * g.dilation_h - g.pad_top, w = tap % g.S * g.dilation_w - g.pad_left;
            offsets[i] = (h * g.W + w) * g.C + element % g.depth;
            taps[i] = packed_tap(element < g.window ? h : NO_TAP, w);
        }
    }
    static constexpr int NO_TAP = -(1 << 15);  // outside of every image: the host takes no more than 2^15 - 1 rows
    __device__ static int packed_tap(int h, int w) {
        return static_cast<int>(static_cast<unsigned>(h) << 16 | (static_cast<unsigned>(w) & 0xFFFFu));
    }
    __device__ static int tap_h(int tap) {
        return tap >> 16;
    }
    __device__ static int tap_w(int tap) {
        return static_cast<short>(tap & 0xFFFF);
    }
    // Where the window of the current pixel begins, in rows, columns and memory.
    struct Stage {
        int h, w;
        const T* from;
    };
    __device__ __forceinline__ Stage stage() const {
        const int n = divide(pixel, g.pq_multiplier, g.pq_shift), rest = pixel - n * g.plane;
        const int p = divide(rest, g.q_multiplier, g.q_shift);
        const int h = p * g.stride_h, w = (rest - p * g.Q) * g.stride_w;
        return {h, w, x + static_cast<long long>((n * g.H + h) * g.W + w) * g.C};
    }
    __device__ __forceinline__ bool address(const Stage& begin, int i, const T*& from) const {
        from = begin.from + offsets[i];
        return pixel < g.pixels && inside(begin.h + tap_h(taps[i]), g.H) && inside(begin.w + tap_w(taps[i]), g.W);
    }
    __device__ __forceinline__ void gather(Run<T> (&runs)[share::COUNT]) const {
        const Stage begin = stage();
        const int last_h = g.R * g.dilation_h - g.pad_top, last_w = g.S * g.dilation_w - g.pad_left;
        // From a tap's last channel to the next tap's first, and what is more where that is in the next row of taps.
        const int next_tap = g.dilation_w * g.C - g.depth, next_row = (g.dilation_h * g.W - g.S * g.dilation_w) * g.C;
#pragma unroll
        for (int i = 0; i < share::COUNT; ++i) {
            int h = tap_h(taps[i]), w = tap_w(taps[i]), offset = offsets[i];
            int c = offset - (h * g.W + w) * g.C;
#pragma unroll
            for (int e = 0; e < share::VEC; ++e) {
                runs[i].v[e] = T();
                if (pixel < g.pixels && h < last_h && inside(begin.h + h, g.H) && inside(begin.w + w, g.W)) {
                    runs[i].v[e] = begin.from[offset];
                }
                const bool tap_ends = ++c == g.depth;
                c = tap_ends ? 0 : c;
                w += tap_ends ? g.dilation_w : 0;
                offset += tap_ends ? 1 + next_tap : 1;
                const bool row_ends = tap_ends && w == last_w;
                w = row_ends ? -g.pad_left : w;
                h += row_ends ? g.dilation_h : 0;
                offset += row_ends ? next_row : 0;
            }
        }
    }
    __device__ __forceinline__ void advance() {
        pixel += share::BK;
    }
};
