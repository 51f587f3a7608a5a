// The vocabulary of csrc/cuda/device.h on the CPU: a fiber per CUDA thread, one thread block after
// another. For kernels; code that runs them includes emulation.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define USUCL_OUT_OF_LINE
#define threadIdx (usucl::emulation::this_thread->thread)
#define blockIdx (usucl::emulation::this_thread->block)
#define blockDim (usucl::emulation::this_thread->threads)
#define gridDim (usucl::emulation::this_thread->blocks)

// The last parameters of a function: the place of its call.
#define USUCL_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()
// Atomic operations are not instrumented: they report their accesses themselves.
#define USUCL_UNINSTRUMENTED __attribute__((noinline, no_sanitize("thread")))

using cudaStream_t = void*;
using cudaError_t = int;

struct uint3 {
  unsigned x, y, z;
};

namespace usucl::emulation {

struct ThreadIndex {
  uint3 thread, block, threads, blocks;
};

extern ThreadIndex* this_thread;

// Ends the launch with this error.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

void run(const char* signature, int64_t grid, int threads, int64_t shared_bytes,
         const std::function<void()>& kernel);

void* shared_memory(size_t bytes);

void block_barrier(const char* file, int line);

int lane();

// Every lane of the mask brings its argument; the last to arrive applies `together` to all.
using Together = void (*)(void** arguments, unsigned mask);
void collective(const char* name, unsigned mask, void* argument, Together together,
                const char* file, int line);

void atomic_access(void* address, size_t bytes, void* caller);

// Until a copy has been waited for, reads of its destination return NaN.
void copy_async_16(void* shared, const void* global, bool there, void* caller);
void copy_async_commit();
void copy_async_wait(int pending);

void load_matrices(uint32_t* out, const void* row, bool transposed, const char* file, int line);

enum class Elements { kBFloat16, kFloat16, kTF32 };
void mma(Elements elements, float* sum, const uint32_t* a, const uint32_t* b, const char* file,
         int line);

template <typename Value>
struct Exchange {
  Value value;
  int source;
};

template <typename Value>
Value exchange(const char* name, unsigned mask, Value value, int source, const char* file,
               int line) {
  Exchange<Value> own{value, source};
  const auto together = [](void** lanes, unsigned lanes_mask) {
    Value result[32];
    for (int l = 0; l < 32; ++l) {
      if (!(lanes_mask >> l & 1)) continue;
      const int from = static_cast<Exchange<Value>*>(lanes[l])->source;
      if (!(lanes_mask >> from & 1)) {
        fail("lane %d reads from lane %d, which is not in the mask %08x", l, from, lanes_mask);
      }
      result[l] = static_cast<Exchange<Value>*>(lanes[from])->value;
    }
    for (int l = 0; l < 32; ++l) {
      if (lanes_mask >> l & 1) static_cast<Exchange<Value>*>(lanes[l])->value = result[l];
    }
  };
  collective(name, mask, &own, together, file, line);
  return own.value;
}

template <typename Value, typename Combine>
Value reduce(const char* name, unsigned mask, Value value, Combine, const char* file, int line) {
  const auto together = [](void** lanes, unsigned lanes_mask) {
    Value result{};
    bool first = true;
    for (int l = 0; l < 32; ++l) {
      if (!(lanes_mask >> l & 1)) continue;
      const Value one = *static_cast<Value*>(lanes[l]);
      result = first ? one : Combine::of(result, one);
      first = false;
    }
    for (int l = 0; l < 32; ++l) {
      if (lanes_mask >> l & 1) *static_cast<Value*>(lanes[l]) = result;
    }
  };
  collective(name, mask, &value, together, file, line);
  return value;
}

struct Add {
  template <typename Value>
  static Value of(Value a, Value b) {
    return a + b;
  }
};
struct Min {
  template <typename Value>
  static Value of(Value a, Value b) {
    return std::min(a, b);
  }
};
struct Max {
  template <typename Value>
  static Value of(Value a, Value b) {
    return std::max(a, b);
  }
};
struct Or {
  template <typename Value>
  static Value of(Value a, Value b) {
    return a | b;
  }
};

// Stores change(old) and returns old.
template <typename Value, typename Change>
USUCL_UNINSTRUMENTED Value atomically(Value* address, const Change& change) {
  atomic_access(address, sizeof(Value), __builtin_return_address(0));
  const Value old = *address;
  *address = change(old);
  return old;
}

}  // namespace usucl::emulation

inline void __syncthreads(USUCL_CALLER) { usucl::emulation::block_barrier(file, line); }

inline void __syncwarp(unsigned mask = ~0u, USUCL_CALLER) {
  usucl::emulation::collective("__syncwarp", mask, nullptr, [](void**, unsigned) {}, file, line);
}

template <typename Value>
Value __shfl_sync(unsigned mask, Value value, int source, int width = 32, USUCL_CALLER) {
  const int base = usucl::emulation::lane() & ~(width - 1);
  return usucl::emulation::exchange("__shfl_sync", mask, value, base | (source & (width - 1)), file,
                                    line);
}

template <typename Value>
Value __shfl_xor_sync(unsigned mask, Value value, int bits, int width = 32, USUCL_CALLER) {
  const int own = usucl::emulation::lane(), source = own ^ bits;
  const bool beyond = (source & ~(width - 1)) > (own & ~(width - 1));
  return usucl::emulation::exchange("__shfl_xor_sync", mask, value, beyond ? own : source, file,
                                    line);
}

template <typename Value>
Value __shfl_down_sync(unsigned mask, Value value, unsigned distance, int width = 32,
                       USUCL_CALLER) {
  const int own = usucl::emulation::lane(), step = static_cast<int>(distance);
  const bool beyond = (own & (width - 1)) + step >= width;
  return usucl::emulation::exchange("__shfl_down_sync", mask, value, beyond ? own : own + step,
                                    file, line);
}

template <typename Value>
Value __shfl_up_sync(unsigned mask, Value value, unsigned distance, int width = 32, USUCL_CALLER) {
  const int own = usucl::emulation::lane(), step = static_cast<int>(distance);
  const bool beyond = (own & (width - 1)) < step;
  return usucl::emulation::exchange("__shfl_up_sync", mask, value, beyond ? own : own - step, file,
                                    line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, USUCL_CALLER) {
  const unsigned bit = predicate != 0 ? 1u << usucl::emulation::lane() : 0u;
  return usucl::emulation::reduce("__ballot_sync", mask, bit, usucl::emulation::Or{}, file, line);
}

inline int __any_sync(unsigned mask, int predicate, USUCL_CALLER) {
  return usucl::emulation::reduce("__any_sync", mask, unsigned{predicate != 0},
                                  usucl::emulation::Or{}, file, line) != 0;
}

inline int __all_sync(unsigned mask, int predicate, USUCL_CALLER) {
  return usucl::emulation::reduce("__all_sync", mask, unsigned{predicate == 0},
                                  usucl::emulation::Or{}, file, line) == 0;
}

inline unsigned __reduce_add_sync(unsigned mask, unsigned value, USUCL_CALLER) {
  return usucl::emulation::reduce("__reduce_add_sync", mask, value, usucl::emulation::Add{}, file,
                                  line);
}

inline unsigned __reduce_max_sync(unsigned mask, unsigned value, USUCL_CALLER) {
  return usucl::emulation::reduce("__reduce_max_sync", mask, value, usucl::emulation::Max{}, file,
                                  line);
}

inline unsigned __reduce_or_sync(unsigned mask, unsigned value, USUCL_CALLER) {
  return usucl::emulation::reduce("__reduce_or_sync", mask, value, usucl::emulation::Or{}, file,
                                  line);
}

inline unsigned __reduce_min_sync(unsigned mask, unsigned value, USUCL_CALLER) {
  return usucl::emulation::reduce("__reduce_min_sync", mask, value, usucl::emulation::Min{}, file,
                                  line);
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(static_cast<unsigned>(bits)); }

template <typename Value>
Value atomicAdd(Value* address, Value value) {
  return usucl::emulation::atomically(address, [=](Value old) { return old + value; });
}

template <typename Value>
Value atomicMax(Value* address, Value value) {
  return usucl::emulation::atomically(address, [=](Value old) { return std::max(old, value); });
}

template <typename Value>
Value atomicCAS(Value* address, Value expected, Value value) {
  return usucl::emulation::atomically(address,
                                      [=](Value old) { return old == expected ? value : old; });
}

inline cudaError_t cudaMemsetAsync(void* memory, int byte, size_t bytes, cudaStream_t) {
  memset(memory, byte, bytes);
  return 0;
}

namespace usucl::cuda {

// Every thread gets a copy of the arguments, as on a GPU: parameters are private to the thread.
template <typename... Parameters, typename... Arguments>
void launch_on(const char* signature, void (*kernel)(Parameters...), int64_t grid, int threads,
               int64_t shared_bytes, Arguments... arguments) {
  if (grid == 0) return;
  emulation::run(signature, grid, threads, shared_bytes,
                 [&] { kernel(static_cast<Parameters>(arguments)...); });
}

template <auto kKernel, typename... Arguments>
void launch(int64_t grid, int threads, int64_t shared_bytes, cudaStream_t, Arguments... arguments) {
  launch_on(__PRETTY_FUNCTION__, kKernel, grid, threads, shared_bytes, arguments...);
}

template <typename Struct>
Struct& shared_memory() {
  return *static_cast<Struct*>(emulation::shared_memory(sizeof(Struct)));
}

template <typename Word>
Word load_relaxed(const Word* global) {
  return emulation::atomically(const_cast<Word*>(global), [](Word value) { return value; });
}

USUCL_UNINSTRUMENTED inline void copy_async_16(void* shared, const void* global, bool there) {
  emulation::copy_async_16(shared, global, there, __builtin_return_address(0));
}

inline void copy_async_commit() { emulation::copy_async_commit(); }

template <int kPending>
void copy_async_wait() {
  emulation::copy_async_wait(kPending);
}

inline void load_matrices(uint32_t (&out)[4], const void* row, USUCL_CALLER) {
  emulation::load_matrices(out, row, false, file, line);
}

inline void load_matrices_transposed(uint32_t (&out)[4], const void* row, USUCL_CALLER) {
  emulation::load_matrices(out, row, true, file, line);
}

inline void mma_bfloat16(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                         USUCL_CALLER) {
  const uint32_t b[] = {b0, b1};
  emulation::mma(emulation::Elements::kBFloat16, sum, a, b, file, line);
}

inline void mma_float16(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                        USUCL_CALLER) {
  const uint32_t b[] = {b0, b1};
  emulation::mma(emulation::Elements::kFloat16, sum, a, b, file, line);
}

inline void mma_tf32(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                     USUCL_CALLER) {
  const uint32_t b[] = {b0, b1};
  emulation::mma(emulation::Elements::kTF32, sum, a, b, file, line);
}

}  // namespace usucl::cuda
