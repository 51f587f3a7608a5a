// Single rows of embeddings of any dtype.
#pragma once

#include <cstdint>

#include "../../core/problem.h"
#include "capability.h"

namespace usucl::cpu {

// Calls use(pointer to the row's first element), typed as the element.
template <typename Use>
auto with_row(const Matrix& matrix, int64_t row, const Use& use) {
  const int64_t offset = matrix.offset(row, 0);
  switch (matrix.dtype) {
    case DType::kFloat32:
      return use(static_cast<const float*>(matrix.data) + offset);
    case DType::kFloat64:
      return use(static_cast<const double*>(matrix.data) + offset);
    case DType::kBFloat16:
      return use(static_cast<const BFloat16*>(matrix.data) + offset);
    default:
      return use(static_cast<const Float16*>(matrix.data) + offset);
  }
}

inline const void* row_of(const Matrix& matrix, int64_t row) {
  return with_row(matrix, row, [](const auto* elements) -> const void* { return elements; });
}

constexpr int64_t kCacheLine = 64;  // bytes; if lines are longer, some prefetches are redundant

inline void prefetch_row(const Matrix& matrix, int64_t row) {
  const char* begin = static_cast<const char*>(row_of(matrix, row));
  const int64_t bytes = matrix.dim * bytes_of(matrix.dtype);
  for (int64_t at = 0; at < bytes; at += kCacheLine) __builtin_prefetch(begin + at);
}

// upcast [D]
template <typename T>
void upcast_row(const Matrix& matrix, int64_t row, T* __restrict upcasted) {
  with_row(matrix, row, [upcasted, dim = matrix.dim](const auto* __restrict elements) {
    for (int64_t d = 0; d < dim; ++d) upcasted[d] = static_cast<T>(upcast(elements[d]));
  });
}

// sum [D] += weight * row
template <typename T>
void add_scaled_row(T weight, const Matrix& matrix, int64_t row, T* sum) {
  const TileKernels<T>& kernels = tile_kernels<T>(capability_in_use());
  kernels.add_scaled(weight, row_of(matrix, row), matrix.dtype, matrix.dim, sum);
}

}  // namespace usucl::cpu
