// The operators of ops.cpp on CUDA devices.
#include "../operators.h"

#include <torch/csrc/stable/library.h>

#include "backend.h"

STABLE_TORCH_LIBRARY_IMPL(usucl, CUDA, m) {
  m.impl("select_negatives", TORCH_BOX(&usucl::select_negatives_op<usucl::cuda::Cuda>));
  m.impl("similarities", TORCH_BOX(&usucl::similarities_op<usucl::cuda::Cuda>));
  m.impl("hard_negative_nce", TORCH_BOX(&usucl::hard_negative_nce_op<usucl::cuda::Cuda>));
  m.impl("hard_negative_nce_backward",
         TORCH_BOX(&usucl::hard_negative_nce_backward_op<usucl::cuda::Cuda>));
}
