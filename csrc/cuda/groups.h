// Items grouped by slot, where an item may have none: a count, room for every slot, and the items.
//
// The hardware decides the order of the slots and of a slot's items, so readers must not depend on
// it.
#pragma once

#include "device_problem.h"

namespace usucl::cuda {

using Count = unsigned long long;  // 64 bits for atomicAdd

struct Groups {
  Count* total;  // []
  Count* begin;  // [num_slots]
  Count* end;    // [num_slots]; a group's length at first
  Count* item;   // [num_items]
};

template <typename SlotOf>
__global__ void __launch_bounds__(kThreads)
    count_kernel(const __grid_constant__ SlotOf slot_of, int64_t num_items, Groups groups) {
  for (int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x; item < num_items;
       item += int64_t{gridDim.x} * kThreads) {
    const int64_t slot = slot_of(item);
    if (slot >= 0) atomicAdd(&groups.end[slot], Count{1});
  }
}

static __global__ void __launch_bounds__(kThreads) place_kernel(int64_t num_slots, Groups groups) {
  for (int64_t slot = int64_t{blockIdx.x} * kThreads + threadIdx.x; slot < num_slots;
       slot += int64_t{gridDim.x} * kThreads) {
    const Count length = groups.end[slot];
    const Count begin = length == 0 ? 0 : atomicAdd(groups.total, length);
    groups.begin[slot] = begin;
    groups.end[slot] = begin;
  }
}

template <typename SlotOf>
__global__ void __launch_bounds__(kThreads)
    fill_kernel(const __grid_constant__ SlotOf slot_of, int64_t num_items, Groups groups) {
  for (int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x; item < num_items;
       item += int64_t{gridDim.x} * kThreads) {
    const int64_t slot = slot_of(item);
    if (slot >= 0) groups.item[atomicAdd(&groups.end[slot], Count{1})] = static_cast<Count>(item);
  }
}

// slot_of(item) runs on the device and returns a slot below num_slots, or -1.
template <typename SlotOf>
Groups group(const SlotOf& slot_of, int64_t num_items, int64_t num_slots, const Call& call) {
  Count* counts = call.memory.array<Count>(1 + 2 * num_slots);
  const Groups groups{counts, counts + 1, counts + 1 + num_slots,
                      call.memory.array<Count>(num_items)};
  cudaMemsetAsync(counts, 0, (1 + 2 * num_slots) * sizeof(Count), call.stream);
  const int64_t grid = grid_for(num_items, kThreads, call);
  launch<count_kernel<SlotOf>>(grid, kThreads, 0, call.stream, slot_of, num_items, groups);
  launch<place_kernel>(grid_for(num_slots, kThreads, call), kThreads, 0, call.stream, num_slots,
                       groups);
  launch<fill_kernel<SlotOf>>(grid, kThreads, 0, call.stream, slot_of, num_items, groups);
  return groups;
}

}  // namespace usucl::cuda
