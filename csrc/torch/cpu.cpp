// The operators on the CPU.
#include <torch/csrc/stable/library.h>

#include "../cpu/backend.h"
#include "operators.h"

STABLE_TORCH_LIBRARY_IMPL(usucl, CPU, m) {
  using usucl::cpu::Cpu;
  m.impl("select_negatives", TORCH_BOX(&usucl::select_negatives_op<Cpu>));
  m.impl("similarities", TORCH_BOX(&usucl::similarities_op<Cpu>));
  m.impl("hard_negative_nce", TORCH_BOX(&usucl::hard_negative_nce_op<Cpu>));
  m.impl("hard_negative_nce_backward", TORCH_BOX(&usucl::hard_negative_nce_backward_op<Cpu>));
}
