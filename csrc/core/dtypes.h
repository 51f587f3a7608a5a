// Element types of embeddings and how each is read as the accumulation type.
#pragma once

#include <cstdint>
#include <cstring>

#include "macros.h"

namespace usucl {

enum class DType : int32_t { kFloat32, kFloat64, kBFloat16, kFloat16 };

USUCL_HD int64_t bytes_of(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

USUCL_HD float float_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

USUCL_HD float upcast(float value) { return value; }

USUCL_HD double upcast(double value) { return value; }

USUCL_HD float upcast(BFloat16 value) { return float_from_bits(uint32_t{value.bits} << 16); }

USUCL_HD float upcast(Float16 value) {
  const uint32_t sign = uint32_t{value.bits & 0x8000u} << 16;
  const uint32_t magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) {  // infinity and NaN: all exponent bits set in both formats
    return float_from_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  }
  // After the shift the exponent is 112 too small; the product corrects it, for subnormals too.
  return float_from_bits(sign | magnitude << 13) * float_from_bits(0x77800000u);  // 2^112
}

}  // namespace usucl
