// The operators of ops.cpp on the CPU.
#include "../operators.h"

#include <torch/csrc/stable/library.h>

#include "backend.h"

STABLE_TORCH_LIBRARY_IMPL(usucl, CPU, m) {
  m.impl("select_negatives", TORCH_BOX(&usucl::select_negatives_op<usucl::cpu::Cpu>));
  m.impl("similarities", TORCH_BOX(&usucl::similarities_op<usucl::cpu::Cpu>));
  m.impl("hard_negative_nce", TORCH_BOX(&usucl::hard_negative_nce_op<usucl::cpu::Cpu>));
  m.impl("hard_negative_nce_backward",
         TORCH_BOX(&usucl::hard_negative_nce_backward_op<usucl::cpu::Cpu>));
}
