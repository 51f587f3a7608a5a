// A minimal kernel for every function of csrc/cuda/device.h that is a PTX instruction: one warp,
// registers in and out. For the emulator and for nvcc.
#include "on_device.h"

namespace {

using namespace usucl::cuda;
using usucl::test::Arrays;

constexpr int kLanes = 32;
constexpr int kWords = 4;  // 32-bit words per copy of a lane, and in a lane's fragments

__device__ int own_lane() { return static_cast<int>(threadIdx.x); }

__global__ void relaxed_load(const unsigned long long* values, unsigned long long* out) {
  out[own_lane()] = load_relaxed(values + own_lane());
}

struct Staged {
  alignas(16) uint32_t word[2][kLanes][kWords];
};

// Two groups, the second with the same words in the opposite order of lanes; each is read as soon
// as it has been waited for. Lanes whose bit in `there` is 0 have no source.
__global__ void asynchronous_copies(const uint32_t* words, uint32_t there, uint32_t* out) {
  Staged& staged = shared_memory<Staged>();
  const int lane = own_lane();
  for (int group = 0; group < 2; ++group) {
    for (int i = 0; i < kWords; ++i) staged.word[group][lane][i] = ~0u;  // zeros must be written
  }
  __syncwarp();
  for (int group = 0; group < 2; ++group) {
    const int from = group == 0 ? lane : kLanes - 1 - lane;
    const bool has_source = there >> from & 1;
    copy_async_16(staged.word[group][lane], has_source ? words + kWords * from : nullptr,
                  has_source);
    copy_async_commit();
  }
  copy_async_wait<1>();
  for (int i = 0; i < kWords; ++i) out[kWords * lane + i] = staged.word[0][lane][i];
  copy_async_wait<0>();
  for (int i = 0; i < kWords; ++i) {
    out[kWords * (kLanes + lane) + i] = staged.word[1][lane][i];
  }
}

struct Matrices {
  alignas(16) uint16_t row[kLanes][8];
};

// Lane l gives the address of row rows[l].
template <bool kTransposed>
__global__ void matrix_load(const uint16_t* elements, const int32_t* rows, uint32_t* out) {
  Matrices& matrices = shared_memory<Matrices>();
  const int lane = own_lane();
  for (int i = 0; i < 8; ++i) matrices.row[lane][i] = elements[8 * lane + i];
  __syncwarp();
  uint32_t loaded[kWords];
  if (kTransposed) {
    load_matrices_transposed(loaded, matrices.row[rows[lane]]);
  } else {
    load_matrices(loaded, matrices.row[rows[lane]]);
  }
  for (int i = 0; i < kWords; ++i) out[kWords * lane + i] = loaded[i];
}

enum class Kind { kBFloat16, kFloat16, kTF32 };

// Fragments by lane: a [32, 4], b [32, 2], sum [32, 4].
template <Kind kKind>
__global__ void matrix_product(const uint32_t* a, const uint32_t* b, float* sum) {
  const int lane = own_lane();
  uint32_t own_a[kWords];
  float own_sum[kWords];
  for (int i = 0; i < kWords; ++i) {
    own_a[i] = a[kWords * lane + i];
    own_sum[i] = sum[kWords * lane + i];
  }
  const uint32_t b0 = b[2 * lane], b1 = b[2 * lane + 1];
  if (kKind == Kind::kBFloat16) mma_bfloat16(own_sum, own_a, b0, b1);
  if (kKind == Kind::kFloat16) mma_float16(own_sum, own_a, b0, b1);
  if (kKind == Kind::kTF32) mma_tf32(own_sum, own_a, b0, b1);
  for (int i = 0; i < kWords; ++i) sum[kWords * lane + i] = own_sum[i];
}

template <bool kTransposed>
const char* load(const uint16_t* elements, const int32_t* rows, uint32_t* out) {
  return usucl::test::call([&](Arrays& arrays) {
    launch<matrix_load<kTransposed>>(1, kLanes, sizeof(Matrices), nullptr,
                                     arrays.in(elements, 8 * kLanes), arrays.in(rows, kLanes),
                                     arrays.out(out, kWords * kLanes));
  });
}

template <Kind kKind>
const char* product(const uint32_t* a, const uint32_t* b, float* sum) {
  return usucl::test::call([&](Arrays& arrays) {
    launch<matrix_product<kKind>>(1, kLanes, 0, nullptr, arrays.in(a, kWords * kLanes),
                                  arrays.in(b, 2 * kLanes), arrays.out(sum, kWords * kLanes));
  });
}

}  // namespace

USUCL_ENTRY const char* load_relaxed(const unsigned long long* values, unsigned long long* out) {
  return usucl::test::call([&](Arrays& arrays) {
    launch<relaxed_load>(1, kLanes, 0, nullptr, arrays.in(values, kLanes), arrays.out(out, kLanes));
  });
}

USUCL_ENTRY const char* copy_async(const uint32_t* words, int64_t there, uint32_t* out) {
  return usucl::test::call([&](Arrays& arrays) {
    launch<asynchronous_copies>(1, kLanes, sizeof(Staged), nullptr,
                                arrays.in(words, kWords * kLanes), static_cast<uint32_t>(there),
                                arrays.out(out, 2 * kWords * kLanes));
  });
}

USUCL_ENTRY const char* load_matrices(const uint16_t* elements, const int32_t* rows,
                                      uint32_t* out) {
  return load<false>(elements, rows, out);
}

USUCL_ENTRY const char* load_matrices_transposed(const uint16_t* elements, const int32_t* rows,
                                                 uint32_t* out) {
  return load<true>(elements, rows, out);
}

USUCL_ENTRY const char* mma_bfloat16(const uint32_t* a, const uint32_t* b, float* sum) {
  return product<Kind::kBFloat16>(a, b, sum);
}

USUCL_ENTRY const char* mma_float16(const uint32_t* a, const uint32_t* b, float* sum) {
  return product<Kind::kFloat16>(a, b, sum);
}

USUCL_ENTRY const char* mma_tf32(const uint32_t* a, const uint32_t* b, float* sum) {
  return product<Kind::kTF32>(a, b, sum);
}
