// The Python module usucl_ext._C_cuda: the CUDA kernels, called with the addresses of tensors.
// Importing it registers the operators as well.
#include "../cuda/backend.h"
#include "direct.h"

PYBIND11_MODULE(_C_cuda, m) {
  m.doc() = "The CUDA kernels, called by usucl_ext/_direct.py.";
  usucl::bind_direct_calls<usucl::cuda::Cuda>(m);
}
