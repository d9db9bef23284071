// Batch normalisation over rows (pixels) of channels-last memory, x (rows, C), channel by channel.
//
//     mean = sum of x / rows,  var = sum of (x - mean)^2 / rows,  inverse = 1 / sqrt(var + eps)
//     y       = (x - mean) * inverse * weight + bias
//     dbias   = sum of dy,  dweight = inverse * sum of dy (x - mean)
//     dx      = inverse * weight * (dy - dbias / rows - (x - mean) * inverse * dweight / rows)
//
// Ioffe, Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift", 2015.
// Bound by memory: training reads x twice and writes y, then reads x and dy twice and writes dx; evaluation reads and
// writes once. Three launches forward and three backward in training, one each in evaluation:
//
// batch_norm_statistics         mean and sum of squared differences of each slab of rows
// batch_norm_finish_statistics  joins the slabs; updates the running statistics
// batch_norm_forward            y, of any mean and var
// batch_norm_sums               sums of dy and of dy (x - mean) of each slab
// batch_norm_finish_sums        dweight, dbias, and the two coefficients of dx that are the same for a channel
// batch_norm_backward           dx
//
// Launch: all but the two finishing kernels have blocks (bx, by) of 256 threads, both powers of two, and grids
// (ceil(columns / bx), any or slabs). A column is one channel, or in the *_vec4 instances four neighbours, which need
// 16-byte aligned arrays and C % 4 == 0. Thread (x, y) owns column blockIdx.x * bx + x in every by-th row, so that
// neighbouring threads read neighbouring memory and what belongs to a channel is read once. The finishing kernels have
// blocks (8, 32) and grids of ceil(C / 8): thread (x, y) joins the slabs y, y + 32, ... of channel 8 blockIdx.x + x.
// Threads meet in trees of a fixed shape: a result depends on the sizes and on the instance alone.
//
// Numbers: differences from the mean are squared, never sums of squares subtracted. Values are taken relative to one
// of the channel's, a few of them at a time have their mean subtracted, and these groups, then threads, then slabs
// are joined by Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
// 1979. The mean comes as a rounded float and the remainder that the rounding left.

#include "common.cuh"

constexpr int THREADS = 256, FINISH_COLUMNS = 8, FINISH_ROWS = 32;

// A column of a row: one channel or four.
template <typename T>
struct Column;

template <>
struct Column<float> {
    static constexpr int CHANNELS = 1, GROUP = 8;  // GROUP: rows that a thread loads at a time for the statistics
    float at[1];
    __device__ __forceinline__ static Column load(IN float* __restrict__ p) { return {{*p}}; }
    __device__ __forceinline__ void store(float* __restrict__ p) const { *p = at[0]; }
};

template <>
struct Column<float4> {
    static constexpr int CHANNELS = 4, GROUP = 4;
    float at[4];
    __device__ __forceinline__ static Column load(IN float4* __restrict__ p) {
        const float4 v = *p;
        return {{v.x, v.y, v.z, v.w}};
    }
    __device__ __forceinline__ void store(float4* __restrict__ p) const { *p = make_float4(at[0], at[1], at[2], at[3]); }
};

// A channel's values (C,), or `otherwise` where the array is left out.
template <typename T>
__device__ __forceinline__ Column<T> channel_values(IN float* __restrict__ values, int column, float otherwise) {
    Column<T> result;
#pragma unroll
    for (int i = 0; i < Column<T>::CHANNELS; ++i) {
        result.at[i] = values == nullptr ? otherwise : values[column * Column<T>::CHANNELS + i];
    }
    return result;
}

// How many of something, their mean and the sum of their squared differences from it.
struct Moments {
    float count, mean, squares;
};

__device__ __forceinline__ Moments joined(const Moments& a, const Moments& b) {
    const float count = a.count + b.count;
    const float share = b.count > 0.0f ? b.count / count : 0.0f;
    const float difference = b.mean - a.mean;
    return {count, fmaf(difference, share, a.mean), a.squares + b.squares + difference * difference * a.count * share};
}

// What values of a channel are taken relative to: the median of its first, middle and last row, so that no single
// outlier is it. `row` is how many T a row has.
template <typename T>
__device__ __forceinline__ Column<T> channel_shift(IN T* __restrict__ x, long long rows, int row, int column) {
    const Column<T> first = Column<T>::load(x + column), middle = Column<T>::load(x + rows / 2 * row + column);
    const Column<T> last = Column<T>::load(x + (rows - 1) * row + column);
    Column<T> result;
#pragma unroll
    for (int i = 0; i < Column<T>::CHANNELS; ++i) {
        const float low = fminf(first.at[i], middle.at[i]), high = fmaxf(first.at[i], middle.at[i]);
        result.at[i] = fmaxf(low, fminf(high, last.at[i]));
    }
    return result;
}

template <typename T>
__device__ __forceinline__ void statistics_of_slab(
    IN T* __restrict__ x, float* __restrict__ partial, long long rows, int columns, long long rows_per_slab) {
    constexpr int V = Column<T>::CHANNELS, GROUP = Column<T>::GROUP;
    __shared__ Moments shared[V][THREADS];
    const int column = blockIdx.x * blockDim.x + threadIdx.x, step = blockDim.y;
    const int place = threadIdx.y * blockDim.x + threadIdx.x;
    const long long begin = blockIdx.y * rows_per_slab, end = min(begin + rows_per_slab, rows);
    Moments own[V] = {};
    if (column < columns) {
        const Column<T> shift = channel_shift(x, rows, columns, column);
        for (long long row = begin + threadIdx.y; row < end; row += GROUP * step) {
            const int count = static_cast<int>(min(ceil_div<long long>(end - row, step), static_cast<long long>(GROUP)));
            Column<T> values[GROUP];
#pragma unroll
            for (int k = 0; k < GROUP; ++k) {
                if (k < count) values[k] = Column<T>::load(x + (row + k * step) * columns + column);
            }
            const float inverse_count = 1.0f / count;
#pragma unroll
            for (int i = 0; i < V; ++i) {
                float sum = 0.0f, squares = 0.0f;
#pragma unroll
                for (int k = 0; k < GROUP; ++k) {
                    if (k < count) sum += values[k].at[i] - shift.at[i];
                }
                const float mean = sum * inverse_count;
#pragma unroll
                for (int k = 0; k < GROUP; ++k) {
                    if (k < count) {
                        const float difference = (values[k].at[i] - shift.at[i]) - mean;
                        squares = fmaf(difference, difference, squares);
                    }
                }
                own[i] = joined(own[i], {static_cast<float>(count), mean, squares});
            }
        }
    }
#pragma unroll
    for (int i = 0; i < V; ++i) shared[i][place] = own[i];
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) {
#pragma unroll
            for (int i = 0; i < V; ++i) {
                shared[i][place] = joined(shared[i][place], shared[i][place + half * blockDim.x]);
            }
        }
    }
    if (threadIdx.y == 0 && column < columns) {
        float* slab = partial + 2LL * blockIdx.y * columns * V;
#pragma unroll
        for (int i = 0; i < V; ++i) {
            slab[column * V + i] = shared[i][place].mean;
            slab[(columns + column) * V + i] = shared[i][place].squares;
        }
    }
}

// partial (slabs, 2, C): mean relative to channel_shift, and sum of squared differences.
extern "C" __global__ void __launch_bounds__(256) batch_norm_statistics(
    IN float* __restrict__ x, OUT float* __restrict__ partial, long long rows, int columns, long long rows_per_slab) {
    statistics_of_slab(x, partial, rows, columns, rows_per_slab);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_statistics_vec4(
    IN float4* __restrict__ x, OUT float* __restrict__ partial, long long rows, int columns, long long rows_per_slab) {
    statistics_of_slab(x, partial, rows, columns, rows_per_slab);
}

// statistics (3, C): mean, what its rounding left, and var. The running arrays may be left out:
// running = keep * running + momentum * new, the new variance divided by rows - 1; batches (1,) grows by one.
extern "C" __global__ void __launch_bounds__(256) batch_norm_finish_statistics(
    IN float* __restrict__ partial, IN float* __restrict__ x, INOUT float* __restrict__ running_mean,
    INOUT float* __restrict__ running_var, INOUT long long* __restrict__ batches, OUT float* __restrict__ statistics,
    long long rows, int C, long long rows_per_slab, int slabs, float keep, float momentum) {
    if (batches != nullptr && blockIdx.x == 0 && threadIdx.x == 0 && threadIdx.y == 0) ++batches[0];
    __shared__ Moments shared[FINISH_ROWS][FINISH_COLUMNS];
    const int c = blockIdx.x * FINISH_COLUMNS + threadIdx.x;
    Moments own = {};
    if (c < C) {
        for (int slab = threadIdx.y; slab < slabs; slab += FINISH_ROWS) {
            IN float* of_slab = partial + 2LL * slab * C + c;
            const float count = static_cast<float>(min(rows_per_slab, rows - slab * rows_per_slab));
            own = joined(own, {count, of_slab[0], of_slab[C]});
        }
    }
    shared[threadIdx.y][threadIdx.x] = own;
    for (int half = FINISH_ROWS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) {
            own = joined(own, shared[threadIdx.y + half][threadIdx.x]);
            shared[threadIdx.y][threadIdx.x] = own;
        }
    }
    if (threadIdx.y == 0 && c < C) {
        const float shift = channel_shift(x, rows, C, c).at[0], mean = shift + own.mean;
        const float moved = mean - shift;  // Knuth's two-sum: mean + remainder is shift + own.mean exactly
        statistics[c] = mean;
        statistics[C + c] = (shift - (mean - moved)) + (own.mean - moved);
        statistics[2 * C + c] = own.squares / rows;
        if (running_mean != nullptr) running_mean[c] = fmaf(momentum, mean, keep * running_mean[c]);
        if (running_var != nullptr) {
            running_var[c] = fmaf(momentum, own.squares / max(rows - 1, 1LL), keep * running_var[c]);
        }
    }
}

template <typename T>
__device__ __forceinline__ Column<T> inverse_std(IN float* __restrict__ var, int column, float eps) {
    Column<T> result = channel_values<T>(var, column, 0.0f);
#pragma unroll
    for (int i = 0; i < Column<T>::CHANNELS; ++i) result.at[i] = 1.0f / sqrtf(result.at[i] + eps);
    return result;
}

template <typename T>
__device__ __forceinline__ void forward_rows(
    IN T* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder, IN float* __restrict__ var,
    IN float* __restrict__ weight, IN float* __restrict__ bias, T* __restrict__ y, long long rows, int columns,
    float eps) {
    constexpr int V = Column<T>::CHANNELS;
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    const Column<T> middle = channel_values<T>(mean, column, 0.0f), rest = channel_values<T>(remainder, column, 0.0f);
    const Column<T> gain = channel_values<T>(weight, column, 1.0f);
    Column<T> scale = inverse_std<T>(var, column, eps), offset = channel_values<T>(bias, column, 0.0f);
#pragma unroll
    for (int i = 0; i < V; ++i) {
        scale.at[i] *= gain.at[i];
        offset.at[i] = fmaf(-rest.at[i], scale.at[i], offset.at[i]);
    }
    const long long step = static_cast<long long>(gridDim.y) * blockDim.y;
#pragma unroll 4
    for (long long row = static_cast<long long>(blockIdx.y) * blockDim.y + threadIdx.y; row < rows; row += step) {
        Column<T> value = Column<T>::load(x + row * columns + column);
#pragma unroll
        for (int i = 0; i < V; ++i) value.at[i] = fmaf(value.at[i] - middle.at[i], scale.at[i], offset.at[i]);
        value.store(y + row * columns + column);
    }
}

// mean, remainder and bias may be left out for 0, weight for 1.
extern "C" __global__ void __launch_bounds__(256) batch_norm_forward(
    IN float* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder, IN float* __restrict__ var,
    IN float* __restrict__ weight, IN float* __restrict__ bias, OUT float* __restrict__ y, long long rows, int columns,
    float eps) {
    forward_rows(x, mean, remainder, var, weight, bias, y, rows, columns, eps);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_forward_vec4(
    IN float4* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, OUT float4* __restrict__ y,
    long long rows, int columns, float eps) {
    forward_rows(x, mean, remainder, var, weight, bias, y, rows, columns, eps);
}

template <typename T>
__device__ __forceinline__ void sums_of_slab(
    IN T* __restrict__ dy, IN T* __restrict__ x, IN float* __restrict__ mean, float* __restrict__ partial,
    long long rows, int columns, long long rows_per_slab) {
    constexpr int V = Column<T>::CHANNELS;
    __shared__ float shared[2 * V][THREADS];  // sums of dy, then of dy (x - mean)
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    const int place = threadIdx.y * blockDim.x + threadIdx.x;
    const long long begin = blockIdx.y * rows_per_slab, end = min(begin + rows_per_slab, rows);
    float sums[V] = {}, products[V] = {};
    if (column < columns) {
        const Column<T> middle = channel_values<T>(mean, column, 0.0f);
#pragma unroll 4
        for (long long row = begin + threadIdx.y; row < end; row += blockDim.y) {
            const Column<T> gradient = Column<T>::load(dy + row * columns + column);
            const Column<T> value = Column<T>::load(x + row * columns + column);
#pragma unroll
            for (int i = 0; i < V; ++i) {
                sums[i] += gradient.at[i];
                products[i] = fmaf(gradient.at[i], value.at[i] - middle.at[i], products[i]);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < V; ++i) {
        shared[i][place] = sums[i];
        shared[V + i][place] = products[i];
    }
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) {
#pragma unroll
            for (int i = 0; i < 2 * V; ++i) shared[i][place] += shared[i][place + half * blockDim.x];
        }
    }
    if (threadIdx.y == 0 && column < columns) {
        float* slab = partial + 2LL * blockIdx.y * columns * V;
#pragma unroll
        for (int i = 0; i < V; ++i) {
            slab[column * V + i] = shared[i][place];
            slab[(columns + column) * V + i] = shared[V + i][place];
        }
    }
}

// partial (slabs, 2, C): the sums of dy and of dy (x - mean).
extern "C" __global__ void __launch_bounds__(256) batch_norm_sums(
    IN float* __restrict__ dy, IN float* __restrict__ x, IN float* __restrict__ mean, OUT float* __restrict__ partial,
    long long rows, int columns, long long rows_per_slab) {
    sums_of_slab(dy, x, mean, partial, rows, columns, rows_per_slab);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_sums_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ x, IN float* __restrict__ mean, OUT float* __restrict__ partial,
    long long rows, int columns, long long rows_per_slab) {
    sums_of_slab(dy, x, mean, partial, rows, columns, rows_per_slab);
}

// dweight (C,), dbias (C,) and coefficients (2, C) = what dx subtracts from dy: the slope over x - mean, and the level
// at the mean. Each may be left out, and remainder for 0.
extern "C" __global__ void __launch_bounds__(256) batch_norm_finish_sums(
    IN float* __restrict__ partial, IN float* __restrict__ remainder, IN float* __restrict__ var,
    OUT float* __restrict__ dweight, OUT float* __restrict__ dbias, OUT float* __restrict__ coefficients,
    long long rows, int C, int slabs, float eps) {
    __shared__ float shared[2][FINISH_ROWS][FINISH_COLUMNS];
    const int c = blockIdx.x * FINISH_COLUMNS + threadIdx.x;
    float sum = 0.0f, product = 0.0f;
    if (c < C) {
        for (int slab = threadIdx.y; slab < slabs; slab += FINISH_ROWS) {
            IN float* of_slab = partial + 2LL * slab * C + c;
            sum += of_slab[0];
            product += of_slab[C];
        }
    }
    shared[0][threadIdx.y][threadIdx.x] = sum;
    shared[1][threadIdx.y][threadIdx.x] = product;
    for (int half = FINISH_ROWS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) {
            shared[0][threadIdx.y][threadIdx.x] = sum += shared[0][threadIdx.y + half][threadIdx.x];
            shared[1][threadIdx.y][threadIdx.x] = product += shared[1][threadIdx.y + half][threadIdx.x];
        }
    }
    if (threadIdx.y == 0 && c < C) {
        const float rest = remainder == nullptr ? 0.0f : remainder[c];
        const float inverse = 1.0f / sqrtf(var[c] + eps);
        product = fmaf(-rest, sum, product);
        const float slope = product * inverse * inverse / rows;
        if (dweight != nullptr) dweight[c] = product * inverse;
        if (dbias != nullptr) dbias[c] = sum;
        if (coefficients != nullptr) {
            coefficients[c] = slope;
            coefficients[C + c] = fmaf(-rest, slope, sum / rows);
        }
    }
}

template <typename T>
__device__ __forceinline__ void backward_rows(
    IN T* __restrict__ dy, IN T* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ var,
    IN float* __restrict__ weight, IN float* __restrict__ coefficients, T* __restrict__ dx, long long rows, int columns,
    float eps) {
    constexpr int V = Column<T>::CHANNELS;
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    const Column<T> middle = channel_values<T>(mean, column, 0.0f), gain = channel_values<T>(weight, column, 1.0f);
    const Column<T> slope = channel_values<T>(coefficients, column, 0.0f);
    const Column<T> level = channel_values<T>(coefficients + columns * V, column, 0.0f);
    Column<T> scale = inverse_std<T>(var, column, eps);
#pragma unroll
    for (int i = 0; i < V; ++i) scale.at[i] *= gain.at[i];
    const long long step = static_cast<long long>(gridDim.y) * blockDim.y;
#pragma unroll 2
    for (long long row = static_cast<long long>(blockIdx.y) * blockDim.y + threadIdx.y; row < rows; row += step) {
        const Column<T> value = Column<T>::load(x + row * columns + column);
        Column<T> gradient = Column<T>::load(dy + row * columns + column);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const float rest = gradient.at[i] - level.at[i];
            gradient.at[i] = fmaf(middle.at[i] - value.at[i], slope.at[i], rest) * scale.at[i];
        }
        gradient.store(dx + row * columns + column);
    }
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_backward(
    IN float* __restrict__ dy, IN float* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ var,
    IN float* __restrict__ weight, IN float* __restrict__ coefficients, OUT float* __restrict__ dx, long long rows,
    int columns, float eps) {
    backward_rows(dy, x, mean, var, weight, coefficients, dx, rows, columns, eps);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_backward_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ var,
    IN float* __restrict__ weight, IN float* __restrict__ coefficients, OUT float4* __restrict__ dx, long long rows,
    int columns, float eps) {
    backward_rows(dy, x, mean, var, weight, coefficients, dx, rows, columns, eps);
}
