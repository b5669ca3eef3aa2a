#include "data/tokens/shard_files.h"

#include <glob.h>

#include <utility>

#include "data/base/error.h"
#include "data/base/paths.h"

namespace routescope::data {

namespace fs = std::filesystem;

namespace {

/// The path as a pattern that matches nothing else.
std::string literally(const fs::path& path) {
  std::string out;
  for (const char c : path.string()) {
    if (c == '*' || c == '?' || c == '[' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::vector<fs::path> matches(const fs::path& directory, const fs::path& pattern) {
  const std::string all = directory.empty() ? pattern.string() : literally(directory / "") + pattern.string();
  glob_t found{};
  const int status = ::glob(all.c_str(), 0, nullptr, &found);
  std::vector<fs::path> out(found.gl_pathv, found.gl_pathv + (status == 0 ? found.gl_pathc : 0));
  ::globfree(&found);
  return out;
}

std::vector<fs::path> expand(const std::string& text) {
  std::vector<fs::path> places{""};
  for (const fs::path& part : fs::path(text)) {
    std::vector<fs::path> next;
    for (const fs::path& place : places) {
      std::error_code ignored;
      if (part.empty() || fs::exists(place / part, ignored))
        next.push_back(place / part);
      else
        for (fs::path& found : matches(place, part)) next.push_back(std::move(found));
    }
    places = std::move(next);
  }
  if (places.empty()) throw Error("{}: no such file (nothing matches)", text);
  return places;
}

}  // namespace

std::vector<fs::path> shard_files(const std::vector<std::string>& patterns) {
  if (patterns.empty()) throw Error("no token shards were named");
  std::vector<fs::path> out;
  for (const std::string& pattern : patterns)
    for (fs::path& file : expand(pattern)) out.push_back(std::move(file));
  if (const auto twice = named_twice(out))
    throw Error("{}: found the same file as {}, expected each token shard once", twice->again.string(),
                twice->before.string());
  return out;
}

void require_apart_shards(const std::vector<std::string>& train_patterns, const std::string& train,
                          const std::vector<std::string>& valid_patterns, const std::string& valid) {
  std::vector<fs::path> both = shard_files(train_patterns);
  for (fs::path& file : shard_files(valid_patterns)) both.push_back(std::move(file));
  if (const auto twice = named_twice(both))
    throw Error("{}: found {}, which {} names too (as {}), expected other data than is trained on", valid,
                twice->again.string(), train, twice->before.string());
}

}  // namespace routescope::data
