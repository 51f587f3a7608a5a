// Marks a rule that host and device share. Inlining is forced because rules are nested lambdas,
// which a compiler would not inline by itself.
#pragma once

#if defined(__CUDACC__)
#define USUCL_HD __host__ __device__ __forceinline__
#else
#define USUCL_HD inline __attribute__((always_inline))
#endif
