// Convolution and its gradients as the lecture writes them, one result a thread:
//
//   fprop   y[n,p,q,k]  = bias[k] + sum over r, s, c of  x[n, p*stride - pad + r*dilation, ..., c] * w[k,r,s,c]
//   dgrad   dx[n,h,w,c] = sum over r, s, k of           dy[n,p,q,k] * w[k,r,s,c]     for the p, q with p*stride - pad + r*dilation = h, ...
//   wgrad   dw[k,r,s,c] = sum over n, p, q of           dy[n,p,q,k] * x[n, p*stride - pad + r*dilation, ..., c]
//
// These are for reading, and for the tests as a second opinion on the tiled kernels of conv2d_simt.cu, which compute the same. fprop and dgrad also
// serve convolutions with a handful of channels a group (depthwise ones), where tiles would be almost empty.
//
// Launch: any grid and block. fprop and dgrad take pixels along blockIdx.x and threadIdx.y and channels along threadIdx.x, wgrad takes
// filter elements along x; so threads that are neighbours compute neighbouring channels, which are neighbours in memory.
// Every geometry, no alignment needed. In a group, channels c and k count from the group's first.

#include "common.cuh"
#include "geometry.cuh"

extern "C" __global__ void __launch_bounds__(256, 4) conv2d_fprop_direct(
    IN float* __restrict__ x, IN float* __restrict__ w, IN float* __restrict__ bias, OUT float* __restrict__ y, Conv2dGeometry g) {
    const int group_c = g.C / g.groups, group_k = g.K / g.groups;
    const int pixels = g.N * g.P * g.Q;
    for (int pixel = blockIdx.x * blockDim.y + threadIdx.y; pixel < pixels; pixel += gridDim.x * blockDim.y) {
        const int q = pixel % g.Q, p = pixel / g.Q % g.P, n = pixel / g.Q / g.P;
        for (int k = threadIdx.x; k < g.K; k += blockDim.x) {
            const int first_c = k / group_k * group_c;
            float sum = 0.0f;
            for (int r = 0; r < g.R; ++r) {
                const int h = p * g.stride_h - g.pad_top + r * g.dilation_h;
                if (h < 0 || h >= g.H) continue;
                for (int s = 0; s < g.S; ++s) {
                    const int column = q * g.stride_w - g.pad_left + s * g.dilation_w;
                    if (column < 0 || column >= g.W) continue;
                    const float* channels = x + ((static_cast<long long>(n) * g.H + h) * g.W + column) * g.C + first_c;
                    const float* tap = w + ((static_cast<long long>(k) * g.R + r) * g.S + s) * group_c;
                    for (int c = 0; c < group_c; ++c) sum = fmaf(channels[c], tap[c], sum);
                }
            }
            y[static_cast<long long>(pixel) * g.K + k] = bias == nullptr ? sum : sum + bias[k];
        }
    }
}

extern "C" __global__ void __launch_bounds__(256, 4) conv2d_dgrad_direct(
    IN float* __restrict__ dy, IN float* __restrict__ w, OUT float* __restrict__ dx, Conv2dGeometry g) {
    const int group_c = g.C / g.groups, group_k = g.K / g.groups;
    const int pixels = g.N * g.H * g.W;
    for (int pixel = blockIdx.x * blockDim.y + threadIdx.y; pixel < pixels; pixel += gridDim.x * blockDim.y) {
        const int column = pixel % g.W, h = pixel / g.W % g.H, n = pixel / g.W / g.H;
        for (int c = threadIdx.x; c < g.C; c += blockDim.x) {
            const int first_k = c / group_c * group_k;
            float sum = 0.0f;
            for (int r = 0; r < g.R; ++r) {
                const int down = h + g.pad_top - r * g.dilation_h;  // p * stride_h, if some output row sees h through r
                if (down < 0 || down % g.stride_h != 0 || down / g.stride_h >= g.P) continue;
                for (int s = 0; s < g.S; ++s) {
                    const int right = column + g.pad_left - s * g.dilation_w;
                    if (right < 0 || right % g.stride_w != 0 || right / g.stride_w >= g.Q) continue;
                    const int p = down / g.stride_h, q = right / g.stride_w;
                    const float* channels = dy + ((static_cast<long long>(n) * g.P + p) * g.Q + q) * g.K + first_k;
                    const float* tap = w + ((static_cast<long long>(first_k) * g.R + r) * g.S + s) * group_c + c % group_c;
                    const long long filter = static_cast<long long>(g.R) * g.S * group_c;
                    for (int k = 0; k < group_k; ++k) sum = fmaf(channels[k], tap[k * filter], sum);
                }
            }
            dx[static_cast<long long>(pixel) * g.C + c] = sum;
        }
    }
}

extern "C" __global__ void __launch_bounds__(256, 4) conv2d_wgrad_direct(
    IN float* __restrict__ x, IN float* __restrict__ dy, OUT float* __restrict__ dw, Conv2dGeometry g) {
    const int group_c = g.C / g.groups, group_k = g.K / g.groups;
    const int size = g.K * g.R * g.S * group_c;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += gridDim.x * blockDim.x) {
        const int c = i % group_c, s = i / group_c % g.S, r = i / group_c / g.S % g.R, k = i / group_c / g.S / g.R;
        const int first_c = k / group_k * group_c;
        float sum = 0.0f;
        for (int n = 0; n < g.N; ++n) {
            for (int p = 0; p < g.P; ++p) {
                const int h = p * g.stride_h - g.pad_top + r * g.dilation_h;
                if (h < 0 || h >= g.H) continue;
                for (int q = 0; q < g.Q; ++q) {
                    const int column = q * g.stride_w - g.pad_left + s * g.dilation_w;
                    if (column < 0 || column >= g.W) continue;
                    const float gradient = dy[((static_cast<long long>(n) * g.P + p) * g.Q + q) * g.K + k];
                    sum = fmaf(gradient, x[((static_cast<long long>(n) * g.H + h) * g.W + column) * g.C + first_c + c], sum);
                }
            }
        }
        dw[i] = sum;
    }
}
