#include "fibers.h"

#include <sys/mman.h>

#include <cstdint>
#include <stdexcept>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace usucl::emulation {
namespace {

constexpr int kMaxStacks = 1024;  // threads of the largest thread block
constexpr size_t kGuardBytes = 4096;
constexpr size_t kPitch = kStackBytes + kGuardBytes;

unsigned char* arena = nullptr;
int guarded = 0;  // stacks with an inaccessible page below
#if defined(__SANITIZE_ADDRESS__)
const void* own_stack = nullptr;  // of the thread that runs the fibers
size_t own_stack_bytes = 0;
#endif

}  // namespace

unsigned char* fiber_stack(int index) {
  if (arena == nullptr) {
    void* mapped = mmap(nullptr, kMaxStacks * kPitch, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) throw std::runtime_error("no memory for the stacks of the emulation");
    arena = static_cast<unsigned char*>(mapped);
  }
  for (; guarded <= index; ++guarded) mprotect(arena + guarded * kPitch, kGuardBytes, PROT_NONE);
  return arena + index * kPitch + kGuardBytes;
}

bool on_fiber_stack(const void* address, int* index) {
  const auto offset = static_cast<size_t>(static_cast<const unsigned char*>(address) - arena);
  if (arena == nullptr || offset >= kMaxStacks * kPitch) return false;
  *index = static_cast<int>(offset / kPitch);
  return true;
}

// A fiber ends, or is abandoned, without returning: its functions' shadow memory is still marked.
static void take_stack(Context* context, int index) {
  context->stack = fiber_stack(index);
  context->fake_stack = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(context->stack, kStackBytes);
#endif
}

#if defined(__x86_64__)

// Saves the callee-saved registers and the stack. ucontext does the same with two system calls.
extern "C" void usucl_emulation_switch(void** save, void* stack_pointer);
asm(R"(
.text
.globl usucl_emulation_switch
.hidden usucl_emulation_switch
.type usucl_emulation_switch, @function
usucl_emulation_switch:
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
.size usucl_emulation_switch, .-usucl_emulation_switch
)");

void prepare(Context* context, int index, void (*entry)()) {
  take_stack(context, index);
  auto** top = reinterpret_cast<void**>(context->stack + kStackBytes);
  *--top = nullptr;  // where `entry` would return to
  *--top = reinterpret_cast<void*>(entry);
  *--top = nullptr;  // rbp: the end of every backtrace
  for (int saved = 0; saved < 5; ++saved) *--top = nullptr;
  context->stack_pointer = top;
}

static void switch_stacks(Context* from, Context* to) {
  usucl_emulation_switch(&from->stack_pointer, to->stack_pointer);
}

#else

void prepare(Context* context, int index, void (*entry)()) {
  take_stack(context, index);
  getcontext(&context->registers);
  context->registers.uc_stack.ss_sp = context->stack;
  context->registers.uc_stack.ss_size = kStackBytes;
  context->registers.uc_link = nullptr;
  makecontext(&context->registers, entry, 0);
}

static void switch_stacks(Context* from, Context* to) {
  swapcontext(&from->registers, &to->registers);
}

#endif

void switch_context(Context* from, Context* to, [[maybe_unused]] bool dying) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(dying ? nullptr : &from->fake_stack,
                                 to->stack != nullptr ? to->stack : own_stack,
                                 to->stack != nullptr ? kStackBytes : own_stack_bytes);
#endif
  switch_stacks(from, to);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
#endif
}

void entered_fiber() {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
  if (own_stack == nullptr) {
    own_stack = bottom;
    own_stack_bytes = bytes;
  }
#endif
}

}  // namespace usucl::emulation
