// Marks a rule that host and device share. Inlined by force: rules are lambdas within lambdas,
// which a compiler would leave apart.
#pragma once

#if defined(__CUDACC__)
#define USUCL_HD __host__ __device__ __forceinline__
#else
#define USUCL_HD inline __attribute__((always_inline))
#endif
