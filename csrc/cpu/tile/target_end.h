// Ends what target_begin.h began.
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#undef USUCL_PRAGMA
#undef USUCL_PRAGMA_OF
#undef USUCL_TARGET
