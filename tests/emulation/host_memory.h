// Device memory on the host, for a call of emulated kernels.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "cuda/kernels.h"

namespace usucl::emulation {

// Every array has its exact size and is full of NaNs.
class HostMemory : public cuda::Memory {
 public:
  void* allocate(int64_t bytes) override {
    held_.emplace_back(new unsigned char[bytes]);
    std::memset(held_.back().get(), 0xff, static_cast<size_t>(bytes));
    return held_.back().get();
  }

 private:
  std::vector<std::unique_ptr<unsigned char[]>> held_;
};

}  // namespace usucl::emulation
