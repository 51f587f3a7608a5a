// Elementary functions as overloads, with the same names on host and device.
#pragma once

#include <cmath>

#include "macros.h"

namespace usucl {

// Rounds once on every machine: in hardware where the target has the instruction, else in libm.
USUCL_HD float fused_multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
USUCL_HD double fused_multiply_add(double a, double b, double c) { return fma(a, b, c); }

USUCL_HD float exponential(float x) { return expf(x); }
USUCL_HD double exponential(double x) { return exp(x); }

USUCL_HD float logarithm(float x) { return logf(x); }
USUCL_HD double logarithm(double x) { return log(x); }

USUCL_HD float logarithm_1p(float x) { return log1pf(x); }
USUCL_HD double logarithm_1p(double x) { return log1p(x); }

template <typename T>
USUCL_HD bool is_finite(T x) {
  return x - x == T(0);
}

}  // namespace usucl
