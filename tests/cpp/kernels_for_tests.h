// All kernels that can be tested here: those of the instruction sets that this machine supports,
// and in plain C++ those of the others: tile shapes on plain lanes, nomination with stand-ins for
// the intrinsics.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cpu/tile/capability.h"
#include "cpu/tile/tile_kernels.h"
#include "intrinsics_for_tests.h"
// Must come after the intrinsics.
#include "cpu/tile/bfloat16_kernels.h"

namespace usucl::cpu {

inline std::vector<std::pair<std::string, TileKernels<float>>> kernels_to_try() {
  std::vector<std::pair<std::string, TileKernels<float>>> found;
  for (const auto capability : kBestFirst) {
    if (runs_here(capability)) {
      found.emplace_back(name(capability), tile_kernels<float>(capability));
    }
  }
  found.emplace_back("shape of avx2", kTileKernels<PlainLanes<float, 8>, 4, 3>);
  found.emplace_back("shape of avx512", kTileKernels<PlainLanes<float, 16>, 8, 3>);
  for (const auto& [name, nominate] : {std::pair("avx512_bf16 in plain C++", &kBFloat16Avx512),
                                       {"amx in plain C++", &kBFloat16Amx}}) {
    found.emplace_back(name, kTileKernels<PlainLanes<float, 16>, 8, 3>);
    found.back().second.bfloat16 = nominate;
  }
  return found;
}

}  // namespace usucl::cpu
