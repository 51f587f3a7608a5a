// The kernel itself, compiled for sm_90a alone: test_wgmma_core.py reads its machine code. The
// library built for the tests may have another architecture.
#include "cuda/tensor_cores/nominate_hopper.cu"
