// The products of mma_core.cu, and the error of a score that csrc/core/nomination.h allows.
#include "cuda/tensor_cores/rounding.h"

#include "mma_core.cu"

// Writes the margin's factor of both norms and its absolute part to out [2]; types as in DType.
USUCL_ENTRY const char* margin(int64_t anchors, int64_t elements, int64_t dim, float* out) {
  const usucl::NominationMargin margin(tensor_core_errors(
      static_cast<usucl::DType>(anchors), static_cast<usucl::DType>(elements), dim));
  out[0] = margin.relative;
  out[1] = margin.absolute;
  return nullptr;
}
