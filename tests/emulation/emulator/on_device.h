// Test kernels called through ctypes in the same way emulated and on a GPU: an entry point names
// its arrays and launches, call() does the rest.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/device.h"

#if defined(USUCL_EMULATION)
#include "emulation.h"
#endif

#define USUCL_ENTRY extern "C" __attribute__((visibility("default")))

namespace usucl::test {

#if defined(USUCL_EMULATION)

class Arrays {
 public:
  template <typename T>
  const T* in(const T* host, int64_t) {
    return host;
  }

  template <typename T>
  T* out(T* host, int64_t) {
    return host;
  }

  void finish() {
    if (emulation::races().count > 0) throw std::runtime_error(emulation::races().first);
  }
};

USUCL_ENTRY void configure(const emulation::Settings* settings) { emulation::settings = *settings; }

#else

inline void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

// Copies of host arrays on the device, each in a separate allocation.
class Arrays {
 public:
  Arrays() = default;
  Arrays(const Arrays&) = delete;
  Arrays& operator=(const Arrays&) = delete;
  ~Arrays() {
    for (const Copy& copy : copies_) cudaFree(copy.device);
  }

  template <typename T>
  const T* in(const T* host, int64_t count) {
    return static_cast<const T*>(add(host, nullptr, count * sizeof(T)));
  }

  // What the kernel does not write keeps its value.
  template <typename T>
  T* out(T* host, int64_t count) {
    return static_cast<T*>(add(host, host, count * sizeof(T)));
  }

  void finish() {
    check(cudaGetLastError());
    check(cudaDeviceSynchronize());
    for (const Copy& copy : copies_) {
      if (copy.back == nullptr) continue;
      check(cudaMemcpy(copy.back, copy.device, copy.bytes, cudaMemcpyDeviceToHost));
    }
  }

 private:
  struct Copy {
    void* device;
    void* back;
    size_t bytes;
  };

  void* add(const void* host, void* back, size_t bytes) {
    void* device = nullptr;
    check(cudaMalloc(&device, bytes));
    copies_.push_back({device, back, bytes});
    check(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
    return device;
  }

  std::vector<Copy> copies_;
};

#endif

static std::string error_text;  // not in call(): the race check does not support a guarded static

// Runs launch(Arrays&); returns the error, races included, or null.
template <typename Launch>
const char* call(const Launch& launch) {
#if defined(USUCL_EMULATION)
  emulation::forget_races();
#endif
  try {
    Arrays arrays;
    launch(arrays);
    arrays.finish();
  } catch (const std::exception& error) {
    error_text = error.what();
    return error_text.c_str();
  }
  return nullptr;
}

}  // namespace usucl::test
