// The runtime's own state: one launch at a time (Python holds a lock around it), on one host thread.
#pragma once

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../include/runtime.h"

// ---- what Python passes and gets back; runtime.py mirrors these structures ------------------------------------------

enum Direction { kNull = -1, kIn = 0, kOut = 1, kInOut = 2, kTable = 3 };
enum Placement { kEndFlush = 0, kStartFlush = 1 };
enum Order { kForward = 0, kReversed = 1, kShuffled = 2 };

struct Array {
  const void* host;     // what IN and INOUT arrays hold before the launch
  void* result;         // where OUT and INOUT arrays are copied after it; null: nowhere
  size_t bytes;
  int32_t direction;
  int32_t alignment;    // the first element's address is `phase` modulo `alignment` (bytes)
  int32_t phase;
  int32_t table_first;  // kTable: the arrays whose addresses it holds
  int32_t table_count;
  uint64_t device;      // the address that the kernel sees; filled in by the launch
  uint64_t* read_map;     // a launch whose traffic is counted: the bit of each byte, the first one's number `map_offset`
  uint64_t* written_map;
  size_t map_offset;
  uint64_t requested_read;  // bytes of all accesses
  uint64_t requested_written;
};

struct Launch {
  void (*enter)(void* const*);
  void* const* arguments;
  Array* arrays;
  int64_t array_count;
  uint32_t grid[3];
  uint32_t block[3];
  size_t static_shared;
  size_t dynamic_shared;
  size_t shared_alignment;
  int32_t placement;
  int32_t order;
  uint64_t seed;
  int32_t poison;          // what outputs and the bytes beside arrays hold
  int32_t shared_poison;   // another one, so that a copy of it into an output does not look unwritten
  double timeout_seconds;  // 0: none
  int32_t count_traffic;
};

struct Fault {
  int32_t kind;
  int32_t line;         // 0: unknown
  int32_t array;        // index of the array nearest to `address`, -1: none, -2: shared memory
  int32_t write;        // 1: a write, 0: a read, -1: unknown
  uint32_t block[3];
  uint32_t thread[3];
  int64_t offset;       // of `address` from the array's first byte
  uint64_t address;
  uint64_t code_offset; // of the faulting instruction in `object`, 0: unknown
  char file[512];
  char object[512];
  char message[768];
};

// ---- a block's threads ----------------------------------------------------------------------------------------------

enum FiberState { kReady, kAtBarrier, kAtWarp, kAtMeeting, kAtMbarrier, kExited };

struct PendingCopy {
  unsigned char* shared;
  unsigned char data[16];
  int bytes;
  int group;  // -1: not committed yet
};

struct Fiber {
  void* sp;       // saved stack pointer; null: has not started
  int stack;      // index of its stack, -1: none
  int state;
  uint3 index;
  int linear;     // threadIdx as one number, x fastest
  const char* file;  // where it waits
  int line;
  int operation;
  unsigned mask;
  uint64_t value;
  uint64_t result;
  int source;
  void* registers;         // of a matrix collective: what this lane gets,
  const void* operands[2]; // and what it gives
  int meeting;             // kAtMeeting: which (hopper.cpp)
  PendingCopy* copies;  // cp.async in flight; kept from launch to launch
  int copy_count, copy_capacity;
  int groups;           // committed groups so far
};

struct State {
  Fiber* fibers;
  Fiber* current;
  unsigned* order;      // thread order of this block
  int count;            // threads of a block
  int position;         // in `order`
  int waiting;          // threads at the block's barrier
  int exited;
  bool woken;           // somebody became ready in this round
  int at_warp[32];      // of each warp, the threads that wait at a collective
  const char* barrier_file;  // the barrier where this block waits
  int barrier_line;
  int first_waiting;
  unsigned predicates, predicates_true;
  void* host_sp;
  void (*enter)(void* const*);
  void* const* arguments;
  int shared_poison;
  unsigned char* shared_end;
  const char* site_file;  // of a memory access that the runtime makes for the kernel
  int site_line;
  volatile bool in_kernel;
  pid_t host_thread;
  sigjmp_buf leave;     // where a fault goes
  Fault* fault;
};

extern State state;

// fibers.cpp
bool prepare_fibers(int count);
void run_block(Launch* launch, uint64_t seed);
bool is_stack_guard(uintptr_t address);
// The running thread comes to a warp collective. True for the last of `mask`, which does the work for all and calls
// warp_release; the others wait here until that is done.
bool warp_arrive(int operation, unsigned mask, const char* file, int line);
void warp_release(unsigned mask);
void wait_here();             // the running thread, whose state says for what; others run meanwhile
void make_ready(Fiber* fiber);
Fiber* warp_lane(int lane);  // of the running thread's warp; null: the block has no such thread
// memory.cpp
bool place_arrays(Launch* launch);
bool place_shared(Launch* launch);
void fill_shared();
bool collect_arrays(Launch* launch, Fault* fault);
void locate_address(uintptr_t address, Fault* fault);
// hopper.cpp
void start_block_hopper();
void check_no_product_under_way();  // the running thread ends
void describe_meeting(const Fiber* fiber, char* text, size_t size);  // why it waits
// traffic.cpp
void count_traffic(Launch* launch);  // from now on; null: no more
void note_access(const void* address, size_t bytes, bool write);
// faults.cpp
void install_handlers(double timeout_seconds);
void restore_handlers();
[[noreturn]] void raise_fault(int kind, const char* file, int line, const char* format, ...)
    __attribute__((format(printf, 4, 5)));
// launch.cpp
void shuffle(unsigned* items, int64_t count, int order, uint64_t seed);
