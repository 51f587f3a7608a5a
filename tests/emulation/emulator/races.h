// The race check: finds accesses of one launch that no barrier orders.
//
// Kernels are compiled with -fsanitize=thread, which calls a function at every load and store;
// these functions replace the sanitizer's. Two accesses of one block are ordered by __syncthreads
// between them, by a __syncwarp of both lanes, or by an mbarrier or named barrier at which one
// thread arrived before the other continued; accesses of two blocks are never ordered. Two atomic
// operations never race. Also reported: reads of shared memory that the block has not written, any
// access to the destination of an unfinished asynchronous copy, and accesses by Hopper's
// asynchronous units to a thread's writes without a fence_proxy_async.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace usucl::emulation {

enum class Access {
  kRead,
  kWrite,
  kAtomic,
  kIssue,       // an asynchronous copy to this destination starts
  kLand,        // it ends: the issuing thread has waited
  kIssueAsync,  // by the TMA
  kReadAsync,   // by the products of a warpgroup
};

// The clock that is known of each thread of the block.
using Seen = std::vector<uint32_t>;

void begin_launch();
void begin_block(const unsigned char* shared, size_t shared_bytes, int threads);
void order_block();
void order_lanes(int warp, unsigned mask);

// From here on the block's threads synchronise beyond their warps.
void know_all();

// What the thread has done and seen is ordered before what follows acquire() with the same `seen`.
void release(int thread, Seen* seen);
void acquire(int thread, const Seen& seen);

// A thread's clock, which then advances; see() notes that everything up to a clock was seen.
uint32_t tick(int thread);
void see(int thread, uint32_t clock, Seen* seen);

// The end of an access recorded as kIssueAsync when the thread's clock was `clock`.
void record_landing(int thread, uint32_t clock, const void* address, size_t bytes,
                    const void* caller);

// Makes everything that the thread has written so far visible to the asynchronous units.
void fence_writes(int thread);

// caller: an address in the code of the access, for the source line.
void record(int thread, const void* address, size_t bytes, Access access, const void* caller);

// While set, instrumented code is the emulator's own.
extern bool paused;

// Occasionally switches to another thread, if the settings say so. Defined in emulator.cpp, like
// running_thread(), which is -1 outside any kernel.
void perhaps_preempt();
int running_thread();

}  // namespace usucl::emulation
