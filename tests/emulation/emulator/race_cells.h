// What the race check knows of every granule of memory that was accessed.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>

namespace usucl::emulation {

constexpr size_t kGranule = 2;  // bytes a cell stands for: the smallest element kernels share
constexpr size_t kPageBytes = 4096;
constexpr int32_t kOfAllReaders = -2;

// What is known of a granule. An epoch ends with every barrier of a block and every block: accesses
// of earlier epochs of the block are ordered before all to come.
struct Cell {
  uint64_t epoch = 0;
  uint32_t write_clock = 0;  // 0: not written in this epoch
  uint32_t read_clock = 0;   // 0: not read in this epoch
  int16_t writer = 0;
  int16_t reader = 0;
  int16_t reader_of_other_warp = -1;
  bool atomic = false;
  bool in_flight = false;
  // Where clocks are of more than one reader: of a warp's lanes in warp_reads, or, as
  // kOfAllReaders - index, of any threads in all_readers.
  int32_t readers = -1;
  uint32_t unfenced_clock = 0;  // of the last write, if a thread's own; not reset by epochs
  // Blocks, as counted over all launches; 0: none.
  uint64_t written_by = 0;
  uint64_t first_read_by = 0;
  uint64_t last_read_by = 0;
  const void* write_caller = nullptr;
  const void* read_caller = nullptr;
};

static_assert(sizeof(Cell) == 72, "there is one for every 2 bytes");

using Page = std::array<Cell, kPageBytes / kGranule>;

inline std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
inline std::array<std::pair<uintptr_t, Page*>, 64> recent_pages;

inline Cell* cells_of(uintptr_t address) {
  const uintptr_t number = address / kPageBytes;
  auto& [recent, page] = recent_pages[number % recent_pages.size()];
  if (recent != number || page == nullptr) {
    auto& owner = pages[number];
    if (owner == nullptr) owner = std::make_unique<Page>();
    recent = number;
    page = owner.get();
  }
  return page->data() + address % kPageBytes / kGranule;
}

template <typename Visit>
void for_each_cell(const void* address, size_t bytes, const Visit& visit) {
  const auto begin = reinterpret_cast<uintptr_t>(address), end = begin + bytes;
  for (uintptr_t at = begin / kGranule * kGranule; at < end; at += kGranule) {
    visit(*cells_of(at), reinterpret_cast<const void*>(at));
  }
}

}  // namespace usucl::emulation
