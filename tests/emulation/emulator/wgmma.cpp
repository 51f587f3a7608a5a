// Asynchronous products of warpgroups: operands are read and sums written only when a group is
// waited for.
#include <array>
#include <cstring>
#include <unordered_map>

#include "asynchronous.h"
#include "core/dtypes.h"
#include "cuda/hopper.h"
#include "emulation.h"
#include "races.h"

namespace usucl::emulation {
namespace {

constexpr int kThreads = cuda::kWarpgroupThreads, kSums = cuda::kWarpgroupSums;
constexpr int kRows = 64, kColumns = 128, kOperandBytes = 32;
constexpr uint32_t kPoison = 0x7fc0dead;  // a NaN

// The registers of all threads for one array of sums.
struct Sums {
  std::array<float*, kThreads> registers{};
  std::array<std::array<float, kSums>, kThreads> value;
  int under_way = 0;  // pending products that add to them
};

struct Product {
  Elements elements;
  uint64_t a, b;
  bool add;
  const float* sums;  // identified by thread 0's registers
  const void* caller;
};

struct Warpgroup {
  std::vector<Product> open;
  std::deque<std::vector<Product>> groups;
  // The arguments of threads in the same operation.
  std::vector<void*> arguments;
  int present = 0;
  Caller caller{};
  const char* operation = nullptr;
  bool fenced = false;  // and no sums read since
  std::unordered_map<const float*, Sums> sums;
};

std::vector<Warpgroup> warpgroups;

Warpgroup& own_group() { return warpgroups[running_thread() / kThreads]; }

// Every thread of the warpgroup brings its argument; the last to arrive applies `together`.
void collective_of_warpgroup(const char* operation, void* argument, const Caller& caller,
                             void (*together)(Warpgroup& group)) {
  const int thread = running_thread(), first = thread / kThreads * kThreads;
  if (first + kThreads > threads_of_block()) {
    fail("%s at %s:%d: thread %d is in no whole warpgroup", operation, caller.file, caller.line,
         thread);
  }
  perhaps_preempt();
  Warpgroup& group = own_group();
  if (group.present == 0) {
    group.operation = operation;
    group.caller = caller;
    group.arguments.assign(kThreads, nullptr);
  } else if (std::strcmp(group.operation, operation) != 0) {
    fail("divergent warpgroup: %s at %s:%d meets %s at %s:%d", operation, caller.file, caller.line,
         group.operation, group.caller.file, group.caller.line);
  }
  group.arguments[thread - first] = argument;
  if (++group.present < kThreads) return suspend(operation, caller.file, caller.line);
  together(group);
  group.present = 0;
  for (int other = first; other < first + kThreads; ++other) {
    if (other != thread) resume(other);
  }
}

struct Operand {
  uint32_t begin, group_stride;

  explicit Operand(uint64_t descriptor, const Caller& caller)
      : begin(static_cast<uint32_t>(descriptor & 0x3fff) << 4),
        group_stride(static_cast<uint32_t>(descriptor >> 32 & 0x3fff) << 4) {
    constexpr uint64_t kField = 0x3fff, kUsed = kField | kField << 16 | kField << 32 | 3ull << 62;
    const auto expect = [&](bool holds, const char* what) {
      if (!holds) fail("operand of a product at %s:%d: %s", caller.file, caller.line, what);
    };
    expect((descriptor & ~kUsed) == 0, "bits that mean nothing, or a base offset");
    expect(descriptor >> 62 == 1, "no swizzle of 128 bytes");
    expect((begin & 0x380) == 0, "its groups of 8 rows do not begin at multiples of 1024 bytes");
    expect(group_stride % 1024 == 0 && group_stride > 0,
           "its groups of 8 rows are no multiple of 1024 bytes apart");
    expect((begin & 0x7f) + kOperandBytes <= cuda::kTileRowBytes, "it crosses a row's end");
  }

  const unsigned char* piece(int row, int byte) const {
    const uint32_t address = begin + static_cast<uint32_t>(row / 8) * group_stride +
                             static_cast<uint32_t>(row % 8 * cuda::kTileRowBytes + byte);
    return shared_begin() + (swizzled(address) - kSharedAddress);
  }

  void expect_in_shared(int rows, const Caller& caller) const {
    for (int row = 0; row < rows; row += 8) {
      if (in_shared_memory(piece(row, 0), 8)) continue;
      fail("operand of a product at %s:%d outside of shared memory", caller.file, caller.line);
    }
  }
};

constexpr int kPieceBytes = 16;

// Each warp reads its 16 rows of a and all of b.
void record_operands(const Product& product, int first_thread) {
  const Caller nowhere{"", 0, nullptr};
  const Operand a(product.a, nowhere), b(product.b, nowhere);
  for (int warp = 0; warp < kThreads / 32; ++warp) {
    const auto read = [&](const Operand& operand, int row) {
      for (int byte = 0; byte < kOperandBytes; byte += kPieceBytes) {
        record(first_thread + 32 * warp, operand.piece(row, byte), kPieceBytes, Access::kReadAsync,
               product.caller);
      }
    };
    for (int row = 16 * warp; row < 16 * warp + 16; ++row) read(a, row);
    for (int row = 0; row < kColumns; ++row) read(b, row);
  }
}

struct TF32 {
  uint32_t bits;
};

float upcast(TF32 value) { return float_from_bits(value.bits & 0xffffe000u); }

template <typename Element>
float element(const Operand& operand, int row, int index) {
  Element value;
  std::memcpy(&value, operand.piece(row, index * static_cast<int>(sizeof value)), sizeof value);
  return upcast(value);
}

template <typename Element>
void multiply(const Product& product, Sums* sums) {
  constexpr int kDepth = kOperandBytes / static_cast<int>(sizeof(Element));
  const Caller nowhere{"", 0, nullptr};
  const Operand a(product.a, nowhere), b(product.b, nowhere);
  float b_of[kDepth][kColumns];
  for (int column = 0; column < kColumns; ++column) {
    for (int k = 0; k < kDepth; ++k) b_of[k][column] = element<Element>(b, column, k);
  }
  for (int row = 0; row < kRows; ++row) {
    float total[kColumns] = {};
    for (int k = 0; k < kDepth; ++k) {
      const float a_of = element<Element>(a, row, k);
      for (int column = 0; column < kColumns; ++column) total[column] += a_of * b_of[k][column];
    }
    for (int column = 0; column < kColumns; ++column) {
      const int thread = row / 16 * 32 + row % 8 * 4 + column % 8 / 2;
      float& sum = sums->value[thread][column / 8 * 4 + row % 16 / 8 * 2 + column % 2];
      sum = product.add ? sum + total[column] : total[column];
    }
  }
}

struct Issued {
  float* sum;
  Product product;
};

bool poisoned(const float* registers) {
  for (int i = 0; i < kSums; ++i) {
    uint32_t bits;
    std::memcpy(&bits, registers + i, sizeof bits);
    if (bits != kPoison) return false;
  }
  return true;
}

void issue(Warpgroup& group) {
  const auto& first = *static_cast<Issued*>(group.arguments[0]);
  const Product& product = first.product;
  const Caller& caller = group.caller;
  for (void* argument : group.arguments) {
    const Product& other = static_cast<Issued*>(argument)->product;
    if (other.elements == product.elements && other.a == product.a && other.b == product.b &&
        other.add == product.add) {
      continue;
    }
    fail("operands of a product at %s:%d differ within the warpgroup", caller.file, caller.line);
  }
  Operand(product.a, caller).expect_in_shared(kRows, caller);
  Operand(product.b, caller).expect_in_shared(kColumns, caller);
  Sums& sums = group.sums[product.sums];
  if (sums.under_way == 0 && !group.fenced) {
    fail("a product at %s:%d without wgmma_fence", caller.file, caller.line);
  }
  for (int thread = 0; thread < kThreads; ++thread) {
    float* registers = static_cast<Issued*>(group.arguments[thread])->sum;
    // The thread has not stored the value back.
    if (sums.registers[thread] == registers && poisoned(registers)) continue;
    if (sums.under_way > 0) {
      fail("sums of a product under way were written before %s:%d", caller.file, caller.line);
    }
    sums.registers[thread] = registers;
    std::memcpy(sums.value[thread].data(), registers, sizeof sums.value[thread]);
    for (int i = 0; i < kSums; ++i) std::memcpy(registers + i, &kPoison, sizeof kPoison);
  }
  ++sums.under_way;
  if (settings.check_races) record_operands(product, running_thread() / kThreads * kThreads);
  group.open.push_back(product);
}

void commit(Warpgroup& group) {
  group.groups.push_back(std::move(group.open));
  group.open.clear();
}

struct Wait {
  int pending;
  float* sum;  // or null
};

void finish(Warpgroup& group) {
  const auto& first = *static_cast<Wait*>(group.arguments[0]);
  while (static_cast<int>(group.groups.size()) > first.pending) {
    for (const Product& product : group.groups.front()) {
      if (settings.check_races) record_operands(product, running_thread() / kThreads * kThreads);
      Sums& sums = group.sums.at(product.sums);
      if (product.elements == Elements::kBFloat16) multiply<BFloat16>(product, &sums);
      if (product.elements == Elements::kFloat16) multiply<Float16>(product, &sums);
      if (product.elements == Elements::kTF32) multiply<TF32>(product, &sums);
      --sums.under_way;
    }
    group.groups.pop_front();
  }
  if (first.sum == nullptr) return;
  const auto found = group.sums.find(first.sum);
  if (found == group.sums.end()) return;
  Sums& sums = found->second;
  if (sums.under_way > 0) {
    fail("wgmma_wait at %s:%d names sums of a product under way", group.caller.file,
         group.caller.line);
  }
  for (int thread = 0; thread < kThreads; ++thread) {
    if (!poisoned(sums.registers[thread])) {
      fail("sums of a product were written before wgmma_wait at %s:%d", group.caller.file,
           group.caller.line);
    }
    std::memcpy(sums.registers[thread], sums.value[thread].data(), sizeof sums.value[thread]);
  }
  group.sums.erase(found);
  group.fenced = false;
}

}  // namespace

void begin_warpgroups(int threads) {
  warpgroups.clear();
  warpgroups.resize(threads / kThreads + 1);
}

bool products_under_way(int thread) {
  const Warpgroup& group = warpgroups[thread / kThreads];
  if (!group.open.empty()) return true;
  for (const auto& products : group.groups) {
    if (!products.empty()) return true;
  }
  return false;
}

bool sums_under_way(int thread, const void* address) {
  for (const auto& [name, sums] : warpgroups[thread / kThreads].sums) {
    const auto* registers =
        reinterpret_cast<const unsigned char*>(sums.registers[thread % kThreads]);
    const auto offset = static_cast<size_t>(static_cast<const unsigned char*>(address) - registers);
    if (offset < kSums * sizeof(float)) return true;
  }
  return false;
}

uint32_t shared_address(const void* pointer) {
  return kSharedAddress +
         static_cast<uint32_t>(static_cast<const unsigned char*>(pointer) - shared_begin());
}

void wgmma_fence(const Caller& caller) {
  collective_of_warpgroup("wgmma_fence", nullptr, caller,
                          [](Warpgroup& group) { group.fenced = true; });
}

void wgmma(Elements elements, float* sum, uint64_t a, uint64_t b, bool add, const Caller& caller) {
  Issued own{sum, {elements, a, b, add, sum, caller.address}};
  collective_of_warpgroup("wgmma", &own, caller, issue);
}

void wgmma_commit(const Caller& caller) {
  collective_of_warpgroup("wgmma_commit", nullptr, caller, commit);
}

void wgmma_wait(int pending, float* sum, const Caller& caller) {
  Wait own{pending, sum};
  collective_of_warpgroup("wgmma_wait", &own, caller, finish);
}

void set_registers(const Caller& caller) {
  collective_of_warpgroup("setmaxnreg", nullptr, caller, [](Warpgroup&) {});
}

}  // namespace usucl::emulation
