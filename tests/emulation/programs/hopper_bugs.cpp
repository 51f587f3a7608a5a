// A Hopper kernel with one bug, chosen on the command line, to test what the emulation reports.
//
//   hopper_bugs none | <bug>      exit status 0: nothing was found
#include <cstdio>
#include <cstring>
#include <iterator>
#include <stdexcept>
#include <vector>

#include "core/dtypes.h"
#include "cuda/hopper.h"
#include "emulation.h"

namespace {

using namespace usucl::cuda;
namespace emulation = usucl::emulation;

constexpr int kStages = 2, kTiles = 5;
constexpr int kAnchors = 64, kKeys = 128, kDim = 64;
constexpr int kSteps = 4;  // products per tile, over 32 bytes of each row
constexpr int kThreads = kWarpgroupThreads + 32;

enum class Bug {
  kNone,
  kReadBeforeWait,
  kSumsNotNamed,
  kNoProductWait,
  kNoCopyWait,
  kNoReleaseWait,
  kReleasedTooEarly,
  kTooFewBytes,
  kTooManyBytes,
  kWrongParity,
  kParityNotFlipped,
  kWrongStride,
  kStrideOfTwoGroups,
  kMisalignedTile,
  kMisalignedOperand,
  kOperandOverRow,
  kNoSwizzle,
  kNoProductFence,
  kNoBarrierFence,
  kNoProxyFence,
  kNoBarrierAfterInit,
  kNotInitialised,
  kMissingArrival,
  kSumsWritten,
  kOperandsDiffer,
  kPartOfWarpgroup,
  kNoNamedBarrier,
  kNamedBarrierCount,
};

constexpr const char* kNames[] = {
    "none",
    "read-before-wait",
    "sums-not-named",
    "no-product-wait",
    "no-copy-wait",
    "no-release-wait",
    "released-too-early",
    "too-few-bytes",
    "too-many-bytes",
    "wrong-parity",
    "parity-not-flipped",
    "wrong-stride",
    "stride-of-two-groups",
    "misaligned-tile",
    "misaligned-operand",
    "operand-over-row",
    "no-swizzle",
    "no-product-fence",
    "no-barrier-fence",
    "no-proxy-fence",
    "no-barrier-after-init",
    "not-initialised",
    "missing-arrival",
    "sums-written",
    "operands-differ",
    "part-of-warpgroup",
    "no-named-barrier",
    "named-barrier-count",
};

struct alignas(kTileAlignment) Shared {
  uint16_t anchors[kAnchors * kDim];
  uint16_t keys[kStages][kKeys * kDim];
  uint16_t room[kKeys * kDim];  // keeps wrong operands inside shared memory
  Mbarrier full[kStages], empty[kStages];
  float greatest[kWarpgroupThreads];
};

template <Bug kBug>
__device__ uint64_t operand(const uint16_t* tile, int step) {
  const uint64_t right = wgmma_operand(tile, step);
  constexpr uint64_t kStride = uint64_t{0x3fff} << 32;
  if (kBug == Bug::kWrongStride) return (right & ~kStride) | uint64_t{512 >> 4} << 32;
  if (kBug == Bug::kStrideOfTwoGroups) return (right & ~kStride) | uint64_t{2048 >> 4} << 32;
  if (kBug == Bug::kMisalignedOperand) return right + (256 >> 4);
  if (kBug == Bug::kOperandOverRow) return right + (16 >> 4);
  if (kBug == Bug::kNoSwizzle) return right & ~(uint64_t{3} << 62);
  return right;
}

// Thread 0 of the last warp has the TMA copy the tiles of keys.
template <Bug kBug>
__device__ void produce(Shared& shared, const TensorMap& keys) {
  if (threadIdx.x % 32 != 0) return;
  constexpr int kBytes = sizeof shared.keys[0];
  constexpr int kExpected = kBug == Bug::kTooFewBytes    ? kBytes / 2
                            : kBug == Bug::kTooManyBytes ? kBytes + 16
                                                         : kBytes;
  for (int tile = 0; tile < kTiles; ++tile) {
    const int stage = tile % kStages, round = tile / kStages;
    if (kBug != Bug::kNoReleaseWait) mbarrier_wait(shared.empty[stage], round % 2 ^ 1);
    mbarrier_arrive_expect_tx(shared.full[stage], kExpected);
    const int off = kBug == Bug::kMisalignedTile ? 64 : 0;
    tma_load(shared.keys[stage] + off, keys, tile * kKeys, 0, shared.full[stage]);
  }
}

template <Bug kBug>
__device__ void release(Mbarrier& empty) {
  if (kBug == Bug::kMissingArrival && threadIdx.x == 77) return;
  mbarrier_arrive(empty);
}

// The scores of a tile: out [anchors, keys].
template <Bug kBug>
__device__ void consume(Shared& shared, float* out) {
  const int thread = static_cast<int>(threadIdx.x);
  float sum[kWarpgroupSums];
  for (int tile = 0; tile < kTiles; ++tile) {
    const int stage = tile % kStages, round = tile / kStages;
    int parity = round % 2;
    if (kBug == Bug::kWrongParity) parity ^= 1;
    if (kBug == Bug::kParityNotFlipped) parity = 0;
    if (kBug != Bug::kNoCopyWait) mbarrier_wait(shared.full[stage], parity);
    if (kBug != Bug::kNoProductFence) wgmma_fence();
    for (int step = 0; step < kSteps; ++step) {
      const int from = kBug == Bug::kOperandsDiffer ? thread / 32 : step;
      if (kBug == Bug::kPartOfWarpgroup && thread >= 96) break;
      wgmma_bfloat16(sum, operand<kBug>(shared.anchors, step),
                     operand<kBug>(shared.keys[stage], from), step > 0);
    }
    wgmma_commit();
    if (kBug == Bug::kReleasedTooEarly) release<kBug>(shared.empty[stage]);
    if (kBug == Bug::kSumsWritten) sum[3] = 0;
    if (kBug == Bug::kSumsNotNamed) {
      wgmma_wait<0>();
    } else if (kBug != Bug::kReadBeforeWait && kBug != Bug::kNoProductWait) {
      wgmma_wait<0>(sum);
    }
    if (kBug != Bug::kReleasedTooEarly) release<kBug>(shared.empty[stage]);
    float greatest = sum[0];
    for (int i = 0; i < kWarpgroupSums; ++i) {
      out[(tile * kWarpgroupThreads + thread) * kWarpgroupSums + i] = sum[i];
      greatest = sum[i] > greatest ? sum[i] : greatest;
    }
    if (kBug == Bug::kReadBeforeWait) wgmma_wait<0>(sum);
    // The producer does not take part in a barrier of the block.
    shared.greatest[thread] = greatest;
    const int count = kBug == Bug::kNamedBarrierCount && thread < 32 ? 96 : kWarpgroupThreads;
    named_barrier_sync(1, count);
    if (shared.greatest[kWarpgroupThreads - 1 - thread] < -1e6f) out[0] = -1;
    if (kBug != Bug::kNoNamedBarrier) named_barrier_sync(2, kWarpgroupThreads);
  }
}

template <Bug kBug>
__global__ void __launch_bounds__(kThreads)
    scores(const uint16_t* anchors, const __grid_constant__ TensorMap keys, float* out) {
  Shared& shared = shared_memory<Shared>();
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      if (kBug != Bug::kNotInitialised) mbarrier_init(shared.full[stage], 1);
      mbarrier_init(shared.empty[stage], kWarpgroupThreads);
    }
    if (kBug != Bug::kNoBarrierFence) fence_mbarrier_init();
  }
  for (int i = thread; i < kAnchors * kDim; i += kThreads) {
    const int row = i / kDim, column = i % kDim;
    shared.anchors[row * kDim + ((column / 8) ^ (row % 8)) * 8 + column % 8] = anchors[i];
  }
  if (kBug != Bug::kNoProxyFence) fence_proxy_async();
  if (kBug != Bug::kNoBarrierAfterInit) __syncthreads();
  if (thread < kWarpgroupThreads) {
    consume<kBug>(shared, out);
  } else {
    produce<kBug>(shared, keys);
  }
}

uint16_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}

template <Bug kBug>
bool correct() {
  constexpr int kRows = kTiles * kKeys - 30;  // the last tile is incomplete
  std::vector<uint16_t> anchors(kAnchors * kDim);
  alignas(16) static uint16_t keys[kRows * kDim];
  for (int i = 0; i < kAnchors * kDim; ++i) {
    anchors[i] = bits_of(static_cast<float>(i * 37 % 251 % 17 - 8));
  }
  for (int i = 0; i < kRows * kDim; ++i) {
    keys[i] = bits_of(static_cast<float>(i * 53 % 241 % 15 - 7));
  }
  const TensorMap map = tensor_map({keys, kRows, kDim, kDim * 2, 2, kKeys});
  std::vector<float> out(kTiles * kWarpgroupThreads * kWarpgroupSums, -1.0f);
  launch<scores<kBug>>(1, kThreads, sizeof(Shared), nullptr, anchors.data(), map, out.data());
  for (size_t i = 0; i < out.size(); ++i) {
    const int sum = static_cast<int>(i) % kWarpgroupSums;
    const int thread = static_cast<int>(i) / kWarpgroupSums % kWarpgroupThreads;
    const int tile = static_cast<int>(i) / kWarpgroupSums / kWarpgroupThreads;
    const int row = thread / 32 * 16 + thread % 32 / 4 + sum / 2 % 2 * 8;
    const int key = tile * kKeys + sum / 4 * 8 + thread % 4 * 2 + sum % 2;
    float expected = 0;
    for (int d = 0; key < kRows && d < kDim; ++d) {
      expected += upcast(usucl::BFloat16{anchors[row * kDim + d]}) *
                  upcast(usucl::BFloat16{keys[key * kDim + d]});
    }
    if (out[i] != expected) return false;
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
    emulation::settings = {schedule, 7, 50, emulation::kInstrumented};
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
