// ldmatrix and mma.sync: the lanes' registers are gathered into whole matrices, which are loaded or multiplied in one place.
//
// Layouts: PTX ISA, "Matrix Fragments for mma.m16n8k8", "... for mma.m16n8k16 with floating point type" and "ldmatrix".
// A product of two halves, or of two tf32, is exact in float; the sum over k runs upwards in float and rounds to nearest each
// time. A GPU's sum rounds in another way, so its last bits may differ.
#include <string.h>

#include "../include/half.h"
#include "state.h"

namespace {

constexpr int kLanes = 32, kRows = 16, kColumns = 8;

// Compiled for processors with wider vector registers too; the first call chooses.
#if defined(__x86_64__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("default", "arch=x86-64-v3"), optimize("O3")))
#else
#define WIDE
#endif

// Eight floats, the columns of a row; without vector registers of that width the compiler uses narrower ones.
typedef float Row __attribute__((vector_size(32), aligned(4)));

struct Operands {
  unsigned short raw_a[kRows][16], raw_b[16][kColumns];
  float a[kRows][16];
  Row b[16];
  Row d[kRows];
};

Fiber* lanes() { return state.current - state.current->linear % kLanes; }  // all 32 are there

// A register's two halves are columns 2t and 2t + 1 of A, or rows 2t and 2t + 1 of B; group g = lane / 4, t = lane % 4.
template <int K>
void gather_halves(Operands* all) {
  const Fiber* fiber = lanes();
  for (int lane = 0; lane < kLanes; ++lane, ++fiber) {
    const unsigned* a = (const unsigned*)fiber->operands[0];
    const unsigned* b = (const unsigned*)fiber->operands[1];
    int group = lane / 4, pair = lane % 4 * 2;
    for (int i = 0; i < K / 4; ++i) memcpy(&all->raw_a[group + i % 2 * 8][pair + i / 2 * 8], a + i, 4);
    for (int i = 0; i < K / 8; ++i) {
      all->raw_b[pair + i * 8][group] = (unsigned short)b[i];
      all->raw_b[pair + i * 8 + 1][group] = (unsigned short)(b[i] >> 16);
    }
  }
}

// All 16 columns and rows, of which a product with K = 8 uses half.
WIDE void convert_float16(Operands* all) {
  for (int i = 0; i < kRows * 16; ++i) all->a[0][i] = float16_to_float(all->raw_a[0][i]);
  float* b = (float*)all->b;
  for (int i = 0; i < 16 * kColumns; ++i) b[i] = float16_to_float(all->raw_b[0][i]);
}

WIDE void convert_bfloat16(Operands* all) {
  for (int i = 0; i < kRows * 16; ++i) all->a[0][i] = gpucnn_bfloat16_to_float(all->raw_a[0][i]);
  float* b = (float*)all->b;
  for (int i = 0; i < 16 * kColumns; ++i) b[i] = gpucnn_bfloat16_to_float(all->raw_b[0][i]);
}

// tf32: a register is one float, of which the hardware reads the upper 19 bits.
void gather_tf32(Operands* all) {
  const Fiber* fiber = lanes();
  for (int lane = 0; lane < kLanes; ++lane, ++fiber) {
    const unsigned* a = (const unsigned*)fiber->operands[0];
    const unsigned* b = (const unsigned*)fiber->operands[1];
    int group = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) all->a[group + i % 2 * 8][t + i / 2 * 4] = gpucnn_float_of(a[i] & 0xFFFFE000u);
    for (int i = 0; i < 2; ++i) all->b[t + i * 4][group] = gpucnn_float_of(b[i] & 0xFFFFE000u);
  }
}

template <int K>
WIDE void multiply(Operands* all) {
  for (int row = 0; row < kRows; ++row) {
    Row sum = all->d[row];
    for (int k = 0; k < K; ++k) sum += all->a[row][k] * all->b[k];
    all->d[row] = sum;
  }
}

// A lane holds d[g][2t], d[g][2t + 1], d[g + 8][2t] and d[g + 8][2t + 1].
void take_d(Operands* all) {
  const Fiber* fiber = lanes();
  for (int lane = 0; lane < kLanes; ++lane, ++fiber)
    for (int half = 0; half < 2; ++half)
      memcpy((float*)&all->d[lane / 4 + half * 8] + lane % 4 * 2, (const float*)fiber->registers + 2 * half, 8);
}

void give_d(const Operands* all) {
  const Fiber* fiber = lanes();
  for (int lane = 0; lane < kLanes; ++lane, ++fiber)
    for (int half = 0; half < 2; ++half)
      memcpy((float*)fiber->registers + 2 * half, (const float*)&all->d[lane / 4 + half * 8] + lane % 4 * 2, 8);
}

void check_row(int lane, const char* file, int line) {
  Fiber* fiber = warp_lane(lane);
  const unsigned char* row = (const unsigned char*)fiber->operands[0];
  if (row >= gpucnn_shared_base && row + 16 <= state.shared_end && (uintptr_t)row % 16 == 0) return;
  state.current = fiber;
  long long offset = (long long)(row - gpucnn_shared_base), size = (long long)(state.shared_end - gpucnn_shared_base);
  if (offset < 0 || offset + 16 > size)
    raise_fault(kFaultMemory, file, line, "ldmatrix reads 16 bytes at %lld, which is outside the block's %lld bytes of shared memory",
                offset, size);
  raise_fault(kFaultMisaligned, file, line, "ldmatrix reads at byte %lld of shared memory, which is no multiple of 16", offset);
}

}  // namespace

void gpucnn_load_matrix(unsigned* registers, const void* row, int matrices, int transposed, int addresses, const char* file,
                        int line) {
  Fiber* self = state.current;
  self->registers = registers;
  self->operands[0] = row;
  if (!warp_arrive(kWarpLoadMatrix + matrices + 8 * transposed, ~0u, file, line)) return;
  for (int lane = 0; lane < addresses; ++lane) check_row(lane, file, line);
  for (int i = 0; i < matrices; ++i) {
    unsigned short matrix[8][8];
    for (int r = 0; r < 8; ++r) memcpy(matrix[r], warp_lane(8 * i + r)->operands[0], 16);
    const Fiber* fiber = lanes();
    for (int lane = 0; lane < kLanes; ++lane, ++fiber) {
      int r = lane / 4, c = lane % 4 * 2;
      unsigned low = transposed ? matrix[c][r] : matrix[r][c];
      unsigned high = transposed ? matrix[c + 1][r] : matrix[r][c + 1];
      ((unsigned*)fiber->registers)[i] = low | high << 16;
    }
  }
  warp_release(~0u);
}

void gpucnn_matrix_product(int kind, float* d, const unsigned* a, const unsigned* b, const char* file, int line) {
  Fiber* self = state.current;
  self->registers = d;
  self->operands[0] = a;
  self->operands[1] = b;
  if (!warp_arrive(kWarpMatrixProduct + kind, ~0u, file, line)) return;
  Operands all;
  if (kind == kProductF16K8) memset(&all, 0, sizeof all);  // half of it is not used
  take_d(&all);
  switch (kind) {
    case kProductF16K16: gather_halves<16>(&all), convert_float16(&all), multiply<16>(&all); break;
    case kProductBf16K16: gather_halves<16>(&all), convert_bfloat16(&all), multiply<16>(&all); break;
    case kProductF16K8: gather_halves<8>(&all), convert_float16(&all), multiply<8>(&all); break;
    default: gather_tf32(&all), multiply<8>(&all);
  }
  give_d(&all);
  warp_release(~0u);
}
