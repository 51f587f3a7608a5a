// From an address in compiled code to its line in the sources.
#pragma once

#include <dlfcn.h>

#include <cstdio>
#include <string>

namespace usucl::emulation {

// "file:line" of the call that returns to the address. Where functions were inlined there, the
// innermost that is not the emulator's.
inline std::string source_line(const void* caller) {
  Dl_info module{};
  if (caller == nullptr || dladdr(caller, &module) == 0) return "unknown code";
  const auto offset = static_cast<const char*>(caller) - static_cast<char*>(module.dli_fbase) - 1;
  char command[1024], line[512];
  std::snprintf(command, sizeof command, "addr2line -ise '%s' %#tx", module.dli_fname, offset);
  std::string result = "emulator.h:";
  if (FILE* output = popen(command, "r")) {
    while (result.rfind("emulator.h:", 0) == 0 &&
           std::fgets(line, sizeof line, output) != nullptr) {
      result = line;
    }
    pclose(output);
  }
  return result.substr(0, result.find_first_of(" \n"));
}

}  // namespace usucl::emulation
