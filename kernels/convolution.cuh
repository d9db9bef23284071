// The coordinates of implicit GEMM: from a place along K to a filter tap and a channel, from a row to a pixel.
// Nothing in here knows how the products are computed, so that SIMT and tensor-core kernels can share it.

#pragma once

#include "common.cuh"

// A place along K as three digits (high, middle, low), such as (r, s, c) or (n, p, q), that moves on without divisions: K is walked in steps
// of a stage, so a digit whose base is at least that has one carry at most. The high digit is unbounded.
struct Odometer {
    int high, middle, low;

    __device__ Odometer(int start, int middle_base, int low_base) {
        low = start % low_base;
        middle = start / low_base % middle_base;
        high = start / low_base / middle_base;
    }

    __device__ __forceinline__ void advance(int step, int middle_base, int low_base) {
        low += step;
        while (low >= low_base) {
            low -= low_base;
            if (++middle == middle_base) {
                middle = 0;
                ++high;
            }
        }
    }

    // By one, without a branch.
    __device__ __forceinline__ void next(int middle_base, int low_base) {
        const bool low_ends = ++low == low_base;
        low = low_ends ? 0 : low;
        middle += low_ends;
        const bool middle_ends = low_ends && middle == middle_base;
        middle = middle_ends ? 0 : middle;
        high += middle_ends;
    }
};

// Whether 0 <= i < size, in one comparison.
__device__ __forceinline__ bool inside(int i, int size) {
    return static_cast<unsigned>(i) < static_cast<unsigned>(size);
}

// A row coordinate that stays outside every image, whatever tap is added to it.
constexpr int OUTSIDE = -(1 << 30);

__device__ inline int greatest_common_divisor(int a, int b) {
    while (b != 0) {
        const int rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

// One axis of dgrad with a stride. Input rows h = first + i * stride ("a phase", one for each first < stride) are seen by the same filter
// taps, r = first_tap + j * tap_step for j < taps, and by no others, at the output rows p = origin + i - j * row_step.
// So each phase is a convolution of dy with stride 1, without a division or a wasted product in its inner loop.
struct DgradAxis {
    int first_tap, tap_step, taps;
    int origin, row_step;
};

__device__ inline DgradAxis dgrad_axis(int first, int window, int stride, int pad, int dilation) {
    const int divisor = greatest_common_divisor(stride, dilation);
    const int tap_step = stride / divisor, row_step = dilation / divisor;
    for (int tap = 0; tap < min(window, tap_step); ++tap) {
        const int distance = first + pad - tap * dilation;
        if (distance % stride == 0) return {tap, tap_step, ceil_div(window - tap, tap_step), distance / stride, row_step};
    }
    return {0, tap_step, 0, 0, row_step};  // pixels that fall between the taps
}
