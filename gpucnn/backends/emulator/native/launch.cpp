// One launch: place the arrays, run the blocks in the order asked for, collect the results.
#include <link.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"

State state;

uint3 threadIdx, blockIdx, blockDim, gridDim;
unsigned char* gpucnn_shared_base;

namespace {

uint64_t next_random(uint64_t* seed) {  // splitmix64
  uint64_t z = (*seed += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

int fail(Fault* fault, int kind) {
  fault->kind = kind;
  fault->array = -1;
  fault->write = -1;
  return kind;
}

struct Query { uintptr_t address; size_t alignment; };

int find_module(struct dl_phdr_info* info, size_t, void* data) {
  Query* query = (Query*)data;
  size_t alignment = 1;
  bool here = false;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    if (segment.p_type == PT_TLS) alignment = segment.p_align;
    uintptr_t start = info->dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD && query->address - start < segment.p_memsz) here = true;
  }
  if (here) query->alignment = alignment;
  return here;
}

}  // namespace

// The alignment that the shared variables of the library with this function need.
GPUCNN_EXPORT size_t gpucnn_shared_alignment(const void* function) {
  Query query = {(uintptr_t)function, 16};
  dl_iterate_phdr(find_module, &query);
  return query.alignment < 16 ? 16 : query.alignment;
}

void shuffle(unsigned* items, int64_t count, int order, uint64_t seed) {
  for (int64_t i = 0; i < count; ++i) items[i] = (unsigned)(order == kReversed ? count - 1 - i : i);
  if (order != kShuffled) return;
  for (int64_t i = count - 1; i > 0; --i) {  // Fisher and Yates
    int64_t j = (int64_t)(next_random(&seed) % (uint64_t)(i + 1));
    unsigned item = items[i];
    items[i] = items[j];
    items[j] = item;
  }
}

// Runs the kernel once. Returns 0, or the kind of the fault that *fault describes; results are copied only without a fault.
GPUCNN_EXPORT int gpucnn_launch(Launch* launch, Fault* fault) {
  memset(fault, 0, sizeof *fault);
  const uint32_t* grid = launch->grid;
  const uint32_t* block = launch->block;
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  state.enter = launch->enter;
  state.arguments = launch->arguments;
  state.shared_poison = launch->shared_poison;
  state.fault = fault;
  int64_t blocks = (int64_t)grid[0] * grid[1] * grid[2];
  if (!prepare_fibers((int)(block[0] * block[1] * block[2])) || !place_arrays(launch) || !place_shared(launch))
    return fail(fault, kFaultMemoryLimit);
  unsigned* block_order = (unsigned*)malloc(sizeof(unsigned) * (size_t)(blocks + 1));
  if (block_order == nullptr) return fail(fault, kFaultMemoryLimit);
  shuffle(block_order, blocks, launch->order, launch->seed);
  install_handlers(launch->timeout_seconds);
  count_traffic(launch->count_traffic ? launch : nullptr);
  if (sigsetjmp(state.leave, 1) == 0) {
    for (int64_t i = 0; i < blocks; ++i) {
      unsigned index = block_order[i];
      blockIdx = {index % grid[0], index / grid[0] % grid[1], index / grid[0] / grid[1]};
      fill_shared();
      state.in_kernel = true;
      run_block(launch, launch->seed + index);
      state.in_kernel = false;
    }
    collect_arrays(launch, fault);
  }
  count_traffic(nullptr);
  state.in_kernel = false;
  state.current = nullptr;
  restore_handlers();
  free(block_order);
  return fault->kind;
}

// So that Python's mirror of the structures can be checked.
GPUCNN_EXPORT size_t gpucnn_structure_size(int which) {
  return which == 0 ? sizeof(Array) : which == 1 ? sizeof(Launch) : sizeof(Fault);
}
