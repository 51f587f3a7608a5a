// All kernels that can be tested here: those of the instruction sets that this machine supports,
// and in plain C++ those of the others: tile shapes on plain lanes, nomination with stand-ins for
// the intrinsics.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cpu/kernels.h"

namespace usucl::cpu {

template <typename T>
std::vector<std::pair<std::string, TileKernels<T>>> kernels_to_try();

}  // namespace usucl::cpu
