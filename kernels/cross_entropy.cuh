// Softmax cross-entropy of logits (rows, C) against labels (rows,): losses, gradients, and how many rows are right.
//
//     log_sum_exp[n] = m + log(sum over c of exp(logits[n, c] - m)),  m = max over c of logits[n, c]: no overflow
//     losses[n]      = log_sum_exp[n] - sum over c of t[n, c] logits[n, c]
//     dlogits[n, c]  = dlosses[n] * (exp(logits[n, c] - log_sum_exp[n]) - t[n, c])
//
// with the target t[n, c] = off + on * (c == labels[n]); under label smoothing e, on = 1 - e and off = e / C, else on = 1
// and off = 0, and then impossible classes (logits of -inf) are left out.
//
// cross_entropy_forward_*   losses and log_sum_exp
// cross_entropy_backward_*  dlogits, of any dlosses
// cross_entropy_step_*      all that a training step wants, in one launch that reads the logits from memory once: loss = factor * sum of
//                           losses, dlogits for dlosses = factor, and in how many rows the largest logit is the label's
//
// Launch: blocks of 256 = 8 warps, any grid; a warp owns one row at a time, lane l its classes l, l + 32, ..., and
// the lanes' results meet in butterfly shuffles, whose order is fixed. A row is walked over up to three times, the later ones from the
// cache. In a step of several blocks each adds up its own rows' losses, and the last to arrive (last_block.cuh) the blocks', in their order:
// partial (blocks,) and partial_correct (blocks,). No alignment is asked for.
//
// A label outside [0, C) is never used as an index: that row's loss and gradient are NaN, and the forward pass
// records the fault. The record is FAULT_WORDS words, all ones while there is none. Word j holds launch (20 bits),
// row (36 bits) and bits 8 j .. 8 j + 7 of the label, and is lowered by atomicMin: no two rows share launch and row,
// so all words end with the first launch's first row, whoever came first.

#pragma once

#include "half.cuh"
#include "last_block.cuh"
#include "warp.cuh"

constexpr int FAULT_WORDS = 8, WARPS = 8, NO_CLASS = 0x7FFFFFFF;

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

// The largest of what was taken and its class: of equals the first, NaN above all, as in argmax.
struct LargestLogit {
    float value;
    int at;

    __device__ __forceinline__ void take(float other, int other_at) {
        const bool nan = value != value, other_nan = other != other;
        const bool larger = (other > value || other_nan) && !nan, equal = other == value || (other_nan && nan);
        if (larger || (equal && other_at < at)) {
            value = other;
            at = other_at;
        }
    }

    __device__ __forceinline__ void meet() {
#pragma unroll
        for (int lanes = 16; lanes > 0; lanes /= 2) {
            const float other = __shfl_xor_sync(0xFFFFFFFFu, value, lanes);
            const int other_at = __shfl_xor_sync(0xFFFFFFFFu, at, lanes);
            take(other, other_at);
        }
    }
};

template <typename T, typename Label>
__device__ __forceinline__ void forward_rows(
    IN T* __restrict__ logits, IN Label* __restrict__ labels, float* __restrict__ losses,
    float* __restrict__ log_sum_exp, unsigned long long* __restrict__ fault, long long rows, int C, float on,
    float off, unsigned launch) {
    const int lane = threadIdx.x % 32;
    for (long long n = static_cast<long long>(blockIdx.x) * WARPS + threadIdx.x / 32; n < rows;
         n += static_cast<long long>(gridDim.x) * WARPS) {
        IN T* row = logits + n * C;
        float largest = -__int_as_float(INFINITY_BITS);
        for (int c = lane; c < C; c += 32) largest = fmaxf(largest, to_float(row[c]));
        largest = warp_max(largest);
        float sum = 0.0f, below = 0.0f;  // of the exponentials, and of how far the logits are below the largest
        for (int c = lane; c < C; c += 32) {
            sum += expf(to_float(row[c]) - largest);
            below += largest - to_float(row[c]);
        }
        sum = warp_sum(sum);
        below = off != 0.0f ? off * warp_sum(below) : 0.0f;
        if (lane == 0) {
            const long long label = labels[n];
            const bool known = label >= 0 && label < C;
            const float log_sum = logf(sum);
            log_sum_exp[n] = largest + log_sum;
            losses[n] = known ? log_sum + (on * (largest - to_float(row[label])) + below) : __int_as_float(NAN_BITS);
            if (!known && fault != nullptr) record_fault(fault, launch, n, label);
        }
    }
}

template <typename T, typename Label>
__device__ __forceinline__ void backward_rows(
    IN float* __restrict__ dlosses, IN T* __restrict__ logits, IN Label* __restrict__ labels,
    IN float* __restrict__ log_sum_exp, T* __restrict__ dlogits, long long rows, int C, float on, float off) {
    const int lane = threadIdx.x % 32;
    for (long long n = static_cast<long long>(blockIdx.x) * WARPS + threadIdx.x / 32; n < rows;
         n += static_cast<long long>(gridDim.x) * WARPS) {
        const long long label = labels[n];
        const float dloss = label >= 0 && label < C ? dlosses[n] : __int_as_float(NAN_BITS);
        const float shift = log_sum_exp[n];
        for (int c = lane; c < C; c += 32) {
            const float difference = expf(to_float(logits[n * C + c]) - shift) - off;
            dlogits[n * C + c] = from_float<T>(dloss * (c == label ? difference - on : difference));
        }
    }
}

// T: of the logits; D: of their gradient.
template <typename T, typename D, typename Label>
__device__ __forceinline__ void step_rows(
    IN T* __restrict__ logits, IN Label* __restrict__ labels, float* __restrict__ partial, int* __restrict__ partial_correct,
    unsigned* __restrict__ counters, float* __restrict__ loss, D* __restrict__ dlogits, int* __restrict__ correct,
    unsigned long long* __restrict__ fault, long long rows, int C, float on, float off, float factor, unsigned launch) {
    __shared__ float losses[WARPS];
    __shared__ int rights[WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float total = 0.0f;
    int right = 0;
    for (long long n = static_cast<long long>(blockIdx.x) * WARPS + warp; n < rows; n += static_cast<long long>(gridDim.x) * WARPS) {
        IN T* row = logits + n * C;
        const long long label = labels[n];
        const bool known = label >= 0 && label < C;
        LargestLogit largest = {-__int_as_float(INFINITY_BITS), NO_CLASS};
        for (int c = lane; c < C; c += 32) largest.take(to_float(row[c]), c);
        largest.meet();
        float sum = 0.0f, below = 0.0f;
        for (int c = lane; c < C; c += 32) {
            sum += expf(to_float(row[c]) - largest.value);
            below += largest.value - to_float(row[c]);
        }
        sum = warp_sum(sum);
        below = off != 0.0f ? off * warp_sum(below) : 0.0f;
        const float inverse = 1.0f / sum, dloss = known ? factor : __int_as_float(NAN_BITS);
        for (int c = lane; c < C; c += 32) {
            const float difference = expf(to_float(row[c]) - largest.value) * inverse - off;
            dlogits[n * C + c] = from_float<D>(dloss * (c == label ? difference - on : difference));
        }
        if (known) {
            total += logf(sum) + (on * (largest.value - to_float(row[label])) + below);
            right += label == largest.at;
        } else {
            total = __int_as_float(NAN_BITS);
            if (lane == 0 && fault != nullptr) record_fault(fault, launch, n, label);
        }
    }
    if (lane == 0) {
        losses[warp] = total;
        rights[warp] = right;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < WARPS; ++w) {
            total += losses[w];
            right += rights[w];
        }
    }
    if (gridDim.x > 1) {
        if (threadIdx.x == 0) {
            partial[blockIdx.x] = total;
            partial_correct[blockIdx.x] = right;
        }
        if (!arrives_last(counters, gridDim.x) || warp != 0) return;
        total = 0.0f;
        right = 0;
        for (int block = lane; block < gridDim.x; block += 32) {
            total += read_written(&partial[block]);
            right += __ldcg(&partial_correct[block]);
        }
        total = warp_sum(total);
        right = warp_sum(right);
    }
    if (threadIdx.x == 0) {
        *loss = factor * total;
        *correct = right;
    }
}
