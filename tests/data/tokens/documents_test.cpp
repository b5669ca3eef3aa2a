// Windows of different documents, for streams of documents of random lengths and for awkward ones.
#include "data/tokens/documents.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <stdexcept>

namespace routescope::data {
namespace {

using Ids = std::vector<std::int32_t>;
using Numbers = std::vector<std::int64_t>;

constexpr std::int32_t kEnd = 256, kOtherEnd = 7;
const Numbers kEnds{kEnd, kOtherEnd};

// Documents of these lengths, end-of-document tokens included. `before`: each begins with the token.
Ids stream_of(const Numbers& lengths, bool before = false, std::int32_t end = kEnd) {
  Ids out;
  for (const std::int64_t length : lengths) {
    if (before) out.push_back(end);
    for (std::int64_t i = 1; i < length; ++i) out.push_back(65 + static_cast<std::int32_t>(out.size() % 26));
    if (!before) out.push_back(end);
  }
  return out;
}

// The number of the document that each token belongs to.
Numbers documents_of(const Numbers& lengths) {
  Numbers out;
  for (std::size_t d = 0; d < lengths.size(); ++d)
    out.insert(out.end(), static_cast<std::size_t>(lengths[d]), static_cast<std::int64_t>(d));
  return out;
}

// The most windows no two of which have tokens of one document, by the end that comes first.
std::int64_t most_apart(const Numbers& of_token, std::int64_t length) {
  std::int64_t windows = 0;
  std::size_t begin = 0;
  const auto step = static_cast<std::size_t>(length);
  while (begin + step <= of_token.size()) {
    ++windows;
    const std::int64_t last = of_token[begin + step - 1];
    begin = static_cast<std::size_t>(std::upper_bound(of_token.begin(), of_token.end(), last) - of_token.begin());
  }
  return windows;
}

// "" if the windows are what the header says of them for this stream, else what is wrong.
std::string wrong_in(const TokenWindows& windows, const Numbers& of_token, std::int64_t length, std::int64_t count) {
  if (std::ssize(windows.begin) != count) return "another number of windows";
  if (windows.document.size() != windows.begin.size()) return "documents are not known";
  const auto number = [&](std::int64_t token) { return of_token[static_cast<std::size_t>(token)]; };
  bool apart = true;
  for (std::size_t w = 0; w < windows.begin.size(); ++w) {
    const std::int64_t begin = windows.begin[w];
    if (begin < 0 || begin + length > std::ssize(of_token)) return "outside of the stream";
    if (windows.document[w] != number(begin)) return "not the document of the first token";
    if (w == 0) continue;
    if (begin < windows.begin[w - 1] + length) return "windows overlap";
    apart = apart && number(begin) > number(windows.begin[w - 1] + length - 1);
  }
  if (!apart && count <= most_apart(of_token, length)) return "windows share a document";
  return "";
}

TEST(DocumentsTest, WindowsAreOfDifferentDocumentsAsLongAsThatCanBeHad) {
  constexpr std::uint64_t seed = 20261130;
  std::mt19937_64 random(seed);
  int apart = 0, not_apart = 0;
  for (int repetition = 0; repetition < 3000; ++repetition) {
    SCOPED_TRACE(testing::Message() << "seed " << seed << ", repetition " << repetition);
    const std::int64_t length = 1 + static_cast<std::int64_t>(random() % 12);
    const std::uint64_t longest = 1 + random() % 30;
    Numbers lengths(1 + random() % 40);
    // One token is no document: as the next document's first it would be part of it.
    for (std::int64_t& one : lengths) one = 2 + static_cast<std::int64_t>(random() % longest);
    const Ids tokens = stream_of(lengths, repetition % 2 == 1, repetition % 3 == 0 ? kOtherEnd : kEnd);
    const Numbers of_token = documents_of(lengths);
    const std::int64_t room = std::ssize(tokens) / length;
    if (room == 0) continue;
    const std::int64_t count = 1 + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(room));
    const TokenWindows windows = choose_windows(source_of(tokens), kEnds, length, count);
    ASSERT_EQ(wrong_in(windows, of_token, length, count), "");
    (count <= most_apart(of_token, length) ? apart : not_apart) += 1;
    ASSERT_EQ(choose_windows(source_of(tokens), kEnds, length, count).begin, windows.begin);
    ASSERT_EQ(documents_at(source_of(tokens), kEnds, windows.begin), windows.document);
  }
  EXPECT_GT(apart, 500);
  EXPECT_GT(not_apart, 500);
}

TEST(DocumentsTest, DocumentsAreSpreadEvenlyOverAnyStream) {
  // More documents than are kept in memory for four windows, and the token at a border of the pieces that are read.
  for (const std::size_t documents : {4U, 7U, 100U, 127U, 128U, 129U, 1000U, 40000U}) {
    const Ids tokens = stream_of(Numbers(documents, 10));
    const TokenWindows windows = choose_windows(source_of(tokens), kEnds, 8, 4);
    ASSERT_EQ(windows.document.size(), 4U);
    for (std::size_t w = 0; w < 4; ++w) {
      // The middle of the w-th quarter, up to the distance of the documents that are kept.
      const double expected = (static_cast<double>(w) + 0.5) * static_cast<double>(documents) / 4;
      EXPECT_NEAR(static_cast<double>(windows.document[w]), expected, 1 + static_cast<double>(documents) / 64)
          << documents;
    }
  }
}

TEST(DocumentsTest, ThePlaceInALongDocumentDependsOnItsNumberAlone) {
  const std::int64_t length = 50;
  std::set<std::int64_t> places;
  for (std::int64_t document = 0; document < 40; ++document) {
    // The document of this number in two streams: other lengths before and after it, another number of windows.
    Numbers lengths(40, 60), others(60, 97);
    lengths[static_cast<std::size_t>(document)] = others[static_cast<std::size_t>(document)] = 1050;
    const auto place = [&](const Numbers& of, std::int64_t count) {
      const TokenWindows windows = choose_windows(source_of(stream_of(of)), kEnds, length, count);
      const auto found = std::find(windows.document.begin(), windows.document.end(), document);
      const Numbers of_token = documents_of(of);
      return windows.begin[static_cast<std::size_t>(found - windows.document.begin())] -
             (std::lower_bound(of_token.begin(), of_token.end(), document) - of_token.begin());
    };
    const std::int64_t at = place(lengths, 40);
    EXPECT_EQ(place(others, 60), at);
    places.insert(at);
  }
  // Of 1000 places 40 that are drawn at random are almost all different, and in every tenth part.
  EXPECT_GT(places.size(), 35U);
  for (std::int64_t tenth = 0; tenth < 10; ++tenth)
    EXPECT_TRUE(std::ranges::any_of(places, [&](std::int64_t at) { return at / 100 == tenth; })) << tenth;
}

TEST(DocumentsTest, FurtherWindowsOfTheSameDocumentsAreAsEqualAsTheirLengthsAllow) {
  // Room for 1, 2, 10 and 10 windows.
  const Ids tokens = stream_of({12, 25, 109, 100});
  const auto shares = [&](std::int64_t count) {
    const TokenWindows windows = choose_windows(source_of(tokens), kEnds, 10, count);
    EXPECT_EQ(wrong_in(windows, documents_of({12, 25, 109, 100}), 10, count), "");
    Numbers out(4, 0);
    for (const std::int64_t document : windows.document) ++out[static_cast<std::size_t>(document)];
    return out;
  };
  EXPECT_EQ(shares(4), (Numbers{1, 1, 1, 1}));
  EXPECT_EQ(shares(7), (Numbers{1, 2, 2, 2}));
  EXPECT_EQ(shares(11), (Numbers{1, 2, 4, 4}));
  EXPECT_EQ(shares(23), (Numbers{1, 2, 10, 10}));
  // One more than documents have room for: across their borders.
  EXPECT_EQ(choose_windows(source_of(tokens), kEnds, 10, 24).begin.size(), 24U);
}

TEST(DocumentsTest, AwkwardStreams) {
  const auto choose = [](const Ids& tokens, std::int64_t length, std::int64_t count) {
    return choose_windows(source_of(tokens), kEnds, length, count);
  };
  // One document, ended or not; a window as long as it.
  EXPECT_EQ(choose(stream_of({100}), 10, 3).document, (Numbers{0, 0, 0}));
  EXPECT_EQ(choose(stream_of({100}, true), 10, 3).document, (Numbers{0, 0, 0}));
  EXPECT_EQ(choose(stream_of({100}), 100, 1).begin, (Numbers{0}));
  // None.
  const TokenWindows unknown = choose(Ids(100, 65), 10, 2);
  EXPECT_EQ(unknown.begin, (Numbers{20, 70}));
  EXPECT_TRUE(unknown.document.empty());
  EXPECT_TRUE(choose_windows(source_of(stream_of({50, 50})), {}, 10, 2).document.empty());
  // Shorter ones share a window, which begins with the first of them; the short one before a long one is left out.
  const TokenWindows shared = choose(stream_of({4, 4, 4, 3, 30, 4, 4, 4}), 10, 3);
  EXPECT_EQ(shared.document, (Numbers{0, 4, 5}));
  EXPECT_EQ(shared.begin[0], 0);
  EXPECT_EQ(shared.begin[2], 45);
  // Several end-of-document tokens in a row are one border: no empty documents.
  EXPECT_EQ(choose({65, 66, kEnd, kOtherEnd, kEnd, 67, 68, kEnd}, 2, 2).document, (Numbers{0, 1}));
  EXPECT_EQ(choose({kEnd, 65, kOtherEnd, kEnd, 66, 67}, 2, 2).document, (Numbers{0, 1}));
  EXPECT_EQ(choose(Ids(30, kEnd), 10, 3).document, (Numbers{0, 0, 0}));
  // Windows of every token; and one token more than there are.
  EXPECT_EQ(choose(stream_of({7, 13, 10}), 10, 3).begin, (Numbers{0, 10, 20}));
  EXPECT_THROW(choose(stream_of({7, 13, 9}), 10, 3), std::invalid_argument);
  EXPECT_THROW(choose({}, 1, 1), std::invalid_argument);
}

TEST(DocumentsTest, ReadsTheTokensOfTheWindows) {
  Ids tokens(200000);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i % 1000 == 999 ? 256 : i);
  const TokenWindows windows = choose_windows(source_of(tokens), kEnds, 100, 64);
  EXPECT_EQ(std::set(windows.document.begin(), windows.document.end()).size(), 64U);
  const Ids found = read_windows(source_of(tokens), windows);
  ASSERT_EQ(found.size(), 6400U);
  for (std::size_t i = 0; i < found.size(); ++i)
    ASSERT_EQ(found[i], tokens[static_cast<std::size_t>(windows.begin[i / 100]) + i % 100]);
}

}  // namespace
}  // namespace routescope::data
