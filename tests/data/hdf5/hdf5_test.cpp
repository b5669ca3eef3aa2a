// The HDF5 layer: what goes in comes out, and whatever does not fit ends in an error that says where.
#include <gtest/gtest.h>
#include <hdf5_hl.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/hdf5/chunks.h"
#include "data/hdf5/file.h"
#include "tests/data/base/expect_error.h"
#include "tests/data/base/full_disk.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::data {
namespace {

using hdf5::Dataset;
using hdf5::File;
using hdf5::Shape;
using hdf5::Type;

class Hdf5Test : public ::testing::Test {
 protected:
  TempDir dir_;
  std::filesystem::path file_ = dir_ / "file.h5";
};

template <class T>
void round_trip(File& file, const std::string& path, const std::vector<T>& values) {
  file.write(path, values, {static_cast<std::int64_t>(values.size())});
  EXPECT_EQ(file.read<T>(path), values) << path;
}

TEST_F(Hdf5Test, EveryTypeIsReadBackUnchanged) {
  File file = File::create(file_);
  round_trip<double>(file, "a/f64", {0.1, -1e300, std::numeric_limits<double>::denorm_min()});
  round_trip<float>(file, "a/f32", {0.1f, -3e38f, std::numeric_limits<float>::infinity()});
  round_trip<std::int64_t>(file, "a/i64", {std::numeric_limits<std::int64_t>::min(), -1, 1LL << 62});
  round_trip<std::int32_t>(file, "a/i32", {std::numeric_limits<std::int32_t>::min(), 0, 2147483647});
  round_trip<std::uint8_t>(file, "a/u8", {0, 128, 255});
  const std::vector<std::string> labels{"0.attn", "", "Größe ✓"};
  file.write("a/text", labels);
  EXPECT_EQ(file.read_text("a/text"), labels);
  file.write("scalar", std::vector<double>{7.5}, {});
  EXPECT_EQ(file.dataset("scalar").shape(), Shape{});
  EXPECT_EQ(file.read<double>("scalar"), std::vector<double>{7.5});
  file.close();

  const File again = File::open(file_);
  EXPECT_EQ(again.names(), (std::vector<std::string>{"a", "scalar"}));
  EXPECT_EQ(again.group("a").names().size(), 6u);
  EXPECT_EQ(again.group("a").read_text("text"), labels);
  EXPECT_TRUE(again.exists("a/f64") && again.is_group("a") && again.is_dataset("/a/f64"));
  EXPECT_FALSE(again.exists("b/f64") || again.is_group("a/f64") || again.is_dataset("a"));
}

TEST_F(Hdf5Test, ShapesWithoutElementsWork) {
  File file = File::create(file_);
  file.write("none", std::vector<float>{}, {3, 0, 2}, {"1", "nothing", {}, 4});
  file.write("labels", std::vector<std::string>{});
  Dataset growing = file.create_growing("growing", Type::f32, {0, 4});
  growing.append(std::span<const float>(), 5);
  EXPECT_EQ(growing.shape(), (Shape{5, 0, 4}));
  file.close();
  const File again = File::open(file_);
  Shape shape;
  EXPECT_TRUE(again.read<float>("none", &shape).empty());
  EXPECT_EQ(shape, (Shape{3, 0, 2}));
  EXPECT_TRUE(again.read_text("labels").empty());
  EXPECT_TRUE(again.read<float>("growing").empty());
}

TEST_F(Hdf5Test, AttributesAreReadBackAndReplaced) {
  File file = File::create(file_);
  Dataset data = file.write("x", std::vector<float>{1}, {1});
  data.set("units", "nat");
  data.set("n", 42);
  data.set("mean", 0.1);
  data.set("version", std::vector<std::int64_t>{1, 2});
  data.set("quantiles", std::vector<double>{0.025, 0.975});
  data.set("n", 43);
  EXPECT_EQ(data.text("units"), "nat");
  EXPECT_EQ(data.integer("n"), 43);
  EXPECT_EQ(data.number("n"), 43.0);
  EXPECT_EQ(data.number("mean"), 0.1);
  EXPECT_EQ(data.integers("version"), (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(data.numbers("quantiles"), (std::vector<double>{0.025, 0.975}));
  EXPECT_EQ(data.attribute_names(), (std::vector<std::string>{"mean", "n", "quantiles", "units", "version"}));
  expect_error([&] { data.text("absent"); }, {file_.string(), "/x", "absent"});
  expect_error([&] { data.integer("mean"); }, {"/x@mean", "expected integers"});
  expect_error([&] { data.text("n"); }, {"/x@n", "expected text"});
  expect_error([&] { data.integer("version"); }, {"/x@version", "2 values"});
  file.set("config", std::string(200000, 'y'));  // beyond the 64 KiB of an object header
  file.close();
  EXPECT_EQ(File::open(file_).text("config").size(), 200000u);
}

TEST_F(Hdf5Test, IntegersOfAnyWidthAreReadAndCheckedForRange) {
  File file = File::create(file_);
  for (const auto& [name, type] : std::vector<std::pair<std::string, hid_t>>{{"i8", H5T_STD_I8LE},
                                                                             {"u8", H5T_STD_U8LE},
                                                                             {"i16", H5T_STD_I16BE},
                                                                             {"u16", H5T_STD_U16LE},
                                                                             {"u32", H5T_STD_U32BE},
                                                                             {"i64", H5T_STD_I64LE},
                                                                             {"u64", H5T_STD_U64LE}}) {
    const std::array<hsize_t, 2> extent{2, 2};
    const std::array<std::int64_t, 4> values{1, 2, 3, 100};
    const hid_t space = H5Screate_simple(2, extent.data(), nullptr);
    const hid_t data = H5Dcreate2(file.id(), name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dwrite(data, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
    H5Dclose(data);
    H5Sclose(space);
    EXPECT_EQ(file.read<std::int32_t>(name), (std::vector<std::int32_t>{1, 2, 3, 100})) << name;
    EXPECT_EQ(file.dataset(name).read_rows<std::int32_t>(1, 1), (std::vector<std::int32_t>{3, 100})) << name;
  }
  file.write("wide", std::vector<std::int64_t>{5, 1LL << 31}, {2});
  expect_error([&] { file.read<std::int32_t>("wide"); }, {"/wide", "element 1", "2147483648"});
  file.write("real", std::vector<float>{1}, {1});
  expect_error([&] { file.read<std::int32_t>("real"); }, {"/real", "floating-point", "expected integers"});
  file.write("text", std::vector<std::string>{"1"});
  expect_error([&] { file.read<double>("text"); }, {"/text", "text", "expected numbers"});
  expect_error([&] { file.read_text("real"); }, {"/real", "expected text"});
}

TEST_F(Hdf5Test, GrowsAndRefusesRowsThatDoNotFit) {
  File file = File::create(file_);
  Dataset data = file.create_growing("x", Type::f32, {2, 3});
  std::vector<float> all;
  for (int row = 0; row < 3000; ++row) {  // several chunks
    std::vector<float> values(6);
    std::iota(values.begin(), values.end(), static_cast<float>(6 * row));
    data.append(std::span<const float>(values));
    all.insert(all.end(), values.begin(), values.end());
  }
  EXPECT_EQ(data.shape(), (Shape{3000, 2, 3}));
  EXPECT_EQ(data.read<float>(), all);
  EXPECT_EQ(data.read_rows<float>(1500, 2), std::vector<float>(all.begin() + 9000, all.begin() + 9012));
  EXPECT_THROW(data.append(std::span<const float>(all.data(), 5)), Error);
  EXPECT_THROW(data.read_rows<float>(2999, 2), Error);
  EXPECT_EQ(data.rows(), 3000) << "a refused row must not lengthen the dataset";

  Dataset fixed = file.create("fixed", Type::f64, {4, 2});
  fixed.write_rows(1, std::span<const double>(std::vector<double>{1, 2, 3, 4}));
  EXPECT_EQ(fixed.read<double>(), (std::vector<double>{0, 0, 1, 2, 3, 4, 0, 0}));
  EXPECT_THROW(fixed.write_rows(3, std::span<const double>(std::vector<double>{1, 2, 3, 4})), Error);
}

TEST_F(Hdf5Test, StoredChunksAndBytesAreCopiedUnchanged) {
  File file = File::create(file_);
  std::vector<float> ramp(2 * 40000);
  for (std::size_t i = 0; i < ramp.size(); ++i) ramp[i] = std::sin(static_cast<float>(i % 977));
  const auto make = [&](const char* name, int effort) {
    return file.create_growing(name, Type::f32, {40000}, {"1", "", {}, effort, {1, 30000}});
  };
  Dataset small = make("small", 9), quick = make("quick", 1), taken = make("taken", 1);
  for (Dataset* data : {&small, &quick}) data->append(std::span<const float>(ramp), 2);
  file.flush();
  EXPECT_EQ(chunk_shape(small), (hdf5::Shape{1, 30000}));
  EXPECT_TRUE(is_filtered(small));
  taken.resize(2);
  for (const hdf5::Shape& first : {hdf5::Shape{0, 0}, {0, 30000}, {1, 0}, {1, 30000}}) {
    std::uint32_t mask = 1;
    const std::vector<std::byte> bytes = read_chunk(small, first, &mask);
    EXPECT_EQ(mask, 0u);
    write_chunk(taken, first, bytes, mask);
    // Where the layer says that it is.
    const hdf5::StoredChunk stored = stored_chunk(small, first);
    ASSERT_EQ(stored.bytes, static_cast<std::int64_t>(bytes.size()));
    const std::string all = read_text(file_).substr(static_cast<std::size_t>(stored.address), bytes.size());
    EXPECT_EQ(std::memcmp(all.data(), bytes.data(), bytes.size()), 0);
  }
  file.flush();
  // Not deflated again: the chunks keep the size that the source's effort gave them.
  EXPECT_EQ(H5Dget_storage_size(taken.id()), H5Dget_storage_size(small.id()));
  EXPECT_NE(H5Dget_storage_size(quick.id()), H5Dget_storage_size(small.id()));
  EXPECT_EQ(taken.read<float>(), ramp);
  EXPECT_THROW(read_chunk(small, {2, 0}), Error);

  Dataset halves = file.create_growing("halves", Type::f16, {3});
  halves.append(std::span<const hdf5::half>(std::vector<hdf5::half>{{1}, {2}, {3}, {0x7e01}, {5}, {6}}), 2);
  EXPECT_EQ(element_bytes(halves), 2);
  EXPECT_FALSE(is_filtered(halves));
  std::vector<std::byte> row(6);
  read_row_bytes(halves, 1, 1, row);
  EXPECT_EQ(row[0], std::byte{1}) << "a NaN's bits, too";
  append_row_bytes(halves, row, 1);
  EXPECT_EQ(halves.read_rows<float>(2, 1)[2], halves.read_rows<float>(1, 1)[2]);
  EXPECT_THROW(append_row_bytes(halves, row, 2), Error);
  EXPECT_THROW(read_row_bytes(halves, 3, 1, row), Error);
}

TEST_F(Hdf5Test, AxesBecomeDimensionScalesOfTheNearestGroup) {
  File file = File::create(file_);
  file.write("step", std::vector<std::int64_t>{0, 1, 2}, {3}, {"step", "steps", {"step"}});
  file.write("slice", std::vector<std::string>{"a", "b"}, {"", "slices", {"slice"}});
  Dataset outer = file.write("mask/delta_nll", std::vector<float>(6), {3, 2}, {"nat", "effect", {"step", "slice"}});
  file.write("train/step", std::vector<std::int64_t>{1, 2}, {2}, {"step", "steps", {"step"}});
  Dataset inner = file.write("train/loss", std::vector<double>(2), {2}, {"nat", "loss", {"step"}});
  EXPECT_GT(H5DSis_scale(file.dataset("step").id()), 0);
  EXPECT_GT(H5DSis_attached(outer.id(), file.dataset("/step").id(), 0), 0);
  EXPECT_GT(H5DSis_attached(outer.id(), file.dataset("/slice").id(), 1), 0);
  EXPECT_GT(H5DSis_attached(inner.id(), file.dataset("/train/step").id(), 0), 0);
  EXPECT_EQ(outer.text("units"), "nat");
  expect_error([&] { file.write("y", std::vector<float>(3), {3}, {"1", "", {"absent"}}); }, {"absent"});
  expect_error([&] { file.write("z", std::vector<float>(4), {4}, {"1", "", {"step"}}); }, {"/z", "length 4", "3"});
}

// Every half there is, and the floats around each boundary, against the processor's or the compiler's own conversion.
TEST(Half, RoundsToNearestEven) {
  const auto expect_half = [](float value, std::uint16_t bits) {
    EXPECT_EQ(hdf5::to_half(value).bits, bits) << value;
    EXPECT_EQ(hdf5::to_half(-value).bits, bits | 0x8000) << -value;
  };
  for (std::uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const auto low = static_cast<std::uint16_t>(bits);
    // The value by definition: no bit tricks.
    const int exponent = low >> 10, mantissa = low & 0x3ff;
    const double value = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    EXPECT_EQ(static_cast<double>(hdf5::to_float({low})), value);
    expect_half(static_cast<float>(value), low);
    const double next = value + std::ldexp(1, std::max(exponent, 1) - 25);
    const auto middle = static_cast<float>((value + next) / 2);  // exact: a half and one more bit
    const auto up = static_cast<std::uint16_t>(low + 1);         // of the largest: infinity
    expect_half(middle, low % 2 == 0 ? low : up);
    expect_half(std::nextafter(middle, 0.0f), low);
    expect_half(std::nextafter(middle, 1e9f), up);
  }
  expect_half(std::numeric_limits<float>::infinity(), 0x7c00);
  expect_half(1e30f, 0x7c00);
  EXPECT_TRUE(std::isnan(hdf5::to_float(hdf5::to_half(std::numeric_limits<float>::quiet_NaN()))));
}

TEST_F(Hdf5Test, OtherReadersSeeTheSameHalves) {
  // HDF5's own conversion reads what to_half() made.
  std::vector<hdf5::half> halves;
  std::vector<float> floats;
  for (std::uint32_t bits = 0; bits < 0x7c00; bits += 7) {
    halves.push_back({static_cast<std::uint16_t>(bits)});
    floats.push_back(hdf5::to_float(halves.back()));
  }
  File file = File::create(file_);
  Dataset data = file.write("x", halves, {static_cast<std::int64_t>(halves.size())});
  EXPECT_EQ(data.read<float>(), floats);
}

TEST_F(Hdf5Test, ErrorsAreOneLineWithTheFile) {
  expect_error([&] { File::open(dir_ / "absent.h5"); }, {"absent.h5", "no such file"});
  write_text_atomically(dir_ / "text.h5", "this is no HDF5 file");
  expect_error([&] { File::open(dir_ / "text.h5"); }, {"text.h5", "not an HDF5 file"});
  {
    File file = File::create(file_);
    file.write("x", std::vector<float>(5000), {5000});
    file.close();
  }
  expect_error([&] { File::open(file_).dataset("y/z"); }, {file_.string(), "/y/z", "no such dataset"});
  std::filesystem::resize_file(file_, 3000);
  expect_error([&] { File::open(file_); }, {file_.string(), "truncated"});
  expect_error([&] { File::create(dir_ / "absent/x.h5"); }, {"absent/x.h5", "No such file"});
}

TEST_F(Hdf5Test, FullDiskIsAnErrorThatLeavesNothing) {
  // From a disk without room for the header to one that lacks the last bytes.
  for (const rlim_t bytes : {0, 50, 900, 5000, 12000, 40000, 79000}) {
    const std::string message = on_full_disk(bytes, [&]() -> std::string {
      write_atomically(file_, [](const std::filesystem::path& partial) {
        File file = File::create(partial);
        file.set("config", std::string(3000, 'y'));
        file.write("labels", std::vector<std::string>(100, "label"));
        file.write("contiguous", std::vector<float>(10000, 1), {10000});
        Dataset growing = file.create_growing("growing", Type::f32, {100});
        for (int row = 0; row < 100; ++row) growing.append(std::span<const float>(std::vector<float>(100, 2)));
        growing = Dataset();
        file.close();
      });
      return "written";
    });
    EXPECT_EQ(message.find(file_.string() + ":"), 0u) << bytes << ": " << message;
    EXPECT_NE(message.find("File too large"), std::string::npos) << bytes << ": " << message;
    EXPECT_TRUE(std::filesystem::is_empty(dir_.path())) << bytes;
  }
}

}  // namespace
}  // namespace routescope::data
