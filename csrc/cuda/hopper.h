// Features of Hopper alone (sm_90a): barriers in shared memory, tiles copied by the Tensor Memory
// Accelerator (TMA), and products by warpgroups, which are 128 threads beginning at a multiple of
// 128. Only this file and device.h have inline assembly. For other architectures its functions
// compile to traps.
//
// In shared memory an operand is a tile of rows of 128 bytes, at a multiple of 1024 bytes. The 16
// bytes at 16 p of row r lie at 16 (p ^ (r % 8)): the TMA writes this layout, warpgroups read it.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "device.h"

namespace usucl::cuda {

constexpr int kTileRowBytes = 128;
constexpr int kTileAlignment = 1024;
constexpr int kWarpgroupThreads = 128;
constexpr int kWarpgroupSums = 64;  // per thread, of 64 x 128

// A row-major matrix in global memory, and the number of rows per tile.
struct TiledMatrix {
  const void* data;   // aligned to 16 bytes
  int64_t rows;       // 1 .. 2^31 - 1
  int64_t dim;        // 1 .. 2^31 - 1 elements per row
  int64_t row_bytes;  // stride between rows: a multiple of 16
  int element_bytes;  // 2 or 4
  int tile_rows;      // a multiple of 8 in 8 .. 256
};

// Throws std::invalid_argument if the TMA cannot copy from the matrix.
inline void check_tiled(const TiledMatrix& matrix) {
  const auto expect = [](bool holds, const char* name, const char* what, int64_t value) {
    if (holds) return;
    throw std::invalid_argument(std::string(name) + " must be " + what + ", got " +
                                std::to_string(value));
  };
  constexpr int64_t kMost = INT32_MAX;
  const auto address = reinterpret_cast<intptr_t>(matrix.data);
  expect(address != 0 && address % 16 == 0, "data", "aligned to 16 bytes", address);
  expect(matrix.rows >= 1 && matrix.rows <= kMost, "rows", "in 1 .. 2^31 - 1", matrix.rows);
  expect(matrix.dim >= 1 && matrix.dim <= kMost, "dim", "in 1 .. 2^31 - 1", matrix.dim);
  expect(matrix.element_bytes == 2 || matrix.element_bytes == 4, "element_bytes", "2 or 4",
         matrix.element_bytes);
  expect(matrix.row_bytes % 16 == 0 && matrix.row_bytes < int64_t{1} << 40 &&
             matrix.row_bytes >= matrix.dim * matrix.element_bytes,
         "row_bytes", "a multiple of 16 and no less than a row", matrix.row_bytes);
  expect(matrix.tile_rows >= 8 && matrix.tile_rows <= 256 && matrix.tile_rows % 8 == 0, "tile_rows",
         "a multiple of 8 in 8 .. 256", matrix.tile_rows);
}

}  // namespace usucl::cuda

#if defined(USUCL_EMULATION)
#include "hopper_emulator.h"
#else

#include <cuda.h>

namespace usucl::cuda {

// A barrier in shared memory. Its phase ends once all expected threads have arrived and all
// announced bytes are copied; then the next one begins.
struct Mbarrier {
  uint64_t state;
};

// Kernels take it as a `const __grid_constant__ TensorMap`.
using TensorMap = CUtensorMap;

// Tiles of tile_rows rows by 128 bytes; what lies outside the matrix is zero. libcuda is loaded at
// run time, so that machines without a driver can load this library. Throws std::runtime_error if
// the driver does not support tensor maps or refuses.
inline TensorMap tensor_map(const TiledMatrix& matrix) {
  check_tiled(matrix);
  void* encode = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  constexpr unsigned kIntroduced = 12000;
  const cudaError_t asked = cudaGetDriverEntryPointByVersion(
      "cuTensorMapEncodeTiled", &encode, kIntroduced, cudaEnableDefault, &found);
#else
  const cudaError_t asked =
      cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &encode, cudaEnableDefault, &found);
#endif
  if (asked != cudaSuccess || found != cudaDriverEntryPointSuccess) {
    throw std::runtime_error("the CUDA driver does not support tensor maps");
  }
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(matrix.dim),
                              static_cast<cuuint64_t>(matrix.rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(matrix.row_bytes)};  // between rows
  const cuuint32_t tile[] = {static_cast<cuuint32_t>(kTileRowBytes / matrix.element_bytes),
                             static_cast<cuuint32_t>(matrix.tile_rows)};
  const cuuint32_t steps[] = {1, 1};
  TensorMap map;
  const CUresult result = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(encode)(
      &map,
      // The type is irrelevant because bits are copied.
      matrix.element_bytes == 2 ? CU_TENSOR_MAP_DATA_TYPE_UINT16 : CU_TENSOR_MAP_DATA_TYPE_UINT32,
      2, const_cast<void*>(matrix.data), sizes, strides, tile, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw std::runtime_error("cuTensorMapEncodeTiled failed with " + std::to_string(result));
  }
  return map;
}

#if defined(__CUDACC__)

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define USUCL_HOPPER(...) asm volatile(__VA_ARGS__)
#else
#define USUCL_HOPPER(...) __trap()
#endif

// To be called by one thread, then fence_mbarrier_init by the same thread, then a block barrier.
__device__ inline void mbarrier_init(Mbarrier& barrier, int arrivals) {
  USUCL_HOPPER("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)),
               "r"(arrivals) : "memory");
}

// Makes what mbarrier_init wrote visible to the TMA.
__device__ inline void fence_mbarrier_init() {
  USUCL_HOPPER("fence.mbarrier_init.release.cluster;" :: : "memory");
}

// Makes this thread's writes to shared memory visible to the TMA and wgmma: called by the writer,
// before the barrier after which they are started.
__device__ inline void fence_proxy_async() {
  USUCL_HOPPER("fence.proxy.async.shared::cta;" :: : "memory");
}

__device__ inline void mbarrier_arrive(Mbarrier& barrier) {
  USUCL_HOPPER(
      "mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
}

// Announces bytes and arrives.
__device__ inline void mbarrier_arrive_expect_tx(Mbarrier& barrier, int bytes) {
  USUCL_HOPPER(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)),
      "r"(bytes) : "memory");
}

// Waits for the end of the latest phase with this parity: 0 for the first, third, ...; 1 for the
// second, fourth, ...; parity 1 returns at once before the first phase has ended.
__device__ inline void mbarrier_wait(Mbarrier& barrier, int parity) {
  USUCL_HOPPER(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(shared_address(&barrier)),
      "r"(parity) : "memory");
}

__device__ inline void prefetch_tensor_map(const TensorMap& map) {
  USUCL_HOPPER("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// Copies the tile whose first element is (row, column) to shared memory aligned to 1024 bytes, by
// one thread. It always counts tile_rows x 128 bytes towards `full`'s phase; those outside the
// matrix are zeros.
__device__ inline void tma_load(void* shared, const TensorMap& map, int row, int column,
                                Mbarrier& full) {
  USUCL_HOPPER(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(column), "r"(row), "r"(shared_address(&full)) : "memory");
}

// To be called by every warp of the warpgroup before products whose sums its threads have read or
// written.
__device__ inline void wgmma_fence() { USUCL_HOPPER("wgmma.fence.sync.aligned;" :: : "memory"); }

__device__ inline void wgmma_commit() {
  USUCL_HOPPER("wgmma.commit_group.sync.aligned;" :: : "memory");
}

// Waits until at most kPending of the warpgroup's latest groups are pending: the operands of the
// others may be overwritten.
template <int kPending>
__device__ inline void wgmma_wait() {
  USUCL_HOPPER("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// clang-format off
#define USUCL_4(f, i) f(i) f(i + 1) f(i + 2) f(i + 3)
#define USUCL_SUM(i) , "+f"(sum[i])
#define USUCL_16_SUMS(i) USUCL_4(USUCL_SUM, i) USUCL_4(USUCL_SUM, i + 4) \
                         USUCL_4(USUCL_SUM, i + 8) USUCL_4(USUCL_SUM, i + 12)
#define USUCL_SUMS "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3]) \
  USUCL_4(USUCL_SUM, 4) USUCL_4(USUCL_SUM, 8) USUCL_4(USUCL_SUM, 12) \
  USUCL_16_SUMS(16) USUCL_16_SUMS(32) USUCL_16_SUMS(48)
// clang-format on

// The same; afterwards no group that adds to `sum` may be pending, so that it may be read and
// written. Naming it as an operand tells the compiler.
template <int kPending>
__device__ inline void wgmma_wait(float (&sum)[kWarpgroupSums]) {
  USUCL_HOPPER("wgmma.wait_group.sync.aligned %64;" : USUCL_SUMS : "n"(kPending) : "memory");
}

#define USUCL_WGMMA(name, instruction, transposed)                                                \
  __device__ inline void name(float (&sum)[kWarpgroupSums], uint64_t a, uint64_t b, bool add) {   \
    USUCL_HOPPER(                                                                                 \
        "{\n"                                                                                     \
        ".reg .pred add;\n"                                                                       \
        "setp.ne.b32 add, %66, 0;\n" instruction                                                  \
        " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18,"  \
        " %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35,"   \
        " %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52,"   \
        " %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, add, 1, 1" transposed \
        ";\n}" : USUCL_SUMS : "l"(a),                                                             \
        "l"(b), "r"(static_cast<int>(add)) : "memory");                                           \
  }

// sum [64 x 128] += a [64 x K] b [128 x K] transposed, with K = 16 for 16-bit and 8 for TF32
// elements, by a warpgroup; without `add`, = instead of +=. Operands come from wgmma_operand(). In
// thread t of the warpgroup, sum[4 j + 2 h + i] is the element (16 (t / 32) + t % 32 / 4 + 8 h,
// 8 j + 2 (t % 4) + i).
USUCL_WGMMA(wgmma_bfloat16, "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16", ", 0, 0")
USUCL_WGMMA(wgmma_float16, "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16", ", 0, 0")
USUCL_WGMMA(wgmma_tf32, "wgmma.mma_async.sync.aligned.m64n128k8.f32.tf32.tf32", "")
#undef USUCL_WGMMA
#undef USUCL_SUMS
#undef USUCL_16_SUMS
#undef USUCL_SUM
#undef USUCL_4

// Sets the registers per thread from here on, a multiple of 8 in 24 .. 256; called by every warp of
// a warpgroup. An increase waits until other warpgroups have decreased theirs.
template <int kCount>
__device__ inline void decrease_registers() {
  USUCL_HOPPER("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}

template <int kCount>
__device__ inline void increase_registers() {
  USUCL_HOPPER("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

// A barrier of `threads` threads of the block, whole warps; number 1 .. 15 (0 is __syncthreads).
__device__ inline void named_barrier_sync(int number, int threads) {
  USUCL_HOPPER("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

#undef USUCL_HOPPER

#endif  // __CUDACC__

}  // namespace usucl::cuda

#endif  // USUCL_EMULATION

#if defined(USUCL_EMULATION) || defined(__CUDACC__)

namespace usucl::cuda {

// Describes the 32 bytes at 32 `step` of each row of an operand that begins at `tile`: a tile as
// above or, since 8 rows are 1024 bytes, the rows of one from a multiple of 8 on.
__device__ inline uint64_t wgmma_operand(const void* tile, int step) {
  constexpr uint64_t kGroupOfRows = 8 * kTileRowBytes >> 4, kSwizzle128 = 1;
  const uint32_t begin = shared_address(tile) + static_cast<uint32_t>(32 * step);
  return uint64_t{(begin & 0x3ffff) >> 4} | kGroupOfRows << 32 | kSwizzle128 << 62;
}

}  // namespace usucl::cuda

#endif
