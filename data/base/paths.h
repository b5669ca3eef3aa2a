// Paths as users write them: what they expand to, and whether two of them are one file.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace routescope::data {

/// `text` with a leading ~ and every $NAME or ${NAME} replaced, unless a file of exactly this name is there. `where`
/// names the option or key. Throws Error for a name that the environment does not have, ~ of another user, and text
/// that is not UTF-8 or has control characters.
std::string expand_path(const std::string& text, const std::string& where);

/// The file that a chain of links ends at; it need not exist. Throws Error for links in a circle.
std::filesystem::path follow_links(const std::filesystem::path& path);

/// Whether writing one of them changes the other: also through links, hard links and directories that do not exist.
bool same_place(const std::filesystem::path& a, const std::filesystem::path& b);

/// The first path that is the same file or directory as an earlier one, and that one: also through links and hard
/// links. Paths where nothing is are not compared.
struct NamedTwice {
  std::filesystem::path again, before;
};
std::optional<NamedTwice> named_twice(const std::vector<std::filesystem::path>& paths);

/// An option and its path; an empty path is an option that was not given.
struct NamedPath {
  std::string option;
  std::filesystem::path path;
};
/// Throws UsageError if an output is the place of another output or of an input.
void require_apart(const std::vector<NamedPath>& outputs, const std::vector<NamedPath>& inputs);

}  // namespace routescope::data
