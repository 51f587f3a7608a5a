// A candidate as one integer with the order of ranks_before: the larger, the harder.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>

#include "../../core/ordering.h"

namespace usucl::cpu {

// Half of the integer is the index; a call with more keys is refused.
constexpr int64_t kMaxKeys = int64_t{1} << 32;

template <typename T>
struct Rank {
  __extension__ using Wide = unsigned __int128;
  using Key = std::conditional_t<std::is_same_v<T, float>, uint64_t, Wide>;
  static constexpr Key kNone = 0;  // below every finite similarity

  // 0 <= index < kMaxKeys; similarity is finite and not -0.
  static Key key(T similarity, int64_t index) {
    return static_cast<Key>(ordered_bits(similarity)) << 32 | ~static_cast<uint32_t>(index);
  }

  static T similarity(Key key) {
    return from_ordered_bits<T>(static_cast<typename BitsOf<T>::Type>(key >> 32));
  }

  static int64_t index(Key key) { return ~static_cast<uint32_t>(key); }
};

// Moves the largest of `count` distinct keys to the front, at least `least` and at most `most` of
// them, and returns how many. The last of them is the least. 0 < least <= most <= count. A
// quickselect without a branch per element: candidates come in random order, so half of all such
// branches would be mispredicted. It stops at the first pivot that falls between the bounds.
template <typename Key>
int64_t keep_largest(Key* keys, int64_t count, int64_t least, int64_t most) {
  int64_t begin = 0, end = count;
  for (int round = 0; round < 64 && end - begin > 3; ++round) {
    Key* const last = keys + end - 1;
    Key* const middle = keys + begin + (end - begin) / 2;
    const Key a = keys[begin], b = *middle, c = *last;
    const Key low = std::min(a, b), high = std::max(a, b);
    const Key pivot = std::max(low, std::min(high, c));  // median of three
    keys[begin] = std::max(high, c);
    *middle = std::min(low, c);
    *last = pivot;
    int64_t larger = begin;
    for (int64_t i = begin; i < end - 1; ++i) {
      const Key key = keys[i];
      keys[i] = keys[larger];
      keys[larger] = key;
      larger += key > pivot ? 1 : 0;
    }
    std::swap(keys[larger], *last);
    if (least <= larger + 1 && larger + 1 <= most) return larger + 1;
    if (larger + 1 < least) {
      begin = larger + 1;
    } else {
      end = larger;
    }
  }
  std::nth_element(keys + begin, keys + least - 1, keys + end, std::greater<>());
  return least;
}

}  // namespace usucl::cpu
