// A block's threads as fibers: how they start, wait for each other and end.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "state.h"

// ---- switching stacks -----------------------------------------------------------------------------------------------

#if defined(__x86_64__)
// void gpucnn_switch(void** save, void* load): keeps the registers that a callee must keep (System V ABI).
asm(R"(
.text
.globl gpucnn_switch
.hidden gpucnn_switch
.type gpucnn_switch, @function
gpucnn_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size gpucnn_switch, .-gpucnn_switch
)");
#elif defined(__aarch64__)
// AAPCS64: x19 to x30 and the low halves of v8 to v15.
asm(R"(
.text
.globl gpucnn_switch
.hidden gpucnn_switch
.type gpucnn_switch, %function
gpucnn_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size gpucnn_switch, .-gpucnn_switch
)");
#else
#error "the emulator switches stacks on x86-64 and aarch64 only"
#endif

namespace {

constexpr size_t kStackBytes = 256 * 1024;
constexpr int kMaxThreads = 1024;

char* stacks = nullptr;   // kMaxThreads of [guard page | stack]
size_t guard_bytes, stride;
int free_stacks[kMaxThreads];
int free_count;

void fiber_main();

extern "C" void gpucnn_switch(void** save, void* load);

void* fresh_stack(int index) {
  // Stacks whose tops are a power of two apart fall into the same cache sets; shift each by some lines.
  size_t color = ((size_t)index * 832) % 32768;
  char* top = stacks + (size_t)(index + 1) * stride - 64 - color / 64 * 64;
  void** frame = (void**)top;
#if defined(__x86_64__)
  *--frame = nullptr;               // a return address for fiber_main, which never returns
  *--frame = (void*)&fiber_main;    // popped by `ret`
  for (int i = 0; i < 6; ++i) *--frame = nullptr;
#else
  frame -= 20;
  memset(frame, 0, 160);
  frame[11] = (void*)&fiber_main;   // x30
#endif
  return frame;
}

// ---- choosing who runs ----------------------------------------------------------------------------------------------

const char* name_of(const Fiber* fiber, char* text, size_t size) {
  snprintf(text, size, "thread (%u, %u, %u)", fiber->index.x, fiber->index.y, fiber->index.z);
  return text;
}

void describe_wait(const Fiber* fiber, char* text, size_t size) {
  char name[64];
  name_of(fiber, name, sizeof name);
  if (fiber->state == kExited) {
    snprintf(text, size, "%s has left the kernel", name);
  } else if (fiber->state == kAtBarrier) {
    snprintf(text, size, "%s waits at the barrier %s:%d", name, fiber->file, fiber->line);
  } else if (fiber->state == kAtMeeting || fiber->state == kAtMbarrier) {
    int used = snprintf(text, size, "%s ", name);
    describe_meeting(fiber, text + used, size - (size_t)used);
  } else {
    snprintf(text, size, "%s waits at the warp collective %s:%d with mask 0x%08x", name, fiber->file, fiber->line,
             fiber->mask);
  }
}

// Nobody can go on: somebody waits for lanes that will not come.
[[noreturn]] void report_deadlock() {
  for (int i = 0; i < state.count; ++i) {
    Fiber* fiber = state.fibers + i;
    if (fiber->state != kAtWarp) continue;
    int warp = fiber->linear / 32 * 32;
    for (int lane = 0; lane < 32; ++lane) {
      if (!(fiber->mask >> lane & 1)) continue;
      Fiber* other = warp + lane < state.count ? state.fibers + warp + lane : nullptr;
      bool together = other && other->state == kAtWarp && other->mask == fiber->mask && other->line == fiber->line &&
                      other->operation == fiber->operation && strcmp(other->file, fiber->file) == 0;
      if (together) continue;
      state.current = fiber;
      char text[640];
      if (other) describe_wait(other, text, sizeof text);
      else snprintf(text, sizeof text, "the block has no thread %d", warp + lane);
      raise_fault(kFaultWarp, fiber->file, fiber->line, "waits for lane %d (mask 0x%08x), but %s", lane, fiber->mask,
                  text);
    }
  }
  for (int i = 0; i < state.count; ++i) {
    Fiber* fiber = state.fibers + i;
    if (fiber->state != kAtMeeting && fiber->state != kAtMbarrier) continue;
    state.current = fiber;
    char text[640];
    describe_meeting(fiber, text, sizeof text);
    raise_fault(kFaultBarrier, fiber->file, fiber->line, "%s; no thread can go on", text);
  }
  raise_fault(kFaultBarrier, state.barrier_file, state.barrier_line, "the block's threads wait for each other");
}

void release_barrier() {
  for (int i = 0; i < state.count; ++i) {
    Fiber* fiber = state.fibers + i;
    fiber->state = kReady;
    fiber->result = fiber->operation == kBarrierCount ? state.predicates_true
                    : fiber->operation == kBarrierAnd ? state.predicates_true == state.predicates
                                                      : state.predicates_true != 0;
  }
  state.waiting = 0;
  state.predicates = state.predicates_true = 0;
}

// The next thread to run, or null when all have ended.
Fiber* next_fiber() {
  for (;;) {
    while (++state.position < state.count) {
      Fiber* fiber = state.fibers + state.order[state.position];
      if (fiber->state == kReady) return fiber;
    }
    state.position = -1;
    if (state.exited == state.count) return nullptr;
    if (state.waiting == state.count) {
      release_barrier();
    } else if (!state.woken) {
      report_deadlock();
    }
    state.woken = false;
  }
}

void become(Fiber* fiber) {
  state.current = fiber;
  threadIdx = fiber->index;
}

void switch_to(Fiber* fiber, void** save) {
  if (fiber->sp == nullptr) {
    fiber->stack = free_stacks[--free_count];
    fiber->sp = fresh_stack(fiber->stack);
  }
  become(fiber);
  gpucnn_switch(save, fiber->sp);
}

// The current thread waits; others run until it may go on.
void wait() {
  Fiber* self = state.current;
  Fiber* next = next_fiber();
  if (next == self) return;
  switch_to(next, &self->sp);
}

void thread_has_ended() {
  Fiber* self = state.current;
  if (state.waiting > 0) {
    char text[64];
    name_of(state.fibers + state.first_waiting, text, sizeof text);
    raise_fault(kFaultBarrier, state.barrier_file, state.barrier_line,
                "leaves the kernel while %s waits at the barrier %s:%d", text, state.barrier_file, state.barrier_line);
  }
  check_no_product_under_way();
  self->state = kExited;
  self->copy_count = 0;
  ++state.exited;
}

// Runs threads to their end, one after the other on the same stack as long as none waits.
void fiber_main() {
  for (;;) {
    state.enter(state.arguments);
    thread_has_ended();
    Fiber* self = state.current;
    Fiber* next = next_fiber();
    void* nowhere = nullptr;
    if (next == nullptr) gpucnn_switch(&nowhere, state.host_sp);
    if (next->sp == nullptr) {
      next->stack = self->stack;
      next->sp = (void*)1;  // started; overwritten when it first waits
      become(next);
      continue;
    }
    free_stacks[free_count++] = self->stack;
    switch_to(next, &nowhere);
  }
}

Fiber* lane_of(Fiber* fiber, int lane) {
  int linear = fiber->linear / 32 * 32 + lane;
  return linear < state.count ? state.fibers + linear : nullptr;
}

// ---- warp collectives -----------------------------------------------------------------------------------------------

bool all_lanes_arrived(Fiber* self) {
  int there = state.at_warp[self->linear / 32];
  if (there < (self->mask == ~0u ? 32 : __builtin_popcount(self->mask))) return false;
  for (unsigned rest = self->mask; rest; rest &= rest - 1) {
    Fiber* other = lane_of(self, __builtin_ctz(rest));
    if (!other || other->state != kAtWarp || other->mask != self->mask || other->operation != self->operation ||
        other->line != self->line || (other->file != self->file && strcmp(other->file, self->file) != 0))
      return false;
  }
  return true;
}

uint64_t combine(int operation, uint64_t left, uint64_t right) {
  switch (operation) {
    case kWarpAdd: return (uint32_t)(left + right);
    case kWarpMin: return left < right ? left : right;
    case kWarpMax: return left > right ? left : right;
    case kWarpMinSigned: return (int32_t)left < (int32_t)right ? left : right;
    case kWarpMaxSigned: return (int32_t)left > (int32_t)right ? left : right;
    case kWarpOr: case kWarpAny: return left | right;
    case kWarpXor: return left ^ right;
    default: return left & right;  // kWarpAnd, kWarpAll
  }
}

uint64_t lane_result(Fiber* fiber) {
  if (fiber->operation == kWarpSync) return 0;
  if (fiber->operation == kWarpShuffle) {
    if (!(fiber->mask >> fiber->source & 1)) {
      state.current = fiber;
      raise_fault(kFaultWarp, fiber->file, fiber->line, "reads lane %d, which is not in the mask 0x%08x", fiber->source,
                  fiber->mask);
    }
    return lane_of(fiber, fiber->source)->value;
  }
  bool first = true;
  uint64_t result = 0;
  for (unsigned rest = fiber->mask; rest; rest &= rest - 1) {
    int lane = __builtin_ctz(rest);
    uint64_t value = lane_of(fiber, lane)->value;
    if (fiber->operation == kWarpBallot) {
      result |= value << lane;
    } else if (fiber->operation == kWarpMatchAny) {
      result |= (uint64_t)(value == fiber->value) << lane;
    } else {
      result = first ? value : combine(fiber->operation, result, value);
    }
    first = false;
  }
  return result;
}

}  // namespace

bool warp_arrive(int operation, unsigned mask, const char* file, int line) {
  Fiber* self = state.current;
  if (!(mask >> (self->linear & 31) & 1))
    raise_fault(kFaultWarp, file, line, "calls a warp collective with mask 0x%08x, which leaves out its own lane %d", mask,
                self->linear & 31);
  self->operation = operation;
  self->mask = mask;
  self->file = file;
  self->line = line;
  self->state = kAtWarp;
  ++state.at_warp[self->linear / 32];
  if (all_lanes_arrived(self)) return true;
  wait();
  return false;
}

void warp_release(unsigned mask) {
  for (unsigned rest = mask; rest; rest &= rest - 1) warp_lane(__builtin_ctz(rest))->state = kReady;
  state.at_warp[state.current->linear / 32] -= __builtin_popcount(mask);
  state.woken = true;
}

void wait_here() { wait(); }

void make_ready(Fiber* fiber) {
  fiber->state = kReady;
  state.woken = true;
}

Fiber* warp_lane(int lane) { return lane_of(state.current, lane); }

uint64_t gpucnn_warp(int operation, unsigned mask, uint64_t value, int source, const char* file, int line) {
  Fiber* self = state.current;
  self->value = value;
  self->source = source & 31;
  if (!warp_arrive(operation, mask, file, line)) return self->result;
  for (unsigned rest = mask; rest; rest &= rest - 1) {
    Fiber* fiber = lane_of(self, __builtin_ctz(rest));
    fiber->result = lane_result(fiber);
  }
  warp_release(mask);
  return self->result;
}

unsigned gpucnn_barrier(int operation, int value, const char* file, int line) {
  Fiber* self = state.current;
  if (state.exited > 0) {
    const Fiber* gone = state.fibers;
    while (gone->state != kExited) ++gone;
    char text[64];
    raise_fault(kFaultBarrier, file, line, "waits at the barrier %s:%d, but %s has left the kernel", file, line,
                name_of(gone, text, sizeof text));
  }
  if (state.waiting == 0) {
    state.barrier_file = file;
    state.barrier_line = line;
    state.first_waiting = self->linear;
  } else if (line != state.barrier_line || (file != state.barrier_file && strcmp(file, state.barrier_file) != 0)) {
    char text[64];
    raise_fault(kFaultBarrier, file, line, "waits at the barrier %s:%d while %s waits at the barrier %s:%d", file, line,
                name_of(state.fibers + state.first_waiting, text, sizeof text), state.barrier_file, state.barrier_line);
  }
  self->state = kAtBarrier;
  self->file = file;
  self->line = line;
  self->operation = operation;
  ++state.waiting;
  ++state.predicates;
  state.predicates_true += value != 0;
  wait();
  return (unsigned)self->result;
}

int gpucnn_lane() { return state.current->linear & 31; }

// ---- cp.async -------------------------------------------------------------------------------------------------------

void gpucnn_copy_async(void* shared, const void* global, int bytes, int valid, const char* file, int line) {
  Fiber* self = state.current;
  unsigned char* to = (unsigned char*)shared;
  if ((uintptr_t)shared % bytes || (valid && (uintptr_t)global % bytes))
    raise_fault(kFaultMisaligned, file, line, "cp.async of %d bytes from %p to %p: both must be multiples of %d", bytes,
                global, shared, bytes);
  if (to < gpucnn_shared_base || to + bytes > state.shared_end)
    raise_fault(kFaultCopy, file, line, "cp.async of %d bytes to %lld, which is outside the block's %lld bytes of shared memory",
                bytes, (long long)(to - gpucnn_shared_base), (long long)(state.shared_end - gpucnn_shared_base));
  if (self->copy_count == self->copy_capacity) {
    self->copy_capacity = self->copy_capacity ? 2 * self->copy_capacity : 16;
    self->copies = (PendingCopy*)realloc(self->copies, sizeof(PendingCopy) * self->copy_capacity);
  }
  PendingCopy* copy = self->copies + self->copy_count;
  state.site_file = file;
  state.site_line = line;
  if (valid) note_access(global, bytes, false);
  if (valid) memcpy(copy->data, global, bytes);
  else memset(copy->data, 0, bytes);
  state.site_file = nullptr;
  copy->shared = to;
  copy->bytes = bytes;
  copy->group = -1;
  ++self->copy_count;
  memset(to, state.shared_poison, bytes);
}

void gpucnn_copy_commit() {
  Fiber* self = state.current;
  for (int i = 0; i < self->copy_count; ++i)
    if (self->copies[i].group < 0) self->copies[i].group = self->groups;
  ++self->groups;
}

void gpucnn_copy_wait(int groups_in_flight) {
  Fiber* self = state.current;
  int kept = 0;
  for (int i = 0; i < self->copy_count; ++i) {
    PendingCopy* copy = self->copies + i;
    if (copy->group >= 0 && copy->group < self->groups - groups_in_flight) {
      memcpy(copy->shared, copy->data, copy->bytes);
    } else {
      self->copies[kept++] = *copy;
    }
  }
  self->copy_count = kept;
}

// ---- a block --------------------------------------------------------------------------------------------------------

bool prepare_fibers(int count) {
  if (stacks == nullptr) {
    guard_bytes = (size_t)sysconf(_SC_PAGESIZE);
    stride = guard_bytes + kStackBytes;
    void* memory = mmap(nullptr, stride * kMaxThreads + guard_bytes, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return false;
    state.fibers = (Fiber*)calloc(kMaxThreads, sizeof(Fiber));
    state.order = (unsigned*)calloc(kMaxThreads, sizeof(unsigned));
    if (!state.fibers || !state.order) return false;
    for (int i = 0; i < kMaxThreads; ++i) {
      char* stack = (char*)memory + (size_t)i * stride + guard_bytes;
      if (mprotect(stack, kStackBytes, PROT_READ | PROT_WRITE)) return false;
    }
    stacks = (char*)memory;
  }
  state.count = count;
  unsigned position = 0;
  for (unsigned z = 0; z < blockDim.z; ++z)
    for (unsigned y = 0; y < blockDim.y; ++y)
      for (unsigned x = 0; x < blockDim.x; ++x, ++position) {
        state.fibers[position].index = {x, y, z};
        state.fibers[position].linear = (int)position;
      }
  return true;
}

bool is_stack_guard(uintptr_t address) {
  uintptr_t first = (uintptr_t)stacks;
  if (stacks == nullptr || address < first || address >= first + stride * kMaxThreads) return false;
  return (address - first) % stride < guard_bytes;
}

void run_block(Launch* launch, uint64_t seed) {
  shuffle(state.order, state.count, launch->order, seed);
  for (int i = 0; i < state.count; ++i) {
    Fiber* fiber = state.fibers + i;
    fiber->sp = nullptr;
    fiber->stack = -1;
    fiber->state = kReady;
    fiber->copy_count = 0;
    fiber->groups = 0;
  }
  for (int i = 0; i < state.count; ++i) free_stacks[i] = state.count - 1 - i;
  free_count = state.count;
  state.position = -1;
  state.waiting = state.exited = 0;
  state.predicates = state.predicates_true = 0;
  state.woken = false;
  memset(state.at_warp, 0, sizeof state.at_warp);
  start_block_hopper();
  state.site_file = nullptr;
  switch_to(next_fiber(), &state.host_sp);
}
