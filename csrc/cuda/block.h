// What the threads of one block do together.
#pragma once

#include <cstdint>

#include "launch.h"

namespace usucl::cuda {

// Sorts lists elements[l * stride .. l * stride + count(l) - 1] for l < lists; none is longer than
// `longest`. A bitonic network whose every comparison puts the lesser element first: elements past
// the end would stay there, so they need not exist. `before` is a strict total order, so that the
// result does not depend on the order the elements came in. Ends with a barrier.
template <typename Element, typename Count, typename Before>
__device__ void sort_lists(Element* elements, int lists, int64_t stride, const Count& count,
                           int64_t longest, const Before& before) {
  __syncthreads();
  int64_t padded = 1;
  while (padded < longest) padded *= 2;
  for (int64_t size = 2; size <= padded; size *= 2) {
    for (int64_t distance = size / 2; distance > 0; distance /= 2) {
      for (int l = 0; l < lists; ++l) {
        Element* list = elements + l * stride;
        for (int64_t pair = threadIdx.x; pair < padded / 2; pair += kThreads) {
          const int64_t i = 2 * pair - (pair & (distance - 1));
          // The first step compares the two sorted halves back to front.
          const int64_t j = distance == size / 2 ? i ^ (size - 1) : i + distance;
          if (j >= count(l) || !before(list[j], list[i])) continue;
          const Element later = list[i];
          list[i] = list[j];
          list[j] = later;
        }
      }
      __syncthreads();
    }
  }
}

// value(0) + ... + value(count - 1) in float64 and in an order that depends on count alone. To
// thread 0; `partial` [kThreads] is shared memory.
template <typename Value>
__device__ double sum_in_block(const Value& value, int64_t count, double* partial) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += value(i);
  partial[threadIdx.x] = sum;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    __syncthreads();
  }
  return partial[0];
}

}  // namespace usucl::cuda
