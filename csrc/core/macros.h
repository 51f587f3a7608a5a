// Marks a rule that host and device share.
#pragma once

#if defined(__CUDACC__)
#define USUCL_HD __host__ __device__ __forceinline__
#else
#define USUCL_HD inline
#endif
