// How emulated launches run, and what is known about them afterwards.
#pragma once

#include <cstdint>
#include <set>
#include <string>

namespace usucl::emulation {

enum class Schedule : int32_t {
  kForward,  // runs the ready thread that has waited longest; blocks ascending
  kReverse,  // runs the thread that became ready last; blocks descending
  kRandom,
};

struct Settings {
  Schedule schedule = Schedule::kForward;
  uint64_t seed = 1;       // of kRandom
  int32_t preemption = 0;  // kRandom switches threads at every n-th instrumented access; 0: never
  bool check_races = false;
};

extern Settings settings;
extern int64_t most_shared_bytes;  // the most that a thread block can have

// Whether the race check observes the including file's reads and writes.
#if defined(__SANITIZE_THREAD__)
constexpr bool kInstrumented = true;
#else
constexpr bool kInstrumented = false;
#endif

// As the compiler spells launch()'s template argument: usucl::cuda::{anonymous}::sum<float>.
const std::set<std::string>& kernels_run();
void forget_kernels();

// The findings of the race check in all launches since the last call of forget_races().
struct Races {
  int64_t count = 0;
  std::string first;  // the first few places, with source lines
};

const Races& races();
void forget_races();

}  // namespace usucl::emulation
