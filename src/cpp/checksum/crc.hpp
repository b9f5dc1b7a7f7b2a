#pragma once

#include <cstddef>
#include <cstdint>

namespace kumo::checksum {

// Chooses the functions for this CPU. The library would do so at the first use, where two threads
// may meet: call this once before.
void initialise() noexcept;

// CRC-32 (Ethernet, zlib), CRC-32C (Castagnoli, RFC 3720) and CRC-64/NVME over memory, continued
// from `previous` (0 to begin). Hardware paths are chosen by aws-checksums at run time.
[[nodiscard]] std::uint32_t crc32(const void* data, std::size_t size,
                                  std::uint32_t previous = 0) noexcept;
[[nodiscard]] std::uint64_t crc64nvme(const void* data, std::size_t size,
                                      std::uint64_t previous = 0) noexcept;

// The checksum of A followed by B, from those of A and B and the length of B in bytes.
[[nodiscard]] std::uint32_t crc32_combine(std::uint32_t a, std::uint32_t b,
                                          std::uint64_t length_b) noexcept;
[[nodiscard]] std::uint32_t crc32c_combine(std::uint32_t a, std::uint32_t b,
                                           std::uint64_t length_b) noexcept;
[[nodiscard]] std::uint64_t crc64nvme_combine(std::uint64_t a, std::uint64_t b,
                                              std::uint64_t length_b) noexcept;

}  // namespace kumo::checksum
