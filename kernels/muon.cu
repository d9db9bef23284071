// Muon for the matrices of a network, whatever their shapes, in 2 + 3 * steps launches:
//
//     muon_prepare   momentum, Nesterov; x = the direction, as (rows, columns) with rows <= columns; sums of squares of it and of the parameter
//     steps times:   muon_gram        gram = x x^T                          (the first time of x / max(|x|, eps))
//                    muon_polynomial  polynomial = b gram + c gram gram
//                    muon_advance     next x = a x + polynomial x
//     muon_apply     with `renormalize` parameter *= sqrt(K) / max(|parameter|, eps); parameter = kept * parameter - step_size * x
//
// A parameter lies in memory as (outer, K, inner) and is a matrix of K rows and M = outer * inner columns; the order of the columns does not
// matter to the iteration, so x keeps it. Where K > M, x is the transposed. matrices[8 * t...] = {outer, K, inner, rows, columns, begin of x,
// begin of gram, 0}. Both products of a symmetric result compute the tiles on and above the diagonal and store each twice.
//
// Products: one block a tile, muon.cuh; first_tile[t] counts the tiles of the matrices before t, and blocks find theirs by bisection, so one
// launch has tiles of all matrices. The rest: one block a chunk, chunks.cuh and updates.cuh. A skipped step (found_inf) changes neither
// parameter nor momentum. Sums of squares are added in a fixed order: results are the same bits in every run.
// gpucnn: compiled on first use

#include "muon.cuh"
#include "updates.cuh"

struct MuonNumbers {
    float step_size, kept, momentum, one_minus_momentum, eps, nesterov, renormalize, a, b, c;
};

using Symmetric = Product<32, 32, 64, 1, 1, 8, true>;
using Advance = Product<64, 64, 32, 2, 2, 2, false>;

struct Matrix {
    int number, outer, k, inner, rows, columns;
    long long x, gram;

    __device__ Matrix(IN long long* __restrict__ matrices, int t)
        : number(t), outer(static_cast<int>(matrices[8 * t])), k(static_cast<int>(matrices[8 * t + 1])),
          inner(static_cast<int>(matrices[8 * t + 2])), rows(static_cast<int>(matrices[8 * t + 3])),
          columns(static_cast<int>(matrices[8 * t + 4])), x(matrices[8 * t + 5]), gram(matrices[8 * t + 6]) {}

    // Where element i of the parameter's memory stands in x.
    __device__ long long place(long long i) const {
        if (outer == 1 && rows == k) return i;
        const int at = static_cast<int>(i), column = at / (k * inner) * inner + at % inner, row = at / inner % k;
        return rows == k ? static_cast<long long>(row) * columns + column : static_cast<long long>(column) * columns + row;
    }
};

__device__ __forceinline__ MuonNumbers muon_numbers(IN float* const* __restrict__ numbers, int t) {
    return *reinterpret_cast<const MuonNumbers*>(numbers[t]);
}

// values[0] becomes the sum of 256 threads' values, in a fixed tree; every thread may read it.
__device__ __forceinline__ float sum_of_block(float own, float* values) {
    __syncthreads();  // whoever still reads an earlier sum
    values[threadIdx.x] = own;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) values[threadIdx.x] += values[threadIdx.x + half];
    }
    __syncthreads();
    return values[0];
}

// max(norm, eps) of matrix t's direction (which = 0) or parameter (1), from the chunks' sums of squares.
__device__ __forceinline__ float norm_of(
    IN float* __restrict__ squares, IN long long* __restrict__ first_chunk, int t, int which, float eps, float* values) {
    float sum = 0.0f;
    for (long long chunk = first_chunk[t] + threadIdx.x; chunk < first_chunk[t + 1]; chunk += blockDim.x) {
        sum += squares[2 * chunk + which];
    }
    const float norm = sqrtf(sum_of_block(sum, values));
    return norm < eps ? eps : norm;  // NaN stays
}

extern "C" __global__ void __launch_bounds__(256) muon_prepare(
    IN float* const* __restrict__ parameters, INOUT float* const* __restrict__ gradients,
    INOUT float* const* __restrict__ momenta, IN float* const* __restrict__ numbers, INOUT int* const* __restrict__ skipped,
    IN float* __restrict__ inverse_scale, IN float* __restrict__ found_inf, IN long long* __restrict__ matrices,
    OUT float* __restrict__ x, OUT float* __restrict__ squares, IN long long* __restrict__ first_chunk,
    IN long long* __restrict__ sizes, int arrays, int zero_gradients) {
    __shared__ float values[256];
    const Along along(inverse_scale, found_inf, nullptr, zero_gradients);
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        const MuonNumbers own = muon_numbers(numbers, part.array);
        const Matrix matrix(matrices, part.array);
        along.skipped_before(skipped, part);
        IN float* __restrict__ parameter = parameters[part.array];
        float *gradient = gradients[part.array], *momentum = momenta[part.array];
        float of_direction = 0.0f, of_parameter = 0.0f;
        for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) {
            float direction = 0.0f;
            if (!along.skip) {
                const float p = parameter[i], taken = own.one_minus_momentum * (gradient[i] * along.inverse_scale);
                const float buffer = fmaf(own.momentum, momentum[i], taken);
                momentum[i] = buffer;
                direction = own.nesterov != 0.0f ? fmaf(own.momentum, buffer, taken) : buffer;
                of_direction = fmaf(direction, direction, of_direction);
                of_parameter = fmaf(p, p, of_parameter);
            }
            if (along.zero_gradients) gradient[i] = 0.0f;
            x[matrix.x + matrix.place(i)] = direction;
        }
        of_direction = sum_of_block(of_direction, values);
        of_parameter = sum_of_block(of_parameter, values);
        if (threadIdx.x == 0) {
            squares[2 * chunk] = of_direction;
            squares[2 * chunk + 1] = of_parameter;
        }
    }
}

// The matrix of this block, and its tile there.
__device__ __forceinline__ int find_tile(IN int* __restrict__ first_tile, int count, int& tile) {
    int low = 0, high = count;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (first_tile[middle] <= static_cast<int>(blockIdx.x)) {
            low = middle;
        } else {
            high = middle;
        }
    }
    tile = static_cast<int>(blockIdx.x) - first_tile[low];
    return low;
}

// Stores the tile of a symmetric result at (first_row, first_column), and its transposed below the diagonal: to[i][j] = value(sum, i, j).
template <class Value>
__device__ __forceinline__ void store_twice(
    float* to, int size, int first_row, int first_column, const float* shared, const Value& value) {
    constexpr int TILE = Symmetric::BM;
    for (int e = threadIdx.x; e < TILE * TILE; e += PRODUCT_THREADS) {
        const int row = first_row + e / TILE, column = first_column + e % TILE;
        if (row < size && column < size) {
            to[static_cast<long long>(row) * size + column] = value(product_sum<Symmetric>(shared, e / TILE, e % TILE), row, column);
        }
    }
    if (first_row == first_column) return;
    for (int e = threadIdx.x; e < TILE * TILE; e += PRODUCT_THREADS) {
        const int row = first_column + e / TILE, column = first_row + e % TILE;
        if (row < size && column < size) {
            to[static_cast<long long>(row) * size + column] = value(product_sum<Symmetric>(shared, e % TILE, e / TILE), row, column);
        }
    }
}

// From the number of a tile on or above the diagonal of n x n tiles to its row and column.
__device__ __forceinline__ void triangle(int tile, int n, int& row, int& column) {
    row = 0;
    for (int length = n; tile >= length; --length, ++row) tile -= length;
    column = row + tile;
}

extern "C" __global__ void __launch_bounds__(256, 2) muon_gram(
    IN float* __restrict__ x, IN float* __restrict__ squares, IN float* const* __restrict__ numbers,
    IN long long* __restrict__ matrices, IN long long* __restrict__ first_chunk, IN int* __restrict__ first_tile,
    OUT float* __restrict__ gram, int count, int first) {
    __shared__ __align__(16) float shared[Symmetric::SHARED];
    int tile, row, column;
    const Matrix matrix(matrices, find_tile(first_tile, count, tile));
    triangle(tile, ceil_div(matrix.rows, Symmetric::BM), row, column);
    float by = 1.0f;
    if (first) {
        by = 1.0f / norm_of(squares, first_chunk, matrix.number, 0, muon_numbers(numbers, matrix.number).eps, shared);
        __syncthreads();
    }
    const float* own = x + matrix.x;
    product<Symmetric>(
        own, matrix.columns, matrix.rows, own, matrix.columns, matrix.rows, matrix.columns, row * Symmetric::BM,
        column * Symmetric::BN, shared);
    store_twice(gram + matrix.gram, matrix.rows, row * Symmetric::BM, column * Symmetric::BN, shared,
        [&](float sum, int, int) { return sum * by * by; });
}

extern "C" __global__ void __launch_bounds__(256, 2) muon_polynomial(
    IN float* __restrict__ gram, IN float* const* __restrict__ numbers, IN long long* __restrict__ matrices,
    IN int* __restrict__ first_tile, OUT float* __restrict__ polynomial, int count) {
    __shared__ __align__(16) float shared[Symmetric::SHARED];
    int tile, row, column;
    const Matrix matrix(matrices, find_tile(first_tile, count, tile));
    const MuonNumbers numbers_of = muon_numbers(numbers, matrix.number);
    triangle(tile, ceil_div(matrix.rows, Symmetric::BM), row, column);
    const float* own = gram + matrix.gram;  // symmetric: its rows are its columns
    const int size = matrix.rows;
    product<Symmetric>(own, size, size, own, size, size, size, row * Symmetric::BM, column * Symmetric::BN, shared);
    store_twice(polynomial + matrix.gram, size, row * Symmetric::BM, column * Symmetric::BN, shared, [&](float sum, int i, int j) {
        return fmaf(numbers_of.c, sum, numbers_of.b * own[static_cast<long long>(i) * size + j]);
    });
}

extern "C" __global__ void __launch_bounds__(256, 2) muon_advance(
    IN float* __restrict__ polynomial, IN float* __restrict__ x, IN float* __restrict__ squares,
    IN float* const* __restrict__ numbers, IN long long* __restrict__ matrices, IN long long* __restrict__ first_chunk,
    IN int* __restrict__ first_tile, OUT float* __restrict__ next, int count, int first) {
    __shared__ __align__(16) float shared[Advance::SHARED];
    int tile;
    const Matrix matrix(matrices, find_tile(first_tile, count, tile));
    const MuonNumbers numbers_of = muon_numbers(numbers, matrix.number);
    const int wide = ceil_div(matrix.columns, Advance::BN);
    const int first_row = tile / wide * Advance::BM, first_column = tile % wide * Advance::BN;
    float by = 1.0f;
    if (first) {
        by = 1.0f / norm_of(squares, first_chunk, matrix.number, 0, numbers_of.eps, shared);
        __syncthreads();
    }
    const float* own = x + matrix.x;
    product<Advance>(
        polynomial + matrix.gram, matrix.rows, matrix.rows, own, matrix.columns, matrix.columns, matrix.rows, first_row, first_column,
        shared);
    for (int e = threadIdx.x; e < Advance::BM * Advance::BN; e += PRODUCT_THREADS) {
        const int row = first_row + e / Advance::BN, column = first_column + e % Advance::BN;
        if (row >= matrix.rows || column >= matrix.columns) continue;
        const long long at = static_cast<long long>(row) * matrix.columns + column;
        next[matrix.x + at] = by * fmaf(numbers_of.a, own[at], product_sum<Advance>(shared, e / Advance::BN, e % Advance::BN));
    }
}

extern "C" __global__ void __launch_bounds__(256) muon_apply(
    INOUT float* const* __restrict__ parameters, INOUT float* const* __restrict__ averages, IN float* const* __restrict__ numbers,
    IN float* __restrict__ rate, IN float* __restrict__ found_inf, IN long long* __restrict__ matrices, IN float* __restrict__ x,
    IN float* __restrict__ squares, IN long long* __restrict__ first_chunk, IN long long* __restrict__ sizes, int arrays, int steps) {
    __shared__ float values[256];
    const Along along(nullptr, found_inf, rate, 0);
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        const MuonNumbers own = muon_numbers(numbers, part.array);
        float by = own.kept, step_size = own.step_size;
        if (own.renormalize != 0.0f) {
            const float side = sqrtf(static_cast<float>(matrices[8 * part.array + 1]));
            by *= side / norm_of(squares, first_chunk, part.array, 1, own.eps, values);
        }
        if (steps == 0) step_size /= norm_of(squares, first_chunk, part.array, 0, own.eps, values);
        const Matrix matrix(matrices, part.array);
        float *parameter = parameters[part.array], *average = entry(averages, part.array);
        for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) {
            float p = parameter[i];
            if (!along.skip) {
                p = fmaf(-step_size, x[matrix.x + matrix.place(i)], p * by);
                parameter[i] = p;
            }
            if (average) average[i] = fmaf(-along.rate, average[i] - p, average[i]);
        }
    }
}
