// The kernel as it is, compiled for sm_90a alone: test_wgmma_core.py reads its machine code. The
// library that is built for the tests may be of another architecture.
#include "cuda/tensor_cores/nominate_hopper.cu"
