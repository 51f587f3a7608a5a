// Which instruction set's kernels are used: decided once, at run time.
#pragma once

#include "tile.h"

namespace usucl::cpu {

enum class Capability { kPortable, kAvx2, kAvx512, kAvx512Bf16, kAmx };

constexpr Capability kBestFirst[] = {Capability::kAmx, Capability::kAvx512Bf16, Capability::kAvx512,
                                     Capability::kAvx2, Capability::kPortable};

const char* name(Capability capability);

// The best that this machine supports, with AVX512-BF16 on AMD's processors only; or the one that
// USUCL_CPU_CAPABILITY names. The variable is read once.
Capability capability_in_use();
bool runs_here(Capability capability);

template <typename T>
const TileKernels<T>& tile_kernels(Capability capability);

}  // namespace usucl::cpu
