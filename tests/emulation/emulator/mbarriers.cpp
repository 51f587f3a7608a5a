// Hopper's barriers and the copies of the Tensor Memory Accelerator.
#include <cstring>
#include <unordered_map>

#include "asynchronous.h"
#include "cuda/hopper.h"
#include "emulation.h"
#include "races.h"

namespace usucl::emulation {
namespace {

constexpr int kRowBytes = cuda::kTileRowBytes;
constexpr int kMostBytes = (1 << 20) - 1;  // the most that a phase can await
constexpr int kNamedBarriers = 16;

struct TileCopy {
  unsigned char* shared;
  cuda::TiledMatrix matrix;
  int row, column;
  int thread;
  uint32_t clock;
  const void* caller;

  int bytes() const { return matrix.tile_rows * kRowBytes; }
};

struct State {
  int count;       // arrivals that end a phase
  int pending;     // arrivals still missing
  int64_t bytes;   // announced but not yet copied
  uint64_t phase;  // 0, 1, ...
  int initialised_by;
  bool fenced;
  std::deque<TileCopy> copies;
  std::vector<int> waiting;
  Seen arriving, ended;  // what threads that arrived in this and the previous phase had seen
};

struct NamedBarrier {
  int threads;
  std::vector<int> waiting;
  Seen seen;
};

std::unordered_map<const void*, State> mbarriers;
NamedBarrier named[kNamedBarriers];

State& state_of(const cuda::Mbarrier* barrier, const Caller& caller) {
  const auto found = mbarriers.find(barrier);
  if (found == mbarriers.end()) {
    fail("an mbarrier that is not initialised at %s:%d", caller.file, caller.line);
  }
  perhaps_preempt();
  if (settings.check_races) {
    record(running_thread(), barrier, sizeof *barrier, Access::kAtomic, caller.address);
  }
  return found->second;
}

void resume_all(std::vector<int>* waiting) {
  for (const int thread : *waiting) resume(thread);
  waiting->clear();
}

void end_phase_if_complete(State* state, const Caller& caller) {
  if (state->pending > 0) return;
  if (state->bytes < 0) {
    fail("more bytes copied than the mbarrier at %s:%d was told to expect", caller.file,
         caller.line);
  }
  if (state->bytes > 0) return;
  if (!state->copies.empty()) {
    fail("a phase of the mbarrier at %s:%d ends with copies under way: too few bytes expected",
         caller.file, caller.line);
  }
  state->pending = state->count;
  ++state->phase;
  state->ended.swap(state->arriving);
  state->arriving.clear();
  resume_all(&state->waiting);
}

// Whether the element is in the matrix; rows above and columns to the left of it are negative.
const unsigned char* source(const TileCopy& copy, int row, int byte) {
  const cuda::TiledMatrix& matrix = copy.matrix;
  const int64_t from_row = int64_t{copy.row} + row;
  const int64_t from_column = int64_t{copy.column} + byte / matrix.element_bytes;
  if (from_row < 0 || from_row >= matrix.rows || from_column < 0 || from_column >= matrix.dim) {
    return nullptr;
  }
  return static_cast<const unsigned char*>(matrix.data) + from_row * matrix.row_bytes +
         from_column * matrix.element_bytes;
}

void land(State* state, const Caller& waiting) {
  const TileCopy copy = state->copies.front();
  state->copies.pop_front();
  const int size = copy.matrix.element_bytes;
  for (int row = 0; row < copy.matrix.tile_rows; ++row) {
    for (int byte = 0; byte < kRowBytes; byte += size) {
      const auto offset = static_cast<uint32_t>(copy.shared - shared_begin() + row * kRowBytes);
      unsigned char* to = shared_begin() + swizzled(offset + static_cast<uint32_t>(byte));
      if (const unsigned char* from = source(copy, row, byte)) {
        std::memcpy(to, from, static_cast<size_t>(size));
      } else {
        std::memset(to, 0, static_cast<size_t>(size));
      }
    }
  }
  if (settings.check_races) {
    record_landing(copy.thread, copy.clock, copy.shared, static_cast<size_t>(copy.bytes()),
                   copy.caller);
    see(copy.thread, copy.clock, &state->arriving);
  }
  state->bytes -= copy.bytes();
  end_phase_if_complete(state, waiting);
}

}  // namespace

void forget_mbarriers() {
  mbarriers.clear();
  for (NamedBarrier& barrier : named) barrier = {};
}

bool copies_of_mbarriers() {
  for (const auto& [address, state] : mbarriers) {
    if (!state.copies.empty()) return true;
  }
  return false;
}

std::string state_of_mbarrier(const void* barrier) {
  const State& state = mbarriers.at(barrier);
  return "phase " + std::to_string(state.phase) + " awaits " + std::to_string(state.pending) +
         " arrivals and " + std::to_string(state.bytes) + " bytes";
}

void mbarrier_init(cuda::Mbarrier* barrier, int arrivals, const Caller& caller) {
  if (!in_shared_memory(barrier, sizeof *barrier) ||
      reinterpret_cast<uintptr_t>(barrier) % sizeof *barrier != 0) {
    fail("mbarrier misaligned or outside of shared memory at %s:%d", caller.file, caller.line);
  }
  if (arrivals < 1 || arrivals >= 1 << 20) {
    fail("%d arrivals of an mbarrier at %s:%d", arrivals, caller.file, caller.line);
  }
  if (settings.check_races) {
    know_all();
    record(running_thread(), barrier, sizeof *barrier, Access::kWrite, caller.address);
  }
  if (mbarriers.count(barrier) > 0) {
    fail("an mbarrier initialised twice at %s:%d", caller.file, caller.line);
  }
  State& state = mbarriers[barrier];
  state = {};
  state.count = state.pending = arrivals;
  state.initialised_by = running_thread();
}

void fence_mbarrier_init() {
  for (auto& [address, state] : mbarriers) {
    state.fenced = state.fenced || state.initialised_by == running_thread();
  }
}

void mbarrier_arrive(cuda::Mbarrier* barrier, int bytes, const Caller& caller) {
  State& state = state_of(barrier, caller);
  if (bytes < 0 || state.bytes + bytes > kMostBytes) {
    fail("%d bytes expected at %s:%d", bytes, caller.file, caller.line);
  }
  if (settings.check_races) release(running_thread(), &state.arriving);
  state.bytes += bytes;
  --state.pending;
  end_phase_if_complete(&state, caller);
}

void mbarrier_wait(cuda::Mbarrier* barrier, int parity, const Caller& caller) {
  if (parity != 0 && parity != 1) fail("parity %d at %s:%d", parity, caller.file, caller.line);
  State& state = state_of(barrier, caller);
  // The phase of this parity has not ended while it is the current one.
  while (static_cast<int>(state.phase % 2) == parity) {
    if (state.copies.empty()) {
      state.waiting.push_back(running_thread());
      suspend("mbarrier_wait", caller.file, caller.line, barrier);
    } else {
      land(&state, caller);
    }
  }
  if (settings.check_races) acquire(running_thread(), state.ended);
}

void tma_load(void* shared, const cuda::TiledMatrix& matrix, int row, int column,
              cuda::Mbarrier* barrier, const Caller& caller) {
  State& state = state_of(barrier, caller);
  if (!state.fenced) {
    fail("the TMA has not seen mbarrier_init: no fence_mbarrier_init before %s:%d", caller.file,
         caller.line);
  }
  const auto bytes = static_cast<size_t>(matrix.tile_rows * kRowBytes);
  auto* to = static_cast<unsigned char*>(shared);
  if (!in_shared_memory(shared, bytes)) {
    fail("tile outside of shared memory at %s:%d", caller.file, caller.line);
  }
  if ((to - shared_begin()) % cuda::kTileAlignment != 0) {
    fail("tile not aligned to %d bytes at %s:%d", cuda::kTileAlignment, caller.file, caller.line);
  }
  TileCopy copy{to, matrix, row, column, running_thread(), 0, caller.address};
  std::memset(shared, 0xff, bytes);
  if (settings.check_races) {
    record(copy.thread, shared, bytes, Access::kIssueAsync, caller.address);
    for (int r = 0; r < matrix.tile_rows; ++r) {
      size_t there = 0;
      const unsigned char* first = nullptr;
      for (int byte = 0; byte < kRowBytes; byte += matrix.element_bytes) {
        const unsigned char* from = source(copy, r, byte);
        if (from == nullptr) continue;
        if (first == nullptr) first = from;
        there += static_cast<size_t>(matrix.element_bytes);
      }
      if (there > 0) record(copy.thread, first, there, Access::kRead, caller.address);
    }
    copy.clock = tick(copy.thread);
  }
  state.copies.push_back(copy);
  resume_all(&state.waiting);  // they can copy now
}

void named_barrier_sync(int number, int threads, const Caller& caller) {
  if (number < 1 || number >= kNamedBarriers) {
    fail("named barrier %d at %s:%d", number, caller.file, caller.line);
  }
  if (threads < 32 || threads % 32 != 0 || threads > threads_of_block()) {
    fail("named barrier of %d threads at %s:%d", threads, caller.file, caller.line);
  }
  perhaps_preempt();
  NamedBarrier& barrier = named[number];
  if (!barrier.waiting.empty() && barrier.threads != threads) {
    fail("named barrier %d of %d and of %d threads at %s:%d", number, barrier.threads, threads,
         caller.file, caller.line);
  }
  barrier.threads = threads;
  barrier.waiting.push_back(running_thread());
  if (settings.check_races) release(running_thread(), &barrier.seen);
  if (static_cast<int>(barrier.waiting.size()) < threads) {
    suspend("named_barrier_sync", caller.file, caller.line);
    return;
  }
  for (const int thread : barrier.waiting) {
    if (settings.check_races) acquire(thread, barrier.seen);
    if (thread != running_thread()) resume(thread);
  }
  barrier = {};
}

void fence_proxy_async() {
  if (settings.check_races) fence_writes(running_thread());
}

}  // namespace usucl::emulation
