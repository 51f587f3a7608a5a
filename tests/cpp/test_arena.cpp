// The arena: few pieces, no overlapping parts, everything given back.
#include "cuda/arena.h"

#include <cstdlib>
#include <cstring>
#include <vector>

#include "check.h"

namespace {

using namespace usucl;

int pieces = 0, released = 0;

void* allocate(int64_t bytes) {
  ++pieces;
  void* piece = std::aligned_alloc(256, static_cast<size_t>(bytes));
  std::memset(piece, 0xff, static_cast<size_t>(bytes));
  return piece;
}

void release(void* piece) {
  ++released;
  std::free(piece);
}

struct Part {
  unsigned char* begin;
  int64_t bytes;
};

// Fills each part with a different number: an overlap would destroy one.
void check_apart(const std::vector<Part>& parts) {
  for (size_t i = 0; i < parts.size(); ++i) {
    CHECK(reinterpret_cast<uintptr_t>(parts[i].begin) % 256 == 0);
    std::memset(parts[i].begin, static_cast<int>(i + 1), static_cast<size_t>(parts[i].bytes));
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    for (int64_t b = 0; b < parts[i].bytes; ++b) CHECK(parts[i].begin[b] == i + 1);
  }
}

void test_parts() {
  pieces = released = 0;
  {
    cuda::Arena arena({&allocate, &release}, nullptr);
    CHECK(pieces == 0);  // a call that needs nothing allocates nothing
    std::vector<Part> parts;
    const auto add = [&](void* begin, int64_t bytes) {
      parts.push_back({static_cast<unsigned char*>(begin), bytes});
    };
    for (const int64_t bytes : {1, 255, 256, 257, 100000, 0}) add(arena.allocate(bytes), bytes);
    CHECK(pieces == 1);
    for (const int64_t bytes : {1, 1000, 100000}) {
      auto* zeros = static_cast<unsigned char*>(arena.allocate_zeros(bytes));
      for (int64_t b = 0; b < bytes; ++b) CHECK(zeros[b] == 0);
      add(zeros, bytes);
    }
    CHECK(pieces == 1);
    const int64_t large = int64_t{20} << 20;
    add(arena.allocate(large), large);
    auto* zeros = static_cast<unsigned char*>(arena.allocate_zeros(large));
    CHECK(zeros[0] == 0 && zeros[large - 1] == 0);
    add(zeros, large);
    CHECK(pieces == 3);
    // More than a slab in total.
    for (int i = 0; i < 40; ++i) add(arena.allocate(700000), 700000);
    CHECK(pieces == 4);
    check_apart(parts);
  }
  CHECK(released == pieces);
}

}  // namespace

int main() {
  test_parts();
  return 0;
}
