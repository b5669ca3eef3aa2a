#include "data/base/paths.h"

#include <sys/stat.h>

#include <cctype>
#include <cstdlib>
#include <map>
#include <string_view>

#include "data/base/error.h"
#include "data/base/json.h"
#include "data/base/text.h"

namespace routescope::data {

namespace fs = std::filesystem;

namespace {

std::string environment(const std::string& name, const std::string& text, const std::string& where) {
  const char* value = std::getenv(name.c_str());
  if (!value || !*value)
    throw Error("{}: found {}, but the environment has no {}", where, shortened(text), shortened(name));
  return value;
}

/// The name of a variable that follows `$` at text[0], and how many characters it takes with its braces; empty if none.
std::pair<std::string, std::size_t> variable_name(std::string_view text) {
  const bool braces = text.size() > 1 && text[1] == '{';
  const std::size_t begin = braces ? 2 : 1;
  std::size_t end = begin;
  while (end < text.size() && (std::isalnum(static_cast<unsigned char>(text[end])) || text[end] == '_')) ++end;
  const bool named = end > begin && !std::isdigit(static_cast<unsigned char>(text[begin]));
  if (!named || (braces && (end == text.size() || text[end] != '}'))) return {"", 0};
  return {std::string(text.substr(begin, end - begin)), end + (braces ? 1 : 0)};
}

void require_printable(const std::string& text, const std::string& where) {
  if (const auto bad = invalid_utf8(text))
    throw Error("{}: found {}, expected UTF-8 (byte {} is not)", where, shortened(printable(text)), *bad);
  if (printable(text) != text)
    throw Error("{}: found {}, expected no control characters", where, shortened(printable(text)));
}

}  // namespace

std::string expand_path(const std::string& text, const std::string& where) {
  require_printable(text, where);
  std::string out = text;
  if (text.starts_with("~")) {
    if (text.size() > 1 && text[1] != '/')
      throw Error("{}: found {}, expected ~ or ~/... (or ./{} for a file of that name)", where, shortened(text),
                  shortened(text));
    out = environment("HOME", text, where) + text.substr(1);
  }
  std::error_code ignored;
  if (fs::exists(out, ignored)) return out;
  for (std::size_t at = out.find('$'); at != std::string::npos; at = out.find('$', at)) {
    const auto [name, length] = variable_name(std::string_view(out).substr(at));
    if (length == 0) throw Error("{}: found {}, expected $NAME or ${{NAME}} after each $", where, shortened(text));
    const std::string value = environment(name, text, where);
    out.replace(at, length, value);
    at += value.size();
  }
  require_printable(out, where);
  return out;
}

fs::path follow_links(const fs::path& path) {
  constexpr int most_links = 40;  // as the kernel follows
  fs::path out = path;
  std::error_code error;
  for (int links = 0; links <= most_links; ++links) {
    if (!fs::is_symlink(out, error)) return out;
    const fs::path target = fs::read_symlink(out, error);
    if (error) throw Error("{}: cannot follow the link: {}", path.string(), error.message());
    out = out.parent_path() / target;  // an absolute target stays as it is
  }
  throw Error("{}: found links in a circle, expected a file", path.string());
}

bool same_place(const fs::path& a, const fs::path& b) {
  std::error_code error;
  if (fs::exists(a, error) && fs::exists(b, error)) return fs::equivalent(a, b, error);
  const auto place = [](const fs::path& path) {
    std::error_code failed;
    const fs::path full = fs::absolute(follow_links(path)).lexically_normal();
    const fs::path known = fs::weakly_canonical(full, failed);
    return failed ? full : known;
  };
  return place(a) == place(b);
}

std::optional<NamedTwice> named_twice(const std::vector<fs::path>& paths) {
  std::map<std::pair<dev_t, ino_t>, fs::path> seen;
  for (const fs::path& path : paths) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) continue;
    const auto [other, is_new] = seen.emplace(std::pair(status.st_dev, status.st_ino), path);
    if (!is_new) return NamedTwice{path, other->second};
  }
  return std::nullopt;
}

void require_apart(const std::vector<NamedPath>& outputs, const std::vector<NamedPath>& inputs) {
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].path.empty()) continue;
    const auto require = [&out = outputs[i]](const NamedPath& other) {
      if (!other.path.empty() && same_place(out.path, other.path))
        throw UsageError("{} {}: found the same file as {} {}, expected another", out.option, out.path.string(),
                         other.option, other.path.string());
    };
    for (std::size_t j = 0; j < i; ++j) require(outputs[j]);
    for (const NamedPath& input : inputs) require(input);
  }
}

}  // namespace routescope::data
