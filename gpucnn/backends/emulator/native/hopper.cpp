// Hopper's asynchronous machinery: products of warpgroups, mbarriers, bulk copies; and barriers of parts of a block.
//
// As with cp.async, what is asynchronous comes as late as it may: a bulk copy's bytes land when a thread waits for their barrier, and a
// product's registers hold poison until its wait. An operand that no longer holds, at the wait, what it held at the start was
// overwritten too early, and that is an error. Not seen: a missing fence.proxy.async.
#include <initializer_list>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../include/half.h"
#include "state.h"

namespace {

long long shared_offset(const void* pointer) { return (long long)((const unsigned char*)pointer - gpucnn_shared_base); }

void check_shared(const void* pointer, long long bytes, int alignment, const char* what, const char* file, int line) {
  long long offset = shared_offset(pointer), size = (long long)(state.shared_end - gpucnn_shared_base);
  if (offset < 0 || offset + bytes > size)
    raise_fault(kFaultMemory, file, line, "%s takes %lld bytes at %lld, which is outside the block's %lld bytes of shared memory",
                what, bytes, offset, size);
  if (offset % alignment || (uintptr_t)pointer % (alignment < 16 ? alignment : 16))
    raise_fault(kFaultMisaligned, file, line, "%s takes byte %lld of shared memory, which is no multiple of %d", what, offset,
                alignment);
}

bool same_place(const char* file, int line, const char* other_file, int other_line) {
  return line == other_line && (file == other_file || strcmp(file, other_file) == 0);
}

// ---- threads that meet ----------------------------------------------------------------------------------------------

constexpr int kNamed = 16, kGroups = 8;  // barriers of a block; warpgroups of a block

struct Meeting {
  int arrived, expected;
  const char* file;
  int line;
} meetings[kNamed + kGroups];

// The running thread arrives. True for the last one, which must call `go_on`; the others wait here if they should.
bool meet(int index, int expected, bool waits, const char* file, int line) {
  Meeting* meeting = meetings + index;
  if (meeting->arrived++ == 0) {
    meeting->expected = expected;
    meeting->file = file;
    meeting->line = line;
  }
  if (meeting->arrived == meeting->expected) return true;
  if (waits) {
    Fiber* self = state.current;
    self->meeting = index;
    self->file = file;
    self->line = line;
    self->state = kAtMeeting;
    wait_here();
  }
  return false;
}

void go_on(int index) {
  meetings[index].arrived = 0;
  for (int i = 0; i < state.count; ++i)
    if (state.fibers[i].state == kAtMeeting && state.fibers[i].meeting == index) make_ready(state.fibers + i);
}

// ---- mbarriers ------------------------------------------------------------------------------------------------------

struct Mbarrier {  // what stands in the barrier's 8 bytes
  uint64_t magic : 8, phase : 1, expected : 14, pending : 14, bytes : 27;  // bytes: announced and not yet come, + kNoBytes
};
constexpr uint64_t kMagic = 0xB7, kNoBytes = 1 << 26;

struct Arriving {  // a copy whose bytes have come for the barrier but not for anybody who has not waited
  const void* barrier;
  int phase;
  unsigned char* to;
  unsigned char* data;
  size_t bytes;
};

Arriving* arriving = nullptr;
int arriving_count = 0, arriving_capacity = 0;

Mbarrier* barrier_at(unsigned long long* pointer, const char* file, int line) {
  check_shared(pointer, 8, 8, "mbarrier", file, line);
  Mbarrier* barrier = (Mbarrier*)pointer;
  if (barrier->magic != kMagic)
    raise_fault(kFaultBarrier, file, line, "the mbarrier at byte %lld of shared memory was not initialised", shared_offset(pointer));
  return barrier;
}

void end_phase_if_complete(Mbarrier* barrier) {
  if (barrier->pending != 0 || barrier->bytes != kNoBytes) return;
  barrier->phase ^= 1;
  barrier->pending = barrier->expected;
  for (int i = 0; i < state.count; ++i) {
    Fiber* fiber = state.fibers + i;
    if (fiber->state == kAtMbarrier && fiber->operands[0] == barrier) make_ready(fiber);
  }
}

void arrive(Mbarrier* barrier, const char* file, int line) {
  if (barrier->pending == 0)
    raise_fault(kFaultBarrier, file, line, "arrives at the mbarrier at byte %lld, whose phase has seen its %d arrivals already",
                shared_offset(barrier), (int)barrier->expected);
  --barrier->pending;
}

// The bytes of [from, from + bytes) are on their way to `to`, for the barrier's running phase.
void send(Mbarrier* barrier, unsigned char* to, const void* from, size_t bytes) {
  if (arriving_count == arriving_capacity) {
    arriving_capacity = arriving_capacity ? 2 * arriving_capacity : 64;
    arriving = (Arriving*)realloc(arriving, sizeof(Arriving) * arriving_capacity);
  }
  Arriving* copy = arriving + arriving_count++;
  *copy = {barrier, (int)barrier->phase, to, (unsigned char*)malloc(bytes), bytes};
  memcpy(copy->data, from, bytes);
  memset(to, state.shared_poison, bytes);
}

void land(const void* barrier, int phase) {
  int kept = 0;
  for (int i = 0; i < arriving_count; ++i) {
    Arriving copy = arriving[i];
    if (copy.barrier == barrier && copy.phase == phase) {
      memcpy(copy.to, copy.data, copy.bytes);
      free(copy.data);
    } else {
      arriving[kept++] = copy;
    }
  }
  arriving_count = kept;
}

// ---- products of warpgroups -----------------------------------------------------------------------------------------

constexpr int kM = 64, kK = 16, kMaxN = 256, kThreads = 128;

struct Operand {  // 16-bit elements (row, k), as they are in shared memory
  const unsigned char* start;
  int rows, leading, swizzle;  // swizzle: bytes of a line
  bool rows_contiguous;
  unsigned short bits[kMaxN][kK];
};

struct Product {
  Operand a, b;
  int accumulator, group;  // of the warpgroup's; group -1: not committed yet
  const char* file;
  int line;
};

struct Accumulator {
  float* d[kThreads];  // null in d[0]: free
  int n, products;     // under way
  float values[kM][kMaxN];
};

constexpr int kMaxProducts = 256, kMaxAccumulators = 16;

struct Warpgroup {
  bool fenced;
  int groups;  // committed so far
  int product_count;
  Product products[kMaxProducts];
  Accumulator accumulators[kMaxAccumulators];
};

Warpgroup* warpgroups[kGroups];

Warpgroup* own_group(const char* file, int line) {
  int index = state.current->linear / kThreads;
  if ((index + 1) * kThreads > state.count)
    raise_fault(kFaultWarp, file, line, "wgmma needs whole warpgroups, and the block has %d threads", state.count);
  if (warpgroups[index] == nullptr) warpgroups[index] = (Warpgroup*)calloc(1, sizeof(Warpgroup));
  return warpgroups[index];
}

int group_meeting() { return kNamed + state.current->linear / kThreads; }

// All 128 threads come to the same instruction; true for the last.
bool warpgroup_meets(const char* file, int line) {
  const Meeting* meeting = meetings + group_meeting();
  if (meeting->arrived > 0 && !same_place(file, line, meeting->file, meeting->line))
    raise_fault(kFaultWarp, file, line, "wgmma at %s:%d, while other threads of its warpgroup wait at %s:%d", file, line, meeting->file,
                meeting->line);
  return meet(group_meeting(), kThreads, true, file, line);
}

// Byte of element (row, k), before the swap of 16-byte chunks; PTX ISA, "Shared Memory Matrix Layout".
long long linear_byte(const Operand* operand, int row, int k) {
  int panel = operand->swizzle / 2;
  if (operand->rows_contiguous) return (long long)(row / panel) * operand->leading + k * operand->swizzle + row % panel * 2;
  return (long long)row * operand->swizzle + k * 2;
}

// The bits of the address that count the line within 8 (128 bytes) or the pair of lines within 8 (64) come into those that count chunks.
long long swapped(const Operand* operand, long long byte) {
  return byte ^ (byte >> 7 & (operand->swizzle == 128 ? 7 : 3)) << 4;
}

void gather(const Operand* operand, unsigned short (*bits)[kK]) {
  long long start = shared_offset(operand->start);
  for (int row = 0; row < operand->rows; ++row)
    for (int k = 0; k < kK; ++k) {
      long long byte = swapped(operand, start + linear_byte(operand, row, k));
      memcpy(&bits[row][k], gpucnn_shared_base + byte, 2);
    }
}

void take_operand(Operand* operand, const void* start, int rows, int leading, int swizzle, bool rows_contiguous, const char* name,
                  const char* file, int line) {
  operand->start = (const unsigned char*)start;
  operand->rows = rows;
  operand->leading = leading;
  operand->swizzle = swizzle;
  operand->rows_contiguous = rows_contiguous;
  char what[32];
  strcpy(what, "wgmma's operand ");
  strcat(what, name);
  long long last = 0;
  for (int row : {0, rows - 1})
    for (int k : {0, kK - 1})
      if (linear_byte(operand, row, k) > last) last = linear_byte(operand, row, k);
  long long end = last / swizzle * swizzle + swizzle - (rows_contiguous ? 0 : shared_offset(start) % swizzle);
  check_shared(start, end, 16, what, file, line);
  if (shared_offset(start) % (8 * swizzle) >= (rows_contiguous ? 1 : swizzle))
    raise_fault(kFaultMisaligned, file, line, "%s starts at byte %lld of shared memory: its tile must start at a multiple of %d", what,
                shared_offset(start), 8 * swizzle);
  if (rows_contiguous && rows > swizzle / 2 && leading % (8 * swizzle))
    raise_fault(kFaultMisaligned, file, line, "%s has panels %d bytes apart, which is no multiple of %d", what, leading, 8 * swizzle);
  gather(operand, operand->bits);
}

int place_in_d(int thread, int i) {  // row * 256 + column
  int lane = thread % 32;
  int row = 16 * (thread / 32) + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
  return row * kMaxN + column;
}

int find_accumulator(Warpgroup* group, const GpucnnWgmma* product, const char* file, int line) {
  int free_one = -1;
  for (int i = 0; i < kMaxAccumulators; ++i) {
    if (group->accumulators[i].d[0] == product->d && group->accumulators[i].n == product->n) return i;
    if (group->accumulators[i].d[0] == nullptr) free_one = i;
  }
  if (free_one < 0) raise_fault(kFaultTrap, file, line, "wgmma with more than %d accumulators under way", kMaxAccumulators);
  return free_one;
}

void start_accumulator(Accumulator* accumulator, int n) {
  accumulator->n = n;
  int first = state.current->linear / kThreads * kThreads;
  for (int thread = 0; thread < kThreads; ++thread) {
    float* d = ((const GpucnnWgmma*)state.fibers[first + thread].operands[0])->d;
    accumulator->d[thread] = d;
    for (int i = 0; i < n / 2; ++i) accumulator->values[0][place_in_d(thread, i)] = d[i];
    memset((void*)d, state.shared_poison, sizeof(float) * (size_t)(n / 2));
  }
}

void multiply(Accumulator* accumulator, const Operand* a, const Operand* b, bool bfloat, bool accumulate) {
  static float left[kM][kK], right[kK][kMaxN];
  int n = b->rows;
  for (int row = 0; row < kM; ++row)
    for (int k = 0; k < kK; ++k)
      left[row][k] = bfloat ? gpucnn_bfloat16_to_float(a->bits[row][k]) : float16_to_float(a->bits[row][k]);
  for (int column = 0; column < n; ++column)
    for (int k = 0; k < kK; ++k)
      right[k][column] = bfloat ? gpucnn_bfloat16_to_float(b->bits[column][k]) : float16_to_float(b->bits[column][k]);
  for (int row = 0; row < kM; ++row) {
    float* sum = accumulator->values[row];
    if (!accumulate) memset((void*)sum, 0, sizeof(float) * (size_t)n);
    for (int k = 0; k < kK; ++k)
      for (int column = 0; column < n; ++column) sum[column] += left[row][k] * right[k][column];
  }
}

void check_unchanged(const Operand* operand, const char* name, const Product* product, const char* file, int line) {
  static unsigned short now[kMaxN][kK];
  gather(operand, now);
  if (memcmp(now, operand->bits, sizeof(now[0]) * (size_t)operand->rows) != 0)
    raise_fault(kFaultBarrier, file, line, "operand %s of the wgmma at %s:%d was overwritten before its wait", name, product->file,
                product->line);
}

}  // namespace

void gpucnn_named_barrier(int id, int threads, int waits, const char* file, int line) {
  if (id < 1 || id >= kNamed || threads < 32 || threads % 32 || threads > state.count)
    raise_fault(kFaultBarrier, file, line, "named barrier %d of %d threads: ids are 1 to 15, threads a multiple of 32 up to the block's %d",
                id, threads, state.count);
  Meeting* meeting = meetings + id;
  if (meeting->arrived > 0 && meeting->expected != threads)
    raise_fault(kFaultBarrier, file, line, "comes to named barrier %d with %d threads, others came with %d (%s:%d)", id, threads,
                meeting->expected, meeting->file, meeting->line);
  if (meet(id, threads, waits != 0, file, line)) go_on(id);
}

void gpucnn_mbarrier_init(unsigned long long* pointer, unsigned count, const char* file, int line) {
  check_shared(pointer, 8, 8, "mbarrier", file, line);
  if (count < 1 || count > 1024) raise_fault(kFaultBarrier, file, line, "mbarrier for %u arrivals: a block has 1 to 1024 threads", count);
  Mbarrier fresh = {kMagic, 0, count, count, kNoBytes};
  memcpy((void*)pointer, &fresh, 8);
}

void gpucnn_mbarrier_arrive(unsigned long long* pointer, unsigned bytes, const char* file, int line) {
  Mbarrier* barrier = barrier_at(pointer, file, line);
  barrier->bytes += bytes;
  arrive(barrier, file, line);
  end_phase_if_complete(barrier);
}

void gpucnn_mbarrier_wait(unsigned long long* pointer, int parity, const char* file, int line) {
  Mbarrier* barrier = barrier_at(pointer, file, line);
  Fiber* self = state.current;
  if (parity < 0 || parity > 1) raise_fault(kFaultBarrier, file, line, "mbarrier parity %d is not 0 or 1", parity);
  while ((int)barrier->phase == parity) {
    self->operands[0] = barrier;
    self->source = parity;
    self->file = file;
    self->line = line;
    self->state = kAtMbarrier;
    wait_here();
  }
  land(barrier, parity);
}

void gpucnn_bulk_copy(void* shared, const void* global, unsigned bytes, unsigned long long* pointer, const char* file, int line) {
  Mbarrier* barrier = barrier_at(pointer, file, line);
  if (bytes == 0 || bytes % 16 || (uintptr_t)global % 16)
    raise_fault(kFaultMisaligned, file, line, "cp.async.bulk of %u bytes from %p: both must be multiples of 16", bytes, global);
  check_shared(shared, bytes, 16, "cp.async.bulk", file, line);
  note_access(global, bytes, false);
  state.site_file = file;
  state.site_line = line;
  send(barrier, (unsigned char*)shared, global, bytes);
  state.site_file = nullptr;
  barrier->bytes -= bytes;
  end_phase_if_complete(barrier);
}

void gpucnn_copy_arrive(unsigned long long* pointer, const char* file, int line) {
  Mbarrier* barrier = barrier_at(pointer, file, line);
  Fiber* self = state.current;
  for (int i = 0; i < self->copy_count; ++i) send(barrier, self->copies[i].shared, self->copies[i].data, (size_t)self->copies[i].bytes);
  self->copy_count = 0;
  arrive(barrier, file, line);
  end_phase_if_complete(barrier);
}

void gpucnn_wgmma_fence(const char* file, int line) {
  Warpgroup* group = own_group(file, line);
  if (!warpgroup_meets(file, line)) return;
  group->fenced = true;
  go_on(group_meeting());
}

void gpucnn_wgmma(const GpucnnWgmma* product, const char* file, int line) {
  Warpgroup* group = own_group(file, line);
  Fiber* self = state.current;
  self->operands[0] = product;
  if (!warpgroup_meets(file, line)) return;
  int first = self->linear / kThreads * kThreads;
  for (int i = first; i < first + kThreads; ++i) {
    const GpucnnWgmma* other = (const GpucnnWgmma*)state.fibers[i].operands[0];
    if (other->a != product->a || other->b != product->b || other->accumulate != product->accumulate ||
        other->a_leading != product->a_leading || other->b_leading != product->b_leading)
      raise_fault(kFaultWarp, file, line, "wgmma with other operands than thread %d of its warpgroup has", i);
  }
  const GpucnnWgmma* of_first = (const GpucnnWgmma*)state.fibers[first].operands[0];
  int index = find_accumulator(group, of_first, file, line);
  Accumulator* accumulator = group->accumulators + index;
  if (accumulator->d[0] == nullptr) {
    if (!group->fenced)
      raise_fault(kFaultWarp, file, line, "wgmma without wgmma_fence() since the threads may have touched its registers");
    start_accumulator(accumulator, of_first->n);
  }
  if (group->product_count == kMaxProducts) raise_fault(kFaultTrap, file, line, "more than %d products under way", kMaxProducts);
  Product* record = group->products + group->product_count++;
  record->accumulator = index;
  record->group = -1;
  record->file = file;
  record->line = line;
  take_operand(&record->a, product->a, kM, product->a_leading, product->swizzle, product->m_major != 0, "A", file, line);
  take_operand(&record->b, product->b, product->n, product->b_leading, product->swizzle, product->n_major != 0, "B", file, line);
  multiply(accumulator, &record->a, &record->b, product->bfloat != 0, product->accumulate != 0);
  ++accumulator->products;
  go_on(group_meeting());
}

void gpucnn_wgmma_commit(const char* file, int line) {
  Warpgroup* group = own_group(file, line);
  if (!warpgroup_meets(file, line)) return;
  for (int i = 0; i < group->product_count; ++i)
    if (group->products[i].group < 0) group->products[i].group = group->groups;
  ++group->groups;
  go_on(group_meeting());
}

void gpucnn_wgmma_wait(int groups_under_way, const char* file, int line) {
  Warpgroup* group = own_group(file, line);
  if (!warpgroup_meets(file, line)) return;
  int kept = 0;
  for (int i = 0; i < group->product_count; ++i) {
    Product* product = group->products + i;
    if (product->group < 0 || product->group >= group->groups - groups_under_way) {
      if (kept != i) group->products[kept] = *product;
      ++kept;
      continue;
    }
    check_unchanged(&product->a, "A", product, file, line);
    check_unchanged(&product->b, "B", product, file, line);
    Accumulator* accumulator = group->accumulators + product->accumulator;
    if (--accumulator->products > 0) continue;
    for (int thread = 0; thread < kThreads; ++thread)
      for (int r = 0; r < accumulator->n / 2; ++r) accumulator->d[thread][r] = accumulator->values[0][place_in_d(thread, r)];
    accumulator->d[0] = nullptr;
    group->fenced = false;
  }
  group->product_count = kept;
  go_on(group_meeting());
}

// ---- for fibers.cpp -------------------------------------------------------------------------------------------------

void start_block_hopper() {
  memset(meetings, 0, sizeof meetings);
  for (int i = 0; i < arriving_count; ++i) free(arriving[i].data);
  arriving_count = 0;
  for (Warpgroup* group : warpgroups) {
    if (group == nullptr) continue;
    group->fenced = false;
    group->groups = group->product_count = 0;
    for (Accumulator& accumulator : group->accumulators) accumulator.d[0] = nullptr, accumulator.products = 0;
  }
}

void check_no_product_under_way() {
  const Warpgroup* group = warpgroups[state.current->linear / kThreads];
  if (group != nullptr && group->product_count > 0)
    raise_fault(kFaultWarp, group->products[0].file, group->products[0].line, "leaves the kernel while its wgmma is under way");
}

void describe_meeting(const Fiber* fiber, char* text, size_t size) {
  if (fiber->state == kAtMbarrier) {
    const Mbarrier* barrier = (const Mbarrier*)fiber->operands[0];
    snprintf(text, size, "waits for phase %d of the mbarrier at byte %lld (%s:%d), which lacks %d arrivals and %lld bytes",
             fiber->source, shared_offset(barrier), fiber->file, fiber->line, (int)barrier->pending,
             (long long)barrier->bytes - (long long)kNoBytes);
  } else if (fiber->meeting < kNamed) {
    snprintf(text, size, "waits at named barrier %d (%s:%d), where %d of %d threads have come", fiber->meeting, fiber->file, fiber->line,
             meetings[fiber->meeting].arrived, meetings[fiber->meeting].expected);
  } else {
    snprintf(text, size, "waits at the wgmma %s:%d, where %d of the warpgroup's 128 threads have come", fiber->file, fiber->line,
             meetings[fiber->meeting].arrived);
  }
}
