// A candidate as one integer that orders as ranks_before does: the larger, the harder.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace usucl::cpu {

template <typename T>
struct RankTypes;

template <>
struct RankTypes<float> {
  using Bits = uint32_t;
  using Key = uint64_t;
};

template <>
struct RankTypes<double> {
  using Bits = uint64_t;
  __extension__ using Key = unsigned __int128;
};

// The ordinal of a key counts from wherever its holder begins to count; an index has 64 bits, but
// no more than 2^32 keys are ranked at a time.
constexpr int64_t kMaxRanked = int64_t{1} << 32;

template <typename T>
struct Rank {
  using Bits = typename RankTypes<T>::Bits;
  using Key = typename RankTypes<T>::Key;
  static constexpr Key kNone = 0;  // below every finite similarity
  static constexpr Bits kSign = Bits{1} << (8 * sizeof(Bits) - 1);

  static Key key(T similarity, int64_t ordinal) {
    Bits bits;
    std::memcpy(&bits, &similarity, sizeof bits);
    bits = (bits & kSign) != 0 ? ~bits : bits | kSign;
    return static_cast<Key>(bits) << 32 | static_cast<uint32_t>(~static_cast<uint32_t>(ordinal));
  }

  static T similarity(Key key) {
    auto bits = static_cast<Bits>(key >> 32);
    bits = (bits & kSign) != 0 ? bits ^ kSign : ~bits;
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }

  static int64_t ordinal(Key key) { return static_cast<uint32_t>(~static_cast<uint32_t>(key)); }
};

// Moves the `depth` largest of `count` distinct keys to the front and returns the least of them.
// 0 < depth <= count. A quickselect without a branch per element: candidates come in no order, so
// half of all such branches would be mispredicted.
template <typename Key>
Key keep_largest(Key* keys, int64_t count, int64_t depth) {
  int64_t begin = 0, end = count;
  for (int round = 0; end - begin > 1 && round < 64; ++round) {
    Key* const last = keys + end - 1;
    Key* const middle = keys + begin + (end - begin) / 2;
    if (*middle < keys[begin]) std::swap(*middle, keys[begin]);
    if (*last < *middle) std::swap(*last, *middle);
    if (*middle < keys[begin]) std::swap(*middle, keys[begin]);
    std::swap(*middle, *last);  // the median of three is the pivot
    const Key pivot = *last;
    int64_t larger = begin;
    for (int64_t i = begin; i < end - 1; ++i) {
      const Key key = keys[i];
      keys[i] = keys[larger];
      keys[larger] = key;
      larger += key > pivot ? 1 : 0;
    }
    std::swap(keys[larger], *last);
    if (larger == depth - 1) return pivot;
    if (larger < depth) {
      begin = larger + 1;
    } else {
      end = larger;
    }
  }
  std::nth_element(keys + begin, keys + depth - 1, keys + end, std::greater<>());
  return keys[depth - 1];
}

}  // namespace usucl::cpu
