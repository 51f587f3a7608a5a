// The CPU kernels in Python, by the addresses of tensors.
#pragma once

#include "../pybind.h"

namespace usucl::cpu {

void bind_direct_calls(pybind11::module_& module);

}  // namespace usucl::cpu
