// Muon for the matrices of a network, whatever their shapes, in 1 + 3 * steps launches (2 for no steps):
//
//     muon_prepare   momentum, Nesterov; x = the direction, as (rows, columns) with rows <= columns; sums of squares of it and of the parameter
//     steps times:   muon_gram        gram = x x^T                          (the first time of x / max(|x|, eps))
//                    muon_polynomial  polynomial = b gram + c gram gram
//                    muon_advance     next x = a x + polynomial x
//     muon_finish    in the place of the last muon_advance, with its x: with `renormalize` parameter *= sqrt(K) / max(|parameter|, eps);
//                    parameter = kept * parameter - step_size * x
//     muon_apply     the same where there are no steps, with x / max(|x|, eps)
//
// A parameter lies in memory as (outer, K, inner) and is a matrix of K rows and M = outer * inner columns; the order of the columns does not
// matter to the iteration, so x keeps it. Where K > M, x is the transposed. matrices[8 * t...] = {outer, K, inner, rows, columns, begin of x,
// begin of gram, 0}. Both products of a symmetric result compute the tiles on and above the diagonal and store each twice.
//
// Products: one block a tile, muon.cuh; first_tile[t] counts the tiles of the matrices before t, and blocks find theirs by bisection, so one
// launch has tiles of all matrices. The rest: one block a chunk, chunks.cuh and updates.cuh. A skipped step (found_inf) changes neither
// parameter nor momentum. No alignment is asked for. Sums of squares are added in a fixed order: results are the same bits in every run.
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

    // Where element (row, column) of x stands in the parameter's memory.
    __device__ long long memory(int row, int column) const {
        const int own_row = rows == k ? row : column, own_column = rows == k ? column : row;
        return (static_cast<long long>(own_column / inner) * k + own_row) * inner + own_column % inner;
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

// What a parameter is multiplied with before its step: kept, and what brings its norm to sqrt(K).
__device__ __forceinline__ float kept_of(
    const MuonNumbers& own, int k, IN float* __restrict__ squares, IN long long* __restrict__ first_chunk, int t, float* values) {
    if (own.renormalize == 0.0f) return own.kept;
    return own.kept * (sqrtf(static_cast<float>(k)) / norm_of(squares, first_chunk, t, 1, own.eps, values));
}

// parameter = kept * parameter - step, unless it is skipped, and the average after it.
__device__ __forceinline__ void muon_move(const Along& along, float* parameter, float* average, float kept, float step) {
    float p = *parameter;
    if (!along.skip) {
        p = fmaf(kept, p, -step);
        *parameter = p;
    }
    if (average) *average = fmaf(-along.rate, *average - p, *average);
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

// The tile of polynomial x of this block, computed into `shared`, and by how much to multiply it (1 / |x|, where x is not normalised yet).
struct AdvanceTile {
    int row, column;
    float by;

    __device__ __forceinline__ AdvanceTile(
        const Matrix& matrix, int tile, const float* polynomial, const float* x, IN float* __restrict__ squares,
        IN long long* __restrict__ first_chunk, float eps, int first, float* shared, float* values)
        : by(1.0f) {
        const int wide = ceil_div(matrix.columns, Advance::BN);
        row = tile / wide * Advance::BM, column = tile % wide * Advance::BN;
        product<Advance>(
            polynomial + matrix.gram, matrix.rows, matrix.rows, x + matrix.x, matrix.columns, matrix.columns, matrix.rows, row, column,
            shared);
        if (first) by = 1.0f / norm_of(squares, first_chunk, matrix.number, 0, eps, values);
    }
};

extern "C" __global__ void __launch_bounds__(256, 2) muon_advance(
    IN float* __restrict__ polynomial, IN float* __restrict__ x, IN float* __restrict__ squares,
    IN float* const* __restrict__ numbers, IN long long* __restrict__ matrices, IN long long* __restrict__ first_chunk,
    IN int* __restrict__ first_tile, OUT float* __restrict__ next, int count, int first) {
    __shared__ __align__(16) float shared[Advance::SHARED];
    __shared__ float values[256];
    int tile;
    const Matrix matrix(matrices, find_tile(first_tile, count, tile));
    const MuonNumbers own = muon_numbers(numbers, matrix.number);
    const AdvanceTile at(matrix, tile, polynomial, x, squares, first_chunk, own.eps, first, shared, values);
    for (int e = threadIdx.x; e < Advance::BM * Advance::BN; e += PRODUCT_THREADS) {
        const int row = at.row + e / Advance::BN, column = at.column + e % Advance::BN;
        if (row >= matrix.rows || column >= matrix.columns) continue;
        const long long place = matrix.x + static_cast<long long>(row) * matrix.columns + column;
        next[place] = at.by * fmaf(own.a, x[place], product_sum<Advance>(shared, e / Advance::BN, e % Advance::BN));
    }
}

// The last muon_advance, whose result goes into the parameter at once, and what goes along.
extern "C" __global__ void __launch_bounds__(256, 2) muon_finish(
    INOUT float* const* __restrict__ parameters, INOUT float* const* __restrict__ averages, IN float* const* __restrict__ numbers,
    IN float* __restrict__ rate, IN float* __restrict__ found_inf, IN float* __restrict__ polynomial, IN float* __restrict__ x,
    IN float* __restrict__ squares, IN long long* __restrict__ matrices, IN long long* __restrict__ first_chunk,
    IN int* __restrict__ first_tile, int count, int first) {
    __shared__ __align__(16) float shared[Advance::SHARED];
    __shared__ float values[256];
    int tile;
    const Matrix matrix(matrices, find_tile(first_tile, count, tile));
    const MuonNumbers own = muon_numbers(numbers, matrix.number);
    const AdvanceTile at(matrix, tile, polynomial, x, squares, first_chunk, own.eps, first, shared, values);
    const float kept = kept_of(own, matrix.k, squares, first_chunk, matrix.number, values);
    const Along along(nullptr, found_inf, rate, 0);
    float *parameter = parameters[matrix.number], *average = entry(averages, matrix.number);
    for (int e = threadIdx.x; e < Advance::BM * Advance::BN; e += PRODUCT_THREADS) {
        const int row = at.row + e / Advance::BN, column = at.column + e % Advance::BN;
        if (row >= matrix.rows || column >= matrix.columns) continue;
        const float own_x = x[matrix.x + static_cast<long long>(row) * matrix.columns + column];
        const float next = at.by * fmaf(own.a, own_x, product_sum<Advance>(shared, e / Advance::BN, e % Advance::BN));
        const long long i = matrix.memory(row, column);
        muon_move(along, parameter + i, average ? average + i : nullptr, kept, own.step_size * next);
    }
}

// With no iteration: x, normalised, is the step itself.
extern "C" __global__ void __launch_bounds__(256) muon_apply(
    INOUT float* const* __restrict__ parameters, INOUT float* const* __restrict__ averages, IN float* const* __restrict__ numbers,
    IN float* __restrict__ rate, IN float* __restrict__ found_inf, IN long long* __restrict__ matrices, IN float* __restrict__ x,
    IN float* __restrict__ squares, IN long long* __restrict__ first_chunk, IN long long* __restrict__ sizes, int arrays) {
    __shared__ float values[256];
    const Along along(nullptr, found_inf, rate, 0);
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        const MuonNumbers own = muon_numbers(numbers, part.array);
        const int k = static_cast<int>(matrices[8 * part.array + 1]);
        const float kept = kept_of(own, k, squares, first_chunk, part.array, values);
        const float step_size = own.step_size / norm_of(squares, first_chunk, part.array, 0, own.eps, values);
        const Matrix matrix(matrices, part.array);
        float *parameter = parameters[part.array], *average = entry(averages, part.array);
        for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) {
            muon_move(along, parameter + i, average ? average + i : nullptr, kept, step_size * x[matrix.x + matrix.place(i)]);
        }
    }
}
