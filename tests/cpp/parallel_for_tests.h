#pragma once

#include <cstdint>

namespace usucl::cpu {

void set_num_threads(int64_t count);

}  // namespace usucl::cpu
