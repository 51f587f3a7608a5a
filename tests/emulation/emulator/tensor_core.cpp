// The effect of single PTX instructions: asynchronous copies, matrix loads, matrix products.
#include <cstring>

#include "asynchronous.h"
#include "core/dtypes.h"
#include "emulation.h"
#include "emulator.h"
#include "races.h"

namespace usucl::emulation {
namespace {

constexpr size_t kCopyBytes = 16;

struct Load {
  uint32_t* out;
  const unsigned char* row;
};

// Lane l holds row l / 4 and columns 2 (l % 4), 2 (l % 4) + 1 of each matrix, or, transposed,
// column l / 4 and those rows. Lane 8 m + r gives the address of row r of matrix m.
template <bool kTransposed>
void load_together(void** lanes, unsigned) {
  const int base = running_thread() / 32 * 32;
  for (int l = 0; l < 32; ++l) {
    for (int m = 0; m < 4; ++m) {
      uint16_t halves[2];
      for (int h = 0; h < 2; ++h) {
        const int along = 2 * (l % 4) + h, across = l / 4;
        const int row = kTransposed ? along : across, column = kTransposed ? across : along;
        const unsigned char* element =
            static_cast<Load*>(lanes[8 * m + row])->row + sizeof(uint16_t) * column;
        std::memcpy(&halves[h], element, sizeof halves[h]);
        if (settings.check_races)
          record(base + l, element, sizeof halves[h], Access::kRead, nullptr);
      }
      static_cast<Load*>(lanes[l])->out[m] = halves[0] | static_cast<uint32_t>(halves[1]) << 16;
    }
  }
}

struct Product {
  float* sum;
  const uint32_t* a;
  const uint32_t* b;
};

template <Elements kElements>
float element(uint32_t bits, int half) {
  const auto low = static_cast<uint16_t>(bits >> 16 * half);
  if (kElements == Elements::kBFloat16) return upcast(BFloat16{low});
  if (kElements == Elements::kFloat16) return upcast(Float16{low});
  return float_from_bits(bits & 0xffffe000u);  // TF32 reads only 10 bits of mantissa
}

// With g = l / 4 and t = l % 4, lane l holds these elements: of the 32-bit columns of a [16, 8],
// (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4); of the 32-bit rows of b [8, 8], (t, g), (t + 4,
// g); of sum [16, 8], (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1). A 32-bit column has two
// 16-bit elements or one TF32 element.
template <Elements kElements>
void multiply_together(void** lanes, unsigned) {
  constexpr int kHalves = kElements == Elements::kTF32 ? 1 : 2;
  constexpr int kDepth = 8 * kHalves;
  float a[16][kDepth], b[kDepth][8];
  for (int l = 0; l < 32; ++l) {
    const auto& own = *static_cast<Product*>(lanes[l]);
    const int g = l / 4, t = l % 4;
    for (int h = 0; h < kHalves; ++h) {
      const auto at = [&](int column) { return kHalves * column + h; };
      a[g][at(t)] = element<kElements>(own.a[0], h);
      a[g + 8][at(t)] = element<kElements>(own.a[1], h);
      a[g][at(t + 4)] = element<kElements>(own.a[2], h);
      a[g + 8][at(t + 4)] = element<kElements>(own.a[3], h);
      b[at(t)][g] = element<kElements>(own.b[0], h);
      b[at(t + 4)][g] = element<kElements>(own.b[1], h);
    }
  }
  float sum[16][8] = {};
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < kDepth; ++k) {
      for (int j = 0; j < 8; ++j) sum[i][j] += a[i][k] * b[k][j];
    }
  }
  for (int l = 0; l < 32; ++l) {
    float* own = static_cast<Product*>(lanes[l])->sum;
    for (int i = 0; i < 4; ++i) own[i] += sum[l / 4 + i / 2 * 8][2 * (l % 4) + i % 2];
  }
}

}  // namespace

void copy_async_16(void* shared, const void* global, bool there, void* caller) {
  const auto misaligned = [](const void* address) {
    return reinterpret_cast<uintptr_t>(address) % kCopyBytes != 0;
  };
  if (misaligned(shared) || (there && misaligned(global))) fail("misaligned asynchronous copy");
  if (!in_shared_memory(shared, kCopyBytes)) fail("asynchronous copy outside of shared memory");
  std::memset(shared, 0xff, kCopyBytes);
  if (settings.check_races) {
    record(running_thread(), shared, kCopyBytes, Access::kIssue, caller);
    if (there) record(running_thread(), global, kCopyBytes, Access::kRead, caller);
  }
  running_copies().open.push_back({shared, there ? global : nullptr, caller});
}

void copy_async_commit() {
  Copies& copies = running_copies();
  copies.groups.push_back(std::move(copies.open));
  copies.open.clear();
}

void copy_async_wait(int pending) {
  Copies& copies = running_copies();
  while (static_cast<int>(copies.groups.size()) > pending) {
    for (const Copy& copy : copies.groups.front()) {
      if (copy.global != nullptr) {
        std::memcpy(copy.shared, copy.global, kCopyBytes);
      } else {
        std::memset(copy.shared, 0, kCopyBytes);
      }
      if (settings.check_races) {
        record(running_thread(), copy.shared, kCopyBytes, Access::kLand, copy.caller);
      }
    }
    copies.groups.pop_front();
  }
}

void load_matrices(uint32_t* out, const void* row, bool transposed, const char* file, int line) {
  if (reinterpret_cast<uintptr_t>(row) % kCopyBytes != 0 || !in_shared_memory(row, kCopyBytes)) {
    fail("row of a matrix misaligned or outside of shared memory at %s:%d", file, line);
  }
  Load own{out, static_cast<const unsigned char*>(row)};
  collective(transposed ? "load_matrices_transposed" : "load_matrices", ~0u, &own,
             transposed ? load_together<true> : load_together<false>, file, line);
}

void mma(Elements elements, float* sum, const uint32_t* a, const uint32_t* b, const char* file,
         int line) {
  Product own{sum, a, b};
  switch (elements) {
    case Elements::kBFloat16:
      return collective("mma_bfloat16", ~0u, &own, multiply_together<Elements::kBFloat16>, file,
                        line);
    case Elements::kFloat16:
      return collective("mma_float16", ~0u, &own, multiply_together<Elements::kFloat16>, file,
                        line);
    case Elements::kTF32:
      return collective("mma_tf32", ~0u, &own, multiply_together<Elements::kTF32>, file, line);
  }
}

}  // namespace usucl::emulation
