// Memory that a kernel may touch, each piece alone in address space that nobody may touch.
//
// A slot is [guard | capacity | guard]. Its used pages end where the upper guard begins. An array lies either with its end
// at the upper guard or with its start at the lower one; over the runs of a strict launch it lies both ways.
#include <initializer_list>

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "state.h"

namespace {

constexpr size_t kGuard = size_t(4) << 30;       // bytes on each side
constexpr size_t kSmallGuard = (size_t(1) << 30) + (size_t(1) << 20);  // where address space is short
constexpr size_t kSmallestCapacity = size_t(1) << 20;
constexpr int kMaxSlots = 4096;

struct Slot {
  char* base;
  size_t reserved, guard, capacity;
  char* end;       // of the usable pages: the upper guard begins here
  size_t used;     // bytes of usable pages, ending at `end`
  bool read_only;
  char* data;      // this launch's array
  size_t bytes;
};

Slot slots[kMaxSlots];
int slots_in_use = 0;  // by this launch
Slot shared_slot;

size_t page_size() {
  static const size_t size = (size_t)sysconf(_SC_PAGESIZE);
  return size;
}

size_t round_up(size_t bytes, size_t multiple) { return (bytes + multiple - 1) / multiple * multiple; }

bool reserve(Slot* slot, size_t bytes) {
  if (slot->base) munmap(slot->base, slot->reserved);
  slot->base = nullptr;
  slot->used = 0;
  slot->read_only = false;
  size_t capacity = kSmallestCapacity;
  while (capacity < bytes) capacity *= 2;
  for (size_t guard : {kGuard, kSmallGuard}) {
    void* base = mmap(nullptr, capacity + 2 * guard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) continue;
    slot->base = (char*)base;
    slot->reserved = capacity + 2 * guard;
    slot->guard = guard;
    slot->capacity = capacity;
    slot->end = slot->base + guard + capacity;
    return true;
  }
  return false;
}

// Makes exactly the pages that `bytes` needs readable and writable.
bool open_pages(Slot* slot, size_t bytes) {
  size_t needed = round_up(bytes, page_size());
  if (slot->base == nullptr || needed > slot->capacity) {
    if (!reserve(slot, needed)) return false;
  }
  if (needed < slot->used) {  // close the lowest pages and give their memory back
    char* low = slot->end - slot->used;
    size_t surplus = slot->used - needed;
    if (madvise(low, surplus, MADV_DONTNEED) || mprotect(low, surplus, PROT_NONE)) return false;
    slot->used = needed;
  }
  if (needed > slot->used || slot->read_only) {
    if (mprotect(slot->end - needed, needed, PROT_READ | PROT_WRITE)) return false;
    slot->used = needed;
    slot->read_only = false;
  }
  return true;
}

bool close_for_writing(Slot* slot) {
  if (slot->used == 0) return true;
  slot->read_only = true;
  return mprotect(slot->end - slot->used, slot->used, PROT_READ) == 0;
}

bool place(Array* array, Slot* slot, const Launch* launch) {
  if (!open_pages(slot, array->bytes + (size_t)(array->phase ? array->alignment : 0))) return false;
  // The address is `phase` modulo `alignment`, so that a view keeps the (mis)alignment that it has outside.
  uintptr_t alignment = (uintptr_t)array->alignment, phase = (uintptr_t)array->phase;
  uintptr_t latest = (uintptr_t)slot->end - array->bytes;
  slot->bytes = array->bytes;
  slot->data = launch->placement == kStartFlush ? slot->end - slot->used + phase
                                                : (char*)(latest - (latest - phase) % alignment);
  array->device = (uint64_t)(uintptr_t)slot->data;
  char* first = slot->end - slot->used;
  memset(first, launch->poison, (size_t)(slot->data - first));
  memset(slot->data + slot->bytes, launch->poison, (size_t)(slot->end - slot->data) - slot->bytes);
  if (array->direction == kOut) memset(slot->data, launch->poison, slot->bytes);
  if (array->direction == kIn || array->direction == kInOut) memcpy(slot->data, array->host, slot->bytes);
  return true;
}

// The first byte of [from, to) that is no longer poison, or null.
const char* changed_byte(const char* from, const char* to, int poison) {
  for (; from < to; ++from)
    if ((unsigned char)*from != (unsigned char)poison) return from;
  return nullptr;
}

bool holds(const Slot* slot, uintptr_t address) {
  uintptr_t base = (uintptr_t)slot->base;
  return slot->base != nullptr && address >= base && address < base + slot->reserved;
}

}  // namespace

bool place_arrays(Launch* launch) {
  if (launch->array_count > kMaxSlots) return false;
  slots_in_use = (int)launch->array_count;
  for (int i = 0; i < slots_in_use; ++i) {
    Array* array = launch->arrays + i;
    array->device = 0;
    if (array->direction != kNull && !place(array, slots + i, launch)) return false;
  }
  for (int i = 0; i < slots_in_use; ++i) {
    Array* array = launch->arrays + i;
    for (int entry = 0; array->direction == kTable && entry < array->table_count; ++entry)
      memcpy(slots[i].data + 8 * entry, &launch->arrays[array->table_first + entry].device, 8);
    bool only_read = array->direction == kIn || array->direction == kTable;
    if (only_read && !close_for_writing(slots + i)) return false;
  }
  return true;
}

bool place_shared(Launch* launch) {
  size_t bytes = launch->static_shared + launch->dynamic_shared;
  if (!open_pages(&shared_slot, bytes + launch->shared_alignment)) return false;
  uintptr_t start = (uintptr_t)shared_slot.end - bytes;
  start -= start % launch->shared_alignment;
  shared_slot.data = (char*)start;
  shared_slot.bytes = bytes;
  gpucnn_shared_base = (unsigned char*)start;
  state.shared_end = gpucnn_shared_base + bytes;
  memset(shared_slot.end - shared_slot.used, launch->poison, shared_slot.used);
  return true;
}

void fill_shared() { memset(shared_slot.data, state.shared_poison, shared_slot.bytes); }

bool collect_arrays(Launch* launch, Fault* fault) {
  int shared_index = slots_in_use;
  for (int i = 0; i <= shared_index; ++i) {
    Slot* slot = i == shared_index ? &shared_slot : slots + i;
    int direction = i == shared_index ? (int)kInOut : launch->arrays[i].direction;
    if (direction != kOut && direction != kInOut) continue;
    const char* changed = changed_byte(slot->end - slot->used, slot->data, launch->poison);
    if (!changed) changed = changed_byte(slot->data + slot->bytes, slot->end, launch->poison);
    if (changed) {
      fault->kind = kFaultOverrun;
      fault->array = i == shared_index ? -2 : i;
      fault->offset = changed - slot->data;
      fault->address = (uint64_t)(uintptr_t)changed;
      fault->write = 1;
      return false;
    }
    if (i < shared_index && launch->arrays[i].result) memcpy(launch->arrays[i].result, slot->data, slot->bytes);
  }
  return true;
}

void locate_address(uintptr_t address, Fault* fault) {
  fault->array = -1;
  if (holds(&shared_slot, address)) {
    fault->array = -2;
    fault->offset = (int64_t)(address - (uintptr_t)shared_slot.data);
  }
  for (int i = 0; i < slots_in_use; ++i) {
    if (!holds(slots + i, address) || slots[i].data == nullptr) continue;
    fault->array = i;
    fault->offset = (int64_t)(address - (uintptr_t)slots[i].data);
  }
}
