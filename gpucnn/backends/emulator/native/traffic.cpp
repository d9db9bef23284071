// Counts the bytes of the arrays that a kernel reads and writes.
//
// A kernel compiled to be counted is instrumented as for ThreadSanitizer: the compiler calls __tsan_readN or __tsan_writeN before each
// access to memory that other threads might see. Here these functions note which bytes of which array that is. The names are those
// that GCC and Clang call (compiler-rt, lib/tsan/rtl/tsan_interface.h).
#include <string.h>

#include "state.h"

namespace {

Launch* counted = nullptr;  // the running launch, if its accesses are counted
constexpr int kCells = 64;
int latest[kCells];         // by a hash of the address: the array found last

int64_t offset_in(int array, uintptr_t address) {
  return (int64_t)(address - (uintptr_t)counted->arrays[array].device);
}

bool inside(int array, uintptr_t address) {
  const Array* found = counted->arrays + array;
  return found->device != 0 && address - (uintptr_t)found->device < found->bytes;
}

// The array that holds the address, -1: none (shared memory, a stack, a constant).
int array_at(uintptr_t address) {
  int* cell = latest + (address >> 32) % kCells;
  if (*cell < counted->array_count && inside(*cell, address)) return *cell;
  for (int i = 0; i < counted->array_count; ++i)
    if (inside(i, address)) return *cell = i;
  return -1;
}

void set_bits(uint64_t* map, size_t first, size_t count) {
  while (count > 0) {
    size_t bit = first % 64, here = count < 64 - bit ? count : 64 - bit;
    map[first / 64] |= (here == 64 ? ~0ull : (1ull << here) - 1) << bit;
    first += here;
    count -= here;
  }
}

}  // namespace

void count_traffic(Launch* launch) {
  counted = launch;
  memset(latest, 0, sizeof latest);
}

void note_access(const void* pointer, size_t bytes, bool write) {
  uintptr_t address = (uintptr_t)pointer;
  if (counted == nullptr || address - (uintptr_t)gpucnn_shared_base < (size_t)(state.shared_end - gpucnn_shared_base)) return;
  int index = array_at(address);
  if (index < 0) return;
  Array* array = counted->arrays + index;
  size_t offset = (size_t)offset_in(index, address);
  if (bytes > array->bytes - offset) bytes = array->bytes - offset;  // the access itself will be refused
  (write ? array->requested_written : array->requested_read) += bytes;
  uint64_t* map = write ? array->written_map : array->read_map;
  if (map != nullptr) set_bits(map, offset + array->map_offset, bytes);
}

#define TSAN(name, parameters) extern "C" __attribute__((visibility("default"))) void __tsan_##name parameters

#define TSAN_ACCESS(bytes)                                                       \
  TSAN(read##bytes, (void* address)) { note_access(address, bytes, false); }     \
  TSAN(write##bytes, (void* address)) { note_access(address, bytes, true); }     \
  TSAN(unaligned_read##bytes, (void* address)) { note_access(address, bytes, false); }  \
  TSAN(unaligned_write##bytes, (void* address)) { note_access(address, bytes, true); }  \
  TSAN(volatile_read##bytes, (void* address)) { note_access(address, bytes, false); }   \
  TSAN(volatile_write##bytes, (void* address)) { note_access(address, bytes, true); }
TSAN_ACCESS(1)
TSAN_ACCESS(2)
TSAN_ACCESS(4)
TSAN_ACCESS(8)
TSAN_ACCESS(16)
TSAN(read_range, (void* address, unsigned long bytes)) { note_access(address, bytes, false); }
TSAN(write_range, (void* address, unsigned long bytes)) { note_access(address, bytes, true); }
TSAN(func_entry, (void*)) {}
TSAN(func_exit, (void*)) {}
TSAN(init, ()) {}

// Clang calls these for copies of structures that it does not take apart.
extern "C" __attribute__((visibility("default"))) void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  note_access(from, bytes, false);
  note_access(to, bytes, true);
  return memcpy(to, from, bytes);
}
extern "C" __attribute__((visibility("default"))) void* __tsan_memset(void* to, int value, size_t bytes) {
  note_access(to, bytes, true);
  return memset(to, value, bytes);
}
