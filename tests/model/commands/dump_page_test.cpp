// data/formats/dump.md lists the datasets that a dump has, and no others.
#include <gtest/gtest.h>

#include "data/hdf5/file.h"
#include "model/commands/dump.h"
#include "tests/data/records/format_page.h"
#include "tests/model/pass/micro.h"

namespace routescope::model {
namespace {

TEST(DumpPage, PageAndFileAgree) {
  const micro::TemporaryDirectory temporary;
  Model model(micro::config(micro::modes()[1]), {});
  model.initialize(1);
  dump(model, {2, 3, micro::tokens(6, model.config().vocab_size, 1)}, {}, true, temporary.path / "dump.h5");
  const auto page = testing::page_fields(testing::read_page("dump.md"));
  const auto written =
      testing::file_fields(data::hdf5::File::open(temporary.path / "dump.h5"), {{"^/grad/.*", "/grad/NAME"}});
  EXPECT_EQ(testing::differences(page, written), std::vector<std::string>{});
}

}  // namespace
}  // namespace routescope::model
