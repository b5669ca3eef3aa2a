// Runs a fuzz target without libFuzzer:   fuzz_TARGET CORPUS [MUTATIONS]
// It replays the files of CORPUS (a file, or a directory) and then tries MUTATIONS changed ones, the same in every run.
// An input that ends the process, takes more than 10 seconds or more than 2 GB is a finding: the process ends with a
// signal, and the input is left in fuzz_TARGET.input.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "tests/fuzz/fuzz.h"

namespace routescope::fuzz {
namespace {

using Input = std::vector<std::uint8_t>;

constexpr unsigned kSeconds = 10;
constexpr long kMostKilobytes = 2L << 20;
constexpr std::size_t kMostBytes = 1 << 16;

/// What the handler of signals writes.
const Input* g_input = nullptr;
std::string g_file;

void write_input(int signal) {
  const int descriptor = ::open(g_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (descriptor >= 0 && g_input && ::write(descriptor, g_input->data(), g_input->size()) < 0) ::_exit(1);
  std::signal(signal, SIG_DFL);
  ::raise(signal);
}

/// On a stack of its own: an overflow of the stack is a finding as well.
void handle_signals() {
  static std::array<char, 1 << 16> memory;
  stack_t stack{};
  stack.ss_sp = memory.data();
  stack.ss_size = memory.size();
  ::sigaltstack(&stack, nullptr);
  struct sigaction action {};
  action.sa_handler = write_input;
  action.sa_flags = SA_ONSTACK;
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM}) ::sigaction(signal, &action, nullptr);
}

void run(const Input& input) {
  g_input = &input;
  ::alarm(kSeconds);
  // A copy of exactly this size: a read beyond its end is seen by AddressSanitizer.
  const std::vector<std::uint8_t> exact(input);
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
  ::alarm(0);
  struct rusage used {};
  ::getrusage(RUSAGE_SELF, &used);
  if (used.ru_maxrss > kMostKilobytes) found("an input took " + std::to_string(used.ru_maxrss) + " kB");
}

/// splitmix64.
class Random {
 public:
  explicit Random(std::uint64_t state) : state_(state) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31U);
  }
  std::size_t below(std::size_t bound) { return bound == 0 ? 0 : next() % bound; }

 private:
  std::uint64_t state_;
};

/// A piece of an input.
Input piece_of(const Input& from, Random& random) {
  const std::size_t begin = random.below(from.size() + 1), most = std::min<std::size_t>(from.size() - begin, 64);
  const auto at = from.begin() + static_cast<std::ptrdiff_t>(begin);
  return {at, at + static_cast<std::ptrdiff_t>(random.below(most + 1))};
}

void insert(Input& input, const Input& piece, Random& random) {
  input.insert(input.begin() + static_cast<std::ptrdiff_t>(random.below(input.size() + 1)), piece.begin(), piece.end());
}

void overwrite(Input& input, const void* bytes, std::size_t count, Random& random) {
  if (input.size() < count) return;
  std::memcpy(input.data() + random.below(input.size() - count + 1), bytes, count);
}

/// Words of the formats, and numbers at the ends of types, in place of or between the bytes.
void put_word(Input& input, Random& random) {
  static const std::vector<std::string> words{"null",       "true",
                                              "-1",         "0",
                                              "1e999",      "1e-50",
                                              "nan",        "18446744073709551616",
                                              "2147483648", "9223372036854775807",
                                              "{",          "}",
                                              "[",          "]",
                                              ":",          ",",
                                              "\"",         "..",
                                              "&a ",        "*a",
                                              "!!int ",     "---\n"};
  const std::string& word = words[random.below(words.size())];
  if (random.below(2) == 0)
    insert(input, {word.begin(), word.end()}, random);
  else
    overwrite(input, word.data(), word.size(), random);
}
void put_number(Input& input, Random& random) {
  static const std::vector<std::uint64_t> numbers{0,
                                                  1,
                                                  0x7f,
                                                  0xff,
                                                  0x7fff,
                                                  0xffff,
                                                  0x7fffffff,
                                                  0xffffffff,
                                                  0x7fffffffffffffff,
                                                  0x8000000000000000,
                                                  0xffffffffffffffff};
  const std::uint64_t number = numbers[random.below(numbers.size())] - random.below(2);
  overwrite(input, &number, std::size_t{1} << random.below(4), random);
}

/// The same piece many times.
void repeat(Input& input, Random& random) {
  const Input piece = piece_of(input, random);
  Input many;
  for (std::size_t i = random.below(256); i > 0; --i) many.insert(many.end(), piece.begin(), piece.end());
  insert(input, many, random);
}

void remove_piece(Input& input, Random& random) {
  const std::size_t begin = random.below(input.size() + 1), most = std::min<std::size_t>(input.size() - begin, 64);
  const auto at = input.begin() + static_cast<std::ptrdiff_t>(begin);
  input.erase(at, at + static_cast<std::ptrdiff_t>(random.below(most + 1)));
}

void mutate(Input& input, const std::vector<Input>& corpus, Random& random) {
  switch (random.below(8)) {
    case 0:  // a bit
      if (!input.empty()) input[random.below(input.size())] ^= static_cast<std::uint8_t>(1U << random.below(8));
      break;
    case 1:  // a byte
      if (!input.empty()) input[random.below(input.size())] = static_cast<std::uint8_t>(random.next());
      break;
    case 2:
      put_number(input, random);
      break;
    case 3:
      put_word(input, random);
      break;
    case 4:  // a piece of this or another input
      insert(input, piece_of(random.below(2) == 0 ? input : corpus[random.below(corpus.size())], random), random);
      break;
    case 5:
      repeat(input, random);
      break;
    case 6:
      remove_piece(input, random);
      break;
    default:  // its beginning alone
      input.resize(random.below(input.size() + 1));
  }
  if (input.size() > kMostBytes) input.resize(kMostBytes);
}

Input read(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

int drive(const std::string& program, const std::filesystem::path& corpus_path, std::size_t mutations) {
  g_file = std::filesystem::path(program).filename().string() + ".input";
  handle_signals();
  std::vector<std::filesystem::path> files;
  if (std::filesystem::is_directory(corpus_path))
    for (const auto& entry : std::filesystem::directory_iterator(corpus_path)) files.push_back(entry.path());
  else
    files.push_back(corpus_path);
  std::ranges::sort(files);
  std::vector<Input> corpus;
  for (const auto& file : files) run(corpus.emplace_back(read(file)));
  if (corpus.empty() || corpus == std::vector<Input>{{}}) found(corpus_path.string() + ": no input");
  run({});
  Random random(1);
  for (std::size_t i = 0; i < mutations; ++i) {
    Input input = corpus[random.below(corpus.size())];
    for (std::size_t n = 1 + random.below(4); n > 0; --n) mutate(input, corpus, random);
    run(input);
  }
  std::printf("%zu files, %zu mutations\n", corpus.size(), mutations);
  return 0;
}

}  // namespace
}  // namespace routescope::fuzz

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: %s CORPUS [MUTATIONS]\n", argv[0]);
    return 2;
  }
  return routescope::fuzz::drive(argv[0], argv[1], argc == 3 ? std::strtoull(argv[2], nullptr, 10) : 0);
}
