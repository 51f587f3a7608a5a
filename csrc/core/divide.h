// Division of counts >= 0, rounded up.
#pragma once

#include "macros.h"

namespace usucl {

template <typename Count, typename Unit>
USUCL_HD constexpr auto ceil_divide(Count count, Unit unit) {
  return (count + unit - 1) / unit;
}

// The least multiple of `unit` that is at least `count`.
template <typename Count, typename Unit>
USUCL_HD constexpr auto round_up(Count count, Unit unit) {
  return ceil_divide(count, unit) * unit;
}

}  // namespace usucl
