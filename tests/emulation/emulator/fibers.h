// Threads of control that switch to each other on one thread of the operating system.
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace usucl::emulation {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStackBytes = 256 << 10;
#else
constexpr size_t kStackBytes = 64 << 10;
#endif

// Where a fiber, or the thread that runs all fibers, was suspended.
struct Context {
  unsigned char* stack = nullptr;  // null: the thread's own
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ucontext_t registers;
#endif
  void* fake_stack = nullptr;  // AddressSanitizer's
};

// Stacks [count], each with an inaccessible page below. They are kept for later launches.
unsigned char* fiber_stack(int index);

// Whether the address lies on a fiber's stack; if so, *index is the index of the stack.
bool on_fiber_stack(const void* address, int* index);

// Makes the context start at `entry`, on stack `index`, when it is switched to. `entry` must not
// return.
void prepare(Context* context, int index, void (*entry)());

// dying: `from` is never switched to again.
void switch_context(Context* from, Context* to, bool dying);

// Must be the first call in a fiber.
void entered_fiber();

}  // namespace usucl::emulation
