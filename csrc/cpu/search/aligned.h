// Uninitialised memory, aligned so that no vector register of a panel straddles two cache lines.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace usucl::cpu {

struct AlignedDelete {
  void operator()(void* p) const { ::operator delete[](p, std::align_val_t(64)); }
};

template <typename T>
using AlignedArray = std::unique_ptr<T[], AlignedDelete>;

template <typename T>
AlignedArray<T> aligned_array(int64_t count) {
  return AlignedArray<T>(
      static_cast<T*>(::operator new[](count * sizeof(T), std::align_val_t(64))));
}

}  // namespace usucl::cpu
