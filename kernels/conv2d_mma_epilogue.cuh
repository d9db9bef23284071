// What happens to the results of a tensor-core tile (conv2d_mma_tile.cuh) behind its main loop: the parts of a split K are added up in order, bias,
// ReLU or a mask come in, and whole lines go to memory 16 bytes at a time.

#pragma once

#include "conv2d_mma_tile.cuh"
#include "last_block.cuh"

// ---- split-K ---------------------------------------------------------------------------------------------------------

__device__ __forceinline__ void add_quad(float (&sum)[4], const float4* from, bool first) {
    const float4 v = read_written(from);
    sum[0] = first ? v.x : sum[0] + v.x;
    sum[1] = first ? v.y : sum[1] + v.y;
    sum[2] = first ? v.z : sum[2] + v.z;
    sum[3] = first ? v.w : sum[3] + v.w;
}

constexpr unsigned FAN_IN = 8;       // parts that one block adds up
constexpr unsigned TREE_LEVELS = 6;  // 8^6 parts are more than gridDim.y may be

// gridDim.y blocks share a tile, each with a part of K. Each leaves its results in `partial`, in the order of its registers; of every FAN_IN parts,
// the block that arrives last adds them up, first to last, and leaves the sum in the place of the first; of those sums again, until one
// block has all and goes on to the epilogue (true). So the order of additions is fixed, and no block reads more than FAN_IN parts a level.
// `partial` holds gridDim.x * gridDim.y blocks' results, `counters` gridDim.y + TREE_LEVELS for each of gridDim.x.
template <class G, bool SUMS>
__device__ __forceinline__ bool reduce_splits(Results<G>& results, float4* partial, unsigned* counters) {
    if (gridDim.y == 1) return true;
    constexpr int PIECE = G::NI < 8 ? G::NI : 8;
    constexpr int SIZE = (G::MI * G::NI + (SUMS ? G::MI : 0)) * MMA_THREADS;  // of a block's results, in float4
    float4* first = partial + static_cast<long long>(blockIdx.x) * gridDim.y * SIZE + threadIdx.x;
    counters += blockIdx.x * (gridDim.y + TREE_LEVELS);
    unsigned index = blockIdx.y, parts = gridDim.y, stride = 1;  // of this level: part i lies at i * stride
#pragma unroll 1
    for (unsigned level = 0; parts > 1; ++level) {
        float4* mine = first + static_cast<long long>(index * stride) * SIZE;
#pragma unroll
        for (int i = 0; i < G::MI; ++i) {
#pragma unroll
            for (int j = 0; j < G::NI; ++j) {
                const float(&v)[4] = results.v[i][j];
                mine[(i * G::NI + j) * MMA_THREADS] = make_float4(v[0], v[1], v[2], v[3]);
            }
            if (SUMS && results.wants_sums) {
                const float(&v)[4] = results.sums[i];
                mine[(G::MI * G::NI + i) * MMA_THREADS] = make_float4(v[0], v[1], v[2], v[3]);
            }
        }
        const unsigned begin = index / FAN_IN * FAN_IN, members = min(FAN_IN, parts - begin);
        // A group's first part and the level make its counter: groups lie FAN_IN or more apart, and there are fewer levels.
        if (!arrives_last(&counters[begin * stride + level], members)) return false;
#pragma unroll
        for (int i = 0; i < G::MI; ++i) {  // at most eight fragments at a time: the compiler has registers for reads that are on their way
#pragma unroll
            for (int piece = 0; piece < G::NI; piece += PIECE) {
                const float4* from = first + static_cast<long long>(begin * stride) * SIZE + (i * G::NI + piece) * MMA_THREADS;
#pragma unroll 2
                for (unsigned member = 0; member < members; ++member) {
#pragma unroll
                    for (int j = 0; j < PIECE; ++j) add_quad(results.v[i][piece + j], from + j * MMA_THREADS, member == 0);
                    if (SUMS && piece == 0 && results.wants_sums) {
                        add_quad(results.sums[i], from + (i + (G::MI - i) * G::NI) * MMA_THREADS, member == 0);
                    }
                    from += static_cast<long long>(stride) * SIZE;
                }
            }
        }
        index /= FAN_IN;
        parts = ceil_div(parts, FAN_IN);
        stride *= FAN_IN;
    }
    return true;
}

// ---- epilogue --------------------------------------------------------------------------------------------------------

// What happens to a result on its way to memory. `row_offset(row)` is where a row of the results begins in `out` and `mask`; a row has
// `columns` elements. With `vector` those begin at multiples of 16 bytes.
template <class T>
struct Output {
    T* out;
    const float* bias;  // of the first column, or null: added
    bool relu;          // then: max(result, 0)
    const T* mask;      // or null: then 0 where it is not above 0
    int rows, columns;
    bool vector;
};

// Element i of a chunk that lies in registers.
template <class T>
__device__ __forceinline__ T element(const unsigned (&words)[4], int i) {
    if constexpr (sizeof(T) == 4) {
        return __uint_as_float(words[i]);
    } else {
        return {static_cast<unsigned short>(words[i / 2] >> (i % 2 * 16))};
    }
}

// A register of results, each kept where the mask's element is above 0.
template <class T>
__device__ __forceinline__ unsigned masked(unsigned values, unsigned mask) {
    if constexpr (sizeof(T) == 4) {
        return __uint_as_float(mask) > 0.0f ? values : 0u;
    } else {
        const T low = {static_cast<unsigned short>(mask)}, high = {static_cast<unsigned short>(mask >> 16)};
        return (to_float(low) > 0.0f ? values & 0x0000FFFFu : 0u) | (to_float(high) > 0.0f ? values & 0xFFFF0000u : 0u);
    }
}

// Stores the first `count` elements of a chunk.
template <class Out>
__device__ __forceinline__ void store_chunk(uint4 values, const Output<Out>& o, long long offset, int count) {
    constexpr int VEC = CHUNK_BYTES / sizeof(Out);
    const unsigned words[4] = {values.x, values.y, values.z, values.w};
    if (o.vector) {
        if (o.mask != nullptr) {
            const uint4 masks = *reinterpret_cast<const uint4*>(o.mask + offset);
            values = make_uint4(masked<Out>(values.x, masks.x), masked<Out>(values.y, masks.y), masked<Out>(values.z, masks.z),
                                masked<Out>(values.w, masks.w));
        }
        *reinterpret_cast<uint4*>(o.out + offset) = values;
        return;
    }
#pragma unroll
    for (int i = 0; i < VEC; ++i) {
        if (i >= count) continue;
        const Out value = element<Out>(words, i);
        o.out[offset + i] = o.mask == nullptr || to_float(o.mask[offset + i]) > 0.0f ? value : from_float<Out>(0.0f);
    }
}

// Where a lane's two neighbouring results of fragment j lie among a warp's 16 lines of WN results, in bytes; `half` is that of the 16 rows.
template <class Out, int WN>
__device__ __forceinline__ int result_pair(int lane, int half, int j) {
    constexpr int VEC = CHUNK_BYTES / sizeof(Out);
    const int column = j * 8 + lane % 4 * 2;
    return place<WN / VEC, sizeof(Out) == 4>(half * 8 + lane / 4, column / VEC) + column % VEC * static_cast<int>(sizeof(Out));
}

// Which line a lane stores a chunk of in each turn, and which chunk.
template <class Out, int WN>
struct StoredChunk {
    static constexpr int VEC = CHUNK_BYTES / sizeof(Out), WIDTH = WN / VEC, TURNS = 16 * WIDTH / 32;
    int line, chunk;
    __device__ StoredChunk(int lane, int turn) : line((turn * 32 + lane) / WIDTH), chunk((turn * 32 + lane) % WIDTH) {}
    __device__ int offset() const {
        return place<WIDTH, sizeof(Out) == 4>(line, chunk);
    }
};

// A warp brings 16 rows of its results at a time into lines in shared memory, and stores them from there 16 bytes a lane.
template <class G, class Out, class RowOffset>
__device__ __forceinline__ void store_results(
    Results<G>& results, unsigned char* shared, const Output<Out>& o, int first_row, int first_column, RowOffset row_offset) {
    using Chunk = StoredChunk<Out, G::WN>;
    static_assert(MMA_WARPS * 16 * G::WN * sizeof(Out) <= G::STAGES * G::STAGE_BYTES, "the lines fit into what the stages held");
    unsigned char* lines = shared + threadIdx.x / 32 * (16 * G::WN * static_cast<int>(sizeof(Out)));
    const int lane = lane_index(), column0 = first_column + warp_column<G>();
    if (o.bias != nullptr) {
#pragma unroll
        for (int j = 0; j < G::NI; ++j) {
#pragma unroll
            for (int v = 0; v < 2; ++v) {
                const int column = column0 + j * 8 + lane % 4 * 2 + v;
                const float shift = column < o.columns ? o.bias[column] : 0.0f;
#pragma unroll
                for (int i = 0; i < G::MI; ++i) results.v[i][j][v] += shift, results.v[i][j][v + 2] += shift;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < G::MI; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int j = 0; j < G::NI; ++j) {
                float low = results.v[i][j][half * 2], high = results.v[i][j][half * 2 + 1];
                if (o.relu) low = low <= 0.0f ? 0.0f : low, high = high <= 0.0f ? 0.0f : high;  // NaN stays
                unsigned char* to = lines + result_pair<Out, G::WN>(lane, half, j);
                if constexpr (sizeof(Out) == 4) {
                    *reinterpret_cast<float2*>(to) = make_float2(low, high);
                } else {
                    *reinterpret_cast<unsigned*>(to) = packed(from_float<Out>(low), from_float<Out>(high));
                }
            }
        }
        __syncwarp();
#pragma unroll
        for (int turn = 0; turn < Chunk::TURNS; ++turn) {
            const Chunk at(lane, turn);
            const int row = first_row + warp_row<G>() + i * 16 + at.line, column = column0 + at.chunk * Chunk::VEC;
            if (row >= o.rows || column >= o.columns) continue;
            const uint4 values = *reinterpret_cast<const uint4*>(lines + at.offset());
            store_chunk(values, o, row_offset(row) + column, min(Chunk::VEC, o.columns - column));
        }
        __syncwarp();
    }
}
