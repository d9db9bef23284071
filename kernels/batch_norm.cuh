// Batch normalisation over rows (pixels) of channels-last memory, x (rows, C), channel by channel, with an activation f behind it.
//
//     mean = sum of x / rows,  var = sum of (x - mean)^2 / rows,  inverse = 1 / sqrt(var + eps)
//     z = (x - mean) * inverse * weight + bias,  y = f(z),  dz = dy * f'(z)
//     dbias   = sum of dz,  dweight = inverse * sum of dz (x - mean)
//     dx      = inverse * weight * (dz - dbias / rows - (x - mean) * inverse * dweight / rows)
//
// Ioffe, Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift", 2015.
// Bound by memory: training reads x twice and writes y, then reads x and dy twice and writes dx; evaluation reads and
// writes once. z is made anew from x in the backward pass, so the activation costs no memory. Two launches forward and two backward
// in training, one each in evaluation:
//
// batch_norm_statistics  mean and sum of squared differences of each slab of rows; a column's last block joins its slabs and updates the
//                        running statistics
// batch_norm_forward     y, of any mean and var
// batch_norm_sums        sums of dz and of dz (x - mean) of each slab; a column's last block adds them up: dweight, dbias, and the two
//                        coefficients of dx that are the same for a channel
// batch_norm_backward    dx
//
// Launch: blocks (bx, by) of 256 threads, both powers of two, and grids (ceil(columns / bx), any or slabs). A column is what lies
// in one M (lanes.cuh): one channel, or in the *_vec4 and *x8 instances four or eight neighbours, which need 16-byte aligned arrays and
// C % 4 == 0 or C % 8 == 0. Thread (x, y) owns column blockIdx.x * bx + x in every by-th row, so that neighbouring threads read
// neighbouring memory and what belongs to a channel is read once. With more than one slab, the blocks of a column count themselves
// (last_block.cuh) in counters[blockIdx.x], and thread (x, y) of the last joins the slabs y, y + by, ... Threads meet in trees of a fixed
// shape: a result depends on the sizes and on the instance alone.
//
// Numbers: differences from the mean are squared, never sums of squares subtracted. Values are taken relative to one
// of the channel's, a few of them at a time have their mean subtracted, and these groups, then threads, then slabs
// are joined by Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
// 1979. The mean comes as a rounded float and the remainder that the rounding left. Half types are widened to float before anything else.

#pragma once

#include "activation.cuh"
#include "last_block.cuh"

constexpr int THREADS = 256, GROUP = 8;  // GROUP: rows that a thread loads at a time for the statistics

// How many rows a thread has under way at a time: 64 bytes of an array, or 32 where code grows with the lanes (the smooth activations).
template <typename Activation, typename M>
constexpr int UNROLL = Activation::KIND > Relu::KIND && Lanes<M>::COUNT > 1 ? 2 : 4;

// V floats that another block of this launch wrote.
template <int V>
__device__ __forceinline__ void read_parts(float (&out)[V], const float* from) {
    if constexpr (V == 1) {
        out[0] = read_written(from);
    } else {
#pragma unroll
        for (int i = 0; i < V; i += 4) {
            const float4 part = read_written(reinterpret_cast<const float4*>(from + i));
            out[i] = part.x;
            out[i + 1] = part.y;
            out[i + 2] = part.z;
            out[i + 3] = part.w;
        }
    }
}

// ---- statistics ----------------------------------------------------------------------------------------------------------------------

// How many rows, and for each of V channels their mean and the sum of their squared differences from it.
template <int V>
struct Moments {
    float count;
    float mean[V], squares[V];

    __device__ __forceinline__ void join(float other_count, const float (&other_mean)[V], const float (&other_squares)[V]) {
        const float sum = count + other_count;
        const float share = other_count > 0.0f ? other_count / sum : 0.0f, weight = count * share;
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const float difference = other_mean[i] - mean[i];
            mean[i] = fmaf(difference, share, mean[i]);
            squares[i] = squares[i] + other_squares[i] + difference * difference * weight;
        }
        count = sum;
    }
};

// The moments of a block's threads, joined over threadIdx.y; thread (x, 0) has the result.
template <int V>
struct JoinedMoments {
    float count[THREADS], mean[V][THREADS], squares[V][THREADS];

    __device__ __forceinline__ void join(Moments<V>& own) {
        const int place = threadIdx.y * blockDim.x + threadIdx.x;
        for (int half = blockDim.y / 2; half > 0; half /= 2) {
            if (threadIdx.y >= half && threadIdx.y < 2 * half) {
                count[place] = own.count;
#pragma unroll
                for (int i = 0; i < V; ++i) {
                    mean[i][place] = own.mean[i];
                    squares[i][place] = own.squares[i];
                }
            }
            __syncthreads();
            if (threadIdx.y < half) {
                const int other = place + half * blockDim.x;
                float other_mean[V], other_squares[V];
#pragma unroll
                for (int i = 0; i < V; ++i) {
                    other_mean[i] = mean[i][other];
                    other_squares[i] = squares[i][other];
                }
                own.join(count[other], other_mean, other_squares);
            }
        }
        __syncthreads();
    }
};

// What values of a channel are taken relative to: the median of its first, middle and last row, so that no single
// outlier is it. `row` is how many M a row has.
template <typename M>
__device__ __forceinline__ Lanes<M> channel_shift(IN M* __restrict__ x, long long rows, int row, int column) {
    const Lanes<M> first = Lanes<M>::load(x + column), middle = Lanes<M>::load(x + rows / 2 * row + column);
    const Lanes<M> last = Lanes<M>::load(x + (rows - 1) * row + column);
    Lanes<M> result;
#pragma unroll
    for (int i = 0; i < Lanes<M>::COUNT; ++i) {
        const float low = fminf(first.at[i], middle.at[i]), high = fmaxf(first.at[i], middle.at[i]);
        result.at[i] = fmaxf(low, fminf(high, last.at[i]));
    }
    return result;
}

// The moments, relative to `shift`, of rows first, first + step, ... below end of a column.
template <typename M>
__device__ __forceinline__ Moments<Lanes<M>::COUNT> moments_of_rows(
    IN M* __restrict__ x, const Lanes<M>& shift, long long first, long long end, int step, int columns, int column) {
    constexpr int V = Lanes<M>::COUNT;
    Moments<V> own = {};
    for (long long row = first; row < end; row += GROUP * step) {
        const int count = static_cast<int>(min(ceil_div<long long>(end - row, step), static_cast<long long>(GROUP)));
        M rows[GROUP];
#pragma unroll
        for (int k = 0; k < GROUP; ++k) {
            if (k < count) rows[k] = x[(row + k * step) * columns + column];
        }
        const float inverse_count = 1.0f / count;
        float mean[V] = {}, squares[V] = {};
#pragma unroll
        for (int k = 0; k < GROUP; ++k) {
            if (k >= count) continue;
            const Lanes<M> value = Lanes<M>::of(rows[k]);
#pragma unroll
            for (int i = 0; i < V; ++i) mean[i] += value.at[i] - shift.at[i];
        }
#pragma unroll
        for (int i = 0; i < V; ++i) mean[i] *= inverse_count;
#pragma unroll
        for (int k = 0; k < GROUP; ++k) {
            if (k >= count) continue;
            const Lanes<M> value = Lanes<M>::of(rows[k]);
#pragma unroll
            for (int i = 0; i < V; ++i) {
                const float difference = (value.at[i] - shift.at[i]) - mean[i];
                squares[i] = fmaf(difference, difference, squares[i]);
            }
        }
        own.join(static_cast<float>(count), mean, squares);
    }
    return own;
}

// partial (slabs, 2, C) with more than one slab: mean relative to channel_shift, and sum of squared differences. statistics (3, C): mean,
// what its rounding left, and var. The running arrays may be left out: running = keep * running + momentum * new, the new variance
// divided by rows - 1. batches (1,) grows by one.
template <typename M>
__device__ __forceinline__ void column_statistics(
    IN M* __restrict__ x, float* __restrict__ partial, unsigned* __restrict__ counters, float* __restrict__ running_mean,
    float* __restrict__ running_var, long long* __restrict__ batches, float* __restrict__ statistics, long long rows, int columns,
    long long rows_per_slab, float keep, float momentum) {
    constexpr int V = Lanes<M>::COUNT;
    __shared__ JoinedMoments<V> shared;
    const int column = blockIdx.x * blockDim.x + threadIdx.x, C = columns * V, slabs = gridDim.y;
    const long long begin = blockIdx.y * rows_per_slab, end = min(begin + rows_per_slab, rows);
    Moments<V> own = {};
    Lanes<M> shift = {};
    if (column < columns) {
        shift = channel_shift(x, rows, columns, column);
        own = moments_of_rows(x, shift, begin + threadIdx.y, end, blockDim.y, columns, column);
    }
    shared.join(own);
    const bool first = threadIdx.y == 0 && column < columns;
    if (slabs > 1) {
        if (first) {
            float* slab = partial + 2LL * blockIdx.y * C + column * V;
#pragma unroll
            for (int i = 0; i < V; ++i) {
                slab[i] = own.mean[i];
                slab[C + i] = own.squares[i];
            }
        }
        if (!arrives_last(&counters[blockIdx.x], slabs)) return;
        own = {};
        if (column < columns) {
#pragma unroll 2
            for (int slab = threadIdx.y; slab < slabs; slab += blockDim.y) {
                const float* of_slab = partial + 2LL * slab * C + column * V;
                float mean[V], squares[V];
                read_parts(mean, of_slab);
                read_parts(squares, of_slab + C);
                own.join(static_cast<float>(min(rows_per_slab, rows - slab * rows_per_slab)), mean, squares);
            }
        }
        shared.join(own);
    }
    if (!first) return;
    if (column == 0 && batches != nullptr) *batches += 1;
#pragma unroll
    for (int i = 0; i < V; ++i) {
        const int c = column * V + i;
        const float from = shift.at[i], mean = from + own.mean[i];
        const float moved = mean - from;  // Knuth's two-sum: mean + remainder is shift + own.mean exactly
        statistics[c] = mean;
        statistics[C + c] = (from - (mean - moved)) + (own.mean[i] - moved);
        statistics[2 * C + c] = own.squares[i] / rows;
        if (running_mean != nullptr) running_mean[c] = fmaf(momentum, mean, keep * running_mean[c]);
        if (running_var != nullptr) {
            running_var[c] = fmaf(momentum, own.squares[i] / max(rows - 1, 1LL), keep * running_var[c]);
        }
    }
}

// ---- normalisation -------------------------------------------------------------------------------------------------------------------

// What all passes make of x: z = (x - middle) * scale + offset.
template <typename M>
struct Affine {
    Lanes<M> middle, scale, offset;

    // mean, remainder and bias may be left out for 0, weight for 1.
    __device__ __forceinline__ Affine(
        IN float* __restrict__ mean, IN float* __restrict__ remainder, IN float* __restrict__ var,
        IN float* __restrict__ weight, IN float* __restrict__ bias, int column, float eps)
        : middle(channel_values<M>(mean, column, 0.0f)),
          scale(channel_values<M>(var, column, 0.0f)),
          offset(channel_values<M>(bias, column, 0.0f)) {
        const Lanes<M> rest = channel_values<M>(remainder, column, 0.0f), gain = channel_values<M>(weight, column, 1.0f);
#pragma unroll
        for (int i = 0; i < Lanes<M>::COUNT; ++i) {
            scale.at[i] = 1.0f / sqrtf(scale.at[i] + eps) * gain.at[i];
            offset.at[i] = fmaf(-rest.at[i], scale.at[i], offset.at[i]);
        }
    }

    __device__ __forceinline__ float of(float x, int i) const { return fmaf(x - middle.at[i], scale.at[i], offset.at[i]); }
};

// The rows of a launch that a thread walks over.
__device__ __forceinline__ long long first_row() { return static_cast<long long>(blockIdx.y) * blockDim.y + threadIdx.y; }
__device__ __forceinline__ long long row_step() { return static_cast<long long>(gridDim.y) * blockDim.y; }

template <typename Activation, typename M>
__device__ __forceinline__ void activate_rows(
    IN M* __restrict__ x, const Affine<M>& affine, M* __restrict__ y, long long rows, int columns, int column) {
#pragma unroll (UNROLL<Activation, M>)
    for (long long row = first_row(); row < rows; row += row_step()) {
        Lanes<M> value = Lanes<M>::load(x + row * columns + column);
#pragma unroll
        for (int i = 0; i < Lanes<M>::COUNT; ++i) value.at[i] = Activation::value(affine.of(value.at[i], i));
        value.store(y + row * columns + column);
    }
}

// `activation` is the KIND of one of the Activations: all threads take the same branch, and each activation has a loop of its own.
template <typename... Activations, typename M>
__device__ __forceinline__ void forward_rows(
    IN M* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder, IN float* __restrict__ var,
    IN float* __restrict__ weight, IN float* __restrict__ bias, M* __restrict__ y, long long rows, int columns,
    float eps, int activation) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    const Affine<M> affine(mean, remainder, var, weight, bias, column, eps);
    ((activation == Activations::KIND ? activate_rows<Activations>(x, affine, y, rows, columns, column) : void()), ...);
}

// ---- backward ------------------------------------------------------------------------------------------------------------------------

// Sums of dz and of dz (x - mean) over rows first, first + step, ... below end of a column.
template <typename Activation, typename M, int V>
__device__ __forceinline__ void add_rows(
    IN M* __restrict__ dy, IN M* __restrict__ x, const Affine<M>& affine, long long first, long long end, int step, int columns,
    int column, float (&sums)[V], float (&products)[V]) {
#pragma unroll (UNROLL<Activation, M> / 2)
    for (long long row = first; row < end; row += step) {
        const Lanes<M> gradient = Lanes<M>::load(dy + row * columns + column);
        const Lanes<M> value = Lanes<M>::load(x + row * columns + column);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const float dz = Activation::gradient(gradient.at[i], affine.of(value.at[i], i));
            sums[i] += dz;
            products[i] = fmaf(dz, value.at[i] - affine.middle.at[i], products[i]);
        }
    }
}

// Both sums of a block's threads, added up over threadIdx.y into thread (x, 0).
template <int V>
struct AddedUp {
    float at[2 * V][THREADS];

    __device__ __forceinline__ void add(float (&sums)[V], float (&products)[V]) {
        const int place = threadIdx.y * blockDim.x + threadIdx.x;
        for (int half = blockDim.y / 2; half > 0; half /= 2) {
            if (threadIdx.y >= half && threadIdx.y < 2 * half) {
#pragma unroll
                for (int i = 0; i < V; ++i) {
                    at[i][place] = sums[i];
                    at[V + i][place] = products[i];
                }
            }
            __syncthreads();
            if (threadIdx.y < half) {
#pragma unroll
                for (int i = 0; i < V; ++i) {
                    sums[i] += at[i][place + half * blockDim.x];
                    products[i] += at[V + i][place + half * blockDim.x];
                }
            }
        }
        __syncthreads();
    }
};

// partial (slabs, 2, C) with more than one slab: the sums of dz and of dz (x - mean). dweight (C,), dbias (C,) and coefficients (2, C) =
// what dx subtracts from dz: the slope over x - mean, and the level at the mean. Each of these may be left out.
template <typename... Activations, typename M>
__device__ __forceinline__ void column_sums(
    IN M* __restrict__ dy, IN M* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, float* __restrict__ partial,
    unsigned* __restrict__ counters, float* __restrict__ dweight, float* __restrict__ dbias, float* __restrict__ coefficients,
    long long rows, int columns, long long rows_per_slab, float eps, int activation) {
    constexpr int V = Lanes<M>::COUNT;
    __shared__ AddedUp<V> shared;
    const int column = blockIdx.x * blockDim.x + threadIdx.x, C = columns * V, slabs = gridDim.y;
    const long long begin = blockIdx.y * rows_per_slab, end = min(begin + rows_per_slab, rows);
    float sums[V] = {}, products[V] = {};
    if (column < columns) {
        const Affine<M> affine(mean, remainder, var, weight, bias, column, eps);
        ((activation == Activations::KIND
              ? add_rows<Activations>(
                    dy, x, affine, begin + threadIdx.y, end, blockDim.y, columns, column, sums, products)
              : void()),
         ...);
    }
    shared.add(sums, products);
    const bool first = threadIdx.y == 0 && column < columns;
    if (slabs > 1) {
        if (first) {
            float* slab = partial + 2LL * blockIdx.y * C + column * V;
#pragma unroll
            for (int i = 0; i < V; ++i) {
                slab[i] = sums[i];
                slab[C + i] = products[i];
            }
        }
        if (!arrives_last(&counters[blockIdx.x], slabs)) return;
#pragma unroll
        for (int i = 0; i < V; ++i) sums[i] = products[i] = 0.0f;
        if (column < columns) {
#pragma unroll 4
            for (int slab = threadIdx.y; slab < slabs; slab += blockDim.y) {
                const float* of_slab = partial + 2LL * slab * C + column * V;
                float sum[V], product[V];
                read_parts(sum, of_slab);
                read_parts(product, of_slab + C);
#pragma unroll
                for (int i = 0; i < V; ++i) {
                    sums[i] += sum[i];
                    products[i] += product[i];
                }
            }
        }
        shared.add(sums, products);
    }
    if (!first) return;
    const Lanes<M> rest = channel_values<M>(remainder, column, 0.0f);
#pragma unroll
    for (int i = 0; i < V; ++i) {
        const int c = column * V + i;
        const float inverse = 1.0f / sqrtf(var[c] + eps);
        const float product = fmaf(-rest.at[i], sums[i], products[i]);
        const float slope = product * inverse * inverse / rows;
        if (dweight != nullptr) dweight[c] = product * inverse;
        if (dbias != nullptr) dbias[c] = sums[i];
        if (coefficients != nullptr) {
            coefficients[c] = slope;
            coefficients[C + c] = fmaf(-rest.at[i], slope, sums[i] / rows);
        }
    }
}

template <typename Activation, typename M>
__device__ __forceinline__ void centre_rows(
    IN M* __restrict__ dy, IN M* __restrict__ x, const Affine<M>& affine, const Lanes<M>& slope, const Lanes<M>& level,
    M* __restrict__ dx, long long rows, int columns, int column) {
#pragma unroll (UNROLL<Activation, M> / 2)
    for (long long row = first_row(); row < rows; row += row_step()) {
        const Lanes<M> value = Lanes<M>::load(x + row * columns + column);
        Lanes<M> gradient = Lanes<M>::load(dy + row * columns + column);
#pragma unroll
        for (int i = 0; i < Lanes<M>::COUNT; ++i) {
            const float rest = Activation::gradient(gradient.at[i], affine.of(value.at[i], i)) - level.at[i];
            gradient.at[i] = fmaf(affine.middle.at[i] - value.at[i], slope.at[i], rest) * affine.scale.at[i];
        }
        gradient.store(dx + row * columns + column);
    }
}

// coefficients may be left out for 0: mean and var are then not x's own.
template <typename... Activations, typename M>
__device__ __forceinline__ void backward_rows(
    IN M* __restrict__ dy, IN M* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, IN float* __restrict__ coefficients,
    M* __restrict__ dx, long long rows, int columns, float eps, int activation) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    const Affine<M> affine(mean, remainder, var, weight, bias, column, eps);
    IN float* levels = coefficients == nullptr ? nullptr : coefficients + columns * Lanes<M>::COUNT;
    const Lanes<M> slope = channel_values<M>(coefficients, column, 0.0f), level = channel_values<M>(levels, column, 0.0f);
    ((activation == Activations::KIND
          ? centre_rows<Activations>(dy, x, affine, slope, level, dx, rows, columns, column)
          : void()),
     ...);
}
