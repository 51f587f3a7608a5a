// The race check: which accesses of one launch no barrier orders.
//
// Kernels are compiled with -fsanitize=thread, which calls a function at every load and store; here
// are those functions, in place of the sanitizer's. Two accesses of one block are ordered by
// __syncthreads between them, or by a __syncwarp of both lanes; of two blocks, by nothing. Two
// atomic operations never race. Reads of shared memory that the block has not written are reported
// too, and any access to the destination of an asynchronous copy that is not waited for.
#pragma once

#include <cstddef>

namespace usucl::emulation {

enum class Access {
  kRead,
  kWrite,
  kAtomic,
  kIssue,  // of an asynchronous copy to this destination
  kLand,   // its end, when the issuing thread has waited
};

void begin_launch();
void begin_block(const unsigned char* shared, size_t shared_bytes, int threads);
void order_block();
void order_lanes(int warp, unsigned mask);

// caller: an address in the code that did it, for the source line.
void record(int thread, const void* address, size_t bytes, Access access, const void* caller);

// While set, instrumented code is the emulator's own.
extern bool paused;

// Lets another thread go on, now and then, if the settings say so. In emulator.cpp, like
// running_thread(), which is -1 outside of any kernel.
void perhaps_preempt();
int running_thread();

}  // namespace usucl::emulation
