#include "data/tokens/documents.h"

#include <algorithm>
#include <stdexcept>

#include "data/tokens/mix.h"

namespace routescope::data {

namespace {

/// Tokens [begin, end) of the stream.
struct Document {
  std::int64_t number = 0, begin = 0, end = 0;
};

/// Calls `take` for each document in order. Returns whether the stream has a token of `ends`.
bool each_document(const TokenSource& source, std::span<const std::int64_t> ends,
                   const std::function<void(const Document&)>& take) {
  constexpr std::int64_t piece = 1 << 16;
  std::vector<std::int32_t> tokens;
  Document document;
  bool any = false, ends_first = false, last_ends = false;
  for (std::int64_t begin = 0; begin < source.size; begin += piece) {
    tokens.resize(static_cast<std::size_t>(std::min(piece, source.size - begin)));
    source.read(begin, tokens);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const std::int64_t at = begin + static_cast<std::int64_t>(i);
      const bool is_end = std::find(ends.begin(), ends.end(), tokens[i]) != ends.end();
      if (at == 0) ends_first = is_end;
      any = any || is_end;
      // Several such tokens in a row are one border.
      if (at > 0 && (ends_first ? is_end && !last_ends : last_ends && !is_end)) {
        document.end = at;
        take(document);
        document = {.number = document.number + 1, .begin = at};
      }
      last_ends = is_end;
    }
  }
  document.end = source.size;
  if (source.size > 0) take(document);
  return any;
}

/// Neighbouring documents that hold a window. Groups have no document in common.
struct Group {
  std::int64_t number, begin, end;  // the number of the first document; tokens of all
  bool several;                     // documents, each shorter than a window
};

/// The most groups that documents can form; of more than `limit` every second, fourth, ... one.
class Groups {
 public:
  Groups(std::int64_t length, std::int64_t limit) : length_(length), limit_(limit) {}

  void add(const Document& document) {
    // Short documents before a long one are left out: with them it would give no window more.
    const bool alone = document.end - document.begin >= length_;
    if (alone || pending_.end == pending_.begin) pending_ = document;
    pending_.end = document.end;
    if (pending_.end - pending_.begin < length_) return;
    keep({pending_.number, pending_.begin, pending_.end, !alone});
    pending_ = {};
  }
  const std::vector<Group>& kept() const { return kept_; }

 private:
  void keep(const Group& group) {
    if (found_++ % every_ != 0) return;
    kept_.push_back(group);
    if (std::ssize(kept_) < limit_) return;
    every_ *= 2;
    std::size_t to = 0;
    for (std::size_t i = 0; i < kept_.size(); i += 2) kept_[to++] = kept_[i];
    kept_.resize(to);
  }

  std::int64_t length_, limit_, found_ = 0, every_ = 1;
  Document pending_;
  std::vector<Group> kept_;
};

/// How many windows each group gives: `count` in all, or all that there is room for if that is less.
std::vector<std::int64_t> shares_of(const std::vector<Group>& groups, std::int64_t length, std::int64_t count) {
  std::vector<std::int64_t> shares(groups.size(), 0);
  std::vector<std::size_t> open(groups.size());
  for (std::size_t g = 0; g < open.size(); ++g) open[g] = g;
  while (count > 0 && !open.empty()) {
    const auto given = std::min(count, std::ssize(open));
    for (std::int64_t i = 0; i < given; ++i) {
      const std::int64_t middle = (2 * i + 1) * std::ssize(open) / (2 * given);
      ++shares[open[static_cast<std::size_t>(middle)]];
    }
    count -= given;
    std::erase_if(open, [&](std::size_t g) { return shares[g] == (groups[g].end - groups[g].begin) / length; });
  }
  return shares;
}

/// `count` windows in [begin, end) at equal distances, each moved by `place` of [0, 1) within its part.
void spread(std::int64_t begin, std::int64_t end, std::int64_t count, double place, TokenWindows& out) {
  const auto spare = static_cast<double>(end - begin - count * out.length);
  for (std::int64_t i = 0; i < count; ++i) {
    const double moved = spare * (static_cast<double>(i) + place) / static_cast<double>(count);
    out.begin.push_back(begin + i * out.length + static_cast<std::int64_t>(moved));
  }
}

/// The documents of ascending tokens, as documents go by.
class DocumentsAt {
 public:
  explicit DocumentsAt(std::span<const std::int64_t> at) : at_(at) {}
  void pass(const Document& document) {
    while (found_.size() < at_.size() && at_[found_.size()] < document.end) found_.push_back(document.number);
  }
  std::vector<std::int64_t> found() const { return found_; }

 private:
  std::span<const std::int64_t> at_;
  std::vector<std::int64_t> found_;
};

}  // namespace

TokenSource source_of(std::span<const std::int32_t> tokens) {
  return {std::ssize(tokens), [tokens](std::int64_t begin, std::span<std::int32_t> out) {
            std::copy_n(tokens.begin() + begin, out.size(), out.begin());
          }};
}

TokenWindows choose_windows(const TokenSource& source, std::span<const std::int64_t> ends, std::int64_t length,
                            std::int64_t count) {
  if (length < 1 || count < 1 || count > source.size / length)
    throw std::invalid_argument("choose_windows: the stream is shorter than the windows");
  TokenWindows even{length, {}, {}};
  spread(0, source.size, count, 0.5, even);
  DocumentsAt even_documents(even.begin);
  constexpr std::int64_t kept_for_each = 32;  // so that neighbours among the chosen are at almost equal distances
  Groups groups(length, kept_for_each * count);
  const bool any = each_document(source, ends, [&](const Document& document) {
    even_documents.pass(document);
    groups.add(document);
  });
  if (!any) return even;
  even.document = even_documents.found();

  TokenWindows out{length, {}, {}};
  const std::vector<std::int64_t> shares = shares_of(groups.kept(), length, count);
  for (std::size_t g = 0; g < shares.size(); ++g) {
    const Group& group = groups.kept()[g];
    // 32 bits, so that the place stays below 1.
    const double place = static_cast<double>(mix(static_cast<std::uint64_t>(group.number)) >> 32) * 0x1p-32;
    spread(group.begin, group.end, shares[g], group.several ? 0 : place, out);
    out.document.resize(out.begin.size(), group.number);
  }
  return std::ssize(out.begin) == count ? out : even;
}

std::vector<std::int64_t> documents_at(const TokenSource& source, std::span<const std::int64_t> ends,
                                       std::span<const std::int64_t> at) {
  DocumentsAt documents(at);
  const bool any = each_document(source, ends, [&](const Document& document) { documents.pass(document); });
  return any ? documents.found() : std::vector<std::int64_t>{};
}

std::vector<std::int32_t> read_windows(const TokenSource& source, const TokenWindows& windows) {
  const auto length = static_cast<std::size_t>(windows.length);
  std::vector<std::int32_t> out(windows.begin.size() * length);
  for (std::size_t w = 0; w < windows.begin.size(); ++w)
    source.read(windows.begin[w], std::span(out).subspan(w * length, length));
  return out;
}

}  // namespace routescope::data
