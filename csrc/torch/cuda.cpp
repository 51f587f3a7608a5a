// The operators on CUDA devices.
#include <torch/csrc/stable/library.h>

#include "../cuda/backend.h"
#include "operators.h"

STABLE_TORCH_LIBRARY_IMPL(usucl, CUDA, m) {
  using usucl::cuda::Cuda;
  m.impl("select_negatives", TORCH_BOX(&usucl::select_negatives_op<Cuda>));
  m.impl("similarities", TORCH_BOX(&usucl::similarities_op<Cuda>));
  m.impl("hard_negative_nce", TORCH_BOX(&usucl::hard_negative_nce_op<Cuda>));
  m.impl("hard_negative_nce_backward", TORCH_BOX(&usucl::hard_negative_nce_backward_op<Cuda>));
}
