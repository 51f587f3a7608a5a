// The order of candidates: by similarity descending, then by key index ascending.
#pragma once

#include <cstdint>
#include <cstring>

#include "macros.h"

namespace usucl {

template <typename T>
struct Candidate {
  T similarity;
  int64_t index;  // counted through the key blocks
};

// A strict total order over candidates with distinct indices; -0 equals +0, NaN never occurs.
template <typename T>
USUCL_HD bool ranks_before(const Candidate<T>& a, const Candidate<T>& b) {
  return a.similarity > b.similarity || (a.similarity == b.similarity && a.index < b.index);
}

// The unsigned integer as wide as T.
template <typename T>
struct BitsOf;

template <>
struct BitsOf<float> {
  using Type = uint32_t;
};

template <>
struct BitsOf<double> {
  using Type = uint64_t;
};

// A number as an integer with the same order: of two numbers, neither NaN, the greater has the
// greater bits. Zero must be +0: -0 would come before it. No number has the bits 0.
template <typename T>
USUCL_HD typename BitsOf<T>::Type ordered_bits(T value) {
  using Bits = typename BitsOf<T>::Type;
  constexpr Bits kSign = Bits{1} << (8 * sizeof(Bits) - 1);
  Bits bits;
  memcpy(&bits, &value, sizeof bits);
  return (bits & kSign) != 0 ? ~bits : bits | kSign;
}

// The number with these ordered bits.
template <typename T>
USUCL_HD T from_ordered_bits(typename BitsOf<T>::Type bits) {
  using Bits = typename BitsOf<T>::Type;
  constexpr Bits kSign = Bits{1} << (8 * sizeof(Bits) - 1);
  bits = (bits & kSign) != 0 ? bits ^ kSign : ~bits;
  T value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace usucl
