#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace kumo::http {

// What goes around a body that its CRC32C follows: Content-Encoding "aws-chunked" with one chunk,
// then the checksum as a trailer. So a body is read once, instead of once for a header with its
// checksum and once more to be sent.
//
// Format: docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
class Frame {
 public:
  explicit Frame(std::size_t content);

  // Bytes of body and frame together.
  [[nodiscard]] std::size_t total() const noexcept { return total_; }
  // Bytes before the content.
  [[nodiscard]] std::size_t before() const noexcept { return head_.size(); }
  // Copies what of the frame is at `position` of the whole, as much as fits; 0 within the content.
  std::size_t copy(std::size_t position, std::uint8_t* into, std::size_t capacity);

  // Content in its order, when it is sent.
  void pass(const std::uint8_t* data, std::size_t size) noexcept;
  [[nodiscard]] std::uint32_t crc32c() const noexcept { return crc32c_; }

 private:
  std::string head_;
  std::string tail_;  // made when the content is known
  std::size_t content_;
  std::size_t total_;
  std::uint32_t crc32c_ = 0;
};

}  // namespace kumo::http
