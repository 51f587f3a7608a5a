// Single rows of embeddings, whatever their dtype.
#pragma once

#include <cstdint>

#include "../core/problem.h"

namespace usucl::cpu {

// Calls use(pointer to the row's first element), of the element type.
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

// upcast [D]
template <typename T>
void upcast_row(const Matrix& matrix, int64_t row, T* upcasted) {
  with_row(matrix, row, [&](const auto* elements) {
    for (int64_t d = 0; d < matrix.dim; ++d) upcasted[d] = static_cast<T>(upcast(elements[d]));
  });
}

// sum [D] += weight * row, multiplied and added in T.
template <typename T>
void add_scaled_row(T weight, const Matrix& matrix, int64_t row, T* sum) {
  with_row(matrix, row, [&](const auto* elements) {
    for (int64_t d = 0; d < matrix.dim; ++d) {
      sum[d] += weight * static_cast<T>(upcast(elements[d]));
    }
  });
}

}  // namespace usucl::cpu
