#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace kumo::async {

// Page-aligned memory. Alignment is not cosmetic: a destination 16 bytes past a page, where large
// mallocs land, makes pread several times slower on some CPUs (docs/performance.md).
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t capacity);

  [[nodiscard]] std::uint8_t* data() const noexcept { return memory_.get(); }
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
  explicit operator bool() const noexcept { return memory_ != nullptr; }

 private:
  struct Free {
    void operator()(std::uint8_t* pointer) const noexcept;
  };
  std::unique_ptr<std::uint8_t, Free> memory_;
  std::size_t capacity_ = 0;
};

}  // namespace kumo::async
