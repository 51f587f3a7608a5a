// Compiled once for all tests: the plain C++ of the tiles takes compilers half a minute.
#include "kernels_for_tests.h"

#include "cpu/tile/capability.h"
#include "cpu/tile/tile_kernels.h"
#include "intrinsics_for_tests.h"
// Must come after the intrinsics.
#include "cpu/tile/bfloat16_kernels.h"

namespace usucl::cpu {
namespace {

template <typename T>
std::vector<std::pair<std::string, TileKernels<T>>> kernels_of_this_machine() {
  std::vector<std::pair<std::string, TileKernels<T>>> found;
  for (const auto capability : kBestFirst) {
    if (runs_here(capability)) found.emplace_back(name(capability), tile_kernels<T>(capability));
  }
  return found;
}

}  // namespace

template <>
std::vector<std::pair<std::string, TileKernels<float>>> kernels_to_try<float>() {
  auto found = kernels_of_this_machine<float>();
  found.emplace_back("shape of avx2", kTileKernels<PlainLanes<float, 8>, 4, 3>);
  found.emplace_back("shape of avx512", kTileKernels<PlainLanes<float, 16>, 8, 3>);
  for (const auto& [name, nominate] : {std::pair("avx512_bf16 in plain C++", &kBFloat16Avx512),
                                       {"amx in plain C++", &kBFloat16Amx}}) {
    found.emplace_back(name, kTileKernels<PlainLanes<float, 16>, 8, 3>);
    found.back().second.bfloat16 = nominate;
  }
  return found;
}

template <>
std::vector<std::pair<std::string, TileKernels<double>>> kernels_to_try<double>() {
  auto found = kernels_of_this_machine<double>();
  found.emplace_back("shape of avx512", kTileKernels<PlainLanes<double, 8>, 8, 3>);
  return found;
}

}  // namespace usucl::cpu
