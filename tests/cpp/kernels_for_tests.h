// Every set of kernels that can be tried here: those of the instruction sets this machine runs, and
// on plain lanes the tile shapes of those it does not, nomination included.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cpu/nominate_kernels.h"
#include "cpu/tile.h"
#include "cpu/tile_kernels.h"

namespace usucl::cpu {

inline std::vector<std::pair<std::string, TileKernels<float>>> kernels_to_try() {
  std::vector<std::pair<std::string, TileKernels<float>>> found;
  for (const auto capability :
       {Capability::kPortable, Capability::kAvx2, Capability::kAvx512, Capability::kAvx512Bf16}) {
    if (runs_here(capability)) {
      found.emplace_back(name(capability), tile_kernels<float>(capability));
    }
  }
  found.emplace_back("shape of avx2", kTileKernels<PlainLanes<float, 8>, 4, 3>);
  found.emplace_back("shape of avx512", kTileKernels<PlainLanes<float, 16>, 8, 3>);
  found.emplace_back("shape of avx512_bf16", kTileKernels<PlainLanes<float, 16>, 8, 3>);
  found.back().second.nominate = &kNominateKernels<PlainPairs<16>, 8, 3>;
  return found;
}

}  // namespace usucl::cpu
