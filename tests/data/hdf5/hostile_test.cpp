// HDF5 files that ask for other files, for plug-ins, for more than there is, or that go in circles: each is refused
// with one line before a byte of it is used.
#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <fstream>

#include "data/base/files.h"
#include "data/hdf5/chunks.h"
#include "data/hdf5/file.h"
#include "data/records/inspect.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::data {
namespace {

using hdf5::File;
using hdf5::Shape;

class HostileHdf5Test : public ::testing::Test {
 protected:
  /// A new file, made through the C API.
  void make(const std::function<void(hid_t)>& fill) const {
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);  // with all that `fill` leaves open
    const hid_t file = H5Fcreate(file_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access);
    fill(file);
    H5Fclose(file);
    H5Pclose(access);
  }
  /// A dataset "x" [4] of that type and creation list, closed again.
  static void add(hid_t file, hid_t type, hid_t creation = H5P_DEFAULT, std::vector<hsize_t> shape = {4}) {
    const hid_t space = H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
    const hid_t data = H5Dcreate2(file, "x", type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    ASSERT_GE(data, 0);
    H5Dclose(data);
    H5Sclose(space);
  }
  void expect_refused(const std::vector<std::string>& parts) const {
    std::vector<std::string> all{file_.string()};
    all.insert(all.end(), parts.begin(), parts.end());
    expect_error([&] { File::open(file_).read<std::int32_t>("x"); }, all);
  }

  TempDir dir_;
  std::filesystem::path file_ = dir_ / "file.h5", secret_ = dir_ / "secret";
};

TEST_F(HostileHdf5Test, ValuesInOtherFilesAreRefused) {
  write_text_atomically(secret_, "root:x:0:0: and more of it");
  make([&](hid_t file) {
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(creation, secret_.c_str(), 0, 16);
    add(file, H5T_STD_I32LE, creation);
  });
  expect_refused({"/x: keeps its values in other files"});
  expect_error([&] { inspect(file_); }, {"/x: keeps its values in other files"});

  make([&](hid_t file) {
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t length = 4;
    const hid_t space = H5Screate_simple(1, &length, nullptr);
    H5Pset_virtual(creation, space, "other.h5", "x", space);
    add(file, H5T_STD_I32LE, creation);
  });
  expect_refused({"/x: keeps its values in other files"});
}

TEST_F(HostileHdf5Test, LinksThatAreNotHardAreRefused) {
  {
    File other = File::create(dir_ / "other.h5");
    other.write("x", std::vector<std::int32_t>{1, 2, 3, 4}, {4});
    other.write("g/x", std::vector<std::int32_t>{1}, {1});
    other.close();
  }
  make([](hid_t file) { H5Lcreate_external("other.h5", "/x", file, "x", H5P_DEFAULT, H5P_DEFAULT); });
  expect_refused({"/x: is a link to another file"});
  expect_error([&] { inspect(file_); }, {"/x: is a link to another file"});
  make([](hid_t file) { H5Lcreate_soft("/elsewhere/x", file, "x", H5P_DEFAULT, H5P_DEFAULT); });
  expect_refused({"/x: is a soft link"});
  expect_error([&] { inspect(file_); }, {"/x: is a soft link"});
  // On the way to it, too.
  make([](hid_t file) { H5Lcreate_external("other.h5", "/g", file, "g", H5P_DEFAULT, H5P_DEFAULT); });
  expect_error([&] { File::open(file_).dataset("g/x"); }, {"/g: is a link to another file"});
  expect_error([&] { (void)File::open(file_).exists("g/x"); }, {"/g: is a link to another file"});
}

TEST_F(HostileHdf5Test, FiltersThatAreNotBuiltInAreNamed) {
  for (const auto& [filter, name] : std::vector<std::pair<int, std::string>>{{32000, "lzf"}, {307, "bzip2"}}) {
    const H5Z_class2_t description{
        H5Z_CLASS_T_VERS,
        filter,
        1,
        1,
        name.c_str(),
        nullptr,
        nullptr,
        [](unsigned, std::size_t, const unsigned*, std::size_t size, std::size_t*, void**) { return size; }};
    H5Zregister(&description);
    make([&, id = filter](hid_t file) {
      const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
      const hsize_t chunk = 4;
      H5Pset_chunk(creation, 1, &chunk);
      H5Pset_filter(creation, id, H5Z_FLAG_MANDATORY, 0, nullptr);
      add(file, H5T_STD_I32LE, creation);
    });
    expect_refused({fmt::format("/x: is stored through filter {} ({}), expected deflate", filter, name)});
    H5Zunregister(filter);
    expect_refused({fmt::format("/x: is stored through filter {} ({}), expected deflate", filter, name)});
  }
  unsigned plugins = 1;
  H5PLget_loading_state(&plugins);
  EXPECT_EQ(plugins, 0U) << "HDF5_PLUGIN_PATH counts";
}

TEST_F(HostileHdf5Test, SizesThatTheFileCannotHoldAreRefused) {
  const auto make_chunked = [&](std::vector<hsize_t> shape, std::vector<hsize_t> chunk) {
    make([&](hid_t file) {
      const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
      H5Pset_chunk(creation, static_cast<int>(chunk.size()), chunk.data());
      H5Pset_deflate(creation, 1);
      add(file, H5T_STD_I32LE, creation, shape);
    });
  };
  make_chunked({hsize_t{1} << 60}, {1024});
  expect_refused({"/x: claims"});
  make_chunked({hsize_t{1} << 30, hsize_t{1} << 30, hsize_t{1} << 3}, {1, 1, 4});
  expect_refused({"/x: its shape is too large"});
  make_chunked({hsize_t{1} << 30}, {hsize_t{1} << 29});
  expect_refused({"/x: claims 2147483648 bytes"});
  expect_error([&] { inspect(file_); }, {"/x: claims"});
}

TEST_F(HostileHdf5Test, TypesThatNoProcessorHasAreRefused) {
  const auto refused = [&](hid_t type, const std::string& part) {
    make([&](hid_t file) { add(file, type); });
    expect_refused({"/x", part});
  };
  const hid_t narrow = H5Tcopy(H5T_STD_I32LE), fields = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_precision(narrow, 7);
  refused(narrow, "of a form that no processor has");
  H5Tset_fields(fields, 31, 20, 11, 0, 20);
  make([&](hid_t file) { add(file, fields); });
  expect_error([&] { File::open(file_).read<double>("x"); }, {"/x", "of a form that no processor has"});
  const hid_t compound = H5Tcreate(H5T_COMPOUND, 8), choice = H5Tenum_create(H5T_STD_I32LE);
  H5Tinsert(compound, "a", 0, H5T_STD_I32LE);
  const std::int32_t one = 1;
  H5Tenum_insert(choice, "one", &one);
  refused(compound, "neither numbers nor text");
  refused(H5T_STD_REF_OBJ, "neither numbers nor text");
  refused(H5Tvlen_create(H5T_STD_I32LE), "neither numbers nor text");
  refused(choice, "neither numbers nor text");
  // A committed type is as good as any.
  make([&](hid_t file) {
    const hid_t type = H5Tcopy(H5T_STD_I32LE);
    H5Tcommit2(file, "named", type, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    add(file, type);
  });
  EXPECT_EQ(File::open(file_).read<std::int32_t>("x").size(), 4U);
}

TEST_F(HostileHdf5Test, IntegersBeyondTheSignedOnesAreNotClipped) {
  make([](hid_t file) {
    const hsize_t length = 1;
    const std::uint64_t value = ~std::uint64_t{0};
    const hid_t space = H5Screate_simple(1, &length, nullptr);
    const hid_t data = H5Dcreate2(file, "x", H5T_STD_U64LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dwrite(data, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, &value);
    H5Dclose(data);
  });
  expect_error([&] { File::open(file_).read<std::int64_t>("x"); }, {"/x: element 0 is 18446744073709551615"});
}

TEST_F(HostileHdf5Test, GroupsInACircleAreVisitedOnce) {
  make([](hid_t file) {
    add(file, H5T_STD_I32LE);
    const hid_t group = H5Gcreate2(file, "g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_hard(file, "/", group, "up", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_hard(file, "g", group, "self", H5P_DEFAULT, H5P_DEFAULT);
    H5Gclose(group);
  });
  int datasets = 0;
  each_dataset(File::open(file_), [&](const hdf5::Dataset&) { ++datasets; });
  EXPECT_EQ(datasets, 1);
  make([](hid_t file) {
    hid_t group = file;
    for (int depth = 0; depth < 3000; ++depth) group = H5Gcreate2(group, "g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  });
  expect_error([&] { inspect(file_); }, {file_.string(), "found more than 100 groups in each other"});
}

TEST_F(HostileHdf5Test, AFileThatIsCutWhileItIsReadEndsInALine) {
  {
    File file = File::create(file_);
    file.write("x", std::vector<std::int32_t>(100000, 1), {100000});
    file.close();
  }
  const File file = File::open(file_);
  const hdf5::Dataset data = file.dataset("x");
  std::filesystem::resize_file(file_, 5000);
  expect_error([&] { (void)data.read<std::int32_t>(); }, {file_.string() + ": /x", "became shorter while it was read"});
}

TEST_F(HostileHdf5Test, ADamagedObjectIsNotLeftOut) {
  {
    File file = File::create(file_);
    file.write("x", std::vector<std::int32_t>{1}, {1});
    file.close();
  }
  std::string bytes = read_text(file_);
  const std::size_t header = bytes.rfind("OHDR");
  ASSERT_NE(header, std::string::npos);
  bytes[header + 20] = static_cast<char>(bytes[header + 20] ^ 1);
  write_text_atomically(file_, bytes);
  expect_error([&] { inspect(file_); }, {file_.string() + ": /x: cannot read"});
}

TEST_F(HostileHdf5Test, NamesDoNotSteerATerminal) {
  {
    File file = File::create(file_);
    file.write("a\x1b[2Jb", std::vector<std::int32_t>{1}, {1}, {"\x1b]0;", "two\nlines\x1b"});
    file.set("filetype", "\x1b[31m");
    file.set("created", "\x9b");
    file.close();
  }
  const std::string text = inspect(file_);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2) << text;
  EXPECT_EQ(text.find_first_of("\x1b\x9b"), std::string::npos);
  EXPECT_NE(text.find("/a\\x1b[2Jb"), std::string::npos) << text;
}

TEST_F(HostileHdf5Test, WhatIsNoFileIsRefusedAtOnce) {
  ASSERT_EQ(::mkfifo(file_.c_str(), 0600), 0);
  expect_error([&] { File::open(file_); }, {file_.string(), "FIFO"});
  expect_error([&] { File::open(dir_.path()); }, {dir_.path().string(), "directory"});
}

}  // namespace
}  // namespace routescope::data
