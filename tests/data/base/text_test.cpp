// What is UTF-8, and what may reach a terminal.
#include "data/base/text.h"

#include <gtest/gtest.h>

namespace routescope::data {
namespace {

TEST(TextTest, KnowsUtf8) {
  for (const std::string good :
       {"", "a\n\t", "\x7f", "é", "日本", "😀", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf", "\xef\xbb\xbf"})
    EXPECT_FALSE(invalid_utf8(good)) << good;
  EXPECT_FALSE(invalid_utf8(std::string("\0", 1)));
  // Latin-1, UTF-16, a lone continuation, overlong forms, surrogates, beyond the last character, cut characters.
  for (const std::string bad :
       {"\xe9t\xe9", "\xff\xfe", "\x80", "\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xed\xa0\x80", "\xed\xbf\xbf",
        "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xc3", "\xe6\x97", "\xf0\x9f\x98"})
    EXPECT_EQ(invalid_utf8("ab" + bad), 2u) << printable(bad);
}

TEST(TextTest, EscapesWhatSteersATerminal) {
  EXPECT_EQ(printable("plain é 日本"), "plain é 日本");
  EXPECT_EQ(printable("a\nb\tc\r\x1b[31m\x7f"), "a\\nb\\tc\\x0d\\x1b[31m\\x7f");
  EXPECT_EQ(printable("\xc2\x9b"
                      "31m"),
            "\\xc2\\x9b31m");                                        // CSI in one character
  EXPECT_EQ(printable("\x9b\xe2\x80\xae"), "\\x9b\\xe2\\x80\\xae");  // not UTF-8; right to left from here
  EXPECT_EQ(printable(std::string("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(printable_lines("a\n\x1b\n"), "a\n\\x1b\n");
}

}  // namespace
}  // namespace routescope::data
