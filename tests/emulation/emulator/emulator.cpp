#include "emulator.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "asynchronous.h"
#include "emulation.h"
#include "fibers.h"
#include "races.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace usucl::emulation {

Settings settings;
int64_t most_shared_bytes = 227 << 10;
ThreadIndex* this_thread = nullptr;

namespace {

constexpr int kMaxThreads = 1024;
constexpr size_t kSharedAlignment = 1024;

enum class State { kReady, kAtBarrier, kInCollective, kSuspended, kDone };

struct Thread {
  Context context;
  ThreadIndex index;
  int number;
  State state;
  Copies copies;
  // Where the thread waits.
  const char* operation;
  const char* file;
  int line;
  void* argument;
  const void* awaited;  // an mbarrier, or null
};

// Lanes that have reached a collective operation; those of one mask wait for each other.
struct Meeting {
  unsigned mask = 0;
  unsigned present = 0;
  const char* operation = nullptr;
  const char* file = nullptr;
  int line = 0;
};

struct Warp {
  std::vector<Meeting> meetings;
  unsigned exited = 0;
};

// The block that is running.
std::vector<Thread> threads;
std::vector<Warp> warps;
std::vector<int> ready, at_barrier;
size_t first_ready = 0;  // index in a queue whose front is used up
int num_done = 0;
Thread* current = nullptr;
Context own_context;
const std::function<void()>* body = nullptr;
unsigned char* shared = nullptr;
size_t shared_size = 0;
std::string error;
std::set<std::string> names;

uint64_t random_number() {
  static uint64_t state = 0, seeded = 0;
  if (seeded != settings.seed) {
    seeded = settings.seed;
    state = settings.seed * 0x9e3779b97f4a7c15u | 1;
  }
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

Thread* next_thread() {
  const size_t count = ready.size() - first_ready;
  if (count == 0 || !error.empty()) return nullptr;
  int number = 0;
  if (settings.schedule == Schedule::kForward) {
    number = ready[first_ready++];
  } else {
    if (settings.schedule == Schedule::kRandom) {
      std::swap(ready[first_ready + random_number() % count], ready.back());
    }
    number = ready.back();
    ready.pop_back();
  }
  if (first_ready == ready.size()) {
    ready.clear();
    first_ready = 0;
  }
  return &threads[number];
}

// Runs other threads until this one is next or, called from outside, until none can continue.
void yield(bool dying = false) {
  Thread* from = current;
  Thread* to = next_thread();
  if (from == to) return;
  current = to;
  this_thread = to == nullptr ? nullptr : &to->index;
  switch_context(from == nullptr ? &own_context : &from->context,
                 to == nullptr ? &own_context : &to->context, dying);
}

void make_ready(Thread* thread) {
  thread->state = State::kReady;
  ready.push_back(thread->number);
}

void wait(State state, const char* operation, const char* file, int line,
          const void* awaited = nullptr) {
  current->state = state;
  current->awaited = awaited;
  current->operation = operation;
  current->file = file;
  current->line = line;
  yield();
}

// Threads that have returned do not count.
void open_barrier_if_complete() {
  const auto running = static_cast<size_t>(static_cast<int>(threads.size()) - num_done);
  if (at_barrier.empty() || at_barrier.size() < running) return;
  if (settings.check_races) order_block();
  for (const int number : at_barrier) make_ready(&threads[number]);
  at_barrier.clear();
}

void run_thread() {
  entered_fiber();
  (*body)();
  if (current->copies.any()) fail("thread %d ended with copies under way", current->number);
  if (products_under_way(current->number)) {
    fail("thread %d ended with products under way", current->number);
  }
  current->state = State::kDone;
  ++num_done;
  warps[current->number / 32].exited |= 1u << current->number % 32;
  open_barrier_if_complete();
  yield(true);
  std::abort();
}

std::string place_of(const Thread& thread) {
  std::string text =
      std::string(thread.operation) + " at " + thread.file + ":" + std::to_string(thread.line);
  if (thread.awaited != nullptr) text += ", " + state_of_mbarrier(thread.awaited);
  return text;
}

std::string deadlock() {
  std::vector<std::pair<std::string, std::vector<int>>> places;
  for (const Thread& thread : threads) {
    if (thread.state == State::kDone) continue;
    const std::string place = place_of(thread);
    const auto same = std::find_if(places.begin(), places.end(),
                                   [&](const auto& other) { return other.first == place; });
    if (same == places.end()) {
      places.push_back({place, {thread.number}});
    } else {
      same->second.push_back(thread.number);
    }
  }
  std::string text = "deadlock:";
  for (const auto& [place, waiting] : places) {
    text += " [thread " + std::to_string(waiting.front());
    if (waiting.size() > 1) text += " and " + std::to_string(waiting.size() - 1) + " more";
    text += " in " + place + "]";
  }
  return text;
}

void run_block(int64_t block, int64_t grid, int num_threads) {
  // NaN as a float, -1 as an integer: a read before any write does not look like a value.
  std::memset(shared, 0xff, shared_size);
  if (settings.check_races) begin_block(shared, shared_size, num_threads);
  threads.clear();
  threads.resize(num_threads);
  warps.assign((num_threads + 31) / 32, Warp());
  if (num_threads % 32 != 0) warps.back().exited = ~0u << num_threads % 32;
  ready.clear();
  at_barrier.clear();
  first_ready = 0;
  num_done = 0;
  paused = false;
  forget_mbarriers();
  begin_warpgroups(num_threads);
  for (int number = 0; number < num_threads; ++number) {
    Thread& thread = threads[number];
    thread.number = number;
    thread.index = {{static_cast<unsigned>(number), 0, 0},
                    {static_cast<unsigned>(block), 0, 0},
                    {static_cast<unsigned>(num_threads), 1, 1},
                    {static_cast<unsigned>(grid), 1, 1}};
    prepare(&thread.context, number, run_thread);
    make_ready(&thread);
  }
  yield();
  if (error.empty() && num_done < num_threads) error = deadlock();
  if (error.empty() && copies_of_mbarriers()) error = "a block ended with copies under way";
}

std::string kernel_name(const std::string& signature) {
  const std::string before = "kKernel = ";
  const size_t begin = signature.find(before) + before.size();
  return signature.substr(begin, signature.find_first_of(";]", begin) - begin);
}

}  // namespace

void fail(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (current == nullptr) throw std::runtime_error(text);
  error = text;
  yield(true);  // to whoever launched: nothing is ready after an error
  std::abort();
}

void run(const char* signature, int64_t grid, int num_threads, int64_t shared_bytes,
         const std::function<void()>& kernel) {
  if (current != nullptr) throw std::runtime_error("a kernel cannot launch another");
  if (num_threads > kMaxThreads) throw std::runtime_error("too many threads in a block");
  if (shared_bytes > most_shared_bytes) throw std::runtime_error("too much shared memory");
  names.insert(kernel_name(signature));
  shared_size = static_cast<size_t>(shared_bytes);
  const size_t allocated = (shared_size / kSharedAlignment + 1) * kSharedAlignment;
  const std::unique_ptr<unsigned char, decltype(&std::free)> memory(
      static_cast<unsigned char*>(std::aligned_alloc(kSharedAlignment, allocated)), &std::free);
  shared = memory.get();
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(shared + shared_size, allocated - shared_size);
#endif
  body = &kernel;
  error.clear();
  if (settings.check_races) begin_launch();
  std::vector<int64_t> order(grid);
  for (int64_t b = 0; b < grid; ++b) order[b] = b;
  if (settings.schedule == Schedule::kReverse) std::reverse(order.begin(), order.end());
  for (int64_t b = grid - 1; settings.schedule == Schedule::kRandom && b > 0; --b) {
    std::swap(order[b], order[random_number() % (b + 1)]);
  }
  for (const int64_t block : order) {
    run_block(block, grid, num_threads);
    if (!error.empty()) break;
  }
  current = nullptr;
  this_thread = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(shared, allocated);
#endif
  shared = nullptr;
  if (!error.empty()) throw std::runtime_error(kernel_name(signature) + ": " + error);
}

void* shared_memory(size_t bytes) {
  if (bytes > shared_size) {
    fail("%zu bytes of shared memory used, %zu asked for at launch", bytes, shared_size);
  }
  return shared;
}

bool in_shared_memory(const void* address, size_t bytes) {
  const auto offset = static_cast<size_t>(static_cast<const unsigned char*>(address) - shared);
  return offset < shared_size && offset + bytes <= shared_size;
}

unsigned char* shared_begin() { return shared; }

int threads_of_block() { return static_cast<int>(threads.size()); }

void suspend(const char* operation, const char* file, int line, const void* awaited) {
  wait(State::kSuspended, operation, file, line, awaited);
}

void resume(int thread) { make_ready(&threads[thread]); }

int lane() { return current->number % 32; }

int running_thread() { return current == nullptr ? -1 : current->number; }

Copies& running_copies() { return current->copies; }

void perhaps_preempt() {
  if (settings.preemption == 0 || settings.schedule != Schedule::kRandom) return;
  if (random_number() % settings.preemption != 0) return;
  ready.push_back(current->number);
  yield();
}

void block_barrier(const char* file, int line) {
  if (!at_barrier.empty()) {
    const Thread& other = threads[at_barrier.front()];
    if (other.line != line || std::strcmp(other.file, file) != 0) {
      fail("divergent barriers: thread %d at %s:%d, thread %d at %s:%d", current->number, file,
           line, other.number, other.file, other.line);
    }
  }
  at_barrier.push_back(current->number);
  current->file = file;
  current->line = line;
  current->operation = "__syncthreads";
  current->state = State::kAtBarrier;
  current->awaited = nullptr;
  open_barrier_if_complete();  // makes this thread ready too
  yield();
}

void collective(const char* name, unsigned mask, void* argument, Together together,
                const char* file, int line) {
  Warp& warp = warps[current->number / 32];
  const int own_lane = lane();
  if (!(mask >> own_lane & 1)) {
    fail("%s at %s:%d: lane %d is not in its mask %08x", name, file, line, own_lane, mask);
  }
  if ((mask & warp.exited) != 0) {
    fail("%s at %s:%d: of mask %08x the lanes %08x have ended", name, file, line, mask,
         mask & warp.exited);
  }
  Meeting* meeting = nullptr;
  for (Meeting& other : warp.meetings) {
    if (other.mask == mask) meeting = &other;
  }
  if (meeting == nullptr) {
    warp.meetings.push_back({mask, 0, name, file, line});
    meeting = &warp.meetings.back();
  } else if (std::strcmp(meeting->operation, name) != 0) {
    fail("divergent warp: %s at %s:%d meets %s at %s:%d", name, file, line, meeting->operation,
         meeting->file, meeting->line);
  }
  current->argument = argument;
  meeting->present |= 1u << own_lane;
  if (meeting->present != mask) {
    wait(State::kInCollective, name, file, line);
    return;
  }
  warp.meetings.erase(warp.meetings.begin() + (meeting - warp.meetings.data()));
  const int base = current->number - own_lane;
  void* arguments[32] = {};
  for (int l = 0; l < 32; ++l) {
    if (mask >> l & 1) arguments[l] = threads[base + l].argument;
  }
  paused = true;
  together(arguments, mask);
  paused = false;
  // The other operations exchange values but do not order memory.
  if (settings.check_races && std::strcmp(name, "__syncwarp") == 0) order_lanes(base / 32, mask);
  for (int l = 0; l < 32; ++l) {
    if ((mask >> l & 1) && l != own_lane) make_ready(&threads[base + l]);
  }
  if (settings.schedule == Schedule::kForward) return;
  ready.push_back(current->number);
  yield();
}

void atomic_access(void* address, size_t bytes, void* caller) {
  if (current == nullptr) return;
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) fail("misaligned atomic operation");
  perhaps_preempt();
  if (settings.check_races) record(current->number, address, bytes, Access::kAtomic, caller);
}

const std::set<std::string>& kernels_run() { return names; }

void forget_kernels() { names.clear(); }

}  // namespace usucl::emulation
