// data/formats/routing.md lists the datasets that routing.h5 has, and no others.
#include "tests/data/records/format_page.h"

#include <gtest/gtest.h>

#include "tests/data/base/temp_dir.h"
#include "tests/data/records/routing_fixture.h"

namespace routescope::data {
namespace {

using testing::PageField;
using Lines = std::vector<std::string>;

TEST(FormatPageTest, RoutingPageAndFileAgree) {
  const TempDir dir;
  { RoutingRecord::create(dir / "routing.h5", small_info()); }
  const std::string text = testing::read_page("routing.md");
  EXPECT_TRUE(
      text.starts_with(fmt::format("# routing.h5, version {}.{}\n", routing_version_major, routing_version_minor)));
  const std::vector<PageField> page = testing::page_fields(text);
  std::vector<PageField> written = testing::file_fields(hdf5::File::open(dir / "routing.h5"));
  EXPECT_EQ(testing::differences(page, written), Lines{});

  // A column of the schema that the page lacks, and a line of the page that the schema lacks.
  written.push_back({"/train/update_norm", "float64", {"step"}, "1", "norm of the update"});
  EXPECT_EQ(testing::differences(page, written), Lines{"/train/update_norm: in a file, not on the page"});
  written.pop_back();
  std::erase_if(written, [](const PageField& field) { return field.path == "/train/loss"; });
  EXPECT_EQ(testing::differences(page, written), Lines{"/train/loss: on the page, in no file"});
}

TEST(FormatPageTest, TablesOfAPageAreRead) {
  const std::vector<PageField> page = testing::page_fields(
      "| name | type | meaning |\n|---|---|---|\n| `version` | int64 | an attribute |\n\n"
      "| path | type | shape | units | meaning |\n|---|---|---|---|---|\n"
      "| `/a`, `/b` | float32 | [x], [y, z - 1] | nat | a \\|\\| b |\n| `/c` | string | [] | | text |\n");
  ASSERT_EQ(page.size(), 3U);
  EXPECT_EQ(page[0].path, "/a");
  EXPECT_EQ(page[0].axes, Lines{"x"});
  EXPECT_EQ(page[1].axes, (Lines{"y", "z - 1"}));
  EXPECT_EQ(page[1].units, "nat");
  EXPECT_EQ(page[1].description, "a \\|\\| b");
  EXPECT_EQ(page[2].axes, Lines{});
  EXPECT_EQ(page[2].units, "");

  const PageField same{"/c", "string", {}, "", "words"};
  EXPECT_EQ(testing::differences({page[2]}, {same}), Lines{});
  const PageField other{"/c", "string", {"x"}, "", ""};
  EXPECT_EQ(testing::differences({page[2]}, {other}),
            (Lines{"/c: the page says string [] in '', the file string [x] in ''", "/c: the file has no description"}));
}

}  // namespace
}  // namespace routescope::data
