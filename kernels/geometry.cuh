// The sizes of a convolution and of a pooling, as kernels take them: by value, and all int.
//
// The fields stand in the order of the dataclasses in gpucnn/geometry.py, whose as_struct() fills them in.

#pragma once

// Input x (N, H, W, C), filters w (K, R, S, C / groups), output y (N, P, Q, K); these orders are also those in memory.
// y[n, p, q] sees x[n, p * stride_h - pad_top + r * dilation_h, q * stride_w - pad_left + s * dilation_w] through w[:, r, s].
struct Conv2dGeometry {
    int N, H, W, C;
    int K, R, S;
    int P, Q;
    int stride_h, stride_w;
    int pad_top, pad_bottom, pad_left, pad_right;
    int dilation_h, dilation_w;
    int groups;
};

// Input x (N, H, W, C), windows of R x S, output y (N, P, Q, C).
struct Pool2dGeometry {
    int N, H, W, C;
    int R, S;
    int P, Q;
    int stride_h, stride_w;
    int pad_top, pad_bottom, pad_left, pad_right;
    int dilation_h, dilation_w;
};

// Input x (N, H, W, C), output y (N, P, Q, C); output row p sees the input rows [floor(p H / P), ceil((p + 1) H / P)), and so
// do columns.
struct AdaptivePool2dGeometry {
    int N, H, W, C;
    int P, Q;
};
