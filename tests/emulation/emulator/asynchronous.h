// What is under way beside the threads: copies from global to shared memory, products of
// warpgroups. And how threads wait for it.
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

// Those of one thread.
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

// In emulator.cpp.
Copies& running_copies();
bool in_shared_memory(const void* address, size_t bytes);
unsigned char* shared_begin();
int threads_of_block();

// The running thread waits until another one resumes it. awaited: an mbarrier, or null.
void suspend(const char* operation, const char* file, int line, const void* awaited = nullptr);
void resume(int thread);

// As 32-bit addresses of shared memory: its first KiB is the system's.
constexpr uint32_t kSharedAddress = 1024;

// Of a tile with rows of 128 bytes: pieces of 16 bytes change places within each 8 rows.
inline uint32_t swizzled(uint32_t shared_address) {
  return shared_address ^ (shared_address >> 7 & 7) << 4;
}

// In mbarriers.cpp.
void forget_mbarriers();
bool copies_of_mbarriers();  // whether any is under way
std::string state_of_mbarrier(const void* barrier);

// In wgmma.cpp.
void begin_warpgroups(int threads);
bool products_under_way(int thread);                   // of its warpgroup
bool sums_under_way(int thread, const void* address);  // whether it is a register of such a product

}  // namespace usucl::emulation
