// How a fault leaves a kernel: signals, UBSan's reports, and the jump back to the launch.
#include <dlfcn.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "state.h"

// ---- leaving --------------------------------------------------------------------------------------------------------

namespace {

void note_thread(int kind) {
  Fault* fault = state.fault;
  memset(fault, 0, sizeof *fault);
  fault->kind = kind;
  fault->array = -1;
  fault->write = -1;
  fault->block[0] = blockIdx.x, fault->block[1] = blockIdx.y, fault->block[2] = blockIdx.z;
  const uint3 thread = state.current ? state.current->index : threadIdx;
  fault->thread[0] = thread.x, fault->thread[1] = thread.y, fault->thread[2] = thread.z;
}

void note_place(const char* file, int line) {
  if (file) snprintf(state.fault->file, sizeof state.fault->file, "%s", file);
  state.fault->line = file ? line : 0;
}

[[noreturn]] void leave() {
  state.in_kernel = false;
  siglongjmp(state.leave, 1);
}

}  // namespace

void raise_fault(int kind, const char* file, int line, const char* format, ...) {
  note_thread(kind);
  note_place(file, line);
  va_list values;
  va_start(values, format);
  vsnprintf(state.fault->message, sizeof state.fault->message, format, values);
  va_end(values);
  leave();
}

void gpucnn_trap(const char* what, const char* file, int line) { raise_fault(kFaultTrap, file, line, "%s", what); }

// ---- signals --------------------------------------------------------------------------------------------------------

namespace {

const int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
constexpr int kSignalCount = sizeof kSignals / sizeof *kSignals;
struct sigaction previous[kSignalCount], previous_alarm;
stack_t previous_stack;
alignas(16) char handler_stack[64 * 1024];
timer_t timer;
bool timer_runs = false;

int alarm_signal() { return SIGRTMIN + 7; }

pid_t this_thread() { return (pid_t)syscall(SYS_gettid); }

// Not the kernel's doing: whoever handled this signal before the launch handles it now.
void pass_on(int number, siginfo_t* info, void* context) {
  for (int i = 0; i < kSignalCount; ++i) {
    if (kSignals[i] != number) continue;
    const struct sigaction& old = previous[i];
    if (old.sa_flags & SA_SIGINFO) {
      old.sa_sigaction(number, info, context);
    } else if (old.sa_handler == SIG_DFL || old.sa_handler == SIG_IGN) {
      sigaction(number, &old, nullptr);  // the instruction runs again and meets the default action
      if (info->si_code <= 0) raise(number);
    } else {
      old.sa_handler(number);
    }
    return;
  }
}

uintptr_t program_counter(void* context) {
  ucontext_t* machine = (ucontext_t*)context;
#if defined(__x86_64__)
  return (uintptr_t)machine->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
  return (uintptr_t)machine->uc_mcontext.pc;
#else
  (void)machine;
  return 0;
#endif
}

int was_write(int number, void* context) {
#if defined(__x86_64__)
  // Bit 1 of the page fault's error code (Intel SDM volume 3, "Page-Fault Exception").
  if (number == SIGSEGV) return (((ucontext_t*)context)->uc_mcontext.gregs[REG_ERR] & 2) != 0;
#endif
  (void)number, (void)context;
  return -1;
}

void note_code(uintptr_t code) {
  Dl_info where;
  if (code == 0 || !dladdr((void*)code, &where) || where.dli_fname == nullptr) return;
  snprintf(state.fault->object, sizeof state.fault->object, "%s", where.dli_fname);
  state.fault->code_offset = code - (uintptr_t)where.dli_fbase;
}

void on_signal(int number, siginfo_t* info, void* context) {
  if (!state.in_kernel || this_thread() != state.host_thread || info->si_code <= 0) return pass_on(number, info, context);
  uintptr_t address = (uintptr_t)info->si_addr;
  int kind = kFaultMemory;
  if (number == SIGFPE) kind = kFaultArithmetic;
  if (number == SIGILL || number == SIGTRAP) kind = kFaultTrap;
  if (kind == kFaultMemory && is_stack_guard(address)) kind = kFaultStack;
  note_thread(kind);
  note_place(state.site_file, state.site_line);
  note_code(program_counter(context));
  Fault* fault = state.fault;
  if (kind == kFaultMemory && info->si_code == SI_KERNEL) {
    // The processor gives no address: a vector instruction met a misaligned one, or the address is not canonical.
    snprintf(fault->message, sizeof fault->message, "misaligned vector access, or an address far outside of every array");
    fault->kind = kFaultMisaligned;
  } else if (kind == kFaultMemory) {
    fault->address = (uint64_t)address;
    fault->write = was_write(number, context);
    locate_address(address, fault);
  }
  leave();
}

void on_alarm(int, siginfo_t*, void* context) {
  if (!state.in_kernel || this_thread() != state.host_thread) return;
  note_thread(kFaultTimeout);
  note_code(program_counter(context));
  leave();
}

void start_timer(double seconds) {
  struct sigaction action = {};
  action.sa_sigaction = on_alarm;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigaction(alarm_signal(), &action, &previous_alarm);
  struct sigevent event = {};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = alarm_signal();
#if defined(sigev_notify_thread_id)
  event.sigev_notify_thread_id = state.host_thread;
#else
  event._sigev_un._tid = state.host_thread;
#endif
  if (timer_create(CLOCK_MONOTONIC, &event, &timer)) return;
  struct itimerspec when = {};
  when.it_value.tv_sec = (time_t)seconds;
  when.it_value.tv_nsec = (long)((seconds - (double)when.it_value.tv_sec) * 1e9) + 1;
  timer_runs = timer_settime(timer, 0, &when, nullptr) == 0;
}

}  // namespace

void install_handlers(double timeout_seconds) {
  state.host_thread = this_thread();
  stack_t stack = {};
  stack.ss_sp = handler_stack;
  stack.ss_size = sizeof handler_stack;
  sigaltstack(&stack, &previous_stack);
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int i = 0; i < kSignalCount; ++i) sigaction(kSignals[i], &action, previous + i);
  timer_runs = false;
  if (timeout_seconds > 0) start_timer(timeout_seconds);
}

void restore_handlers() {
  if (timer_runs) {
    timer_delete(timer);
    struct sigaction ignore = {};
    ignore.sa_handler = SIG_IGN;  // drops an alarm that is still pending
    sigaction(alarm_signal(), &ignore, nullptr);
    sigaction(alarm_signal(), &previous_alarm, nullptr);
  }
  for (int i = 0; i < kSignalCount; ++i) sigaction(kSignals[i], previous + i, nullptr);
  sigaltstack(&previous_stack, nullptr);
}

// ---- UBSan's reports ------------------------------------------------------------------------------------------------
//
// The compiler calls these functions; their names and data are those of compiler-rt, lib/ubsan/ubsan_handlers.h.

namespace {

struct Place { const char* file; uint32_t line, column; };
struct Type { uint16_t kind, info; char name[1]; };
struct PlaceAndType { Place place; const Type* type; };
struct PlaceAndTwoTypes { Place place; const Type *left, *right; };
struct TypeMismatch { Place place; const Type* type; unsigned char log_alignment, access; };

const char* const kAccess[] = {"load of", "store to", "reference binding to", "member access within", "member call on",
                               "constructor call on", "downcast of", "downcast of", "upcast of", "cast to virtual base of",
                               "_Nonnull binding to", "dynamic operation on"};

// An integer operand as text: operands of up to 64 bits come as they are, longer ones by address.
const char* number(const Type* type, uintptr_t value, char* text, size_t size) {
  int bits = 1 << (type->info >> 1);
  if (type->kind != 0 || bits > 64) snprintf(text, size, "a value");
  else if (type->info & 1) snprintf(text, size, "%lld", (long long)(value << (64 - bits)) >> (64 - bits));
  else snprintf(text, size, "%llu", (unsigned long long)value);
  return text;
}

[[noreturn]] void overflow(const PlaceAndType* data, uintptr_t left, uintptr_t right, const char* sign) {
  char first[32], second[32];
  raise_fault(kFaultUndefined, data->place.file, (int)data->place.line, "signed integer overflow: %s %s %s in type %s",
              number(data->type, left, first, sizeof first), sign, number(data->type, right, second, sizeof second),
              data->type->name);
}

}  // namespace

// Each handler exists twice: with and without -fno-sanitize-recover.
#define UBSAN_HANDLER(name, parameters)                        \
  extern "C" void __ubsan_handle_##name##_abort parameters     \
      __attribute__((alias("__ubsan_handle_" #name), visibility("default"))); \
  extern "C" __attribute__((visibility("default"))) void __ubsan_handle_##name parameters

UBSAN_HANDLER(type_mismatch_v1, (TypeMismatch* data, uintptr_t pointer)) {
  const char* access = data->access < 12 ? kAccess[data->access] : "access to";
  if (pointer == 0)
    raise_fault(kFaultUndefined, data->place.file, (int)data->place.line, "%s null pointer of type %s", access,
                data->type->name);
  size_t alignment = (size_t)1 << data->log_alignment;
  raise_fault(kFaultMisaligned, data->place.file, (int)data->place.line,
              "%s misaligned address 0x%llx for type %s, which needs %zu bytes", access, (unsigned long long)pointer,
              data->type->name, alignment);
}
UBSAN_HANDLER(add_overflow, (PlaceAndType* data, uintptr_t left, uintptr_t right)) { overflow(data, left, right, "+"); }
UBSAN_HANDLER(sub_overflow, (PlaceAndType* data, uintptr_t left, uintptr_t right)) { overflow(data, left, right, "-"); }
UBSAN_HANDLER(mul_overflow, (PlaceAndType* data, uintptr_t left, uintptr_t right)) { overflow(data, left, right, "*"); }
UBSAN_HANDLER(negate_overflow, (PlaceAndType* data, uintptr_t value)) {
  char text[32];
  raise_fault(kFaultUndefined, data->place.file, (int)data->place.line, "signed integer overflow: -(%s) in type %s",
              number(data->type, value, text, sizeof text), data->type->name);
}
UBSAN_HANDLER(divrem_overflow, (PlaceAndType* data, uintptr_t left, uintptr_t right)) {
  char text[32];
  number(data->type, left, text, sizeof text);
  if (right == 0 || data->type->kind != 0)
    raise_fault(kFaultArithmetic, data->place.file, (int)data->place.line, "integer division of %s by zero", text);
  raise_fault(kFaultUndefined, data->place.file, (int)data->place.line, "signed integer overflow: %s / -1 in type %s", text,
              data->type->name);
}
UBSAN_HANDLER(shift_out_of_bounds, (PlaceAndTwoTypes* data, uintptr_t left, uintptr_t right)) {
  char value[32], count[32];
  raise_fault(kFaultUndefined, data->place.file, (int)data->place.line, "shift of %s (%s) by %s",
              number(data->left, left, value, sizeof value), data->left->name,
              number(data->right, right, count, sizeof count));
}
UBSAN_HANDLER(out_of_bounds, (PlaceAndTwoTypes* data, uintptr_t index)) {
  char text[32];
  raise_fault(kFaultMemory, data->place.file, (int)data->place.line, "index %s is outside of the array of type %s",
              number(data->right, index, text, sizeof text), data->left->name);
}
UBSAN_HANDLER(float_cast_overflow, (PlaceAndTwoTypes* data, uintptr_t)) {
  raise_fault(kFaultUndefined, data->place.file, (int)data->place.line, "the value of type %s does not fit type %s",
              data->left->name, data->right->name);
}
UBSAN_HANDLER(load_invalid_value, (PlaceAndType* data, uintptr_t value)) {
  raise_fault(kFaultUndefined, data->place.file, (int)data->place.line, "%llu is not a value of type %s",
              (unsigned long long)value, data->type->name);
}
UBSAN_HANDLER(vla_bound_not_positive, (PlaceAndType* data, uintptr_t)) {
  raise_fault(kFaultUndefined, data->place.file, (int)data->place.line, "an array's length is not positive");
}
extern "C" __attribute__((visibility("default"))) void __ubsan_handle_builtin_unreachable(Place* place) {
  raise_fault(kFaultUndefined, place->file, (int)place->line, "reached __builtin_unreachable()");
}
extern "C" __attribute__((visibility("default"))) void __ubsan_handle_missing_return(Place* place) {
  raise_fault(kFaultUndefined, place->file, (int)place->line, "a function that returns a value ended without return");
}
