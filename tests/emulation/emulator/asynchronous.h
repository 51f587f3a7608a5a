// What runs asynchronously to the threads, and how threads wait for it: copies from global to
// shared memory, and products of warpgroups.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace usucl::emulation {

struct Copy {
  void* shared;
  const void* global;  // null: zeros
  void* caller;
};

// The copies of one thread.
struct Copies {
  std::vector<Copy> open;                // not in a group yet
  std::deque<std::vector<Copy>> groups;  // oldest first

  bool any() const {
    for (const auto& group : groups) {
      if (!group.empty()) return true;
    }
    return !open.empty();
  }
};

// Defined in emulator.cpp.
Copies& running_copies();
bool in_shared_memory(const void* address, size_t bytes);
unsigned char* shared_begin();
int threads_of_block();

// Suspends the running thread until another one resumes it. awaited: an mbarrier, or null.
void suspend(const char* operation, const char* file, int line, const void* awaited = nullptr);
void resume(int thread);

// Shared memory has 32-bit addresses: its first KiB belongs to the system.
constexpr uint32_t kSharedAddress = 1024;

// The swizzle of a tile with rows of 128 bytes: pieces of 16 bytes are permuted within 8 rows.
inline uint32_t swizzled(uint32_t shared_address) {
  return shared_address ^ (shared_address >> 7 & 7) << 4;
}

// Defined in mbarriers.cpp.
void forget_mbarriers();
bool copies_of_mbarriers();  // whether any are pending
std::string state_of_mbarrier(const void* barrier);

// Defined in wgmma.cpp.
void begin_warpgroups(int threads);
bool products_under_way(int thread);                   // of its warpgroup
bool sums_under_way(int thread, const void* address);  // whether it is a register of one

}  // namespace usucl::emulation
