#pragma once

#include <algorithm>
#include <chrono>

namespace kumo::crt {

// When something has to be over that goes through several stages: each stage waits for as long as
// those before it have left.
class Deadline {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Deadline(std::chrono::nanoseconds from_now)
      : at_(Clock::now() + std::chrono::duration_cast<Clock::duration>(from_now)) {}

  [[nodiscard]] Clock::time_point at() const noexcept { return at_; }
  // Never below zero.
  [[nodiscard]] std::chrono::nanoseconds left() const {
    return std::max(std::chrono::nanoseconds(0),
                    std::chrono::duration_cast<std::chrono::nanoseconds>(at_ - Clock::now()));
  }

 private:
  Clock::time_point at_;
};

}  // namespace kumo::crt
