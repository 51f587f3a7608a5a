// The position of a thread in its warp.
#pragma once

#include "device.h"

namespace usucl::cuda {

constexpr unsigned kWholeWarp = 0xffffffffu;

__device__ inline int lane() { return static_cast<int>(threadIdx.x) % 32; }

// The index of the warp in the thread block.
__device__ inline int warp() { return static_cast<int>(threadIdx.x) / 32; }

// How many of these lanes come before a lane: its place when they write one after another.
__device__ inline int place_among(unsigned lanes, int own = lane()) {
  return __popc(lanes & ((1u << own) - 1));
}

}  // namespace usucl::cuda
