// Device memory on the host, for one call of emulated kernels.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "cuda/kernels.h"

namespace usucl::emulation {

// Every array has its exact size and is filled with NaN, or with zeros if requested.
class HostMemory : public cuda::Memory {
 public:
  void* allocate(int64_t bytes) override { return filled(bytes, 0xff); }
  void* allocate_zeros(int64_t bytes) override { return filled(bytes, 0); }

 private:
  void* filled(int64_t bytes, int value) {
    held_.emplace_back(new unsigned char[bytes]);
    std::memset(held_.back().get(), value, static_cast<size_t>(bytes));
    return held_.back().get();
  }

  std::vector<std::unique_ptr<unsigned char[]>> held_;
};

}  // namespace usucl::emulation
