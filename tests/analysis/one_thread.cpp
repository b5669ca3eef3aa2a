// Micro models are too small to be shared between threads: waiting for each other would be most of the tests' time.
#include <gtest/gtest.h>
#include <omp.h>

namespace {

class OneThread : public ::testing::Environment {
  void SetUp() override { omp_set_num_threads(1); }
};

[[maybe_unused]] const ::testing::Environment* const one_thread =
    ::testing::AddGlobalTestEnvironment(new OneThread);  // owned by GoogleTest

}  // namespace
