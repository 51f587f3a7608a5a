// The race check: which accesses of one launch no barrier orders.
//
// Kernels are compiled with -fsanitize=thread, which calls a function at every load and store; here
// are those functions, in place of the sanitizer's. Two accesses of one block are ordered by
// __syncthreads between them, or by a __syncwarp of both lanes, or by an mbarrier or named barrier
// at which one thread arrived before the other went on; of two blocks, by nothing. Two atomic
// operations never race. Reads of shared memory that the block has not written are reported too,
// any access to the destination of an asynchronous copy that is not waited for, and what Hopper's
// asynchronous units touch of a thread's writes that no fence_proxy_async has shown them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace usucl::emulation {

enum class Access {
  kRead,
  kWrite,
  kAtomic,
  kIssue,       // of an asynchronous copy to this destination
  kLand,        // its end, when the issuing thread has waited
  kIssueAsync,  // by the TMA
  kReadAsync,   // by the products of a warpgroup
};

// Of each thread of the block the clock that is known.
using Seen = std::vector<uint32_t>;

void begin_launch();
void begin_block(const unsigned char* shared, size_t shared_bytes, int threads);
void order_block();
void order_lanes(int warp, unsigned mask);

// From here on the block's threads synchronise beyond their warps.
void know_all();

// What the thread has done and seen is ordered before what follows acquire() of the same.
void release(int thread, Seen* seen);
void acquire(int thread, const Seen& seen);

// A thread's clock, which then advances; and that everything up to a clock has been seen.
uint32_t tick(int thread);
void see(int thread, uint32_t clock, Seen* seen);

// The end of what was recorded as kIssueAsync when the thread's clock was this.
void record_landing(int thread, uint32_t clock, const void* address, size_t bytes,
                    const void* caller);

// The asynchronous units see what the thread has written until now.
void fence_writes(int thread);

// caller: an address in the code that did it, for the source line.
void record(int thread, const void* address, size_t bytes, Access access, const void* caller);

// While set, instrumented code is the emulator's own.
extern bool paused;

// Lets another thread go on, now and then, if the settings say so. In emulator.cpp, like
// running_thread(), which is -1 outside of any kernel.
void perhaps_preempt();
int running_thread();

}  // namespace usucl::emulation
