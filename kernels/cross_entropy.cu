// Softmax cross-entropy of logits (rows, C) against labels (rows,), forward and backward.
//
//     log_sum_exp[n] = m + log(sum over c of exp(logits[n, c] - m)),  m = max over c of logits[n, c]: no overflow
//     losses[n]      = log_sum_exp[n] - sum over c of t[n, c] logits[n, c]
//     dlogits[n, c]  = dlosses[n] * (exp(logits[n, c] - log_sum_exp[n]) - t[n, c])
//
// with the target t[n, c] = off + on * (c == labels[n]); under label smoothing e, on = 1 - e and off = e / C, else on = 1
// and off = 0, and then impossible classes (logits of -inf) are left out.
//
// Launch: blocks of 256 = 8 warps, any grid; a warp owns one row at a time, lane l its classes l, l + 32, ..., and
// the lanes' results meet in butterfly shuffles, whose order is fixed. No alignment is asked for.
//
// A label outside [0, C) is never used as an index: that row's loss and gradient are NaN, and the forward pass
// records the fault. The record is FAULT_WORDS words, all ones while there is none. Word j holds launch (20 bits),
// row (36 bits) and bits 8 j .. 8 j + 7 of the label, and is lowered by atomicMin: no two rows share launch and row,
// so all words end with the first launch's first row, whoever came first.

#include "common.cuh"

constexpr int FAULT_WORDS = 8;

__device__ __noinline__ void record_fault(
    INOUT unsigned long long* fault, unsigned long long launch, long long row, long long label) {
    const unsigned long long place = ((launch << 36) | static_cast<unsigned long long>(row)) << 8;
    for (int j = 0; j < FAULT_WORDS; ++j) {
        atomicMin(&fault[j], place | ((static_cast<unsigned long long>(label) >> (8 * j)) & 0xFF));
    }
}

__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) v = fmaxf(v, __shfl_xor_sync(0xFFFFFFFFu, v, lanes));
    return v;
}

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) v += __shfl_xor_sync(0xFFFFFFFFu, v, lanes);
    return v;
}

template <typename Label>
__device__ __forceinline__ void forward_rows(
    IN float* __restrict__ logits, IN Label* __restrict__ labels, float* __restrict__ losses,
    float* __restrict__ log_sum_exp, unsigned long long* __restrict__ fault, long long rows, int C, float on,
    float off, unsigned launch) {
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    for (long long n = static_cast<long long>(blockIdx.x) * warps + threadIdx.x / 32; n < rows;
         n += static_cast<long long>(gridDim.x) * warps) {
        IN float* row = logits + n * C;
        float largest = -__int_as_float(INFINITY_BITS);
        for (int c = lane; c < C; c += 32) largest = fmaxf(largest, row[c]);
        largest = warp_max(largest);
        float sum = 0.0f, below = 0.0f;  // of the exponentials, and of how far the logits are below the largest
        for (int c = lane; c < C; c += 32) {
            sum += expf(row[c] - largest);
            below += largest - row[c];
        }
        sum = warp_sum(sum);
        below = off != 0.0f ? off * warp_sum(below) : 0.0f;
        if (lane == 0) {
            const long long label = labels[n];
            const bool known = label >= 0 && label < C;
            const float log_sum = logf(sum);
            log_sum_exp[n] = largest + log_sum;
            losses[n] = known ? log_sum + (on * (largest - row[label]) + below) : __int_as_float(NAN_BITS);
            if (!known && fault != nullptr) record_fault(fault, launch, n, label);
        }
    }
}

template <typename Label>
__device__ __forceinline__ void backward_rows(
    IN float* __restrict__ dlosses, IN float* __restrict__ logits, IN Label* __restrict__ labels,
    IN float* __restrict__ log_sum_exp, float* __restrict__ dlogits, long long rows, int C, float on, float off) {
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    for (long long n = static_cast<long long>(blockIdx.x) * warps + threadIdx.x / 32; n < rows;
         n += static_cast<long long>(gridDim.x) * warps) {
        const long long label = labels[n];
        const float dloss = label >= 0 && label < C ? dlosses[n] : __int_as_float(NAN_BITS);
        const float shift = log_sum_exp[n];
        for (int c = lane; c < C; c += 32) {
            const float difference = expf(logits[n * C + c] - shift) - off;
            dlogits[n * C + c] = dloss * (c == label ? difference - on : difference);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_forward_int(
    IN float* __restrict__ logits, IN int* __restrict__ labels, OUT float* __restrict__ losses,
    OUT float* __restrict__ log_sum_exp, INOUT unsigned long long* __restrict__ fault, long long rows, int C,
    float on, float off, unsigned launch) {
    forward_rows(logits, labels, losses, log_sum_exp, fault, rows, C, on, off, launch);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_forward_long(
    IN float* __restrict__ logits, IN long long* __restrict__ labels, OUT float* __restrict__ losses,
    OUT float* __restrict__ log_sum_exp, INOUT unsigned long long* __restrict__ fault, long long rows, int C,
    float on, float off, unsigned launch) {
    forward_rows(logits, labels, losses, log_sum_exp, fault, rows, C, on, off, launch);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_backward_int(
    IN float* __restrict__ dlosses, IN float* __restrict__ logits, IN int* __restrict__ labels,
    IN float* __restrict__ log_sum_exp, OUT float* __restrict__ dlogits, long long rows, int C,
    float on, float off) {
    backward_rows(dlosses, logits, labels, log_sum_exp, dlogits, rows, C, on, off);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_backward_long(
    IN float* __restrict__ dlosses, IN float* __restrict__ logits, IN long long* __restrict__ labels,
    IN float* __restrict__ log_sum_exp, OUT float* __restrict__ dlogits, long long rows, int C,
    float on, float off) {
    backward_rows(dlosses, logits, labels, log_sum_exp, dlogits, rows, C, on, off);
}
