// What kernels are written in. CUDA's own names are used where they exist; every PTX instruction
// gets a function here, or in hopper.h if only Hopper has it, and no other file has inline
// assembly. With USUCL_EMULATION a C++ compiler builds the same kernels for the CPU
// (tests/emulation/emulator/emulator.h).
#pragma once

#include <algorithm>
#include <cstdint>

#if defined(USUCL_EMULATION)
#include "emulator.h"
#else

#include <cuda_runtime.h>

namespace usucl::cuda {

// Asynchronous; an empty grid is not launched. The caller checks cudaGetLastError. shared_bytes:
// the size of the struct that the kernel takes from shared_memory<Struct>().
template <typename... Parameters, typename... Arguments>
void launch_on(void (*kernel)(Parameters...), int64_t grid, int threads, int64_t shared_bytes,
               cudaStream_t stream, Arguments... arguments) {
  constexpr int64_t kWithoutAsking = 48 << 10;
  if (grid == 0) return;
  if (shared_bytes > kWithoutAsking) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(shared_bytes));
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(grid));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

// The kernel is a template argument because the emulator reads its name from there.
template <auto kKernel, typename... Arguments>
void launch(int64_t grid, int threads, int64_t shared_bytes, cudaStream_t stream,
            Arguments... arguments) {
  launch_on(kKernel, grid, threads, shared_bytes, stream, arguments...);
}

#if defined(__CUDACC__)

// For functions with many call sites that seldom run, or that must not share registers with
// callers.
#define USUCL_OUT_OF_LINE __noinline__

// All shared memory of a thread block as one struct, aligned for the tiles of hopper.h.
template <typename Struct>
__device__ Struct& shared_memory() {
  extern __shared__ __align__(1024) unsigned char memory[];
  return *reinterpret_cast<Struct*>(memory);
}

// Reads what other thread blocks may be changing with atomic operations.
__device__ inline unsigned long long load_relaxed(const unsigned long long* global) {
  unsigned long long value;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(global) : "memory");
  return value;
}

__device__ inline uint32_t load_relaxed(const uint32_t* global) {
  uint32_t value;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(global) : "memory");
  return value;
}

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Copies 16 bytes from global to shared memory, both aligned to 16; writes zeros without a source.
__device__ inline void copy_async_16(void* shared, const void* global, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(there ? 16 : 0)
               : "memory");
}

__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most kPending of this thread's latest groups are pending.
template <int kPending>
__device__ inline void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Loads four 8 x 8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix
// l / 8. Register i holds element (l / 4, 2 (l % 4)) of matrix i and its right neighbour.
__device__ inline void load_matrices(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

__device__ inline void load_matrices_transposed(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}

#define USUCL_MMA(name, instruction)                                                               \
  __device__ inline void name(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { \
    asm volatile(instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"    \
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])                          \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                  \
  }

// sum [16 x 8] += a [16 x K] b [K x 8], with K = 16 for 16-bit and 8 for TF32 elements, by one
// warp. tests/emulation/programs/test_emulator.cpp shows which lane and register holds which
// element.
USUCL_MMA(mma_bfloat16, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32")
USUCL_MMA(mma_float16, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32")
USUCL_MMA(mma_tf32, "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32")
#undef USUCL_MMA

#endif  // __CUDACC__

}  // namespace usucl::cuda

#endif  // USUCL_EMULATION
