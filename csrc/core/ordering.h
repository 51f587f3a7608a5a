// The order of candidates: by similarity descending, then by key index ascending.
#pragma once

#include <cstdint>

#include "macros.h"

namespace usucl {

template <typename T>
struct Candidate {
  T similarity;
  int64_t index;  // counts through the key blocks
};

// A strict total order over candidates of distinct index; -0 equals +0, NaN never enters.
template <typename T>
USUCL_HD bool ranks_before(const Candidate<T>& a, const Candidate<T>& b) {
  return a.similarity > b.similarity || (a.similarity == b.similarity && a.index < b.index);
}

}  // namespace usucl
