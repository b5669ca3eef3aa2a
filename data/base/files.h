// Writing files so that they are complete or absent; reading and checksumming whole files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace routescope::data {

/// The name under which a file is written before it is complete: in the same directory, with the number of this
/// process, so that two processes that write the same file do not write into each other's.
std::filesystem::path partial_name(const std::filesystem::path& file);
/// The name that a partial_name() was made from, for messages. Any other name is returned unchanged.
std::filesystem::path final_name(const std::filesystem::path& file);
/// Writes `file` through a temporary name in the same directory: `write` gets the temporary path and must produce a
/// complete file, which is then synced and renamed. If anything throws, the temporary file is removed and nothing else
/// has changed.
void write_atomically(const std::filesystem::path& file,
                      const std::function<void(const std::filesystem::path&)>& write);
/// The same for a short text.
void write_text_atomically(const std::filesystem::path& file, const std::string& text);
/// fsync of a file or directory. Throws Error.
void sync_path(const std::filesystem::path& path);
/// The whole file as text. Throws Error naming it.
std::string read_text(const std::filesystem::path& file);
/// SHA-256 in hexadecimal, as sha256sum prints it. Throws Error.
std::string sha256_file(const std::filesystem::path& file);

}  // namespace routescope::data
