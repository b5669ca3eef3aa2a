#include "data/yaml/yaml.h"

#include <yaml-cpp/eventhandler.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <sstream>
#include <utility>
#include <vector>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/json.h"

namespace routescope::data {

namespace {

constexpr std::size_t kMaxDepth = 64, kMaxValues = 100'000, kMaxKey = 1000;
constexpr std::uintmax_t kMaxFile = std::uintmax_t{16} << 20;

/// Follows the parser and refuses what parse_yaml() refuses. It sees aliases before they are expanded.
class Checker : public YAML::EventHandler {
 public:
  explicit Checker(const std::string& where) : where_(where) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) refuse(mark, "", "a second document", "one");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const std::size_t first = begin(mark, "", nullptr);
    end(anchor, first);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    begin(mark, "", nullptr);
    const auto size = sizes_.find(anchor);
    if (size == sizes_.end()) refuse(mark, path(), "an alias that contains itself", "one of a value that is complete");
    count(mark, size->second);
    done();
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    const std::size_t first = begin(mark, tag, &value);
    end(anchor, first);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, false);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, true);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Level {
    bool map = false;
    bool at_key = false;  // a map's next value is a key
    YAML::anchor_t anchor = 0;
    std::size_t first = 0;  // values before it
    std::string key;
    std::map<std::string, int> lines;  // of its keys
  };

  [[noreturn]] void refuse(const YAML::Mark& mark, const std::string& at, const std::string& found,
                           const std::string& expected) const {
    throw Error("{}:{}: {}found {}, expected {}", where_, mark.line + 1, at.empty() ? "" : shortened(at) + ": ", found,
                expected);
  }

  std::string path() const {
    std::string out;
    for (const Level& level : levels_)
      if (level.map && !level.key.empty()) out += (out.empty() ? "" : ".") + level.key;
    return out;
  }

  void count(const YAML::Mark& mark, std::size_t more) {
    values_ += more;
    if (values_ > kMaxValues)
      refuse(mark, path(), fmt::format("more than {} values, aliases expanded", kMaxValues), "fewer");
  }

  /// Before every value and key; `scalar` is its text. Returns the number of values before it.
  std::size_t begin(const YAML::Mark& mark, const std::string& tag, const std::string* scalar) {
    const std::size_t before = values_;
    if (!levels_.empty() && levels_.back().at_key) {
      Level& level = levels_.back();
      if (!scalar || scalar->empty()) refuse(mark, path(), "a key that is no text", "a text");
      if (scalar->size() > kMaxKey) refuse(mark, *scalar, fmt::format("a key of {} bytes", scalar->size()), "fewer");
      if (*scalar == "<<") refuse(mark, path(), "a merge key (<<)", "the keys themselves");
      level.key = *scalar;
      const auto [first, fresh] = level.lines.emplace(*scalar, mark.line + 1);
      if (!fresh) refuse(mark, path(), "a second time", fmt::format("once (first on line {})", first->second));
    }
    if (!tag.empty() && tag != "?" && tag != "!")
      refuse(mark, path(), "the tag " + shortened(tag), "a value without one");
    count(mark, 1);
    return before;
  }
  void end(YAML::anchor_t anchor, std::size_t first) {
    if (anchor != 0) sizes_[anchor] = values_ - first;
    done();
  }
  void done() {
    if (!levels_.empty() && levels_.back().map) levels_.back().at_key = !levels_.back().at_key;
  }
  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, bool map) {
    const std::size_t first = begin(mark, tag, nullptr);
    if (levels_.size() >= kMaxDepth) refuse(mark, path(), fmt::format("more than {} levels", kMaxDepth), "fewer");
    levels_.push_back({.map = map, .at_key = map, .anchor = anchor, .first = first, .key = {}, .lines = {}});
  }
  void close() {
    const Level level = std::move(levels_.back());
    levels_.pop_back();
    end(level.anchor, level.first);
  }

  const std::string& where_;
  int documents_ = 0;
  std::size_t values_ = 0;
  std::vector<Level> levels_;
  std::map<YAML::anchor_t, std::size_t> sizes_;  // of complete anchored values, aliases expanded
};

/// YAML allows no control characters. The parser would take \x04 for the end of the text.
void refuse_control_characters(const std::string& text, const std::string& where) {
  const auto control = [](char c) {
    const auto code = static_cast<unsigned char>(c);
    return (code < 0x20 && c != '\t' && c != '\n' && c != '\r') || code == 0x7f;
  };
  const auto found = std::ranges::find_if(text, control);
  if (found == text.end()) return;
  throw Error("{}:{}: not YAML: found the control character \\x{:02x}, expected text", where,
              std::count(text.begin(), found, '\n') + 1, static_cast<unsigned char>(*found));
}

}  // namespace

YAML::Node parse_yaml(const std::string& text, const std::string& where) {
  refuse_control_characters(text, where);
  try {
    std::istringstream in(text);
    YAML::Parser parser(in);
    Checker checker(where);
    while (parser.HandleNextDocument(checker)) {
    }
    return YAML::Load(text);
  } catch (const YAML::Exception& error) {
    throw Error("{}:{}: not YAML: {}", where, error.mark.line + 1, error.msg);
  }
}

YAML::Node read_yaml(const std::filesystem::path& file) {
  return parse_yaml(read_text(file, kMaxFile), file.string());
}

std::optional<std::int64_t> yaml_integer(const YAML::Node& root, const std::string& path, const std::string& where) {
  YAML::Node node(root);
  std::istringstream keys(path);
  for (std::string key; std::getline(keys, key, '.');) {
    if (!node.IsMap()) return std::nullopt;
    const YAML::Node next = std::as_const(node)[key];
    if (!next.IsDefined()) return std::nullopt;
    node.reset(next);
  }
  std::int64_t value = 0;
  const std::string text = node.IsScalar() ? node.Scalar() : "";
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size())
    throw Error("{}: key {}: found '{}', expected an integer", where, path, shortened(text));
  return value;
}

}  // namespace routescope::data
