// A kernel with one bug, chosen on the command line, to test what the emulation reports.
//
//   seeded_bugs none | <bug>      exit status 0: nothing was found
//
// Built twice: for the race check, and with AddressSanitizer and UndefinedBehaviorSanitizer.
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "cuda/device.h"
#include "emulation.h"

namespace {

using namespace usucl::cuda;
namespace emulation = usucl::emulation;

constexpr int kThreads = 64;
constexpr int kTile = 64;   // values staged at a time, four per asynchronous copy
constexpr int kRoom = 512;  // of the list

enum class Bug {
  kNone,
  kNoBarrierBeforeUse,
  kNoBarrierBeforeReuse,
  kNoBarrierAfterSort,
  kNoWarpBarrier,
  kDivergentBarrier,
  kBarrierInBranch,
  kNoCopyWait,
  kPlainAppend,
  kWrongIndex,
  kIndexPastArray,
  kListOverflow,
  kReadPastInput,
  kExitedLane,
  kDivergentWarp,
  kMisalignedCopy,
  kSharedByBlocks,
  kTooMuchShared,
  kReadUnwritten,
};

constexpr const char* kNames[] = {"none",
                                  "no-barrier-before-use",
                                  "no-barrier-before-reuse",
                                  "no-barrier-after-sort",
                                  "no-warp-barrier",
                                  "divergent-barrier",
                                  "barrier-in-branch",
                                  "no-copy-wait",
                                  "plain-append",
                                  "wrong-index",
                                  "index-past-array",
                                  "list-overflow",
                                  "read-past-input",
                                  "exited-lane",
                                  "divergent-warp",
                                  "misaligned-copy",
                                  "shared-by-blocks",
                                  "too-much-shared",
                                  "read-unwritten"};

struct Shared {
  float tile[2][kTile];
  float threshold[kThreads];
  int count;
  int scratch[kThreads];
  float list[kRoom];
};

struct TooMuch {
  Shared shared;
  float more[1 << 14];
};

// Appends the values above a threshold to the block's list: staged in shared memory while the next
// tile is copied, appended atomically, and sorted by rank at the end.
template <Bug kBug>
__global__ void __launch_bounds__(kThreads)
    survivors(const float* values, int count, const float* thresholds, float* out, int* out_count) {
  Shared& shared =
      kBug == Bug::kTooMuchShared ? shared_memory<TooMuch>().shared : shared_memory<Shared>();
  const int thread = static_cast<int>(threadIdx.x), block = static_cast<int>(blockIdx.x);
  const int tiles = (count + kTile - 1) / kTile;
  if (kBug != Bug::kReadUnwritten && thread == 0) shared.count = 0;
  shared.threshold[thread] = thresholds[thread];
  const auto stage = [&](int tile) {
    const int first = tile * kTile + 4 * thread;
    if (thread < kTile / 4 && tile < tiles) {
      const int off = kBug == Bug::kMisalignedCopy ? 1 : 0;
      copy_async_16(&shared.tile[tile % 2][4 * thread + off], values + first, first < count);
    }
    copy_async_commit();
  };
  stage(0);
  for (int tile = 0; tile < tiles; ++tile) {
    stage(tile + 1);
    if (kBug != Bug::kNoCopyWait) copy_async_wait<1>();
    if (kBug != Bug::kNoBarrierBeforeUse) __syncthreads();
    if (kBug == Bug::kDivergentBarrier && thread < 32) __syncthreads();
    if (kBug == Bug::kBarrierInBranch && thread % 2 == 0) {
      __syncthreads();
    } else if (kBug == Bug::kBarrierInBranch) {
      __syncthreads();
    }
    const int from = kBug == Bug::kWrongIndex ? thread / 2 : thread;
    const float value = shared.tile[tile % 2][from];
    const float threshold = shared.threshold[kBug == Bug::kIndexPastArray ? thread + 1 : thread];
    if (tile * kTile + thread < count && value > threshold) {
      int place = 0;
      if (kBug == Bug::kPlainAppend) {
        place = shared.count;
        shared.count = place + 1;
      } else {
        place = atomicAdd(&shared.count, 1);
      }
      if (place < kRoom || kBug == Bug::kListOverflow) shared.list[place] = value;
    }
    if (kBug != Bug::kNoBarrierBeforeReuse) __syncthreads();
  }
  copy_async_wait<0>();
  // The sum of the counts of a warp's lanes, passed down lane by lane.
  shared.scratch[thread] = thread % 32 == 0 ? shared.count : 0;
  if (kBug != Bug::kNoWarpBarrier) __syncwarp();
  const int found = shared.scratch[thread / 32 * 32];
  if (kBug == Bug::kExitedLane && thread == 5) return;
  if (kBug == Bug::kExitedLane) __syncwarp();
  if (kBug == Bug::kDivergentWarp) {
    if (thread % 2 == 0) {
      __syncwarp();
    } else {
      __ballot_sync(~0u, 1);
    }
  }
  const int kept = found < kRoom ? found : kRoom;
  for (int i = thread; i < kept; i += kThreads) {
    int rank = 0;
    for (int j = 0; j < kept; ++j) {
      rank += shared.list[j] > shared.list[i] || (shared.list[j] == shared.list[i] && j < i);
    }
    out[block * kRoom + rank] = shared.list[i];
  }
  if (kBug != Bug::kNoBarrierAfterSort) __syncthreads();
  if (thread == 0 && kept > 0) out[block * kRoom] += kept > 1 ? out[block * kRoom + kept - 1] : 0;
  if (thread == 0) out_count[kBug == Bug::kSharedByBlocks ? 0 : block] = found;
  if (kBug == Bug::kReadPastInput && thread == 0) out[block * kRoom + 1] = values[count];
}

// The correct result of the kernel for one block.
std::vector<float> expected(const std::vector<float>& values, const std::vector<float>& threshold) {
  std::vector<float> list;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] > threshold[i % kThreads]) list.push_back(values[i]);
  }
  std::sort(list.begin(), list.end(), std::greater<>());
  if (list.size() > 1) list.front() += list.back();
  return list;
}

template <Bug kBug>
bool correct() {
  const int count = 4 * kTile - 4, blocks = 2;
  const float level = kBug == Bug::kListOverflow ? -1.0f : 100.0f;
  // List overflow: more survivors than room, and the shared struct ends with the list.
  const int longer = kBug == Bug::kListOverflow ? 3 : 1;
  std::vector<float> values(longer * count), thresholds(kThreads, level);
  for (int i = 0; i < longer * count; ++i) values[i] = static_cast<float>(i * 37 % 251);
  std::vector<float> out(blocks * kRoom, -1.0f);
  std::vector<int> counts(blocks, -1);
  launch<survivors<kBug>>(blocks, kThreads, sizeof(Shared), nullptr, values.data(),
                          static_cast<int>(values.size()), thresholds.data(), out.data(),
                          counts.data());
  const std::vector<float> truth = expected(values, thresholds);
  for (int block = 0; block < blocks; ++block) {
    if (counts[block] != static_cast<int>(truth.size())) return false;
    if (!std::equal(truth.begin(), truth.end(), out.begin() + block * kRoom)) return false;
  }
  return true;
}

template <int kNumber>
bool run_named(const char* name, bool* known) {
  if constexpr (kNumber < static_cast<int>(std::size(kNames))) {
    if (std::strcmp(name, kNames[kNumber]) != 0) return run_named<kNumber + 1>(name, known);
    *known = true;
    return correct<static_cast<Bug>(kNumber)>();
  }
  return true;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) return 2;
  bool clean = true, known = false;
  for (const auto schedule : {emulation::Schedule::kForward, emulation::Schedule::kReverse,
                              emulation::Schedule::kRandom}) {
    emulation::settings = {schedule, 7, 5, emulation::kInstrumented};
    try {
      const bool correct = run_named<0>(arguments[1], &known);
      if (!known) return 2;
      if (!correct) std::printf("wrong result\n");
      clean = clean && correct;
    } catch (const std::exception& error) {
      std::printf("error: %s\n", error.what());
      clean = false;
    }
  }
  const emulation::Races& races = emulation::races();
  if (races.count > 0) std::printf("races:\n%s", races.first.c_str());
  return clean && races.count == 0 ? 0 : 1;
}
