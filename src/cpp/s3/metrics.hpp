#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

namespace kumo::s3 {

// Durations in microseconds, in buckets whose width is at most 1/32 of their value.
class Histogram {
 public:
  void add(std::uint64_t microseconds) noexcept;
  // The value that the fraction `q` of all is not above (the middle of its bucket); 0 without any.
  [[nodiscard]] std::uint64_t quantile(double q) const noexcept;
  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  [[nodiscard]] std::uint64_t sum() const noexcept { return sum_; }
  [[nodiscard]] std::uint64_t max() const noexcept { return max_; }

 private:
  static constexpr unsigned kSubBits = 5;
  static constexpr unsigned kOctaves = 34;  // up to 19 hours; more counts as that
  static std::size_t bucket_of(std::uint64_t value) noexcept;
  static std::uint64_t middle_of(std::size_t bucket) noexcept;

  std::array<std::uint32_t, std::size_t{kOctaves} << kSubBits> buckets_{};
  std::uint64_t count_ = 0;
  std::uint64_t sum_ = 0;
  std::uint64_t max_ = 0;
};

// What the attempts of one S3 operation came to.
struct OperationMetrics {
  std::uint64_t succeeded = 0;
  std::uint64_t failed = 0;
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;
  Histogram latency;     // from submission to the end of the answer
  Histogram first_byte;  // from the start of sending to the first byte of the answer
};

// One attempt, as its operation tells it. -1: not known.
struct Attempt {
  bool success = false;
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;
  std::int64_t latency_ns = -1;
  std::int64_t first_byte_ns = -1;
};

// A client's counters; thread safe.
class Metrics {
 public:
  void add(std::string_view operation, const Attempt& attempt);
  [[nodiscard]] std::map<std::string, OperationMetrics, std::less<>> snapshot() const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, OperationMetrics, std::less<>> operations_;
};

}  // namespace kumo::s3
