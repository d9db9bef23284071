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

// Eight floats, the columns of a row; without vector registers of that width the compiler uses narrower ones.
typedef float Row __attribute__((vector_size(32), aligned(4)));

struct Operands {
  float a[kRows][16];
  Row b[16];
  Row d[kRows];
};

typedef float (*Convert)(unsigned short);

// A register's two halves are columns 2t and 2t + 1 of A, or rows 2t and 2t + 1 of B; group g = lane / 4, t = lane % 4.
template <int K, Convert convert>
void gather_halves(Operands* all) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const Fiber* fiber = warp_lane(lane);
    const unsigned* a = (const unsigned*)fiber->operands[0];
    const unsigned* b = (const unsigned*)fiber->operands[1];
    int group = lane / 4, pair = lane % 4 * 2;
    for (int i = 0; i < K / 4; ++i) {
      float* to = &all->a[group + i % 2 * 8][pair + i / 2 * 8];
      to[0] = convert((unsigned short)a[i]);
      to[1] = convert((unsigned short)(a[i] >> 16));
    }
    for (int i = 0; i < K / 8; ++i) {
      all->b[pair + i * 8][group] = convert((unsigned short)b[i]);
      all->b[pair + i * 8 + 1][group] = convert((unsigned short)(b[i] >> 16));
    }
  }
}

// tf32: a register is one float, of which the hardware reads the upper 19 bits.
void gather_tf32(Operands* all) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const Fiber* fiber = warp_lane(lane);
    const unsigned* a = (const unsigned*)fiber->operands[0];
    const unsigned* b = (const unsigned*)fiber->operands[1];
    int group = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) all->a[group + i % 2 * 8][t + i / 2 * 4] = gpucnn_float_of(a[i] & 0xFFFFE000u);
    for (int i = 0; i < 2; ++i) all->b[t + i * 4][group] = gpucnn_float_of(b[i] & 0xFFFFE000u);
  }
}

// A lane holds d[g][2t], d[g][2t + 1], d[g + 8][2t] and d[g + 8][2t + 1].
void multiply(Operands* all, int k_size) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const float* d = (const float*)warp_lane(lane)->registers;
    for (int i = 0; i < 4; ++i) all->d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] = d[i];
  }
  for (int row = 0; row < kRows; ++row) {
    Row sum = all->d[row];
    for (int k = 0; k < k_size; ++k) sum += all->a[row][k] * all->b[k];
    all->d[row] = sum;
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    float* d = (float*)warp_lane(lane)->registers;
    for (int i = 0; i < 4; ++i) d[i] = all->d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
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
    for (int lane = 0; lane < kLanes; ++lane) {
      int r = lane / 4, c = lane % 4 * 2;
      unsigned low = transposed ? matrix[c][r] : matrix[r][c];
      unsigned high = transposed ? matrix[c + 1][r] : matrix[r][c + 1];
      ((unsigned*)warp_lane(lane)->registers)[i] = low | high << 16;
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
  switch (kind) {
    case kProductF16K16: gather_halves<16, float16_to_float>(&all); break;
    case kProductBf16K16: gather_halves<16, gpucnn_bfloat16_to_float>(&all); break;
    case kProductF16K8: gather_halves<8, float16_to_float>(&all); break;
    default: gather_tf32(&all);
  }
  multiply(&all, kind == kProductF16K16 || kind == kProductBf16K16 ? 16 : 8);
  warp_release(~0u);
}
