#include "content.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "checksum/crc.hpp"
#include "checksum/crc32c.hpp"

namespace kumo::bench {
namespace {

constexpr std::size_t kKnownAtMost = 4096;

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

// splitmix64: full period, no state to speak of, and easy to write in any language.
void fill(char* to, std::size_t size) {
  std::uint64_t state = 0x6b756d6f;
  for (std::size_t i = 0; i < size; i += sizeof(std::uint64_t)) {
    state += 0x9e3779b97f4a7c15;
    std::uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    z ^= z >> 31;
    std::memcpy(to + i, &z, sizeof z);
  }
}

}  // namespace

Content::Content() : descriptor_(memfd_create("kumo-bench-content", MFD_CLOEXEC)) {
  if (descriptor_ < 0) fail("memfd_create");
  if (ftruncate(descriptor_, kPeriod) != 0) fail("ftruncate");
  void* mapped = mmap(nullptr, kPeriod, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor_, 0);
  if (mapped == MAP_FAILED) fail("mmap");
  block_ = static_cast<char*>(mapped);
  fill(block_, kPeriod);
}

Content::~Content() {
  munmap(block_, kPeriod);
  close(descriptor_);
}

Content::Checksums Content::checksums(std::uint64_t size) {
  if (const auto found = known_.find(size); found != known_.end()) return found->second;
  Checksums whole{0, 0};
  std::uint64_t times = size / kPeriod;
  if (times != 0) {
    // Doubling: the checksums of 1, 2, 4, … blocks, combined where the count has a bit.
    Checksums power{checksum::crc32(block_, kPeriod), checksum::crc32c(block_, kPeriod)};
    std::uint64_t length = kPeriod;
    for (; times != 0; times >>= 1) {
      if (times & 1) {
        whole.crc32 = checksum::crc32_combine(whole.crc32, power.crc32, length);
        whole.crc32c = checksum::crc32c_combine(whole.crc32c, power.crc32c, length);
      }
      power.crc32 = checksum::crc32_combine(power.crc32, power.crc32, length);
      power.crc32c = checksum::crc32c_combine(power.crc32c, power.crc32c, length);
      length *= 2;
    }
  }
  const auto rest = static_cast<std::size_t>(size % kPeriod);
  whole.crc32 = checksum::crc32(block_, rest, whole.crc32);
  whole.crc32c = checksum::crc32c(block_, rest, whole.crc32c);
  if (known_.size() == kKnownAtMost) known_.clear();
  known_.emplace(size, whole);
  return whole;
}

}  // namespace kumo::bench
