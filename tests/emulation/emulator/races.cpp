#include "races.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "asynchronous.h"
#include "emulation.h"
#include "fibers.h"
#include "race_cells.h"
#include "source_line.h"

namespace usucl::emulation {

bool paused = false;

namespace {

constexpr int kReported = 4;

using Clocks = std::array<uint32_t, 32>;

std::vector<Clocks> warp_reads;  // of this epoch
std::vector<Clocks> known;  // [threads]: for each lane of its warp, the clock a thread has seen
// Replace the two above once a thread of the block has used an mbarrier or a named barrier:
std::vector<Seen> all_known;  // [threads]: for every thread
struct Reader {
  int thread;
  uint32_t clock;
};
std::vector<std::vector<Reader>> all_readers;  // of this epoch
std::vector<uint32_t> fenced;                  // [threads]: the clock at the last fence_writes()
uint64_t epoch = 1, block = 0, first_block_of_launch = 1;
const unsigned char* shared = nullptr;
size_t shared_bytes = 0;
Races found;

uint32_t& own_clock(int thread) {
  return all_known.empty() ? known[thread][thread % 32] : all_known[thread][thread];
}

bool has_seen(int thread, int other, uint32_t clock) {
  if (other == thread) return true;
  if (!all_known.empty()) return all_known[thread][other] >= clock;
  return other / 32 == thread / 32 && known[thread][other % 32] >= clock;
}

void join(Seen* seen, const Seen& other) {
  for (size_t i = 0; i < seen->size(); ++i) (*seen)[i] = std::max((*seen)[i], other[i]);
}

void report(const char* what, const void* address, int thread, const void* caller,
            const std::string& other, const void* other_caller) {
  if (++found.count > kReported) return;
  const auto offset = static_cast<const unsigned char*>(address) - shared;
  const bool in_shared = offset >= 0 && static_cast<size_t>(offset) < shared_bytes;
  char text[256];
  std::snprintf(text, sizeof text, "%s of %s+%#tx: thread %d at ", what,
                in_shared ? "shared memory" : "memory",
                in_shared ? offset : reinterpret_cast<ptrdiff_t>(address), thread);
  found.first += text + source_line(caller);
  if (!other.empty()) found.first += ", " + other + " at " + source_line(other_caller);
  found.first += "\n";
}

std::string name_of(int thread) { return "thread " + std::to_string(thread); }

// Checks one access of a running thread to one cell.
class Check {
 public:
  Check(Cell& cell, int thread, const void* address, const void* caller)
      : cell_(cell), thread_(thread), address_(address), caller_(caller) {
    if (cell.epoch == epoch) return;
    cell.epoch = epoch;
    cell.write_clock = cell.read_clock = 0;
    cell.reader_of_other_warp = -1;
    cell.readers = -1;
  }

  void read(bool in_shared, bool async) {
    if (cell_.in_flight) against_writer("read of a copy under way");
    if (async) against_unfenced();
    if (unordered_write()) against_writer("read after write");
    if (!in_shared && by_other_block(cell_.written_by)) against_block("read after write");
    note_reader();
    if (cell_.first_read_by < first_block_of_launch) cell_.first_read_by = block;
    cell_.last_read_by = block;
    cell_.read_caller = caller_;
  }

  void write(bool in_shared, bool atomic, bool async) {
    if (async) against_unfenced();
    if (cell_.in_flight) against_writer("write to the destination of a copy under way");
    const bool both_atomic = atomic && cell_.atomic;
    if (unordered_write() && !both_atomic) against_writer("write after write");
    against_readers();
    if (!in_shared) {
      if (by_other_block(cell_.written_by) && !both_atomic) against_block("write after write");
      if (by_other_block(cell_.first_read_by) || by_other_block(cell_.last_read_by)) {
        against_block("write after read");
      }
    }
    cell_.atomic = atomic;
    note_write(own_clock(thread_));
    cell_.unfenced_clock = async ? 0 : cell_.write_clock;
  }

  void note_write(uint32_t clock) {
    cell_.writer = static_cast<int16_t>(thread_);
    cell_.write_clock = clock;
    cell_.written_by = block;
    cell_.write_caller = caller_;
    cell_.read_clock = 0;
    cell_.reader_of_other_warp = -1;
    if (cell_.readers > kOfAllReaders) {
      cell_.readers = -1;
    } else {
      all_readers[kOfAllReaders - cell_.readers].clear();
    }
  }

 private:
  bool ordered(int other, uint32_t clock) const { return has_seen(thread_, other, clock); }

  bool unordered_write() const {
    return cell_.write_clock != 0 && !ordered(cell_.writer, cell_.write_clock);
  }

  static bool by_other_block(uint64_t other) {
    return other >= first_block_of_launch && other != block;
  }

  void against_writer(const char* what) const {
    report(what, address_, thread_, caller_, name_of(cell_.writer), cell_.write_caller);
  }

  void against_block(const char* what) const {
    report(what, address_, thread_, caller_, "another block", cell_.write_caller);
  }

  void against_unfenced() const {
    if (cell_.written_by == block && cell_.unfenced_clock > fenced[cell_.writer]) {
      against_writer("asynchronous access without fence_proxy_async after write");
    }
  }

  void against_readers() const {
    const auto race = [&](int reader) {
      report("write after read", address_, thread_, caller_, name_of(reader), cell_.read_caller);
    };
    if (cell_.readers <= kOfAllReaders) {
      for (const Reader& reader : all_readers[kOfAllReaders - cell_.readers]) {
        if (!ordered(reader.thread, reader.clock)) return race(reader.thread);
      }
      return;
    }
    // Read before know_all(): it is unknown whether this has been seen.
    const bool counts = all_known.empty() && cell_.reader_of_other_warp != thread_;
    if (counts && cell_.reader_of_other_warp >= 0) {
      return race(cell_.reader_of_other_warp);
    }
    if (cell_.readers < 0) {
      if (cell_.read_clock != 0 && !ordered(cell_.reader, cell_.read_clock)) race(cell_.reader);
      return;
    }
    const int warp = cell_.reader / 32;
    for (int lane = 0; lane < 32; ++lane) {
      const uint32_t clock = warp_reads[cell_.readers][lane];
      if (clock != 0 && !ordered(warp * 32 + lane, clock)) return race(warp * 32 + lane);
    }
  }

  void note_in_all_readers() {
    if (cell_.readers > kOfAllReaders) {
      cell_.readers = kOfAllReaders - static_cast<int32_t>(all_readers.size());
      all_readers.emplace_back();
      if (cell_.read_clock != 0) all_readers.back().push_back({cell_.reader, cell_.read_clock});
    }
    auto& readers = all_readers[kOfAllReaders - cell_.readers];
    const auto known_to_this = [&](const Reader& reader) {
      return ordered(reader.thread, reader.clock);
    };
    readers.erase(std::remove_if(readers.begin(), readers.end(), known_to_this), readers.end());
    readers.push_back({thread_, own_clock(thread_)});
  }

  void note_reader() {
    if (!all_known.empty()) return note_in_all_readers();
    const uint32_t now = known[thread_][thread_ % 32];
    if (cell_.read_clock == 0 || (cell_.readers < 0 && ordered(cell_.reader, cell_.read_clock))) {
      cell_.reader = static_cast<int16_t>(thread_);
      cell_.read_clock = now;
    } else if (cell_.reader / 32 != thread_ / 32) {
      cell_.reader_of_other_warp = static_cast<int16_t>(thread_);
    } else {
      if (cell_.readers < 0) {
        cell_.readers = static_cast<int32_t>(warp_reads.size());
        warp_reads.push_back({});
        warp_reads.back()[cell_.reader % 32] = cell_.read_clock;
      }
      warp_reads[cell_.readers][thread_ % 32] = now;
    }
  }

  Cell& cell_;
  int thread_;
  const void* address_;
  const void* caller_;
};

// A copy of a struct reads what is between its members too.
void expect_written(int thread, const void* address, size_t bytes, const void* caller) {
  size_t all = 0, unwritten = 0;
  for_each_cell(address, bytes, [&](const Cell& cell, const void*) {
    ++all;
    unwritten += cell.written_by != block;
  });
  if (unwritten == 0 || (bytes > sizeof(uint64_t) && unwritten < all)) return;
  report("read before any write", address, thread, caller, "", nullptr);
}

void next_epoch() {
  ++epoch;
  warp_reads.clear();
  all_readers.clear();
}

}  // namespace

void begin_launch() { first_block_of_launch = block + 1; }

void begin_block(const unsigned char* memory, size_t bytes, int threads) {
  ++block;
  next_epoch();
  shared = memory;
  shared_bytes = bytes;
  known.assign(threads, {});
  all_known.clear();
  fenced.assign(threads, 0);
  for (int thread = 0; thread < threads; ++thread) known[thread][thread % 32] = 1;
}

void order_block() { next_epoch(); }

void order_lanes(int warp, unsigned mask) {
  const auto for_lanes = [&](const auto& visit) {
    for (int lane = 0; lane < 32; ++lane) {
      if (mask >> lane & 1) visit(lane);
    }
  };
  if (!all_known.empty()) {
    Seen seen;
    for_lanes([&](int lane) { release(warp * 32 + lane, &seen); });
    for_lanes([&](int lane) { acquire(warp * 32 + lane, seen); });
    return;
  }
  Clocks latest{};
  for_lanes([&](int lane) {
    for (int i = 0; i < 32; ++i) latest[i] = std::max(latest[i], known[warp * 32 + lane][i]);
  });
  for_lanes([&](int lane) {
    known[warp * 32 + lane] = latest;
    ++known[warp * 32 + lane][lane];
  });
}

void know_all() {
  if (!all_known.empty()) return;
  const size_t threads = known.size();
  all_known.assign(threads, Seen(threads));
  for (size_t thread = 0; thread < threads; ++thread) {
    for (size_t lane = 0; lane < 32 && thread / 32 * 32 + lane < threads; ++lane) {
      all_known[thread][thread / 32 * 32 + lane] = known[thread][lane];
    }
  }
}

void release(int thread, Seen* seen) {
  know_all();
  seen->resize(known.size());
  join(seen, all_known[thread]);
  ++own_clock(thread);
}

void acquire(int thread, const Seen& seen) {
  know_all();
  if (!seen.empty()) join(&all_known[thread], seen);
}

uint32_t tick(int thread) { return own_clock(thread)++; }

void see(int thread, uint32_t clock, Seen* seen) {
  seen->resize(known.size());
  (*seen)[thread] = std::max((*seen)[thread], clock);
}

void fence_writes(int thread) { fenced[thread] = tick(thread); }

void record_landing(int thread, uint32_t clock, const void* address, size_t bytes,
                    const void* caller) {
  for_each_cell(address, bytes, [&](Cell& cell, const void* at) {
    cell.in_flight = false;
    Check(cell, thread, at, caller).note_write(clock);
  });
}

void record(int thread, const void* address, size_t bytes, Access access, const void* caller) {
  int stack = 0;
  if (on_fiber_stack(address, &stack)) {
    if (stack != thread) {
      report("access to another thread's variable", address, thread, caller, name_of(stack),
             nullptr);
    }
    return;
  }
  const auto offset = static_cast<size_t>(static_cast<const unsigned char*>(address) - shared);
  const bool in_shared = offset < shared_bytes;
  const bool only_reads = access == Access::kRead || access == Access::kReadAsync;
  const bool reads = only_reads || access == Access::kAtomic;
  const bool async = access == Access::kIssueAsync || access == Access::kReadAsync;
  if (in_shared && reads) expect_written(thread, address, bytes, caller);
  for_each_cell(address, bytes, [&](Cell& cell, const void* at) {
    if (access == Access::kLand) cell.in_flight = false;
    Check check(cell, thread, at, caller);
    if (only_reads) {
      check.read(in_shared, async);
    } else {
      check.write(in_shared, access == Access::kAtomic, async);
    }
    if (access == Access::kIssue || access == Access::kIssueAsync) cell.in_flight = true;
  });
}

const Races& races() { return found; }

void forget_races() { found = {}; }

static void on_access(const void* address, size_t bytes, Access access, const void* caller) {
  const int thread = running_thread();
  if (thread < 0 || paused) return;
  int stack = 0;
  if (on_fiber_stack(address, &stack) && stack == thread) {
    if (access == Access::kRead && settings.check_races && sums_under_way(thread, address)) {
      report("read before wgmma_wait of these sums", address, thread, caller, "", nullptr);
    }
    return;
  }
  perhaps_preempt();
  if (settings.check_races && bytes > 0) record(thread, address, bytes, access, caller);
}

}  // namespace usucl::emulation

// What -fsanitize=thread calls.
#define USUCL_HOOK(name, bytes, access)                                           \
  extern "C" void name(void* address) {                                           \
    usucl::emulation::on_access(address, bytes, usucl::emulation::Access::access, \
                                __builtin_return_address(0));                     \
  }
#define USUCL_HOOKS(bytes)                                 \
  USUCL_HOOK(__tsan_read##bytes, bytes, kRead)             \
  USUCL_HOOK(__tsan_write##bytes, bytes, kWrite)           \
  USUCL_HOOK(__tsan_unaligned_read##bytes, bytes, kRead)   \
  USUCL_HOOK(__tsan_unaligned_write##bytes, bytes, kWrite) \
  USUCL_HOOK(__tsan_volatile_read##bytes, bytes, kRead)    \
  USUCL_HOOK(__tsan_volatile_write##bytes, bytes, kWrite)
USUCL_HOOKS(1)
USUCL_HOOKS(2)
USUCL_HOOKS(4)
USUCL_HOOKS(8)
USUCL_HOOKS(16)

extern "C" {
void __tsan_read_range(void* address, size_t bytes) {
  usucl::emulation::on_access(address, bytes, usucl::emulation::Access::kRead,
                              __builtin_return_address(0));
}
void __tsan_write_range(void* address, size_t bytes) {
  usucl::emulation::on_access(address, bytes, usucl::emulation::Access::kWrite,
                              __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
