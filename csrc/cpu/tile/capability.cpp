#include "capability.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace usucl::cpu {
namespace {

// Whether it is faster on this machine than lower ones. On an Emerald Rapids, two threads of the
// loss with nomination by AVX512-BF16 reached 30 to 39 % of the peak of multiply-adds: Intel's
// processors are slow at this instruction and have AMX instead. Only AMD's get it by default.
bool worthwhile_here([[maybe_unused]] Capability capability) {
#if defined(__x86_64__)
  if (capability == Capability::kAvx512Bf16) return __builtin_cpu_is("amd");
#endif
  return true;
}

Capability choose() {
  const char* wish = std::getenv("USUCL_CPU_CAPABILITY");
  const bool wishes = wish != nullptr && *wish != '\0';
  for (const Capability capability : kBestFirst) {
    const bool wanted =
        wishes ? std::string(wish) == name(capability) : worthwhile_here(capability);
    if (wanted && runs_here(capability)) return capability;
  }
  throw std::runtime_error(
      std::string("USUCL_CPU_CAPABILITY must be amx, avx512_bf16, avx512, avx2 or ") +
      "portable, and run on this machine, got '" + wish + "'");
}

#if defined(__x86_64__)
// By cpuid, as __builtin_cpu_supports of Clang 14 knows neither name.
bool has_f16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

bool has_avx512_bf16() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & bit_AVX512BF16) != 0;
}

// Whether bfloat16 tile registers exist and this process may use them: Linux grants them, with
// memory to save them in, on request; the permission then holds for all threads.
bool amx_is_lent() {
#if defined(__linux__)
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;  // leaf 7, edx
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kBf16) != 0 && (d & kTile) != 0 &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

}  // namespace

const char* name(Capability capability) {
  switch (capability) {
    case Capability::kAmx:
      return "amx";
    case Capability::kAvx512Bf16:
      return "avx512_bf16";
    case Capability::kAvx512:
      return "avx512";
    case Capability::kAvx2:
      return "avx2";
    default:
      return "portable";
  }
}

bool runs_here(Capability capability) {
#if defined(__x86_64__)
  if (capability != Capability::kPortable) {
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f");
    const bool avx512_bf16 = avx512 && has_avx512_bf16();
    switch (capability) {
      case Capability::kAmx:
        return avx512_bf16 && amx_is_lent();
      case Capability::kAvx512Bf16:
        return avx512_bf16;
      case Capability::kAvx512:
        return avx512;
      default:
        return avx2;
    }
  }
#endif
  return capability == Capability::kPortable;
}

Capability capability_in_use() {
  static const Capability chosen = choose();
  return chosen;
}

template <typename T>
const TileKernels<T>& tile_kernels(Capability capability) {
  const TileKernels<T>* kernels = nullptr;
  switch (capability) {
    case Capability::kAmx:
      kernels = CompiledTiles<T>::amx();
      break;
    case Capability::kAvx512Bf16:
      kernels = CompiledTiles<T>::avx512_bf16();
      break;
    case Capability::kAvx512:
      kernels = CompiledTiles<T>::avx512();
      break;
    case Capability::kAvx2:
      kernels = CompiledTiles<T>::avx2();
      break;
    case Capability::kPortable:
      break;
  }
  return kernels != nullptr ? *kernels : *CompiledTiles<T>::portable();
}

template const TileKernels<float>& tile_kernels<float>(Capability);
template const TileKernels<double>& tile_kernels<double>(Capability);

}  // namespace usucl::cpu
