// From here to target_end.h functions are compiled for the instruction sets in USUCL_TARGET.
// Headers that other files include too must come before: the linker may keep any file's copy of
// their functions, and every machine must be able to run it.
#include <immintrin.h>

#define USUCL_PRAGMA_OF(text) _Pragma(#text)
#define USUCL_PRAGMA(text) USUCL_PRAGMA_OF(text)

#if defined(__clang__)
USUCL_PRAGMA(clang attribute push(__attribute__((target(USUCL_TARGET))), apply_to = function))
#else
USUCL_PRAGMA(GCC push_options)
USUCL_PRAGMA(GCC target(USUCL_TARGET))
#endif
