// Tests of the Hopper part of the emulator: phases of mbarriers, where the TMA writes what, what
// warpgroups multiply, named barriers.
#include <cstdio>
#include <cstring>
#include <iterator>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../cpp/check.h"
#include "core/dtypes.h"
#include "cuda/hopper.h"
#include "emulation.h"

namespace {

using namespace usucl::cuda;
namespace emulation = usucl::emulation;

int thread_index() { return static_cast<int>(threadIdx.x); }

// The first thread of the block makes the barriers.
template <typename Make>
void make_barriers(const Make& make) {
  if (thread_index() == 0) {
    make();
    fence_mbarrier_init();
  }
  __syncthreads();
}

struct Phases {
  Mbarrier full, empty;
  int value;
};

// A ring of one slot: thread 0 writes 0, 1, 2, ...; the others read each number and acknowledge it.
__global__ void ring(int steps, int* out) {
  Phases& shared = shared_memory<Phases>();
  const int readers = static_cast<int>(blockDim.x) - 1, thread = thread_index();
  make_barriers([&] {
    mbarrier_init(shared.full, 1);
    mbarrier_init(shared.empty, readers);
  });
  for (int step = 0; step < steps; ++step) {
    const int parity = step % 2;
    if (thread == 0) {
      mbarrier_wait(shared.empty, parity ^ 1);  // the first time returns at once
      shared.value = step;
      mbarrier_arrive(shared.full);
    } else {
      mbarrier_wait(shared.full, parity);
      out[step * readers + thread - 1] = shared.value;
      mbarrier_arrive(shared.empty);
    }
  }
}

void test_phases() {
  constexpr int kSteps = 7, kThreads = 96;
  std::vector<int> out(kSteps * (kThreads - 1), -1);
  launch<ring>(1, kThreads, sizeof(Phases), nullptr, kSteps, out.data());
  for (size_t i = 0; i < out.size(); ++i) CHECK(out[i] == static_cast<int>(i) / (kThreads - 1));
}

constexpr int kTileRows = 24;

struct alignas(1024) Tile {
  uint16_t half[kTileRows * kTileRowBytes / 2];
  Mbarrier full;
};

__global__ void load_tile(const __grid_constant__ TensorMap map, int row, int column,
                          uint16_t* out) {
  Tile& shared = shared_memory<Tile>();
  make_barriers([&] { mbarrier_init(shared.full, 1); });
  if (thread_index() == 0) {
    prefetch_tensor_map(map);
    mbarrier_arrive_expect_tx(shared.full, sizeof shared.half);
    tma_load(shared.half, map, row, column, shared.full);
  }
  mbarrier_wait(shared.full, 0);
  for (size_t i = threadIdx.x; i < std::size(shared.half); i += blockDim.x) {
    out[i] = shared.half[i];
  }
}

// The place of an element, by the rule stated in csrc/cuda/hopper.h.
size_t place(int row, int byte) {
  const int piece = byte / 16;
  return static_cast<size_t>(row * kTileRowBytes + 16 * (piece ^ (row % 8)) + byte % 16);
}

template <typename Element>
void test_tiles() {
  constexpr int kColumns = kTileRowBytes / static_cast<int>(sizeof(Element));
  constexpr int kRows = 40, kDim = kColumns + 8, kStride = kDim + 16;
  alignas(16) static Element matrix[kRows * kStride];
  for (int i = 0; i < kRows * kStride; ++i) matrix[i] = static_cast<Element>(i + 1);
  const TensorMap map = tensor_map(
      {matrix, kRows, kDim, kStride * int64_t{sizeof(Element)}, sizeof(Element), kTileRows});
  for (const int row : {0, 7, 30, -5, 64}) {
    for (const int column : {0, kColumns, 3, -3, 4 * kColumns}) {
      uint16_t out[std::size(Tile{}.half)];
      launch<load_tile>(1, 64, sizeof(Tile), nullptr, map, row, column, out);
      for (int r = 0; r < kTileRows; ++r) {
        for (int c = 0; c < kColumns; ++c) {
          Element found;
          std::memcpy(&found, out + place(r, c * static_cast<int>(sizeof found)) / 2, sizeof found);
          const int i = row + r, j = column + c;
          const bool inside = i >= 0 && i < kRows && j >= 0 && j < kDim;
          CHECK(found == (inside ? matrix[i * kStride + j] : Element{0}));
        }
      }
    }
  }
}

enum class Kind { kBFloat16, kFloat16, kTF32 };

struct alignas(1024) Operands {
  uint16_t a[64 * kTileRowBytes / 2], b[128 * kTileRowBytes / 2];
};

template <Kind kKind>
void multiply(float (&sum)[kWarpgroupSums], uint64_t a, uint64_t b, bool add) {
  if (kKind == Kind::kBFloat16) wgmma_bfloat16(sum, a, b, add);
  if (kKind == Kind::kFloat16) wgmma_float16(sum, a, b, add);
  if (kKind == Kind::kTF32) wgmma_tf32(sum, a, b, add);
}

// Rows of 128 bytes, written by threads. Two groups: the first half of the rows, discarding the
// previous sums if `clear`; then the second half.
template <Kind kKind>
__global__ void product(const uint16_t* a, const uint16_t* b, bool clear, float* out) {
  Operands& shared = shared_memory<Operands>();
  const int thread = thread_index();
  const auto write = [&](uint16_t* tile, const uint16_t* from, int rows) {
    constexpr int kHalves = kTileRowBytes / 2;
    for (int i = thread; i < rows * kHalves; i += kWarpgroupThreads) {
      tile[place(i / kHalves, 2 * (i % kHalves)) / 2] = from[i];
    }
  };
  write(shared.a, a, 64);
  write(shared.b, b, 128);
  fence_proxy_async();
  __syncthreads();
  float sum[kWarpgroupSums];
  for (float& one : sum) one = static_cast<float>(thread);
  wgmma_fence();
  for (int step = 0; step < 4; ++step) {
    multiply<kKind>(sum, wgmma_operand(shared.a, step), wgmma_operand(shared.b, step),
                    step > 0 || !clear);
    if (step % 2 == 1) wgmma_commit();
  }
  wgmma_wait<1>();
  wgmma_wait<0>(sum);
  for (int i = 0; i < kWarpgroupSums; ++i) out[thread * kWarpgroupSums + i] = sum[i];
}

// Small integers: all results are exact.
template <Kind kKind>
void set(uint16_t* row, int k, int value) {
  const auto real = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &real, sizeof bits);
  auto half = static_cast<uint16_t>(bits >> 16);
  if (kKind == Kind::kFloat16) {
    half = static_cast<uint16_t>((bits >> 16 & 0x8000u) |
                                 ((bits >> 13 & 0x3ffffu) - (value == 0 ? 0u : 112u << 10)));
  }
  if (kKind == Kind::kTF32) {
    bits |= 0x1fff;  // must not be read
    std::memcpy(row + 2 * k, &bits, sizeof bits);
  } else {
    row[k] = half;
  }
}

template <Kind kKind>
void test_product(bool clear) {
  constexpr int kDepth = kKind == Kind::kTF32 ? 32 : 64;
  std::mt19937 random(3);
  std::uniform_int_distribution<int> draw(-8, 8);
  static int a[64][kDepth], b[128][kDepth];
  static uint16_t a_rows[64][kTileRowBytes / 2], b_rows[128][kTileRowBytes / 2];
  for (int k = 0; k < kDepth; ++k) {
    for (int i = 0; i < 64; ++i) set<kKind>(a_rows[i], k, a[i][k] = draw(random));
    for (int j = 0; j < 128; ++j) set<kKind>(b_rows[j], k, b[j][k] = draw(random));
  }
  std::vector<float> out(kWarpgroupThreads * kWarpgroupSums);
  launch<product<kKind>>(1, kWarpgroupThreads, sizeof(Operands), nullptr, &a_rows[0][0],
                         &b_rows[0][0], clear, out.data());
  // Goes from the register to the element; the emulator goes the other way.
  for (int thread = 0; thread < kWarpgroupThreads; ++thread) {
    const int warp = thread / 32, lane = thread % 32;
    for (int i = 0; i < kWarpgroupSums; ++i) {
      const int row = 16 * warp + lane / 4 + 8 * (i / 2 % 2);
      const int column = 8 * (i / 4) + 2 * (lane % 4) + i % 2;
      int sum = clear ? 0 : thread;
      for (int k = 0; k < kDepth; ++k) sum += a[row][k] * b[column][k];
      CHECK(out[thread * kWarpgroupSums + i] == static_cast<float>(sum));
    }
  }
}

struct Handed {
  int value[2][64];
  int start;
};

// Warps 0, 1 and 2, 3 exchange values within each pair, which __syncthreads would not allow.
__global__ void pairs(int* out) {
  Handed& shared = shared_memory<Handed>();
  const int pair = thread_index() / 64, own = thread_index() % 64;
  increase_registers<64>();
  if (thread_index() == 0) shared.start = 10;
  __syncthreads();
  const int start = shared.start;  // read by all warps, overwritten when all have arrived
  named_barrier_sync(3, 128);
  if (thread_index() == 127) shared.start = 0;
  for (int step = 0; step < 2 + pair; ++step) {
    shared.value[pair][own] = start * step + own;
    named_barrier_sync(1 + pair, 64);
    out[thread_index()] = shared.value[pair][63 - own];
    named_barrier_sync(1 + pair, 64);
  }
}

void test_named_barriers() {
  int out[128];
  launch<pairs>(1, 128, sizeof(Handed), nullptr, out);
  for (int i = 0; i < 128; ++i) CHECK(out[i] == 10 * (1 + i / 64) + 63 - i % 64);
}

template <typename Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

bool mentions(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

void test_matrices_are_checked() {
  alignas(16) static const uint16_t data[64 * 64] = {};
  const TiledMatrix good{data, 64, 64, 128, 2, 64};
  const auto error = [&](const auto& change) {
    TiledMatrix bad = good;
    change(&bad);
    return error_of([&] { tensor_map(bad); });
  };
  CHECK(error([](TiledMatrix*) {}).empty());
  CHECK(mentions(error([](TiledMatrix* m) { m->data = data + 1; }), "data must be aligned"));
  CHECK(mentions(error([](TiledMatrix* m) { m->rows = 0; }), "rows must be in 1 .. 2^31 - 1"));
  CHECK(mentions(error([](TiledMatrix* m) { m->dim = -1; }), "dim must be"));
  CHECK(mentions(error([](TiledMatrix* m) { m->dim = 65; }), "row_bytes must be"));
  CHECK(mentions(error([](TiledMatrix* m) { m->row_bytes = 136; }), "row_bytes must be"));
  CHECK(mentions(error([](TiledMatrix* m) { m->element_bytes = 8; }), "element_bytes must be 2"));
  CHECK(mentions(error([](TiledMatrix* m) { m->tile_rows = 264; }), "tile_rows must be"));
}

}  // namespace

int main() {
  for (const auto schedule : {emulation::Schedule::kForward, emulation::Schedule::kReverse,
                              emulation::Schedule::kRandom}) {
    emulation::settings = {schedule, 11, schedule == emulation::Schedule::kRandom ? 7 : 0,
                           emulation::kInstrumented};
    test_phases();
    test_tiles<uint16_t>();
    test_tiles<uint32_t>();
    for (const bool clear : {false, true}) {
      test_product<Kind::kBFloat16>(clear);
      test_product<Kind::kFloat16>(clear);
      test_product<Kind::kTF32>(clear);
    }
    test_named_barriers();
  }
  test_matrices_are_checked();
  if (emulation::races().count > 0) std::fprintf(stderr, "%s", emulation::races().first.c_str());
  CHECK(emulation::races().count == 0);
  return 0;
}
