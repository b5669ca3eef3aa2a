// What the fuzz targets share: the rule for refusals, and files for the parsers that need one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "data/base/error.h"
#include "data/base/files.h"

/// Every target defines this: it hands the bytes to a parser. libFuzzer or driver.cpp calls it.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace routescope::fuzz {

/// Ends the process with abort() and a line: a finding.
[[noreturn]] void found(const std::string& what);

/// A refusal's message says where, is short, and has no words of a library's exceptions.
void check_message(const std::string& message);

/// Runs a parser. Only data::Error is a refusal; another exception ends the process, and is a finding.
template <class Body>
int parse(const Body& body) {
  try {
    body();
  } catch (const data::Error& refusal) {
    check_message(refusal.what());
  }
  return 0;
}

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// An open file without a name, in memory.
data::FileDescriptor memory_file(std::string_view content);
/// Writes a file of this name into a directory in memory that lives as long as the process. Returns its path.
std::filesystem::path scratch_file(const std::string& name, std::string_view content);
/// That directory.
const std::filesystem::path& scratch_directory();

}  // namespace routescope::fuzz
