#pragma once

#include <aws/common/common.h>

#include <array>
#include <cstdint>

namespace kumo::crypto {

// Key material: 256 bits that are zeroed when they are freed, and never copied.
class Secret {
 public:
  static constexpr std::size_t kSize = 32;

  Secret() = default;
  ~Secret() { aws_secure_zero(bytes_.data(), bytes_.size()); }
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;

  [[nodiscard]] std::uint8_t* data() noexcept { return bytes_.data(); }
  [[nodiscard]] const std::uint8_t* data() const noexcept { return bytes_.data(); }

 private:
  std::array<std::uint8_t, kSize> bytes_{};
};

}  // namespace kumo::crypto
