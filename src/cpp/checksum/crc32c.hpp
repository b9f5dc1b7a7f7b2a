#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace kumo::checksum {

[[nodiscard]] std::uint32_t crc32c(const void* data, std::size_t size,
                                   std::uint32_t previous = 0) noexcept;

// The form S3 uses in x-amz-checksum-crc32c: base64 of the big-endian four bytes.
[[nodiscard]] std::string crc32c_base64(std::uint32_t value);

}  // namespace kumo::checksum
