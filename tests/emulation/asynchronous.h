// Copies from global to shared memory that are under way.
#pragma once

#include <cstddef>
#include <deque>
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

}  // namespace usucl::emulation
