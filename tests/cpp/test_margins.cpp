// The margins of nomination as proven and measured: none may shrink by accident, and none may
// change unless the proof in core/nomination.h changes.
#include "check.h"
#include "core/nomination.h"
#include "cpu/tile/bfloat16.h"
#include "cuda/tensor_cores/rounding.h"

namespace {

using namespace usucl;

struct MeasuredRounding {
  int64_t dim;
  float empty, unit, rounded;  // for rows of zeros, of norm 1, and with rounding error
};

constexpr MeasuredRounding kMeasured[] = {
    {1, 0x1.8p-61, 0x1.61b81p-21, 0x1.53c98ep-7},
    {128, 0x1.0f876cp-57, 0x1.8ee182p-16, 0x1.557ddcp-7},
    {1000, 0x1.7b792cp-56, 0x1.7ec0bp-13, 0x1.6131e4p-7},
    {1048576, 0x1.8p-51, 0x1.b4ca1p-3, 0x1.f6013ap-2},
};

struct BoundedRounding {
  DType anchors, keys;
  int64_t dim;
  float relative, absolute;
};

constexpr BoundedRounding kBounded[] = {
    {DType::kFloat32, DType::kFloat32, 128, 0x1.962b82p-10, 0x1.1969e8p-118},
    {DType::kFloat32, DType::kBFloat16, 128, 0x1.071eecp-8, 0x1.1969e8p-118},
    {DType::kFloat32, DType::kFloat16, 128, 0x1.26ef92p-11, 0x1.6da8b8p-22},
    {DType::kBFloat16, DType::kFloat32, 128, 0x1.14c17cp-10, 0x1.1969e8p-118},
    {DType::kBFloat16, DType::kBFloat16, 128, 0x1.22e158p-14, 0x1.1969e8p-118},
    {DType::kBFloat16, DType::kFloat16, 128, 0x1.26ef92p-11, 0x1.6da8b8p-22},
    {DType::kFloat16, DType::kFloat32, 128, 0x1.14c17cp-10, 0x1.1969e8p-118},
    {DType::kFloat16, DType::kBFloat16, 128, 0x1.071eecp-8, 0x1.1969e8p-118},
    {DType::kFloat16, DType::kFloat16, 128, 0x1.22e158p-14, 0x1.1969e8p-118},
    {DType::kFloat32, DType::kFloat32, 16384, 0x1.a6a816p-8, 0x1.04947ap-111},
    {DType::kFloat32, DType::kBFloat16, 16384, 0x1.246e38p-7, 0x1.04947ap-111},
    {DType::kFloat32, DType::kFloat16, 16384, 0x1.65bafep-8, 0x1.028f5cp-18},
    {DType::kBFloat16, DType::kFloat32, 16384, 0x1.862d7cp-8, 0x1.04947ap-111},
    {DType::kBFloat16, DType::kBFloat16, 16384, 0x1.45487ep-8, 0x1.04947ap-111},
    {DType::kBFloat16, DType::kFloat16, 16384, 0x1.65bafep-8, 0x1.028f5cp-18},
    {DType::kFloat16, DType::kFloat32, 16384, 0x1.862d7cp-8, 0x1.04947ap-111},
    {DType::kFloat16, DType::kBFloat16, 16384, 0x1.246e38p-7, 0x1.04947ap-111},
    {DType::kFloat16, DType::kFloat16, 16384, 0x1.45487ep-8, 0x1.04947ap-111},
};

}  // namespace

int main() {
  for (const MeasuredRounding& golden : kMeasured) {
    const NominationMargin margin(cpu::bfloat16_errors(golden.dim));
    CHECK(margin(Norms{0, 0}, Norms{0, 0}) == golden.empty);
    CHECK(margin(Norms{1, 0}, Norms{1, 0}) == golden.unit);
    CHECK(margin(Norms{0.75f, 0x1p-9f}, Norms{3, 0x1.8p-8f}) == golden.rounded);
  }
  for (const BoundedRounding& golden : kBounded) {
    const NominationMargin margin(
        cuda::tensor_core_errors(golden.anchors, golden.keys, golden.dim));
    CHECK(margin.relative == golden.relative && margin.absolute == golden.absolute);
  }
  return 0;
}
